"""Converts a checkpoint of any format to one native file, a tensor at a time."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ..abi.layout import FLOATS, HEAD_DTYPE, LANES, PANELS, padded
from ..config import GPT2Config
from ..formats import Checkpoint, FormatError, NoVocabularyError, Vocabulary, read_vocabulary
from ..formats.safetensors import create
from ..paths import named
from ..tokenizer import ByteBPE
from ..weights import DTYPES, ITEM_BYTES, LAYOUT, native_shapes, packing, quantize

VERSION = 2
"""Of what `convert` writes: raise it when a checkpoint becomes another file than before, so that kept ones go."""
_CHUNK = 1 << 21  # weights that are converted at a time: 8 MiB of float32
_READER = {"ln_1": "attn.c_attn.weight", "ln_2": "mlp.c_fc.weight"}
"""The matrix that reads what a LayerNorm makes."""

Progress = Callable[[int], object]
"""Called with the number of bytes that were written since the last call."""
Inputs = Callable[[int, str], np.ndarray]
"""(layer, matrix) -> second moments of the matrix's inputs, float32 [n_in, n_in]; asked for layer after layer."""


def convert(
    checkpoint: Checkpoint,
    dtype: str,
    output: Path,
    *,
    name: str = "",
    bos: bool | None = None,
    vocabulary: Vocabulary | None = None,
    inputs: Inputs | None = None,
    progress: Progress = lambda n_bytes: None,
) -> None:
    """Write a native file of the given dtype; under a temporary name first, so that it is whole or not there.

    bos: whether texts start with the token that begins texts; None: as the vocabulary says. vocabulary: None: that of
    the checkpoint; a file of a checkpoint without any has ids but no texts. inputs: quantize with error feedback from
    these (see weights/gptq.py). What the checkpoint notes goes to standard error and into the file.
    Raises FormatError for weights that are not finite or do not fit the dtype and for a broken vocabulary, ImportError
    as `read_vocabulary`, ValueError for an unknown dtype and for an output that is one of the inputs or no ordinary
    file, OSError.
    """
    _check(checkpoint, dtype, output)
    writer = _Writer(checkpoint, dtype, inputs, progress)
    if vocabulary is None:
        with suppress(NoVocabularyError):
            vocabulary = read_vocabulary(checkpoint)
    if bos is None:
        bos = vocabulary is not None and vocabulary.adds_bos
    metadata = {
        "format": "nbgpt",
        "layout": LAYOUT,
        "name": name,
        "dtype": dtype,
        "bos": json.dumps(bos),
        "calibrated": json.dumps(inputs is not None),
        **_source_metadata(checkpoint),
        **(_text_metadata(vocabulary) if vocabulary else {}),
    }
    for note in checkpoint.notes:
        print(f"nbgpt: {note}", file=sys.stderr)
    tokens = _own_tokens(vocabulary)
    shapes = native_shapes(checkpoint.config, dtype)
    if tokens:
        shapes["tokenizer"] = ("U8", (len(tokens),))
    output.parent.mkdir(parents=True, exist_ok=True)
    with create(output, shapes, metadata) as file:
        writer.write(file)
        file.write(tokens)


def _check(checkpoint: Checkpoint, dtype: str, output: Path) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; choose one of {', '.join(DTYPES)}")
    if output.exists() and not output.is_file():  # a device would be replaced by a file of its name
        raise ValueError(f"{output} is no ordinary file: choose another name for the result")
    if output.exists() and any(output.samefile(source) for source in checkpoint.files):
        raise ValueError(f"{output} is what is to be converted: choose another file for the result")


def _source_metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """Metadata about the checkpoint: its name, its files and their checksum."""
    return {
        "config": json.dumps(checkpoint.config.to_dict()),
        "source": ", ".join(path.name for path in checkpoint.files),
        "source_sha256": _digest(checkpoint.files),
        **({"labels": json.dumps(checkpoint.labels)} if checkpoint.labels else {}),
        **({"notes": "; ".join(checkpoint.notes)} if checkpoint.notes else {}),
    }


def n_bytes(config: GPT2Config, dtype: str) -> int:
    """Size of the tensors of a native file, for progress bars."""
    return sum(prod(shape) * ITEM_BYTES[kind] for kind, shape in native_shapes(config, dtype).values())


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with named(path), path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _text_metadata(vocabulary: Vocabulary) -> dict[str, str]:
    """Where the vocabulary comes from, what begins and ends texts, and what the model's makers sample with."""
    tokenizer = vocabulary.tokenizer
    first = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    return {
        "vocabulary": vocabulary.origin,
        "bos_id": json.dumps(tokenizer.bos_id),
        "eos_ids": json.dumps([*first, *sorted(tokenizer.eos_ids - set(first))]),
        "generation": json.dumps(vocabulary.defaults),
    }


