"""The shortest program with an engine that prints one token: `python -m peer_engines.first_token ENGINE FILE THREADS`.

It reads the prompt's text, tokenizes it, and chooses the likeliest token, as `python -m nbgpt generate --greedy` does.
"""

import sys

PROMPT = "It was a dark and stormy night"


def by_llama_cpp(file: str, threads: int) -> str:
    from llama_cpp import Llama

    model = Llama(file, n_threads=threads, n_threads_batch=threads, verbose=False)
    return model(PROMPT, max_tokens=1, temperature=0)["choices"][0]["text"]


def by_ctranslate2(file: str, threads: int) -> str:
    import ctranslate2
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer.from_file(f"{file}/vocab.json", f"{file}/merges.txt")
    model = ctranslate2.Generator(file, intra_threads=threads)
    prompt = tokenizer.encode(PROMPT).tokens
    result = model.generate_batch([prompt], max_length=1, min_length=1, include_prompt_in_result=False)
    return tokenizer.decode(result[0].sequences_ids[0])


if __name__ == "__main__":
    engine, file, threads = sys.argv[1:]
    first = {"llama_cpp": by_llama_cpp, "ctranslate2": by_ctranslate2}[engine](file, int(threads))
    print(first, flush=True)
