"""A checkpoint in somebody else's format -> one native file, a tensor at a time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from . import quantize
from .config import GPT2Config
from .formats import Checkpoint, FormatError
from .layout import HEAD_DTYPE, LANES, PANELS, padded
from .tokenizer import Tokenizer
from .weights import DTYPES, LAYOUT, matrices, native_shapes

_SIZES = {"F32": 4, "F16": 2, "U8": 1}
_CHUNK = 1 << 21  # weights that are converted at a time: 8 MiB of float32
_NORM_BEFORE = {"attn.c_attn.weight": "ln_1", "mlp.c_fc.weight": "ln_2"}

Progress = Callable[[int], object]
"""Called with the number of bytes that were written since the last call."""
Inputs = Callable[[int, str], np.ndarray]
"""(layer, matrix) -> second moments of the matrix's inputs, float32 [n_in, n_in]: what calibration knows."""


def convert(
    checkpoint: Checkpoint,
    dtype: str,
    output: Path,
    *,
    name: str = "",
    bos: bool = False,
    inputs: Inputs | None = None,
    progress: Progress = lambda n_bytes: None,
) -> None:
    """Write a native file of the given dtype; under a temporary name first, so that it is whole or not there.

    bos: whether texts start with <|endoftext|>. inputs: quantize with error feedback from these (see calibrate.py).
    Raises ValueError for an unknown dtype, FormatError for weights that are not finite or do not fit the dtype, OSError.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; choose one of {', '.join(DTYPES)}")
    writer = _Writer(checkpoint, dtype, inputs, progress)
    metadata = {
        "format": "nbgpt",
        "layout": LAYOUT,
        "name": name,
        "config": json.dumps(checkpoint.config.to_dict()),
        "dtype": dtype,
        "bos": json.dumps(bos),
        "calibrated": json.dumps(inputs is not None),
        "source": ", ".join(path.name for path in checkpoint.files),
        "source_sha256": _digest(checkpoint.files),
    }
    vocabulary = _own_vocabulary(checkpoint)
    output.parent.mkdir(parents=True, exist_ok=True)
    with _whole_or_nothing(output) as file:
        file.write(_header(native_shapes(checkpoint.config, dtype), metadata, len(vocabulary)))
        writer.write(file)
        file.write(vocabulary)


def n_bytes(config: GPT2Config, dtype: str) -> int:
    """Size of the tensors of a native file, for progress bars."""
    return sum(int(np.prod(shape)) * _SIZES[kind] for kind, shape in native_shapes(config, dtype).values())


@contextlib.contextmanager
def _whole_or_nothing(output: Path) -> Iterator[BinaryIO]:
    handle, partial = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(partial).chmod(0o666 & ~umask)  # mkstemp makes files for one's own eyes
        Path(partial).replace(output)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _own_vocabulary(checkpoint: Checkpoint) -> bytes:
    """The vocabulary of a model that has another than GPT-2's; else nothing."""
    vocab, merges = (checkpoint.tokenizer_files.get(kind) for kind in ("vocab", "merges"))
    if vocab is None or merges is None:
        return b""
    own = Tokenizer.from_files(vocab, merges)
    return b"" if own == Tokenizer.shipped() else own.to_bytes()


def _header(shapes: dict[str, tuple[str, tuple[int, ...]]], metadata: dict[str, str], n_vocabulary: int) -> bytes:
    """The head of a safetensors file; spaces make it end at a multiple of 64, so that every tensor begins at one."""
    header: dict[str, object] = {"__metadata__": metadata}
    start = 0
    for name, (kind, shape) in shapes.items():
        stop = start + int(np.prod(shape)) * _SIZES[kind]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, stop]}
        start = stop
    if n_vocabulary:
        header["tokenizer"] = {"dtype": "U8", "shape": [n_vocabulary], "data_offsets": [start, start + n_vocabulary]}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    return len(text).to_bytes(8, "little") + text


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
        scales = {norm: self._equalizer(prefix, name, norm) for name, norm in _NORM_BEFORE.items()}
        for norm, scale in scales.items():
            for part in (".weight", ".bias"):
                self._emit(quantize.pad_vector(self._read(prefix + norm + part) * scale))
        for name in matrices(self.config):
            w = self._read(prefix + name).T  # [n_out, n_in]
            norm = _NORM_BEFORE.get(name)
            self._matrix(prefix + name, w, self.dtype, None if norm is None else scales[norm], (layer, name))
            self._vector(prefix + name.replace(".weight", ".bias"))

    def _equalizer(self, prefix: str, name: str, norm: str) -> np.ndarray:
        """What to multiply the LayerNorm before a matrix by, float32 [n_embd]; the matrix is divided by it."""
        if self.dtype in ("float32", "float16"):
            return np.ones(self.config.n_embd, np.float32)
        gain, bias = self._read(prefix + norm + ".weight"), self._read(prefix + norm + ".bias")
        return quantize.equalize(gain, bias, self._read(prefix + name).T)

    def _matrix(
        self,
        name: str,
        w: np.ndarray,
        dtype: str,
        scale: np.ndarray | None = None,
        place: tuple[int, str] | None = None,
    ) -> None:
        """Write w [n_out, n_in] in panels: values chunk by chunk, then the scales and offsets of all of them."""
        moments = self.inputs(*place) if self.inputs is not None and place is not None else None
        rest: list[tuple[np.ndarray, ...]] = []
        step = max(1, _CHUNK // (w.shape[1] * LANES * PANELS)) * LANES * PANELS
        for start in range(0, w.shape[0], step):
            rows = np.ascontiguousarray(w[start : start + step], np.float32)
            self._check(name, rows)
            if scale is not None:
                rows /= scale
            values, *parts = quantize.encode(rows, dtype, moments, scale)
            self._emit(values)
            rest.append(tuple(parts))
        for part in zip(*rest, strict=True):
            self._emit(np.concatenate(part))

    def _vector(self, name: str) -> None:
        self._emit(quantize.pad_vector(self._read(name)))

    def _rows(self, name: str, multiple: int) -> None:
        rows = self._read(name)
        out = np.zeros((rows.shape[0], padded(rows.shape[1], multiple)), np.float32)
        out[:, : rows.shape[1]] = rows
        self._emit(out)

    def _read(self, name: str) -> np.ndarray:
        values = self.tensors[name].read()
        if values.ndim == 1 or name in ("wpe.weight", "score.weight"):
            values = values.astype(np.float32)
            self._check(name, values)
        return values

    def _check(self, name: str, values: np.ndarray) -> None:
        if not np.isfinite(values).all():
            bad = values[~np.isfinite(values)][0]
            raise FormatError(f"{name} holds {bad}: these weights are broken, fetch them again")

    def _emit(self, array: np.ndarray) -> None:
        data = np.ascontiguousarray(array)
        self.file.write(data.data)
        self.progress(data.nbytes)
