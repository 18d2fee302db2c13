"""Text in, text out: the library's public face."""

import doctest
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from folders import (
    RECITED,
    TOKENIZER,
    ballot,
    checkpoint_of,
    reciter,
    write_random_model,
    write_text_model,
)

import nbgpt
from nbgpt import model as model_module
from nbgpt import weights
from nbgpt.conversion.convert import convert
from nbgpt.text.completion import Completion, Usage

REPLACEMENT = "\ufffd"


@pytest.fixture(scope="module")
def recital(tmp_path_factory):
    """A model that recites RECITED from position 0 on, whatever it reads there, and ends it."""
    return nbgpt.load(write_text_model(tmp_path_factory.mktemp("models") / "recital.safetensors", *reciter()))


@pytest.fixture(scope="module")
def random_file(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("models") / "random.safetensors", tied_embeddings=False)


@pytest.fixture
def random_model(random_file):
    return nbgpt.load(random_file, threads=1)


def test_pieces_join_to_the_text(recital):
    pieces = list(recital.stream(max_tokens=100))
    assert "".join(pieces) == RECITED
    assert REPLACEMENT not in RECITED
    assert all(pieces)
    assert any(len(TOKENIZER.encode(piece)) > 1 for piece in pieces)  # a character came with its last token


def test_generate_is_the_joined_stream(random_model):
    options = {"max_tokens": 30, "temperature": 2.0, "top_k": 0, "top_p": 0.9, "seed": 5}
    stream = random_model.stream("It was", **options)
    text = "".join(stream)
    assert random_model.generate("It was", **options).text == text == stream.completion.text


def test_completion(recital):
    completion = recital.generate(max_tokens=100)
    ids = TOKENIZER.encode(RECITED)
    assert isinstance(completion, Completion)
    assert str(completion) == completion.text == RECITED
    assert completion.tokens == ids
    assert completion.finish_reason == "stop"
    assert completion.usage == Usage(prompt_tokens=1, completion_tokens=len(ids))
    assert completion.usage.total_tokens == len(ids) + 1
    assert completion.timing.new_tokens == len(ids) + 1  # with the end of text


def test_a_character_that_is_cut_at_the_end_is_marked(recital):
    before, _, _ = RECITED.partition("😀")
    n_tokens = len(TOKENIZER.encode(before)) + 1  # the space and the first byte of the emoji at most
    completion = recital.generate(max_tokens=n_tokens)
    assert completion.finish_reason == "length"
    assert completion.text in (before, before + REPLACEMENT)
    assert completion.text == TOKENIZER.decode(completion.tokens)


def test_a_stream_that_is_stopped(recital):
    stream = recital.stream(max_tokens=100)
    pieces = [next(stream) for _ in range(3)]
    completion = stream.completion
    assert RECITED.startswith(completion.text)
    assert completion.text.startswith("".join(pieces))  # a step makes several tokens: more may have been made
    assert completion.finish_reason == ""
    assert recital.engine.kv_bytes_in_use > 0
    assert "".join([*pieces, *stream]) == RECITED
    assert len(completion.text) < len(RECITED)  # is what it was
    stream = recital.stream(max_tokens=100)
    next(stream)
    del stream
    assert recital.engine.kv_bytes_in_use == 0
    stream = recital.stream(max_tokens=100)
    assert "".join(stream) == RECITED
    assert recital.engine.kv_bytes_in_use == 0  # though somebody holds it


def test_a_seed_gives_the_same_text_on_any_number_of_threads(random_file):
    options = {"max_tokens": 40, "temperature": 2.0, "seed": 1}
    texts = [nbgpt.load(random_file, threads=n).generate("Once", **options).text for n in (1, 2, 3)]
    assert texts[0] == texts[1] == texts[2]


def test_without_a_seed_each_text_is_another(random_model):
    assert len({random_model.generate("Once", max_tokens=20, temperature=2.0).text for _ in range(3)}) == 3


def test_samples_of_a_seed_differ(random_model):
    options = {"max_tokens": 20, "temperature": 2.0, "seed": 1}
    assert len({random_model.generate("Once", **options, sample=n).text for n in range(3)}) == 3


def test_greedy_is_temperature_zero(random_model):
    options = {"max_tokens": 20, "top_k": 0}
    greedy = random_model.generate("Once", greedy=True, **options)
    assert greedy.tokens == random_model.generate("Once", temperature=0, **options).tokens
    ids = [*random_model.encode("Once"), *greedy.tokens]
    logits = random_model.logits(ids)[-21:-1]
    assert greedy.tokens == logits.argmax(axis=1).tolist()
    with pytest.raises(ValueError, match="temperature is nan"):  # a mistake, even where it would not matter
        random_model.generate("Once", greedy=True, temperature=float("nan"))


