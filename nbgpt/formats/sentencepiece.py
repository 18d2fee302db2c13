"""sentencepiece's models (spiece.model, and the pieces of a GGUF file) as the JSON of Hugging Face's `tokenizers`.

The steps are those of `SpmConverter.build_tokenizer_from_spm_proto` in transformers' convert_slow_tokenizer.py, which
encodes as `SentencePieceProcessor.encode` does.
Source: https://github.com/google/sentencepiece, src/sentencepiece_model.proto.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import protobuf
from .base import FormatError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of pieces, in a GGUF file too."""
_UNIGRAM, _BPE = 1, 2
_SPACE = "▁"
Spec = dict[str, Any]


class Piece(NamedTuple):
    """A token of the model."""

    text: str
    score: float
    type: int


@dataclass(frozen=True)
class Pieces:
    """A model: its pieces by id, and how a text is made ready for them."""

    pieces: Sequence[Piece]
    is_unigram: bool
    charsmap: bytes = b""  # compiled rules of replacement
    adds_prefix_space: bool = True
    removes_extra_spaces: bool = True
    escapes_spaces: bool = True

    def spec(self) -> Spec:
        """The tokenizer.json of this model. Raises FormatError without an unknown piece."""
        unknown = next((i for i, piece in enumerate(self.pieces) if piece.type == UNKNOWN), None)
        if unknown is None:
            raise FormatError("sentencepiece model: no piece stands for what is unknown; is the file complete?")
        return {
            "version": "1.0",
            "added_tokens": [
                _added(i, piece) for i, piece in enumerate(self.pieces) if piece.type in (UNKNOWN, CONTROL)
            ],
            "normalizer": {"type": "Sequence", "normalizers": self._normalizers()},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": self._pre_tokenizers()},
            "decoder": {"type": "Sequence", "decoders": self._decoders()},
            "model": self._unigram(unknown) if self.is_unigram else self._bpe(unknown),
        }

    def _falls_back_on_bytes(self) -> bool:
        return any(piece.type == BYTE for piece in self.pieces)

    def _user_defined(self) -> list[str]:
        return sorted((piece.text for piece in self.pieces if piece.type == USER_DEFINED), key=len, reverse=True)

    def _unigram(self, unknown: int) -> Spec:
        vocabulary = [[piece.text, piece.score] for piece in self.pieces]
        return {
            "type": "Unigram",
            "unk_id": unknown,
            "vocab": vocabulary,
            "byte_fallback": self._falls_back_on_bytes(),
        }

    def _bpe(self, unknown: int) -> Spec:
        return {
            "type": "BPE",
            "unk_token": self.pieces[unknown].text,
            "fuse_unk": True,
            "byte_fallback": self._falls_back_on_bytes(),
            "ignore_merges": bool(self._user_defined()),
            "vocab": {piece.text: i for i, piece in enumerate(self.pieces)},
            "merges": self._merges(),
        }

    def _merges(self) -> list[tuple[str, str]]:
        """Pairs of pieces that make a piece, the best scored first; a model lists only what they make."""
        normal = {piece.text: (-piece.score, i) for i, piece in enumerate(self.pieces) if piece.type == NORMAL}
        pairs = [
            (rank, text[:at], text[at:])
            for text, rank in normal.items()
            for at in range(1, len(text))
            if text[:at] in normal and text[at:] in normal
        ]
        return [(left, right) for _, left, right in sorted(pairs)]

    def _normalizers(self) -> list[Spec]:
        steps: list[Spec] = []
        if self.charsmap:
            steps.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(self.charsmap).decode()})
        if self.removes_extra_spaces:
            steps += [_replace(r"\A +| +\z", ""), _replace(" {2,}", " ")]
        if self.escapes_spaces:
            steps.append(_replace(" ", _SPACE))
        if self.adds_prefix_space:  # before a space too, where Metaspace would not
            steps.append(_replace(rf"\A{_SPACE}", 2 * _SPACE))
        return steps

    def _pre_tokenizers(self) -> list[Spec]:
        steps: list[Spec] = []
        if self.adds_prefix_space:
            steps.append({"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "always", "split": False})
        if names := self._user_defined():  # never a part of another piece
            pattern = {"Regex": "|".join(map(re.escape, names))}
            steps.append({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False})
        return steps

    def _decoders(self) -> list[Spec]:
        steps: list[Spec] = [{"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}]
        if self._falls_back_on_bytes():
            steps.append({"type": "ByteFallback"})
        steps.append({"type": "Fuse"})
        if self.adds_prefix_space:
            steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
        return steps


def parse(model: bytes) -> tuple[Pieces, dict[str, str]]:
    """A spiece.model, and the names that it gives to its bos_token and eos_token. Raises FormatError."""
    top = protobuf.fields(model)
    pieces = []
    for message in protobuf.messages(top, 1):
        piece = protobuf.fields(message)
        text = b"".join(protobuf.messages(piece, 1)[-1:]).decode("utf-8", "replace")
        pieces.append(Piece(text, protobuf.real(piece, 2), protobuf.number(piece, 3, NORMAL)))
    trainer = protobuf.fields(b"".join(protobuf.messages(top, 2)[-1:]))
    normalizer = protobuf.fields(b"".join(protobuf.messages(top, 3)[-1:]))
    kind = protobuf.number(trainer, 3, _UNIGRAM)
    if kind not in (_UNIGRAM, _BPE):
        raise FormatError(f"sentencepiece model of type {kind}; nbgpt reads 1 (unigram) and 2 (bpe)")
    names = {}
    for role, (field, usual) in {"bos_token": (41, 1), "eos_token": (42, 2)}.items():
        i = protobuf.number(trainer, field, usual)
        if i < len(pieces):  # -1, which is none, is a large number here
            names[role] = pieces[i].text
    return Pieces(
        pieces,
        kind == _UNIGRAM,
        b"".join(protobuf.messages(normalizer, 2)[-1:]),
        adds_prefix_space=bool(protobuf.number(normalizer, 3, 1)),
        removes_extra_spaces=bool(protobuf.number(normalizer, 4, 1)),
        escapes_spaces=bool(protobuf.number(normalizer, 5, 1)),
    ), names


def _replace(pattern: str, content: str) -> Spec:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _added(i: int, piece: Piece) -> Spec:
    return {"id": i, "content": piece.text, "special": True, "normalized": False}
