"""A classifier's head in a file of its own: it names the base model whose hidden states it reads.

A safetensors file with four tensors of float64, and in its metadata what they read, the labels, and which base model
the head was trained on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ..formats import FormatError
from ..formats.safetensors import Entry, create, read_header
from ..paths import named
from ..strict_json import parse
from .metadata import DTYPES

Pooling = Literal["last", "mean", "both"]
"""One vector of a text's hidden states: the last token's, the mean of all, or the first of these and then the other."""
_FORMAT = "nbgpt classifier"
_AGAIN = "train it again"


@dataclass(frozen=True)
class ClassifierHead:
    """A linear classifier: logits = coefficients @ ((features - mean) / scale) + intercept.

    The features are pooled hidden states. Arrays are float64.
    """

    labels: tuple[str, ...]
    multi_label: bool  # labels are independent of each other
    layer: int  # the hidden states' layer: 0 is the embedding, n_layer the last block followed by ln_f
    pooling: Pooling
    mean: np.ndarray  # [n_features]
    scale: np.ndarray  # [n_features]
    coefficients: np.ndarray  # [n_labels, n_features]
    intercept: np.ndarray  # [n_labels]

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Features float32 [n, n_features] -> float64 [n, n_labels].

        The sums are NumPy's own, of one text at a time: the bits of BLAS would depend on the other texts, and on where
        the arrays lie in memory.
        """
        rows = [(self.coefficients * row).sum(axis=1) for row in (features - self.mean) / self.scale]
        logits: np.ndarray = np.array(rows).reshape(-1, len(self.labels)) + self.intercept
        return logits


@dataclass(frozen=True)
class BaseReference:
    """The base model of a classifier, as the classifier's file names it."""

    name: str
    dtype: str
    path: str  # of its native file, relative to the folder of the classifier
    fingerprint: str
    bos: bool  # whether texts begin with <|endoftext|>, as they did in training
    about: str  # what the classifier was trained on, a sentence
    source: str = ""  # the folder or file that it was converted from, relative to the same folder; "": no such one


def save_head(path: Path, head: ClassifierHead, base: BaseReference, name: str) -> None:
    """Write the file of a classifier; whole or not there. Raises OSError."""
    arrays = _arrays(head)
    metadata = {
        "format": _FORMAT,
        "version": "1",
        "name": name,
        "labels": json.dumps(head.labels),
        "head": json.dumps({"multi_label": head.multi_label, "layer": head.layer, "pooling": head.pooling}),
        "base": json.dumps(vars(base)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with create(path, {tensor: ("F64", array.shape) for tensor, array in arrays.items()}, metadata) as file:
        for array in arrays.values():
            file.write(np.ascontiguousarray(array, "<f8").data)


def _arrays(head: ClassifierHead) -> dict[str, np.ndarray]:
    return {name: getattr(head, name) for name in ("mean", "scale", "coefficients", "intercept")}


def is_head(path: Path) -> bool:
    """True if this is the file of a classifier's head. Raises FormatError for a damaged safetensors file."""
    return path.suffix == ".safetensors" and path.is_file() and read_header(path)[1].get("format") == _FORMAT


def read_head(path: Path) -> tuple[str, ClassifierHead, BaseReference]:
    """The classifier's name, its head, and its base model. Raises FormatError for a damaged file."""
    entries, metadata = read_header(path)
    if metadata.get("format") != _FORMAT or metadata.get("version") != "1":
        raise FormatError(f"{path}: no classifier of this version of nbgpt: {_AGAIN}")
    labels, about, base = (_parsed(path, metadata, part) for part in ("labels", "head", "base"))
    is_named = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    if not is_named or len(labels) < 2 or len(set(labels)) != len(labels):
        raise FormatError(f"{path}: labels {labels!r:.80} are not two names or more: {_AGAIN}")
    try:
        reference = BaseReference(**base)
        head = ClassifierHead(labels=tuple(labels), **about, **_read(path, entries, len(labels)))
        _check(head, reference)
    except (TypeError, ValueError) as error:
        raise FormatError(f"{path}: {error}: {_AGAIN}") from None
    return metadata.get("name") or path.stem, head, reference


def _parsed(path: Path, metadata: dict[str, str], part: str) -> Any:
    try:
        return parse(metadata[part], part)
    except (KeyError, ValueError):
        raise FormatError(f"{path}: {part} is missing or no JSON: {_AGAIN}") from None


def _read(path: Path, entries: dict[str, Entry], n_labels: int) -> dict[str, Any]:
    """The four arrays; their shapes are checked before anything is allocated."""
    n_features = prod(entries["mean"].shape) if "mean" in entries else 0
    shapes: dict[str, tuple[int, ...]] = {"mean": (n_features,), "scale": (n_features,)}
    shapes |= {"coefficients": (n_labels, n_features), "intercept": (n_labels,)}
    found = {name: (entry.dtype, entry.shape) for name, entry in entries.items()}
    if not n_features or found != {name: ("F64", shape) for name, shape in shapes.items()}:
        raise FormatError(
            f"{path}: tensors {found!r:.120} are not those of a classifier of {n_labels} labels: {_AGAIN}"
        )
    with named(path):
        data = path.read_bytes()
    return {
        name: np.frombuffer(data, "<f8", prod(shape), entries[name].start).reshape(shape)
        for name, shape in shapes.items()
    }


def _check(head: ClassifierHead, base: BaseReference) -> None:
    """Raise ValueError for values that no training writes."""
    if head.pooling not in get_args(Pooling) or type(head.layer) is not int or type(head.multi_label) is not bool:
        raise ValueError(f"pooling {head.pooling!r:.20}, layer {head.layer!r:.20} cannot be")
    texts = ("name", "dtype", "path", "fingerprint", "about", "source")
    if not all(isinstance(getattr(base, name), str) for name in texts):
        raise ValueError("the name of its base model is no text")
    if type(base.bos) is not bool or base.dtype not in DTYPES or "\0" in base.name + base.path + base.source:
        raise ValueError("what it says of its base model cannot be")
    if not all(np.isfinite(array).all() for array in _arrays(head).values()) or not (head.scale > 0).all():
        raise ValueError("its numbers are not finite, or a scale is not above 0")
