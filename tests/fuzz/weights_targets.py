"""Targets that read models: checkpoints of others, native files, classifiers, adapters, sessions."""

from __future__ import annotations

import functools
import json
import struct
from contextlib import suppress
from types import SimpleNamespace
from unittest import mock

from harness import SEEDS, archive_of, file_of, parts_of, scratch, target, with_tensors


def read_all(checkpoint) -> None:
    """Every tensor, and the vocabulary if there is one."""
    from nbgpt.formats import read_vocabulary

    for tensor in checkpoint.tensors.values():
        tensor.read()
    read_vocabulary(checkpoint)


@target
def safetensors(data: bytes) -> None:
    from nbgpt.formats.safetensors import read_tensors

    for stored in read_tensors(file_of(data, "a.safetensors")).values():
        stored.tensor().read()


@target
def native(data: bytes) -> None:
    from nbgpt import weights

    loaded = weights.load(file_of(with_tensors(data), "native.safetensors"))
    weights.tokenizer_of(loaded).decode([0])
    assert isinstance((loaded.labels, loaded.generation, loaded.name), tuple)


@target
def classifier_head(data: bytes) -> None:
    from nbgpt.weights import read_head

    read_head(file_of(with_tensors(data), "head.safetensors"))


@target
def config(data: bytes) -> None:
    from nbgpt.config import GPT2Config
    from nbgpt.strict_json import parse_object

    with suppress(TypeError):  # of a value that no dictionary can hold: its callers expect it
        GPT2Config.from_hugging_face(parse_object(data, "config.json"))


@target
def hugging_face(data: bytes) -> None:
    """A folder of config.json, the index of two shards, generation_config.json, and the header of the first shard."""
    from nbgpt.conversion import hub
    from nbgpt.formats import open_checkpoint

    config, index, generation, shard = parts_of(data, 4)
    file_of(config, "folder/config.json")
    file_of(generation, "folder/generation_config.json")
    file_of("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]).encode(), "folder/vocab.txt")
    file_of(with_tensors(shard), "folder/model-1.safetensors")
    name = b"transformer.ln_f.bias" if b"transformer." in index else b"ln_f.bias"
    file_of(with_tensors(b'{"%s": {"dtype": "F32", "shape": [2]}}' % name), "folder/model-2.safetensors")
    place = file_of(index, "folder/model.safetensors.index.json")
    with suppress(hub.DownloadError):
        hub._shards(place)
    read_all(open_checkpoint(place))


@target
def lora(data: bytes) -> None:
    """adapter_config.json, and the header of the adapter's tensors; the base model is that of `hugging_face`."""
    from folders import checkpoint_of
    from models import random_params

    from nbgpt.config import GPT2Config
    from nbgpt.conversion.lora import merge

    config, header = parts_of(data, 2)
    file_of(config, "adapter/adapter_config.json")
    file_of(with_tensors(header), "adapter/adapter_model.safetensors")
    base = GPT2Config(n_layer=1, n_head=1, n_embd=2, n_ctx=4, n_vocab=7)
    for tensor in merge(checkpoint_of(base, random_params(base)), [(scratch() / "adapter", 1.0)]).tensors.values():
        tensor.read()


@target
def pytorch(data: bytes) -> None:
    from nbgpt.formats.pytorch import read_tensors

    for stored in read_tensors(file_of(data, "a.bin")).values():
        with suppress(ValueError):
            stored.tensor().read()


@target
def nanogpt(data: bytes) -> None:
    """A file of torch.save, or what is pickled in one."""
    from nbgpt.formats import open_checkpoint

    read_all(open_checkpoint(file_of(data if data.startswith(b"PK") else archive_of(data), "ckpt.pt")))


@target
def llm_c(data: bytes) -> None:
    """The size of a file follows its header, if that asks for a small one, or no other header would come far."""
    from nbgpt.config import GPT2Config
    from nbgpt.formats.llm_c import open_llm_c

    data = data.ljust(1024, b"\0")
    _, version, n_ctx, n_vocab, n_layer, n_head, n_embd, n_padded = struct.unpack_from("<8i", data)
    if all(0 < n < 64 for n in (n_ctx, n_vocab, n_layer, n_head, n_embd, n_padded)) and n_embd % n_head == 0:
        n_numbers = GPT2Config(n_layer, n_head, n_embd, n_ctx, n_vocab).n_parameters + (n_padded - n_vocab) * n_embd
        size = 1024 + (2 if version == 5 else 4) * n_numbers
        data = data[:size].ljust(size, b"\0") if size < 1 << 17 else data
    for tensor in open_llm_c(file_of(data, "model.bin")).tensors.values():
        tensor.read()


@target
def gguf(data: bytes) -> None:
    from nbgpt.formats import open_checkpoint

    read_all(open_checkpoint(file_of(data, "a.gguf")))


@target
def tensorflow(data: bytes) -> None:
    """The index, whose checksums are not looked at, or no input would come far; sizes and contents are fixed."""
    from nbgpt.formats import leveldb, open_checkpoint
    from nbgpt.formats import tensorflow as bundle

    hparams = {"n_vocab": 7, "n_ctx": 4, "n_embd": 2, "n_head": 1, "n_layer": 1}
    file_of(json.dumps(hparams).encode(), "hparams.json")
    file_of(bytes(4096), "model.ckpt.data-00000-of-00001")
    right = {"crc32c": lambda data: 0, "unmask": lambda crc: 0}
    with mock.patch.multiple(leveldb, **right), mock.patch.multiple(bundle, **right):
        for tensor in open_checkpoint(file_of(data, "model.ckpt.index")).tensors.values():
            tensor.read()


@target
def hparams(data: bytes) -> None:
    """hparams.json, and the file `checkpoint` that names one of two indices."""
    from nbgpt.formats import tensorflow as bundle

    sizes, newest = parts_of(data, 2)
    for name, content in {
        "hparams.json": sizes,
        "checkpoint": newest,
        "model-1.index": b"",
        "model-2.index": b"",
    }.items():
        file_of(content, f"run/{name}")
    bundle._read_config(scratch() / "run/hparams.json")
    bundle.find_index(scratch() / "run")


@functools.cache
def small_engine() -> SimpleNamespace:
    """What reading a session needs of an engine."""
    from nbgpt import weights
    from nbgpt.engine.kv_cache import KVCache

    seed = (SEEDS / "native" / "int8").read_bytes()
    loaded = weights.load(file_of(with_tensors(seed), "engine.safetensors"))
    return SimpleNamespace(weights=loaded, config=loaded.config, cache=KVCache(loaded.config, "float32", 1 << 20))


@target
def session(data: bytes) -> None:
    from nbgpt.text import session

    right = {"fingerprint": lambda engine: "of this model", "_checksum": lambda ids, pages: "right"}
    with mock.patch.multiple(session, **right):  # or no input would come far
        session._read(file_of(with_tensors(data), "a.session"), small_engine())
