"""What is fuzzed: each target reads bytes that anybody may have written, and raises nothing but what it documents.

python tests/fuzz/targets.py NAME [libFuzzer's options] FOLDER...     # coverage-guided, by atheris
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

SEEDS = Path(__file__).parent / "seeds"
DOCUMENTED = (ValueError,)  # FormatError is one
TARGETS: dict[str, Callable[[bytes], object]] = {}


def target(function: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Register a target under its name."""
    TARGETS[function.__name__] = function
    return function


@functools.cache
def scratch() -> Path:
    """A folder of this process, in memory where there is such a one."""
    memory = Path("/dev/shm")
    folder = tempfile.TemporaryDirectory(prefix="nbgpt-fuzz-", dir=memory if memory.is_dir() else None)
    scratch.folder = folder  # it is removed with the process
    return Path(folder.name)


def file_of(data: bytes, name: str) -> Path:
    path = scratch() / name
    path.write_bytes(data)
    return path


def read_all(checkpoint) -> None:
    """Every tensor, and the vocabulary if there is one."""
    from nbgpt.formats import read_vocabulary

    for tensor in checkpoint.tensors.values():
        tensor.read()
    read_vocabulary(checkpoint)


@target
def json_reader(data: bytes) -> None:
    from nbgpt.strict_json import parse

    repr(parse(data, "here"))


@target
def safetensors(data: bytes) -> None:
    from nbgpt.formats.safetensors import read_tensors

    for stored in read_tensors(file_of(data, "a.safetensors")).values():
        stored.tensor().read()


@target
def native(data: bytes) -> None:
    from nbgpt import weights

    loaded = weights.load(file_of(data, "native.safetensors"))
    weights.tokenizer_of(loaded).decode([0])
    assert isinstance((loaded.labels, loaded.generation, loaded.name), tuple)


@target
def classifier_head(data: bytes) -> None:
    from nbgpt.weights import read_head

    read_head(file_of(data, "head.safetensors"))


@target
def config(data: bytes) -> None:
    from nbgpt.config import GPT2Config
    from nbgpt.strict_json import parse_object

    with contextlib.suppress(TypeError):  # of a value that no dictionary can hold: its callers expect it
        GPT2Config.from_hugging_face(parse_object(data, "config.json"))


@target
def pytorch(data: bytes) -> None:
    from nbgpt.formats.pytorch import read_tensors

    for stored in read_tensors(file_of(data, "a.bin")).values():
        with contextlib.suppress(ValueError):
            stored.tensor().read()


@target
def nanogpt(data: bytes) -> None:
    """A file of torch.save, or what is pickled in one, which is put into an archive with a storage of 64 numbers."""
    from nbgpt.formats import open_checkpoint

    read_all(open_checkpoint(file_of(data if data.startswith(b"PK") else _archive(data), "ckpt.pt")))


