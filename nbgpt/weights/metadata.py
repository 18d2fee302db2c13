"""What the metadata of a native file say, checked when the file is loaded so that no later call stumbles on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..abi.layout import HEAD_DTYPE
from ..config import GPT2Config
from ..formats import FormatError
from ..strict_json import parse, parse_object

DTYPES = tuple(HEAD_DTYPE)
Metadata = Mapping[str, str]
_AGAIN = "convert it again"
_FLAGS = ("bos", "calibrated")


def read_config(path: Path, metadata: Metadata) -> tuple[GPT2Config, str]:
    """The config and the dtype of the weights, once all that nbgpt reads of the metadata is checked.

    Raises FormatError; the ids of tokens are checked with the vocabulary (`tokenizer_of`).
    """
    try:
        config = GPT2Config(**parse_object(metadata.get("config", ""), "config"))
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise FormatError(f"{path}: its config cannot be read ({reason:.300}): {_AGAIN}") from error
    dtype = metadata.get("dtype", "")
    if dtype not in DTYPES:
        raise FormatError(f"{path}: dtype {dtype!r:.40} is not one of {', '.join(DTYPES)}: {_AGAIN}")
    for flag in _FLAGS:
        if metadata.get(flag, "false") not in ("true", "false"):
            raise FormatError(f"{path}: {flag} is {metadata[flag]!r:.40}; it must be true or false: {_AGAIN}")
    try:
        _check_labels(labels(metadata), config.n_labels)
        generation(metadata)
    except FormatError as error:
        raise FormatError(f"{path}: {error}: {_AGAIN}") from None
    return config, dtype


def labels(metadata: Metadata) -> list[str]:
    """Names of a classifier's labels in the order of its logits; empty if they have none. Raises FormatError."""
    names: Any = parse(metadata.get("labels", "[]"), "labels")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FormatError(f"labels {names!r:.80} are no list of texts")
    return names


def generation(metadata: Metadata) -> dict[str, Any]:
    """What the model's makers sample with, which is not applied. Raises FormatError."""
    return parse_object(metadata.get("generation", "{}"), "generation")


def _check_labels(names: list[str], n_labels: int) -> None:
    if names and (len(names) != n_labels or len(set(names)) != n_labels):
        raise FormatError(f"labels {names!r:.80} are not {n_labels} different ones, as score.weight has")
