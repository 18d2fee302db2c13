"""Tensors stored as plain numbers: their offsets are checked first, and they are read on demand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..paths import named
from .base import FormatError, Tensor

READABLE = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}  # the dtypes that weights may have, as they lie
_BLOCK = 1 << 18  # numbers converted at a time, so that only the result is ever whole in memory


@dataclass(frozen=True)
class Stored:
    """Numbers at a place of a file that its reader has checked against the file's length."""

    path: Path
    name: str  # the file's own name of the tensor, for messages
    dtype: str  # as safetensors spells it: F32, BF16, U8, ...
    shape: tuple[int, ...]
    start: int  # byte of the file where the first number lies
    strides: tuple[int, ...] | None = None  # in numbers, none of them negative; None: in C order without gaps

    def tensor(self) -> Tensor:
        """The same as a tensor of weights. Raises FormatError if these are no floating-point numbers."""
        if self.dtype not in READABLE:
            raise FormatError(f"{self.path}: {self.name} is {self.dtype}; weights must be one of {', '.join(READABLE)}")
        return Tensor(self.shape, self.read, (self.path, self.dtype, self.start, self.strides))

    def read(self) -> np.ndarray:
        """Float16 as it is, anything else as float32 [shape], in C order. Raises FormatError if the file ends early."""
        if self.strides is None:
            return self._read_span(prod(self.shape)).reshape(self.shape)
        if not all(self.shape):
            return np.empty(self.shape, np.float32)
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        span = self._read_span(last + 1)
        strides = [stride * span.itemsize for stride in self.strides]
        return np.ascontiguousarray(np.lib.stride_tricks.as_strided(span, self.shape, strides, writeable=False))

    def _read_span(self, n: int) -> np.ndarray:
        """The n numbers that follow one another from `start` on."""
        values = np.empty(n, np.float16 if self.dtype == "F16" else np.float32)
        with named(self.path), self.path.open("rb") as file:
            file.seek(self.start)
            if self.dtype in ("F32", "F16"):
                self._fill(values, file)
                return values
            for first in range(0, n, _BLOCK):
                part = values[first : first + _BLOCK]
                stored = np.empty(len(part), READABLE[self.dtype])
                self._fill(stored, file)
                if self.dtype == "BF16":  # the upper half of a float32
                    part.view(np.uint32)[:] = stored
                    part.view(np.uint32)[:] <<= 16
                else:
                    with np.errstate(over="ignore"):
                        part[:] = stored
        return values

    def _fill(self, values: np.ndarray, file: BinaryIO) -> None:
        found = file.readinto(values.view(np.uint8))  # type: ignore[attr-defined]
        if found != values.nbytes:
            raise FormatError(f"{self.path}: {self.name} ends early; the file was cut short after it was opened")


@contextmanager
def open_weights(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """An open weight file and its size in bytes. Raises FormatError if it is the pointer that Git LFS leaves."""
    with named(path), path.open("rb") as file:
        if file.read(24) == b"version https://git-lfs.":
            raise FormatError(f"{path} is a Git LFS pointer, not the weights: run `git lfs pull` in its folder")
        size = file.seek(0, 2)
        file.seek(0)
        yield file, size
