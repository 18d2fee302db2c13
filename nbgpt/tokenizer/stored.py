"""The vocabularies that native files store, whatever their kind."""

from __future__ import annotations

from .base import Tokenizer
from .byte_bpe import ByteBPE
from .hugging_face import MARK, JsonTokenizer


def from_bytes(data: bytes) -> Tokenizer:
    """The inverse of `Tokenizer.to_bytes`.

    Raises ValueError if it is not that, ImportError for a vocabulary that needs the package `tokenizers`.
    """
    return JsonTokenizer(data[len(MARK) :]) if data.startswith(MARK) else ByteBPE.from_bytes(data)
