"""GGUF files of architecture gpt2, as llama.cpp writes them.

The header is read here, value by value and within the file's length; `gguf.GGUFReader` maps the whole file, keeps an
array for each of 100,000 vocabulary entries, and follows any length that a file claims. The blocks of quantized
numbers are the `gguf` package's to decode.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, and GPT2Model in llama.cpp's converter: it turns
Conv1D matrices from [n_in, n_out] into [n_out, n_in]; dimensions stand in a file with the fastest first.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..config import GPT2Config
from ..paths import named
from . import names
from .base import Checkpoint, FormatError, Tensor
from .stored import READABLE, Stored, open_weights

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_TOKENIZER = "tokenizer.ggml."
_MAX_DIMS = 4
_STRING_LIMIT = 1 << 20  # bytes of a string that is kept; chat templates are the longest
_DECODED = 1 << 22  # numbers decoded at a time

_TOP = {"token_embd": "wte", "position_embd": "wpe", "output_norm": "ln_f", "output": "lm_head"}
_BLOCK = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}


class _Info(NamedTuple):
    """A tensor as the header describes it."""

    kind: int  # number of a ggml type
    shape: tuple[int, ...]  # slowest first, as NumPy has it
    offset: int  # from the beginning of the data


def open_gguf(path: Path) -> Checkpoint:
    """The GPT-2 in a GGUF file; the activation is GELU's tanh form, as llama.cpp's.

    Raises FormatError if the file is broken, of another architecture, or if the `gguf` package is not installed.
    """
    with open_weights(path) as (file, size):
        header = _Header(path, file, size)
        metadata, infos = header.read()
        data_start = header.data_start(metadata)
    architecture = metadata.get("general.architecture")
    if architecture != "gpt2":
        raise FormatError(f"{path}: architecture {architecture!r:.40}; nbgpt runs GPT-2 only (architecture 'gpt2')")
    tensors = _tensors(path, infos, data_start, size)
    config = _config(path, metadata, tensors)
    others = [name for name in infos if _canonical(name) is None]
    return names.assemble(config, tensors, [path], path, tied=None, others=others, tokenizer_files={"gguf": path})


def read_tokenizer_metadata(path: Path) -> dict[str, Any]:
    """What a GGUF file says about its vocabulary: the values under `tokenizer.ggml.`, arrays included."""
    with open_weights(path) as (file, size):
        metadata, _ = _Header(path, file, size, keeps_arrays=True).read()
    return {name.removeprefix(_TOKENIZER): value for name, value in metadata.items() if name.startswith(_TOKENIZER)}


class _Header:
    """The header of a file, read in order; a length is checked against the file's before anything is allocated."""

    def __init__(self, path: Path, file: BinaryIO, size: int, keeps_arrays: bool = False) -> None:
        """keeps_arrays: of the vocabulary, which a model may have a hundred thousand strings of."""
        self.path, self.file, self.left = path, file, size
        self.keeps_arrays = keeps_arrays

    def read(self) -> tuple[dict[str, Any], dict[str, _Info]]:
        """Metadata, with None for arrays, and tensors under the file's names."""
        magic, version = self.take(4), self.number("<I")
        if magic != b"GGUF" or version not in (2, 3):
            raise FormatError(f"{self.path}: begins with {magic!r}, version {version}; expected GGUF in version 2 or 3")
        n_tensors, n_metadata = self.number("<Q"), self.number("<Q")
        metadata: dict[str, Any] = {}
        for _ in range(n_metadata):
            name = self.string()
            kept = self.keeps_arrays and name.startswith(_TOKENIZER)
            self.add(metadata, name, partial(self.value, kept))
        infos: dict[str, _Info] = {}
        for _ in range(n_tensors):
            self.add(infos, self.string(), self.info)
        return metadata, infos

    def data_start(self, metadata: dict[str, Any]) -> int:
        """The byte after the header at which the tensors' offsets begin."""
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise FormatError(f"{self.path}: general.alignment is {alignment!r:.40}; it must be a power of two")
        return -(-self.file.tell() // alignment) * alignment

    def add(self, found: dict[str, Any], name: str, read: Callable[[], Any]) -> None:
        if name in found:
            raise FormatError(f"{self.path}: {name:.80} is there twice")
        found[name] = read()

    def info(self) -> _Info:
        n_dims = self.number("<I")
        if n_dims > _MAX_DIMS:
            raise FormatError(f"{self.path}: a tensor of {n_dims} dimensions; GGUF allows {_MAX_DIMS}")
        dims = [self.number("<Q") for _ in range(n_dims)]
        return _Info(shape=tuple(reversed(dims)), kind=self.number("<I"), offset=self.number("<Q"))

    def value(self, keeps_array: bool) -> Any:
        kind = self.number("<I")
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise FormatError(f"{self.path}: metadata of the unknown type {kind}")
        item, n = self.number("<I"), self.number("<Q")
        if item not in _SCALARS and item != _STRING:
            raise FormatError(f"{self.path}: an array of type {item} in the metadata")
        if keeps_array:
            return self.array(item, n)
        if item in _SCALARS:
            self.skip(n * struct.calcsize(_SCALARS[item]))
        else:
            for _ in range(n):
                self.skip(self.number("<Q"))
        return None

    def array(self, item: int, n: int) -> list[Any]:
        if item == _STRING:
            return [self.string() for _ in range(n)]
        return [
            value for (value,) in struct.iter_unpack(_SCALARS[item], self.take(n * struct.calcsize(_SCALARS[item])))
        ]

    def string(self) -> str:
        n = self.number("<Q")
        if n > _STRING_LIMIT:
            raise FormatError(f"{self.path}: a string of {n} bytes in the header; is the file broken?")
        return self.take(n).decode("utf-8", "replace")

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def take(self, n: int) -> bytes:
        self._spend(n)
        return self.file.read(n)

    def skip(self, n: int) -> None:
        self._spend(n)
        self.file.seek(n, 1)

    def _spend(self, n: int) -> None:
        if n > self.left:
            raise FormatError(f"{self.path}: ends within its header; is it cut short? fetch it again")
        self.left -= n


def _config(path: Path, metadata: dict[str, Any], tensors: dict[str, Tensor]) -> GPT2Config:
    def number(key: str) -> Any:
        if f"gpt2.{key}" not in metadata:
            raise FormatError(f"{path}: gpt2.{key} is missing in the metadata; convert the model to GGUF again")
        return metadata[f"gpt2.{key}"]

    wte = tensors.get("wte.weight")
    if wte is None or not wte.shape:
        raise FormatError(f"{path}: token_embd.weight is missing")
    try:
        return GPT2Config(
            n_layer=number("block_count"),
            n_head=number("attention.head_count"),
            n_embd=number("embedding_length"),
            n_ctx=number("context_length"),
            n_vocab=wte.shape[0],
            n_inner=number("feed_forward_length"),
            # stored in 32 bits: the shortest decimal that gives the same ones is what the model was trained with
            layer_norm_epsilon=float(str(np.float32(number("attention.layer_norm_epsilon")))),
        )
    except FormatError:
        raise
    except (TypeError, ValueError) as error:
        raise FormatError(f"{path}: {error}") from None


def _tensors(path: Path, infos: dict[str, _Info], data_start: int, size: int) -> dict[str, Tensor]:
    """The tensors under their canonical names and in their canonical layout; unknown ones are left out."""
    tensors: dict[str, Tensor] = {}
    end = 0
    for name, info in sorted(infos.items(), key=lambda item: item[1].offset):
        decoder = _Decoder.of(path, name, info.kind)
        n_bytes = decoder.n_bytes(info.shape)
        if info.offset < end or data_start + info.offset + n_bytes > size:
            raise FormatError(
                f"{path}: {name:.80} takes the bytes {info.offset} to {info.offset + n_bytes} of "
                f"{max(size - data_start, 0)}, of which {end} are taken; is the file cut short? fetch it again"
            )
        end = info.offset + n_bytes
        known = _canonical(name)
        if known is None:
            if name.startswith("blk."):
                raise FormatError(f"{path}: {name:.80} is no part of a GPT-2; nbgpt would compute something else")
            continue
        tensor = Tensor(info.shape, decoder.reader(info.shape, data_start + info.offset))
        tensors[known] = tensor.transposed() if names.is_conv1d(known) and len(info.shape) == 2 else tensor
    return tensors


def _canonical(name: str) -> str | None:
    """blk.3.ffn_up.weight -> h.3.mlp.c_fc.weight; None for a tensor that no GPT-2 has."""
    stem, _, kind = name.rpartition(".")
    block = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    if kind not in ("weight", "bias"):
        return None
    if block and block[2] in _BLOCK:
        return f"h.{block[1]}.{_BLOCK[block[2]]}.{kind}"
    return f"{_TOP[stem]}.{kind}" if stem in _TOP else None


@dataclass(frozen=True)
class _Decoder:
    """How the numbers of one tensor are stored: a ggml type, in blocks along the fastest dimension."""

    path: Path
    name: str
    type: Any  # gguf.GGMLQuantizationType
    block: int  # numbers
    block_bytes: int

    @classmethod
    def of(cls, path: Path, name: str, kind: int) -> _Decoder:
        try:
            import gguf
        except ImportError:
            raise FormatError(f'{path}: to read GGUF files, run: pip install "nbgpt[gguf]"') from None
        try:
            ggml_type = gguf.GGMLQuantizationType(kind)
        except ValueError:
            raise FormatError(
                f"{path}: {name:.80} is of the unknown ggml type {kind}; update the gguf package"
            ) from None
        return cls(path, name, ggml_type, *gguf.GGML_QUANT_SIZES[ggml_type])

    def n_bytes(self, shape: tuple[int, ...]) -> int:
        if shape and shape[-1] % self.block:
            raise FormatError(f"{self.path}: {self.name:.80} has rows of {shape[-1]}, no multiple of {self.block}")
        return prod(shape) // self.block * self.block_bytes

    def reader(self, shape: tuple[int, ...], start: int) -> Callable[[], np.ndarray]:
        """What reads the tensor. Raises FormatError if the `gguf` package cannot decode its type."""
        if self.type.name in READABLE:
            return Stored(self.path, self.name, self.type.name, shape, start).read
        import gguf

        try:
            gguf.dequantize(np.zeros((1, self.block_bytes), np.uint8), self.type)
        except (NotImplementedError, ValueError) as error:
            raise FormatError(f"{self.path}: {self.name:.80} is {self.type.name}: {error}") from None
        return partial(self.decode, shape, start)

    def decode(self, shape: tuple[int, ...], start: int) -> np.ndarray:
        """Float32 [shape]."""
        import gguf

        values = np.empty(prod(shape), np.float32)
        step = max(_DECODED // self.block, 1) * self.block
        with named(self.path), self.path.open("rb") as file:
            file.seek(start)
            for first in range(0, values.size, step):
                part = values[first : first + step]
                stored = file.read(self.n_bytes(part.shape))
                if len(stored) != self.n_bytes(part.shape):
                    raise FormatError(
                        f"{self.path}: {self.name:.80} ends early; the file was cut short after it was opened"
                    )
                with np.errstate(all="ignore"):  # a scale may be anything; the conversion looks for NaN
                    part[:] = gguf.dequantize(
                        np.frombuffer(stored, np.uint8).reshape(-1, self.block_bytes), self.type
                    ).reshape(-1)
        return values.reshape(shape)
