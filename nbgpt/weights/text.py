"""The tokenizer of a native file, with the ids that begin and end texts from its metadata."""

from __future__ import annotations

from contextlib import suppress

from ..formats import FormatError
from ..strict_json import parse
from ..tokenizer import ByteBPE, Tokenizer, from_bytes
from .native_file import Weights

_N_GPT2 = 50257


def tokenizer_of(weights: Weights) -> Tokenizer:
    """Raises FormatError for a file without a vocabulary or with a broken one, ImportError if it needs an extra."""
    data = weights.tokenizer
    if data is None and weights.config.n_vocab < _N_GPT2:
        raise FormatError(
            f"{weights.path}: no vocabulary in it, and an embedding of {weights.config.n_vocab} rows is not GPT-2's "
            f"({_N_GPT2}): convert a folder that has the model's vocabulary"
        )
    try:
        tokenizer = ByteBPE.shipped() if data is None else from_bytes(data)
    except ValueError as error:
        raise FormatError(f"{weights.path}: {error}") from None
    if tokenizer.n_vocab > weights.config.n_vocab:
        raise FormatError(
            f"{weights.path}: a vocabulary of {tokenizer.n_vocab} tokens, and an embedding of {weights.config.n_vocab} "
            "rows: convert it again"
        )
    tokenizer.adds_bos = weights.bos
    if "eos_ids" in weights.metadata:  # files of older versions say nothing
        tokenizer.set_ends(*_ends(weights, tokenizer))
    return tokenizer


def _ends(weights: Weights, tokenizer: Tokenizer) -> tuple[int | None, list[int]]:
    """The ids that begin and end texts. Raises FormatError."""
    stored = {name: weights.metadata.get(name, "null") for name in ("bos_id", "eos_ids")}
    with suppress(ValueError):
        bos_id, eos_ids = (parse(value, name) for name, value in stored.items())
        ids = eos_ids + ([] if bos_id is None else [bos_id]) if isinstance(eos_ids, list) else [None]
        if all(type(i) is int and i in tokenizer for i in ids):
            return bos_id, eos_ids
    raise FormatError(f"{weights.path}: bos_id and eos_ids are {stored!r:.80}, no ids of its tokens: convert it again")
