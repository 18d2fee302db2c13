"""Writes `seeds/NAME/*`, from which fuzzing starts, when a format has changed. What has failed once (`found-*`) stays.

PYTHONPATH=.:tests python tests/fuzz/make_seeds.py      # needs torch
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from folders import TOKENIZER, checkpoint_of
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
    save("tokenizer", "text", "Naïve café 😀 日本語:\r\n\t it's 12345 <|endoftext|>".encode())
    save("tokenizer", "no text", bytes(range(0, 256, 5)))
    flags = {"content": "</s>", "special": True, "lstrip": False}
    declared = {"bos_token": "a", "eos_token": flags, "added_tokens_decoder": {"1": flags}, "add_bos_token": True}
    save("declarations", "tokenizer_config", json.dumps({**declared, "extra_special_tokens": ["b"]}).encode())


def vocabularies() -> None:
    vocab = json.loads((FIXTURES / "tokenizer" / "vocab.json").read_bytes())
    few = {name: i for i, name in enumerate(list(vocab)[:20])}
    save("vocab_and_merges", "small", json.dumps(few).encode() + b"\0" + b"#version: 0.2\na b\n")
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "<x>": 3}, "merges": [["a", "b"]], "unk_token": "<x>"}
    added = [{"id": 3, "content": "<x>", "special": True, "lstrip": False, "rstrip": False, "single_word": False}]
    added[0]["normalized"] = False
    spec = {"version": "1.0", "added_tokens": added, "model": model, "pre_tokenizer": {"type": "Whitespace"}}
    save("tokenizer_json", "bpe", json.dumps(spec).encode())
    save("stored_vocabulary", "json", MARK + json.dumps(spec).encode())
    save("stored_vocabulary", "bytes", TOKENIZER.to_bytes()[:6000])
    piece = b"\n\x0c\n\x05<unk>\x15\0\0\0\0\x18\x02" + b"\n\x0a\n\x03\xe2\x96\x81\x15\0\0\x80\xbf" * 2
    save("sentencepiece", "unigram", piece + b"\x12\x04\x18\x01\x20\x01")


def files() -> None:
    few = ByteBPE.from_merges("#version: 0.2\na b\n")
    config = config_of(n_layer=1, n_head=1, n_embd=4, n_ctx=4, n_inner=4, n_vocab=few.n_vocab)
    source = replace(checkpoint_of(config, random_params(config)), tokenizer_files={})
    convert(source, "int8", _folder("native") / "tiny.safetensors", vocabulary=Vocabulary(few, "of its own"))
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
    """Of other people's formats: the files that their tests have."""
    import torch

    args = {"n_layer": 1, "n_head": 1, "n_embd": 2, "block_size": 4, "vocab_size": 7, "bias": True, "dropout": 0.0}
    model = {"_orig_mod.transformer.wte.weight": torch.ones(7, 2), "_orig_mod.transformer.ln_f.bias": torch.ones(2)}
    torch.save({"model": model, "model_args": args, "iter_num": 3}, _folder("nanogpt") / "ckpt.pt")
    found = {"pytorch": "*.bin", "tensorflow": "*.index", "gguf": "*.gguf"}
    for target, pattern in found.items():
        for path in sorted(FIXTURES.rglob(pattern), key=lambda path: path.stat().st_size)[:2]:
            save(target, path.name, path.read_bytes()[:4000])
    save("llm_c", "header", np.array([20240326, 3, 4, 7, 1, 1, 2, 7, *[0] * 248], "<i4").tobytes() + bytes(600))
    magic = b"GGUF" + (3).to_bytes(4, "little") + (0).to_bytes(8, "little") + (1).to_bytes(8, "little")
    key = b"general.architecture"
    save("gguf", "gpt2", magic + len(key).to_bytes(8, "little") + key + b"\x08\0\0\0\x04\0\0\0\0\0\0\0gpt2" + bytes(16))


def main() -> None:
    texts()
    vocabularies()
    files()
    checkpoints()
    missing = {*TARGETS} - {path.name for path in SEEDS.iterdir()}
    size = sum(path.stat().st_size for path in SEEDS.rglob("*") if path.is_file())
    print(f"{size} bytes; targets without seeds: {sorted(missing)}")


if __name__ == "__main__":
    main()
