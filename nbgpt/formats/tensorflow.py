"""OpenAI's release folders and gpt-2-simple's runs: a TensorFlow checkpoint, read without TensorFlow.

A checkpoint is a tensor bundle (tensorflow/core/util/tensor_bundle): `NAME.index`, a LevelDB table from a variable's
name to a `BundleEntryProto` (tensorflow/core/protobuf/tensor_bundle.proto), and the raw little-endian values in
`NAME.data-00000-of-00001` and on. Every block of the index and every tensor carries a CRC-32C that is verified.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from ..config import GPT2Config
from ..paths import named
from ..strict_json import parse_object
from .base import Checkpoint, FormatError, Tensor
from .crc32c import crc32c, unmask
from .leveldb import table_entries
from .names import expected_shapes
from .protobuf import fields as _fields
from .protobuf import messages as _messages
from .protobuf import number as _number
from .stored import Stored
from .vocabulary import text_files

_SMALL = 1 << 20  # bytes; gpt2-xl's index with two optimizer slots a variable takes a tenth of it
_NAME_LIMIT = 64  # bytes; no variable of a GPT-2 has a longer name
_DTYPES = {1: ("F32", 4), 19: ("F16", 2)}  # tensorflow/core/framework/types.proto -> name, bytes
_AGAIN = "download it again"


def open_tensorflow(path: Path) -> Checkpoint:
    """Open a folder with `hparams.json`, a `*.index` and its data shards, or the index of such a folder.

    Of several indices the folder's file `checkpoint` names the newest; OpenAI's only one is `model.ckpt.index`.

    Variables that are not the model's (a step counter, an optimizer's slots) are ignored. Raises FormatError for a
    file that is missing, damaged or of other shapes than `hparams.json` says; `Tensor.read` raises it for values with
    a wrong checksum.
    """
    index = find_index(path) if path.is_dir() else path
    folder = index.parent
    config = _read_config(folder / "hparams.json")
    table = _read_small(index)
    tensors: dict[str, Tensor] = {}
    shards: set[Path] = set()
    try:
        bundle = _Bundle.parse(index, table)
        for name, shape in expected_shapes(config):  # one by one: a config may claim more layers than memory could list
            place, crc = bundle.find(*_variable(name, shape))
            tensors[name] = Tensor(shape, partial(_read_verified, replace(place, shape=shape), crc))
            shards.add(place.path)
        if f"model/h{config.n_layer}/ln_1/g".encode() in bundle.entries:
            raise FormatError(f"more layers than the {config.n_layer} of hparams.json; do the two belong together?")
    except FormatError as error:
        raise FormatError(f"{index}: {error}") from None
    return Checkpoint(config, tensors, [index, *sorted(shards)], text_files(folder))


def _read_config(path: Path) -> GPT2Config:
    if not path.is_file():
        raise FormatError(f"{path} is missing; it belongs beside the checkpoint and says the model's sizes")
    hparams = parse_object(_read_small(path), str(path))
    names = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")
    if missing := [name for name in names if name not in hparams]:
        raise FormatError(f"{path}: {', '.join(missing)} missing; is this the hparams.json of a GPT-2?")
    try:
        return GPT2Config(**{name: hparams[name] for name in names})
    except (TypeError, ValueError) as error:
        raise FormatError(f"{path}: {error}") from None


def _read_small(path: Path) -> bytes:
    if (size := path.stat().st_size) > _SMALL:
        raise FormatError(f"{path}: {size} bytes, a GPT-2's has less than {_SMALL}; is it the right file?")
    with named(path):
        return path.read_bytes()


def find_index(folder: Path) -> Path:
    """The index of the newest checkpoint of a folder. Raises FormatError if it is not clear which one that is."""
    found = sorted(path for path in folder.glob("*.index") if path.is_file())
    if len(found) == 1:
        return found[0]
    newest = folder / f"{_newest(folder / 'checkpoint')}.index"
    if newest in found:
        return newest
    names = ", ".join(path.name for path in found) or "none"
    raise FormatError(f"{folder}: expected one checkpoint index such as model.ckpt.index, found {names}: name one")


def _newest(path: Path) -> str:
    """The name in `model_checkpoint_path: "model-1000"`, which may be a path on another machine."""
    text = _read_small(path).decode("utf-8", "replace") if path.is_file() else ""
    found = re.search(r'^model_checkpoint_path: "(?:[^"]*[/\\])?([^"/\\]+)"', text, re.MULTILINE)
    return found[1] if found else ""


def _variable(name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """OpenAI's name and shape of a tensor; a matrix is the kernel of a convolution of width one, [1, n_in, n_out].

    Source: https://github.com/openai/gpt-2, src/model.py.
    """
    *module, kind = name.split(".")
    if module[0] == "h":
        module[:2] = [f"h{module[1]}"]
    variable = "/".join(["model", *module])
    if module[0] in ("wte", "wpe"):
        return variable, shape
    if len(shape) == 2:
        return f"{variable}/w", (1, *shape)
    return f"{variable}/{'b' if kind == 'bias' else 'g'}", shape


def _read_verified(place: Stored, crc: int) -> np.ndarray:
    values = place.read()
    if crc32c(values) != crc:
        raise FormatError(f"{place.path}: checksum of {place.name} is wrong; {_AGAIN}")
    return values


@dataclass(frozen=True)
class _Bundle:
    """The index of a checkpoint: the entry of each variable, not yet parsed."""

    index: Path
    entries: dict[bytes, bytes]
    n_shards: int

    @classmethod
    def parse(cls, index: Path, table: bytes) -> _Bundle:
        entries = {key: value for key, value in table_entries(table) if len(key) <= _NAME_LIMIT}
        header = _fields(entries.get(b"", b""))
        if _number(header, 2) != 0:
            raise FormatError("values are big-endian; save the checkpoint again on a little-endian machine")
        return cls(index, entries, _number(header, 1))

    def find(self, variable: str, shape: tuple[int, ...]) -> tuple[Stored, int]:
        """Where a variable of this shape lies, and the CRC-32C of its bytes. Raises FormatError."""
        if variable.encode() not in self.entries:
            raise FormatError(f"{variable} is missing; is hparams.json the one of this checkpoint?")
        entry = _fields(self.entries[variable.encode()])
        dims = _messages(_fields(b"".join(_messages(entry, 2))), 2)
        found = tuple(_number(_fields(dim), 1) for dim in dims)
        if found != shape:
            raise FormatError(f"{variable} is {list(found[:8])}; hparams.json asks for {list(shape)}")
        if _number(entry, 1) not in _DTYPES:
            raise FormatError(f"{variable} has TensorFlow's type {_number(entry, 1)}; save it as 1 (float32)")
        dtype, itemsize = _DTYPES[_number(entry, 1)]
        offset, size = _number(entry, 4), _number(entry, 5)
        if size != prod(shape) * itemsize:
            raise FormatError(f"{variable} claims {size} bytes for {list(shape)} in {dtype}; {_AGAIN}")
        shard = self.index.with_name(f"{self.index.stem}.data-{_number(entry, 3):05d}-of-{self.n_shards:05d}")
        if not shard.is_file():
            raise FormatError(f"{variable} lies in {shard.name}, which is missing; put it into the same folder")
        if offset + size > (length := shard.stat().st_size):
            raise FormatError(f"{variable} ends at byte {offset + size} of {shard.name}, which has {length}; {_AGAIN}")
        return Stored(shard, variable, dtype, shape, offset), unmask(_number(entry, 6))