def _own_tokens(vocabulary: Vocabulary | None) -> bytes:
    """The vocabulary of a model that has another than GPT-2's; else nothing."""
    if vocabulary is None or vocabulary.tokenizer == ByteBPE.shipped():
        return b""
    return vocabulary.tokenizer.to_bytes()


class _Norm(NamedTuple):
    """A LayerNorm of the checkpoint, and the factor of the file's, which lets the next matrix be quantized better."""

    gain: np.ndarray
    bias: np.ndarray
    scale: np.ndarray

    @property
    def mean_squares(self) -> np.ndarray:
        """Expected mean squares of its output, which weigh the rounding errors of the matrix that reads it."""
        squares: np.ndarray = self.gain**2 + self.bias**2
        return squares


class _Writer:
    """Writes the tensors of a checkpoint in the order of `native_shapes`."""

    def __init__(self, checkpoint: Checkpoint, dtype: str, inputs: Inputs | None, progress: Progress) -> None:
        self.config = checkpoint.config
        self.tensors = checkpoint.tensors
        self.dtype = dtype
        self.inputs = inputs
        self.progress = progress

    def write(self, file: BinaryIO) -> None:
        self.file = file
        head = HEAD_DTYPE[self.dtype]
        self._matrix("wte.weight", self._read("wte.weight"), head)
        self._rows("wpe.weight", LANES)
        for layer in range(self.config.n_layer):
            self._layer(layer)
        self._vector("ln_f.weight")
        self._vector("ln_f.bias")
        if not self.config.tied_embeddings:
            self._matrix("lm_head.weight", self._read("lm_head.weight"), head)
        if self.config.n_labels:
            self._rows("score.weight", LANES)

    def _layer(self, layer: int) -> None:
        prefix = f"h.{layer}."
        norms = {reader: self._norm(prefix, norm, reader) for norm, reader in _READER.items()}
        for norm in norms.values():
            self._emit(packing.pad_vector(norm.gain * norm.scale))
            self._emit(packing.pad_vector(norm.bias * norm.scale))
        for name in self.config.matrices:
            before = norms.get(name)
            moments = self.inputs(layer, name) if self.inputs else before.mean_squares if before else None
            w = self._read(prefix + name).T  # [n_out, n_in]
            self._matrix(prefix + name, w, self.dtype, before.scale if before else None, moments)
            self._vector(prefix + name.replace(".weight", ".bias"))

    def _norm(self, prefix: str, norm: str, reader: str) -> _Norm:
        gain, bias = self._read(f"{prefix}{norm}.weight"), self._read(f"{prefix}{norm}.bias")
        if self.dtype in FLOATS:
            return _Norm(gain, bias, np.ones_like(gain))
        return _Norm(gain, bias, quantize.equalize(gain, bias, self._read(prefix + reader).T))

    def _matrix(
        self,
        name: str,
        w: np.ndarray,
        dtype: str,
        scale: np.ndarray | None = None,
        moments: np.ndarray | None = None,
    ) -> None:
        """Write w [n_out, n_in] in panels: values piece by piece, then the scales and offsets of all of them.

        scale: what the inputs are multiplied by, and w is divided by here. moments: of the inputs, see packing.encode;
        balancing errors takes a matrix whole.
        """
        balanced = moments is not None and moments.ndim == 2
        pairs = w.shape[0] if balanced else max(1, _CHUNK // (w.shape[1] * LANES * PANELS))
        step = pairs * LANES * PANELS
        parts = []
        for start in range(0, w.shape[0], step):
            rows = np.ascontiguousarray(w[start : start + step], np.float32)
            if scale is not None:
                rows = rows / scale
            try:
                values, *rest = packing.encode(rows, dtype, moments, scale)
            except ValueError as error:
                raise FormatError(f"{name}: {error}") from error
            self._emit(values)
            parts.append(rest)
        for part in zip(*parts, strict=True):
            self._emit(np.concatenate(part))

    def _vector(self, name: str) -> None:
        self._emit(packing.pad_vector(self._read(name)))

    def _rows(self, name: str, multiple: int) -> None:
        rows = self._read(name)
        out = np.zeros((rows.shape[0], padded(rows.shape[1], multiple)), np.float32)
        out[:, : rows.shape[1]] = rows
        self._emit(out)

    def _read(self, name: str) -> np.ndarray:
        """A matrix as it is stored, other tensors as float32. Raises FormatError if a weight is not finite."""
        values = self.tensors[name].read()
        for bound in (values.min(), values.max()):  # nan if any weight is
            if not np.isfinite(bound):
                raise FormatError(f"{name}: weights hold {bound}: they are broken, fetch them again")
        is_matrix = values.ndim == 2 and name not in ("wpe.weight", "score.weight")
        return values if is_matrix else values.astype(np.float32, copy=False)

    def _emit(self, array: np.ndarray) -> None:
        data = np.ascontiguousarray(array)
        self.file.write(data.data)
        self.progress(data.nbytes)