def _archive(pickled: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {"data.pkl": pickled, "byteorder": b"little", "data/0": bytes(256)}.items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


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
def tokenizer_json(data: bytes) -> None:
    from nbgpt.formats.declared import Declared
    from nbgpt.formats.tokenizer_kinds import read_json

    read_json({"tokenizer": file_of(data, "tokenizer.json")}, Declared(), 1000).encode("a b")


@target
def vocab_and_merges(data: bytes) -> None:
    """Two files, and a tokenizer_config.json if there is a third part."""
    from nbgpt.formats.declared import read_declared
    from nbgpt.formats.tokenizer_kinds import read_vocab_and_merges

    vocab, merges, config = [*data.split(b"\0", 2), b"", b""][:3]
    files = {"vocab": file_of(vocab, "vocab.json"), "merges": file_of(merges, "merges.txt")}
    declared = read_declared({"tokenizer_config": file_of(config or b"{}", "tokenizer_config.json")})
    read_vocab_and_merges(files, declared, 1000).encode("a b")


@target
def wordpiece(data: bytes) -> None:
    """vocab.txt, and a tokenizer_config.json if there is a second part."""
    from nbgpt.formats.declared import read_declared
    from nbgpt.formats.tokenizer_kinds import read_wordpiece

    vocab, _, config = data.partition(b"\0")
    declared = read_declared({"tokenizer_config": file_of(config or b"{}", "tokenizer_config.json")})
    read_wordpiece({"wordpiece": file_of(vocab, "vocab.txt")}, declared, 1000).encode("a b")


@target
def sentencepiece(data: bytes) -> None:
    from nbgpt.formats.declared import Declared
    from nbgpt.formats.tokenizer_kinds import read_sentencepiece

    read_sentencepiece({"sentencepiece": file_of(data, "spiece.model")}, Declared(), 1000).encode("a b")


@target
def declarations(data: bytes) -> None:
    """The small files beside a vocabulary, one after the other, and that vocabulary with them."""
    from nbgpt.formats.declared import read_declared
    from nbgpt.formats.tokenizer_kinds import read_json

    kinds = ("tokenizer_config", "special", "added", "config")
    files = {kind: file_of(part, kind) for kind, part in zip(kinds, data.split(b"\0", 3), strict=False)}
    declared = read_declared(files)
    vocabulary = file_of(b'{"model": {"type": "BPE", "vocab": {"a": 0, "</s>": 1}, "merges": []}}', "tokenizer.json")
    tokenizer = read_json({"tokenizer": vocabulary}, declared, 10)
    for role in declared.roles:
        declared.ids_of(role, tokenizer)
    tokenizer.encode_prompt("a</s>b", special=True)


@target
def stored_vocabulary(data: bytes) -> None:
    from nbgpt.tokenizer import from_bytes

    tokenizer = from_bytes(data)
    tokenizer.decode(tokenizer.encode("a b"))


@target
def tokenizer(data: bytes) -> None:
    """Texts come back as they were, at once and token by token."""
    from nbgpt.tokenizer import ByteBPE

    shipped = functools.cache(ByteBPE.shipped)()
    text = data.decode(errors="replace")
    ids = shipped.encode(text)
    assert shipped.decode(ids) == text
    stream = shipped.stream()
    assert "".join(map(stream.push, ids)) + stream.finish() == text


@functools.cache
def _small_engine() -> SimpleNamespace:
    """What reading a session needs of an engine."""
    from nbgpt import weights
    from nbgpt.engine.kv_cache import KVCache

    loaded = weights.load(SEEDS / "native" / "tiny.safetensors")
    return SimpleNamespace(
        weights=loaded, config=loaded.config, cache=KVCache(loaded.config, "float32", 1 << 20), fingerprint=""
    )


@target
def session(data: bytes) -> None:
    from nbgpt.text import session

    right = {"fingerprint": lambda engine: "of this model", "_checksum": lambda ids, pages: "right"}
    with mock.patch.multiple(session, **right):  # or no input would come far
        session._read(file_of(data, "a.session"), _small_engine())


@target
def compressed(data: bytes) -> None:
    from nbgpt.compression.container import Container, _sealed

    Container.from_bytes(_sealed(data))  # with the right checksum, or no input would come far


@target
def table(data: bytes) -> None:
    from nbgpt.tasks.rows import read_rows

    for name in ("a.csv", "a.jsonl"):
        with contextlib.suppress(*DOCUMENTED):
            read_rows(file_of(data, name))


@target
def request(data: bytes) -> None:
    """The body of a request to the server."""
    from nbgpt.serve.errors import ApiError
    from nbgpt.serve.generation import options_of
    from nbgpt.serve.limits import Limits
    from nbgpt.serve.schemas import ChatRequest, CompletionRequest
    from nbgpt.strict_json import parse

    kind = ChatRequest if b'"messages"' in data else CompletionRequest
    with contextlib.suppress(ApiError):
        options_of(kind.model_validate(parse(data, "the body")), Limits())


def run(name: str, data: bytes) -> None:
    """One input. Raises what the target does not document."""
    with contextlib.suppress(*DOCUMENTED):
        TARGETS[name](data)


def main() -> None:
    """Fuzz one target until libFuzzer's options say that it is enough."""
    import atheris

    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["nbgpt"]):
        for path in sorted((SEEDS / name).iterdir()):  # imports what the target imports
            run(name, path.read_bytes())
    atheris.Setup(sys.argv, functools.partial(run, name))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