@pytest.mark.parametrize(("n_ctx", "n_new"), [(40, 38), (201, 199), (202, 200), (204, 200)])
def test_the_default_of_max_tokens_fits_the_context(tmp_path, n_ctx, n_new):
    config, params = ballot(np.arange(TOKENIZER.n_vocab) == 7, n_ctx=n_ctx)
    model = nbgpt.load(write_text_model(tmp_path / "m.safetensors", config, params))
    assert len(model.encode("a b c", bos=False)) == 3
    assert model.generate("a b c", greedy=True).usage == Usage(3, n_new)
    assert len(model.generate("a b c" * 100, greedy=True, overflow="truncate_left").tokens) == 200


def test_a_prompt_that_is_too_long(random_model):
    n_prompt = len(random_model.encode("word " * 300))
    with pytest.raises(ValueError, match=f"prompt of {n_prompt} tokens and 1 new ones .* context is 200: shorten"):
        random_model.generate("word " * 300)


@pytest.mark.parametrize("bos", [True, False])
def test_the_file_says_whether_a_text_has_a_beginning(tmp_path, bos):
    model = nbgpt.load(write_random_model(tmp_path / "m.safetensors", bos=bos))
    ids, eos = TOKENIZER.encode("Once"), TOKENIZER.eos_id
    assert model.encode("Once") == ([eos] if bos else []) + ids
    assert model.encode("Once", bos=True) == [eos, *ids]
    assert model.encode("Once", bos=False) == ids
    assert model.encode("") == model.encode("", bos=False) == [eos]
    assert model.generate("", max_tokens=1, bos=False).usage.prompt_tokens == 1


PROMPTS = ["Once", "The Time Traveller", "", "It was a dark and stormy night", "9", "Once"]
EVERYTHING = {
    **{"max_tokens": 25, "temperature": 2.0, "top_k": 0, "min_p": 0.001, "seed": 4, "logprobs": 2, "stop": ["q", "zz"]},
    **{"repetition_penalty": 1.1, "frequency_penalty": 0.1, "no_repeat_ngram_size": 3, "dry_multiplier": 0.5},
    **{"bad_words": [" the"], "logit_bias": {70: 1.0}, "min_tokens": 3},
}


@pytest.mark.parametrize("options", [{"max_tokens": 30, "temperature": 2.0, "seed": 4}, EVERYTHING])
@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_prompts_of_a_list_are_as_each_alone(random_file, options, batch_size):
    """On another number of threads, too."""
    alone = [nbgpt.load(random_file, threads=2).generate(prompt, **options) for prompt in PROMPTS]
    together = nbgpt.load(random_file, threads=1).generate(PROMPTS, batch_size=batch_size, **options)
    assert [replace(one, timing=None) for one in together] == [replace(one, timing=None) for one in alone]
    assert together[0] == replace(together[5], timing=together[0].timing)  # the same prompt
    assert len({one.text for one in together}) == 5


@pytest.mark.parametrize("options", [{"max_tokens": 30, "temperature": 2.0, "seed": 4}, EVERYTHING])
def test_samples_are_as_each_alone(random_model, options):
    alone = [random_model.generate(PROMPTS[3], **options, sample=n).text for n in range(2, 7)]
    assert [one.text for one in random_model.generate(PROMPTS[3], n=5, sample=2, **options)] == alone
    both = random_model.generate(PROMPTS[2:4], n=3, sample=2, **options)
    assert [one.text for one in both[3:]] == alone[:3]
    assert [one.text for one in both[:3]] == [one.text for one in random_model.generate("", n=3, sample=2, **options)]
    assert len(set(alone)) == 5


def test_what_comes_back(random_model):
    assert isinstance(random_model.generate("a", max_tokens=1), Completion)
    assert [type(one) for one in random_model.generate("a", n=1, max_tokens=1)] == [Completion]
    assert [type(one) for one in random_model.generate(("a", "b"), max_tokens=1)] == [Completion] * 2
    assert random_model.generate([], max_tokens=1) == random_model.stream([]) == []
    assert [type(one) for one in random_model.stream("a", n=2)] == [nbgpt.Stream] * 2
    with pytest.raises(ValueError, match="n is 0; it must be a whole number from 1 on"):
        random_model.generate("a", n=0)
    with pytest.raises(TypeError, match="no option is called 'max_token'; did you mean 'max_tokens'"):
        random_model.generate("a", max_token=3)


def test_the_seed_gives_the_text_again(random_model):
    options = {"max_tokens": 20, "temperature": 2.0}
    first, second = random_model.generate(["Once", "Once"], **options)
    assert first.seed != second.seed  # chosen for each prompt
    assert random_model.generate("Once", seed=second.seed, **options).text == second.text != first.text


