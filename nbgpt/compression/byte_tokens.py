"""Any bytes -> token ids that spell them, and back."""

from __future__ import annotations

import re

from ..tokenizer import Tokenizer

_NOT_UTF8 = re.compile("([\udc80-\udcff]+)")
"""Bytes that are not UTF-8, as Python's error handler "surrogateescape" writes them."""


def encode_bytes(tokenizer: Tokenizer, data: bytes, n_vocab: int) -> list[int]:
    """Ids below n_vocab that spell data. UTF-8 is encoded as text; other bytes have a token each.

    So has text that the vocabulary would change, as one with a normalizer does.

    Raises:
        ValueError: the vocabulary has no token for some byte.
    """
    single = _byte_ids(tokenizer, n_vocab)
    ids: list[int] = []
    for text in _NOT_UTF8.split(data.decode(errors="surrogateescape")):
        octets = text.encode(errors="surrogateescape")
        found = [] if _NOT_UTF8.match(text) else tokenizer.encode(text)
        ids += found if tokenizer.decode_bytes(found) == octets else [single[octet] for octet in octets]
    return ids


def _byte_ids(tokenizer: Tokenizer, n_vocab: int) -> list[int]:
    """The id of each byte's token, [256]."""
    known = {token: i for i, token in enumerate(tokenizer.tokens[:n_vocab]) if i not in tokenizer.hidden_ids}
    missing = [octet for octet in range(256) if bytes([octet]) not in known]
    if missing:
        raise ValueError(
            f"{len(missing)} bytes have no token in this model's vocabulary, the first is {missing[0]:#04x}: compress "
            "with a model that has GPT-2's kind of vocabulary"
        )
    return [known[bytes([octet])] for octet in range(256)]
