"""The native file: a safetensors file with tensors in the layout that kernels read, mapped into memory.

Its metadata carry the config, the type of the weights, the version of the layout, whether a text starts with
<|endoftext|>, and the name and checksum of what it was made from.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..abi.job import LAYER_TENSORS, MODEL_TENSORS
from ..abi.layout import FLOATS, GROUP, HEAD_DTYPE, LANES, PANELS, padded
from ..backend.buffers import aligned_zeros
from ..config import GPT2Config
from ..formats import FormatError
from ..formats.safetensors import Entry, read_header
from .classifier_head import ClassifierHead
from .metadata import generation, labels, read_config

LAYOUT = "1"
"""Version of the layout, in the metadata of every native file."""
CLOSED = "this model is closed: load it again"
NUMPY = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "U8": np.uint8}
"""Type in NumPy, by safetensors dtype, for those that a native file uses; of bfloat16 NumPy has the bits."""
ITEM_BYTES = {kind: np.dtype(numpy).itemsize for kind, numpy in NUMPY.items()}
"""Bytes of a number, by safetensors dtype."""


def matrix_shapes(name: str, dtype: str, n_in: int, n_out: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> (safetensors dtype, shape) of the tensors that hold a matrix [n_out, n_in]."""
    panels = padded(n_out, LANES * PANELS) // LANES
    inputs = padded(n_in, GROUP[dtype])
    if dtype == "bfloat16":
        return {name: ("BF16", (panels, inputs // 2, LANES, 2))}
    if dtype in FLOATS:
        return {name: ("F32" if dtype == "float32" else "F16", (panels, inputs, LANES))}
    groups = ("F16", (panels, inputs // GROUP[dtype], LANES))
    if dtype == "int8":
        return {name: ("U8", (panels, inputs // 4, LANES, 4)), name + ".scale": groups}
    values = ("U8", (panels, inputs // 8, LANES, 4))
    return {name: values, name + ".scale": groups, name + ".offset": groups}


def native_shapes(config: GPT2Config, dtype: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Every tensor of a native file in its order: name -> (safetensors dtype, shape)."""

    def vector(name: str, n: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {name: ("F32", (padded(n, LANES * PANELS),))}

    def norm(name: str) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {**vector(name + ".weight", config.n_embd), **vector(name + ".bias", config.n_embd)}

    head = HEAD_DTYPE[dtype]
    shapes = matrix_shapes("wte.weight", head, config.n_embd, config.n_vocab)
    shapes["wpe.weight"] = ("F32", (config.n_ctx, padded(config.n_embd, LANES)))
    for layer in range(config.n_layer):
        prefix = f"h.{layer}."
        shapes |= norm(prefix + "ln_1") | norm(prefix + "ln_2")
        for name, (n_in, n_out) in config.matrices.items():
            shapes |= matrix_shapes(prefix + name, dtype, n_in, n_out)
            shapes |= vector(prefix + name.replace(".weight", ".bias"), n_out)
    shapes |= norm("ln_f")
    if not config.tied_embeddings:
        shapes |= matrix_shapes("lm_head.weight", head, config.n_embd, config.n_vocab)
    if config.n_labels:
        shapes["score.weight"] = ("F32", (config.n_labels, padded(config.n_embd, LANES)))
    return shapes


@dataclass(frozen=True)
class Weights:
    """A native file mapped into memory: one block and tables of where each tensor begins."""

    path: Path
    config: GPT2Config
    dtype: str
    bos: bool  # texts start with <|endoftext|>
    metadata: dict[str, str]
    block: np.ndarray  # uint8 [bytes of the file], read-only
    entries: dict[str, Entry]
    layer_offsets: np.ndarray  # int64 [n_layer, len(LAYER_TENSORS)]
    model_offsets: np.ndarray  # int64 [len(MODEL_TENSORS)]
    is_mapped: bool = False  # the block is the file itself
    head: ClassifierHead | None = None  # of a classifier that was trained on this model's hidden states
    source: Path | None = None  # the folder or file of official weights that was asked for, and converted

    @property
    def name(self) -> str:
        """The model's name in its file; without one, the file's name."""
        return self.metadata.get("name") or self.path.stem

    @property
    def labels(self) -> list[str]:
        """Names of a classifier's labels in the order of its logits; empty for other models."""
        return labels(self.metadata) or [f"LABEL_{number}" for number in range(self.config.n_labels)]

    @property
    def generation(self) -> dict[str, Any]:
        """What the model's makers sample with, which is not applied."""
        return generation(self.metadata)

    @property
    def tokenizer(self) -> bytes | None:
        """The vocabulary that the file stores; None if it is GPT-2's own."""
        return self.bytes_of("tokenizer").tobytes() if "tokenizer" in self.entries else None

    def bytes_of(self, name: str) -> np.ndarray:
        """A tensor as it is stored, uint8 [bytes]. Raises RuntimeError if the model has been closed."""
        if not self.block.size:
            raise RuntimeError(CLOSED)
        entry = self.entries[name]
        return self.block[entry.start : entry.stop]

    def unmapped(self) -> Weights:
        """The same with a copy of the numbers, which the file has no part in any more."""
        block = aligned_zeros(self.block.shape, "uint8")
        block[:] = self.block
        return replace(self, block=block, is_mapped=False)

    def closed(self) -> Weights:
        """The same without the numbers, for a model that has been closed."""
        return replace(self, block=np.zeros(0, np.uint8))

    def floats(self, name: str) -> np.ndarray:
        """A tensor that is stored as float32, with its padding: LayerNorms, biases, wpe.weight, score.weight."""
        return self.bytes_of(name).view(np.float32).reshape(self.entries[name].shape)


def is_native(path: Path) -> bool:
    """True if this is a native file. Raises FormatError for a damaged safetensors file of any kind."""
    try:
        return path.is_file() and read_header(path)[1].get("format") == "nbgpt"
    except FormatError:
        if path.suffix == ".safetensors":
            raise
        return False


def load(path: Path) -> Weights:
    """Map a native file. Raises FormatError unless it holds all tensors of its config, OSError if it is not there."""
    entries, metadata = read_header(path)
    if metadata.get("format") != "nbgpt":
        raise FormatError(f"{path} is not a native file: run `python -m nbgpt convert {path.parent}` on its folder")
    if metadata.get("layout") != LAYOUT:
        raise FormatError(f"{path}: layout {metadata.get('layout')}, this nbgpt reads {LAYOUT}: convert it again")
    config, dtype = read_config(path, metadata)
    if config.n_layer > len(entries):  # or its list of tensors would be endless
        raise FormatError(f"{path}: {len(entries)} tensors cannot be {config.n_layer} layers: convert it again")
    for name, (kind, shape) in native_shapes(config, dtype).items():
        entry = entries.get(name)
        if entry is None or (entry.dtype, entry.shape) != (kind, shape):
            found = "is missing" if entry is None else f"is {entry.dtype} {list(entry.shape)}"
            raise FormatError(f"{path}: {name} {found}; expected {kind} {list(shape)}: convert it again")
        if entry.start % 64:
            raise FormatError(f"{path}: {name} begins at byte {entry.start}, no multiple of 64: convert it again")
    return replace(_weights(path, config, dtype, metadata, _mapped(path, entries), entries), is_mapped=True)


def _mapped(path: Path, entries: dict[str, Entry]) -> np.ndarray:
    """The bytes of a file. Raises FormatError if it is not as long any more as when its header was read.

    A file that is cut while it is mapped ends the process, with SIGBUS: files are to be replaced, not written over.
    """
    expected = max(entry.stop for entry in entries.values())
    with path.open("rb") as file:
        if (size := os.fstat(file.fileno()).st_size) != expected:
            raise FormatError(f"{path}: {size} bytes, and a moment ago {expected}: who is writing it?")
        return np.frombuffer(mmap.mmap(file.fileno(), expected, access=mmap.ACCESS_READ), np.uint8)


def in_memory(config: GPT2Config, dtype: str, name: str, fill: Callable[[str, str, int], np.ndarray]) -> Weights:
    """Weights without a file. fill(tensor, safetensors dtype, count) returns the numbers of one tensor."""
    entries, stop = {}, 0
    for tensor, (kind, shape) in native_shapes(config, dtype).items():
        start, stop = stop, stop + prod(shape) * ITEM_BYTES[kind]
        entries[tensor] = Entry(kind, shape, start, stop)
    block = aligned_zeros((stop,), "uint8")
    for tensor, entry in entries.items():
        block[entry.start : entry.stop] = fill(tensor, entry.dtype, prod(entry.shape)).view(np.uint8)
    return _weights(Path(name), config, dtype, {"name": name}, block, entries)


def _weights(
    path: Path, config: GPT2Config, dtype: str, metadata: dict[str, str], block: np.ndarray, entries: dict[str, Entry]
) -> Weights:
    def offset(name: str) -> int:
        return entries[name].start if name in entries else 0

    layers = [[offset(f"h.{layer}.{name}") for name in LAYER_TENSORS] for layer in range(config.n_layer)]
    head = "wte" if config.tied_embeddings else "lm_head"
    model = [offset(name.replace("lm_head", head)) for name in MODEL_TENSORS]
    layer_offsets, model_offsets = np.array(layers, np.int64), np.array(model, np.int64)
    bos = metadata.get("bos") == "true"
    return Weights(path, config, dtype, bos, metadata, block, entries, layer_offsets, model_offsets)