def test_long_texts(random_model):
    """A hundred times the context; keep_first goes on to see the prompt."""
    for overflow in ("truncate_left", "keep_first"):
        options = {"max_tokens": 2000, "overflow": overflow, "ignore_eos": True, "seed": 1}
        completion = random_model.generate("Once", **options)
        assert completion.usage == Usage(len(random_model.encode("Once")), 2000)
        assert completion.finish_reason == "length"


def test_bad_values_name_the_parameter(random_model):
    for name, value in {
        "temperature": -1,
        "top_p": 1.5,
        "stop": 1.5,
        "min_p": 2,
        "overflow": "wrap",
        "max_time": -1,
    }.items():
        with pytest.raises(ValueError, match=f"{name} (is|has) {value!r}; "):
            random_model.generate("a", **{name: value})
    with pytest.raises(ValueError, match=rf"logit_bias has token 99999; it must .* to {TOKENIZER.n_vocab - 1}"):
        random_model.generate("a", logit_bias={99999: 1.0})
    assert random_model.engine.kv_bytes_in_use == 0


def test_threads_share_a_model(random_file):
    model = nbgpt.load(random_file, threads=2)
    prompts = ["Once", "The Time Traveller", "", "It was a dark and stormy night", "9"]
    options = {"max_tokens": 30, "temperature": 2.0, "seed": 4}
    alone = [model.generate(prompt, **options).text for prompt in prompts]
    together = dict.fromkeys(prompts, "")

    def work(prompt):
        together[prompt] = model.generate(prompt, **options).text

    threads = [threading.Thread(target=work, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(together.values()) == alone
    assert model.engine.kv_bytes_in_use == 0


def test_logits(random_model):
    ids = [n % 900 for n in range(150)]  # more than one pass
    logits = random_model.logits(ids)
    assert (logits.shape, logits.dtype) == ((150, TOKENIZER.n_vocab), np.float32)
    np.testing.assert_array_equal(logits[:40], random_model.logits(np.array(ids[:40])))
    assert random_model.logits([]).shape == (0, TOKENIZER.n_vocab)
    with pytest.raises(ValueError, match="201 tokens; this model's context is 200"):
        random_model.logits([0] * 201)
    with pytest.raises(ValueError, match=rf"token -1 is not in 0\.\.{TOKENIZER.n_vocab - 1}"):
        random_model.logits([0, -1])
    with pytest.raises(TypeError, match="'float' object cannot be interpreted as an integer"):
        random_model.logits([1.5])


def test_ids_beyond_the_vocabulary_are_never_chosen(tmp_path):
    """Some models pad their embedding; what it says of such ids is noise. Logits and scores keep it."""
    padded = TOKENIZER.n_vocab + 7
    config, params = ballot(np.arange(padded) == padded - 1)
    convert(checkpoint_of(config, params), "float32", tmp_path / "m.safetensors")
    model = nbgpt.load(tmp_path / "m.safetensors")
    assert model.logits([0])[0].argmax() == padded - 1
    for options in ({"greedy": True}, {"temperature": 2.0}, {"mirostat_tau": 3.0}, {"min_p": 0.1}, {"logprobs": 2}):
        assert max(model.generate("a", max_tokens=20, **options).tokens) < TOKENIZER.n_vocab
    for found in (*model.beam_search("a", 3, max_tokens=5, num_return=3), model.contrastive_search("a", max_tokens=5)):
        assert max(found.tokens, default=0) < TOKENIZER.n_vocab


def test_prompts_of_ids(random_model):
    """Wherever a prompt is taken, alone and among others; NumPy's too."""
    text, options = "It was a dark", {"max_tokens": 9, "seed": 3}
    ids = random_model.encode(text)
    expected = random_model.generate(text, **options)
    assert random_model.generate(ids, **options).tokens == expected.tokens
    assert random_model.generate(np.array(ids, np.int32), **options).tokens == expected.tokens
    assert "".join(random_model.stream(tuple(ids), **options)) == expected.text
    assert [one.tokens for one in random_model.generate([ids, text], **options)] == [expected.tokens] * 2
    assert random_model.session().generate(ids, **options).tokens == expected.tokens
    assert random_model.generate(ids, echo=True, **options).text == text + expected.text
    assert random_model.score(ids) == random_model.score(text)
    assert random_model.beam_search(ids, 3, max_tokens=5) == random_model.beam_search(text, 3, max_tokens=5)
    np.testing.assert_array_equal(random_model.embed([ids]), random_model.embed([text]))
    with pytest.raises(ValueError, match="the prompt has token id 100000; ids of this vocabulary are 0 to"):
        random_model.generate([100000])


def test_special_tokens_in_a_prompt(random_model):
    """Their names are text unless the caller says otherwise."""
    text = "one<|endoftext|>two"
    assert random_model.tokenizer.eos_id not in random_model.encode(text)
    ids = random_model.encode(text, special=True)
    assert ids == [*random_model.encode("one"), random_model.tokenizer.eos_id, *random_model.encode("two")]
    options = {"max_tokens": 9, "seed": 3}
    assert random_model.generate(text, special=True, **options).tokens == random_model.generate(ids, **options).tokens
    assert random_model.generate(text, **options).usage.prompt_tokens > len(ids)


def test_a_damaged_vocabulary_in_the_file(random_file, tmp_path):
    start = weights.load(random_file).entries["tokenizer"].start
    data = bytearray(random_file.read_bytes())
    data[start] ^= 1
    (tmp_path / "m.safetensors").write_bytes(data)
    with pytest.raises(nbgpt.FormatError, match=r"m\.safetensors: stored vocabulary: .* convert the model again"):
        nbgpt.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize("prompt", [None, 5, b"x", {"a", None}, ["a", None], [["a"]]])
def test_what_is_no_prompt(random_model, prompt):
    for ask in (random_model.generate, random_model.stream):
        with pytest.raises(ValueError, match=r"the text is .*; it must be a str"):
            ask(prompt)
    with pytest.raises(ValueError, match=r"the text is .*; it must be a str"):
        random_model.session().generate(prompt)


def test_values_that_the_model_checks(random_model):
    with pytest.raises(ValueError, match="draft_model is 'gpt2'; it must be a Model"):
        random_model.generate("a", draft_model="gpt2")
    with pytest.raises(ValueError, match="bos is 'false'; it must be True, False or None"):
        random_model.generate("a", bos="false")
    whole = random_model.generate("a", seed=5, sample=2**32, n=2, max_tokens=5)
    numpys = random_model.generate("a", seed=np.uint32(5), sample=np.int64(2**32), n=2, max_tokens=5)
    assert [one.tokens for one in whole] == [one.tokens for one in numpys]


def test_what_can_be_loaded(random_file):
    with pytest.raises(ValueError, match="model is 5; it must be a file, folder or name"):
        nbgpt.load(5)
    with pytest.raises(ValueError, match="threads is True; it must be a whole number"):
        nbgpt.load(random_file, threads=True)


def test_threads_must_be_positive(random_file):
    with pytest.raises(ValueError, match="threads is 0; it must be from 1 to"):
        nbgpt.load(random_file, threads=0)


# What is imported


def modules_after(code, *arguments):
    """Names of the modules that a fresh interpreter has loaded after some code."""
    command = [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    return set(done.stderr.split())


def test_import_is_cheap():
    timed = "import time; start = time.process_time(); import nbgpt; assert time.process_time() - start < 0.05"
    assert not modules_after(timed) & {
        "numpy",
        "numba",
        "llvmlite",
        "tiktoken",
        "tqdm",
        "nbgpt.engine.engine",
        "nbgpt.model",
        "nbgpt.batch",
        "ray",
    }


def test_a_warm_generate_loads_only_what_it_needs(recital):
    """Not Numba above all, which takes longer than a short text; nor what downloads and conversions need."""
    code = "from nbgpt.cli.main import main; assert main(['generate', '-q', '-n', '3', '--model', sys.argv[1]]) == 0"
    loaded = modules_after(code, recital.weights.path)
    assert "nbgpt.engine.engine" in loaded
    assert not loaded & {
        "numba",
        "tqdm",
        "huggingface_hub",
        "nbgpt.compression",
        "nbgpt.batch",
        "pyarrow",
        "ray",
        "sklearn",
        "nbgpt.tasks.training.train",
        "nbgpt.conversion.hub",
        "nbgpt.conversion.convert",
        "nbgpt.weights.quantize",
    }


def test_the_documentations_example():
    assert doctest.testmod(model_module) == (0, 3)


def test_public_names():
    assert all(getattr(nbgpt, name) for name in nbgpt.__all__)
    with pytest.raises(AttributeError, match="module 'nbgpt' has no attribute 'nothing'"):
        nbgpt.nothing  # noqa: B018


def test_decode_is_the_way_back(random_model):
    text = "It was a naïve café 😀"
    assert random_model.decode(random_model.encode(text, bos=False)) == text


def test_what_a_model_looks_like(random_model):
    config = random_model.config
    about = f"{random_model.name} {random_model.dtype}, context {config.n_ctx}, {random_model.n_threads} threads"
    assert repr(random_model) == f"<nbgpt.Model {about}>"
