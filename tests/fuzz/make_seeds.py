"""Writes `seeds/NAME/*`, from which fuzzing starts, when a format has changed. What has failed once (`found-*`) stays.

PYTHONPATH=.:tests python tests/fuzz/make_seeds.py      # needs torch and gguf
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from checkpoint_seeds import CHECKPOINTS
from folders import checkpoint_of
from formats.test_tensorflow import varint
from models import config_of, random_params
from targets import SEEDS, TARGETS, _small_engine

from nbgpt.abi.layout import PAGE
from nbgpt.compression.container import Chunk, Container
from nbgpt.conversion.convert import convert
from nbgpt.formats import Vocabulary
from nbgpt.formats.safetensors import create
from nbgpt.tokenizer import ByteBPE
from nbgpt.tokenizer.hugging_face import MARK
from nbgpt.weights import BaseReference, ClassifierHead, save_head

FIXTURES = Path(__file__).parents[1] / "fixtures"
FEW = ByteBPE.from_merges("#version: 0.2\na b\n")
CONFIG = {"model_type": "gpt2", "n_layer": 1, "n_head": 1, "n_embd": 2, "n_positions": 4, "vocab_size": 7}


def save(target: str, name: str, data: bytes) -> None:
    (SEEDS / target).mkdir(parents=True, exist_ok=True)
    (SEEDS / target / name).write_bytes(data)


def texts() -> None:
    save("json_reader", "object", b'{"a": [1, -2.5e3, null, true, "\\u00e9\\"["], "b": {"c": []}}')
    save("config", "gpt2", json.dumps({**CONFIG, "activation_function": "gelu_new", "n_inner": None}).encode())
    save("table", "csv", b'text,label\n"one, two",1\nthree,2\n')
    save("table", "jsonl", b'{"text": "one", "label": 1}\n\n{"text": ["two"], "label": null}\n')
    body = {"prompt": ["a", "b"], "max_tokens": 3, "temperature": 0.5, "stop": "x", "n": 2, "logit_bias": {"1": 2}}
    save("request", "completion", json.dumps({**body, "stream": True, "guided_regex": "a+"}).encode())
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    said = {"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2, "logprobs": True, "stop": ["a", 5]}
    save("request", "chat", json.dumps({**said, "response_format": schema, "max_time": 5}).encode())
    choice = {"prompt": [[1, 2]], "guided_choice": ["a", "b"], "stream_options": {"include_usage": True}}
    save("request", "choice", json.dumps({**choice, "guided_json": None, "echo": True, "best_of": 3}).encode())
    save("tokenizer", "text", "Naïve café 😀 日本語:\r\n\t it's 12345 <|endoftext|>".encode())
    save("tokenizer", "no text", bytes(range(0, 256, 5)))
    flags = {"content": "</s>", "special": True, "lstrip": False}
    declared = {"bos_token": "a", "eos_token": flags, "added_tokens_decoder": {"1": flags}, "add_bos_token": True}
    config = {**declared, "extra_special_tokens": ["b"], "tokenizer_class": "GPT2Tokenizer"}
    save("declarations", "tokenizer_config", json.dumps(config).encode())
    tokens_map = {"unk_token": "</s>", "additional_special_tokens": {"x": flags, "y": "<y>"}, "pad_token": "<pad>"}
    parts = [config, tokens_map, {"<z>": 2, "<pad>": 3}, {"tokenizer_class": "GPT2Tokenizer"}]
    save("declarations", "all files", b"\0".join(json.dumps(part).encode() for part in parts))


def vocabularies() -> None:
    vocab = json.loads((FIXTURES / "tokenizer" / "vocab.json").read_bytes())
    few = {name: i for i, name in enumerate(list(vocab)[:20])}
    save("vocab_and_merges", "small", json.dumps(few).encode() + b"\0" + b"#version: 0.2\na b\n")
    save("vocab_and_merges", "bytes", _vocab_and_merges(vocab, {}))
    config = {"add_prefix_space": True, "bos_token": "<|endoftext|>", "added_tokens_decoder": {"300": {"content": "x"}}}
    save("vocab_and_merges", "declared", _vocab_and_merges(vocab, config))
    words = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n##b\n"
    save("wordpiece", "bert", words)
    save("wordpiece", "declared", words + b"\0" + json.dumps({"do_lower_case": False, "sep_token": "b"}).encode())
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "<x>": 3}, "merges": [["a", "b"]], "unk_token": "<x>"}
    added = [{"id": 3, "content": "<x>", "special": True, "lstrip": False, "rstrip": False, "single_word": False}]
    added[0]["normalized"] = False
    spec = {"version": "1.0", "added_tokens": added, "model": model, "pre_tokenizer": {"type": "Whitespace"}}
    save("tokenizer_json", "bpe", json.dumps(spec).encode())
    save("stored_vocabulary", "json", MARK + json.dumps(spec).encode())
    save("stored_vocabulary", "bytes", FEW.to_bytes())
    pieces = [("<unk>", 2), ("<s>", 3), ("</s>", 3), ("▁", 1), ("a", 1), ("b", 1), ("ab", 1), ("▁ab", 1), ("c d", 4)]
    save("sentencepiece", "unigram", _sentencepiece(pieces, 1, b"\x18\0\x20\1\x28\1"))
    bytes_ = [(f"<0x{n:02X}>", 6) for n in range(256)]
    save("sentencepiece", "bpe", _sentencepiece([*pieces[:7], *bytes_], 2, b"\x18\1\x20\0\x28\1"))


def _vocab_and_merges(vocab: dict[str, int], config: dict[str, object]) -> bytes:
    """The 256 bytes, some merges of the small vocabulary, and the end of texts."""
    merges = (FIXTURES / "tokenizer" / "merges.txt").read_text().splitlines()[1:9]
    names = [name for name in vocab if len(name) == 1] + [line.replace(" ", "") for line in merges]
    ids = {name: i for i, name in enumerate([*names, "<|endoftext|>"])}
    parts = [json.dumps(ids), "\n".join(["#version: 0.2", *merges, ""]), json.dumps(config)]
    return b"\0".join(part.encode() for part in parts)


def _sentencepiece(pieces: list[tuple[str, int]], kind: int, normalizer: bytes) -> bytes:
    """A spiece.model of (text, type) pieces, each with a score; kind: 1 unigram, 2 BPE."""

    def part(field: int, content: bytes) -> bytes:
        return varint(field << 3 | 2) + varint(len(content)) + content

    made = [
        part(1, part(1, text.encode()) + b"\x15" + np.float32(-i).tobytes() + b"\x18" + varint(type_))
        for i, (text, type_) in enumerate(pieces)
    ]
    return b"".join(made) + part(2, b"\x18" + varint(kind) + b"\xc8\x02\1") + part(3, normalizer)


def files() -> None:
    config = config_of(n_layer=1, n_head=1, n_embd=4, n_ctx=4, n_inner=4, n_vocab=FEW.n_vocab)
    source = replace(checkpoint_of(config, random_params(config)), tokenizer_files={})
    convert(source, "int8", _folder("native") / "tiny.safetensors", vocabulary=Vocabulary(FEW, "of its own"))
    metadata = {"format": "nbgpt session", "fingerprint": "of this model", "sha256": "right"}
    size = _small_engine().cache.page_size
    shapes = {"ids": ("I32", (0,)), "pages": ("F32", (0, size))}
    with create(_folder("session") / "empty", shapes, metadata):
        pass
    save("session", "short", _session(metadata, size))
    with create(_folder("safetensors") / "two", {"a": ("F16", (2, 3)), "b": ("BF16", (1,))}, {"format": "pt"}) as file:
        file.write(bytes(14))
    head = ClassifierHead(("a", "b"), False, 1, "mean", *(np.ones(n) for n in (4, 4)), np.ones((2, 4)), np.ones(2))
    save_head(_folder("classifier_head") / "head", head, BaseReference("a", "int8", "a", "0", False, "x"), "mine")
    chunks = [Chunk(b"coded", 7), Chunk(b"more", 8)]
    save("compressed", "two chunks", Container("tiny int8", bytes(8), 16, 4, 30, 20, chunks).to_bytes()[:-8])


def _session(metadata: dict[str, str], size: int) -> bytes:
    """A page of a session's file, cut: the whole one would be 16 KB of nothing."""
    header = {"__metadata__": metadata, "ids": {"dtype": "I32", "shape": [PAGE], "data_offsets": [0, 4 * PAGE]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(4 * PAGE)


def _folder(target: str) -> Path:
    (SEEDS / target).mkdir(parents=True, exist_ok=True)
    return SEEDS / target


def checkpoints() -> None:
    """Of other people's formats."""
    for path in sorted((FIXTURES / "pytorch").glob("views-*.bin"), key=lambda path: path.stat().st_size)[:2]:
        save("pytorch", path.name, path.read_bytes())
    for target, seeds in CHECKPOINTS.items():
        for name, data in seeds():
            save(target, name, data)


def main() -> None:
    for path in SEEDS.glob("*/*"):
        if not path.name.startswith("found-"):
            path.unlink()
    texts()
    vocabularies()
    files()
    checkpoints()
    missing = {*TARGETS} - {path.name for path in SEEDS.iterdir()}
    size = sum(path.stat().st_size for path in SEEDS.rglob("*") if path.is_file())
    print(f"{size} bytes; targets without seeds: {sorted(missing)}")


if __name__ == "__main__":
    main()
