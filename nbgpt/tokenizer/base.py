"""What every vocabulary can do, whatever its kind."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from numbers import Integral
from typing import Any

import numpy as np

from ..validation import check
from .added import AddedToken, Splitter
from .stream import StreamDecoder

END_OF_TEXT = "<|endoftext|>"
_ENDS = (END_OF_TEXT.encode(), b"</s>", b"<eos>")  # an end of text by the names that vocabularies give it


class Tokenizer(ABC):
    """A vocabulary: text to ids and back.

    Ids are 0 to n_vocab - 1; a vocabulary may have holes, and a model's embedding may have more rows than it has ids.
    """

    def __init__(self, n_vocab: int, added: Iterable[AddedToken]) -> None:
        """Take the number of ids and the added tokens. Text ends where the first known name of an end stands."""
        self.n_vocab = n_vocab
        self.added = tuple(added)
        self.special = {token.content.encode(errors="replace"): token.id for token in self.added if token.special}
        self.hidden_ids = frozenset(self.special.values())  # not written unless asked for
        self.adds_bos = False  # if prompts begin with bos_id unless told otherwise
        end = next((self.special[name] for name in _ENDS if name in self.special), None)
        self.set_ends(end, () if end is None else (end,))

    def set_ends(self, bos_id: int | None, eos_ids: Iterable[int]) -> None:
        """Take the id that begins texts, if there is one, and those that end them, the one to be written first."""
        eos_ids = tuple(eos_ids)
        self.bos_id = bos_id
        self.eos_id = eos_ids[0] if eos_ids else None
        self.eos_ids = frozenset(eos_ids)

    @abstractmethod
    def to_bytes(self) -> bytes:
        """The vocabulary in one piece, without its ends: a mark of eight bytes, and what its kind needs."""

    @property
    @abstractmethod
    def tokens(self) -> list[bytes]:
        """The bytes of each token by id, as it stands within a text; nothing for an id without a token."""

    def bytes_of(self, i: int) -> bytes:
        """The bytes of an id's token, as it stands within a text; none if the id has no token."""
        return self.tokens[i] if i in self else b""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of `to_bytes()`, in hexadecimal."""
        import hashlib

        return hashlib.sha256(self.to_bytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokenizer):
            return NotImplemented
        return self.to_bytes() == other.to_bytes()

    @abstractmethod
    def __contains__(self, i: object) -> bool:
        """Does this id have a token?"""

    def absent_ids(self, n_vocab: int) -> np.ndarray:
        """Ids int64 [n] of a model's n_vocab that have no token, and that it must never choose."""
        return np.array([i for i in range(n_vocab) if i not in self], np.int64)

    def encode(self, text: str, special: bool = False) -> list[int]:
        """The ids of a text. Added words are read as such; the name of a special token is text unless `special`.

        A lone surrogate becomes U+FFFD. Raises ValueError for what is no text, None and an empty list included.
        """
        if not isinstance(text, str):
            raise ValueError(f"the text is {text!r:.60}; it must be a str")
        check("special", special, (bool, np.bool_), allowed="True or False")
        return self._encode(text, bool(special)) if text else []

    @abstractmethod
    def _encode(self, text: str, special: bool) -> list[int]:
        """`encode` of a text that is not empty."""

    def encode_prompt(self, prompt: str | Sequence[int], bos: bool | None = None, special: bool = False) -> list[int]:
        """Ids of a prompt, after `bos_id` if bos (None: as the model's file says), or if it is the empty text.

        A prompt of ids, at least one, is taken as it is, unless bos is True. special: as for `encode`.
        Raises ValueError for a prompt that is neither text nor ids of this vocabulary, for a bos that is neither True,
        False nor None, and if a beginning is wanted and the vocabulary has none.
        """
        check("bos", bos, (bool, np.bool_, type(None)), allowed="True, False or None")
        is_text = isinstance(prompt, str)
        ids = self.encode(prompt, special) if isinstance(prompt, str) else self._checked(prompt)
        begin = (self.adds_bos and is_text) if bos is None else bos
        if ids and not begin:
            return ids
        if self.bos_id is None:
            raise ValueError(
                f"{f'bos is {bos}' if begin else 'the prompt is empty'}, and this model has no token that begins "
                "texts: give at least one token, without bos"
            )
        return [self.bos_id, *ids]

    def _checked(self, ids: Any) -> list[int]:
        """Token ids as ints. Raises ValueError."""
        is_list = isinstance(ids, Iterable) and not isinstance(ids, (bytes, bytearray, Set, Mapping))
        found: list[Any] = list(ids) if is_list else []
        if not found or not all(isinstance(i, Integral) and not isinstance(i, bool) for i in found):
            raise ValueError(f"the text is {ids!r:.60}; it must be a str, or a list of token ids")
        for i in found:
            if not 0 <= i < self.n_vocab:
                raise ValueError(f"the prompt has token id {i}; ids of this vocabulary are 0 to {self.n_vocab - 1}")
        return [int(i) for i in found]

    @abstractmethod
    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of some tokens; bytes that are not UTF-8 become U+FFFD. skip_special: without special tokens.

        Raises ValueError for an id that has no token.
        """

    def decode_after(self, before: Sequence[int], ids: Iterable[int]) -> str:
        """The text that some ids add to that of the ids before them, without special tokens."""
        stream = self.stream(before)
        return "".join([stream.push(i) for i in ids]) + stream.finish()

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of some tokens, special ones by their names. Raises ValueError for an id that has no token."""
        return b"".join(map(self._token, ids))

    @abstractmethod
    def _token(self, i: int) -> bytes:
        """The bytes of one token. Raises ValueError if there is none."""

    def _no_token(self, i: int) -> ValueError:
        return ValueError(f"token id {i} is not in the vocabulary; its ids end at {self.n_vocab - 1}")

    @abstractmethod
    def stream(self, after: Sequence[int] = (), hidden: Collection[int] | None = None) -> StreamDecoder:
        """A decoder that takes one id at a time, of a text that goes on after some ids.

        hidden: ids that are not written; None: `hidden_ids`, the special tokens.
        """

    @functools.cached_property
    def _splitters(self) -> tuple[Splitter, Splitter]:
        """What finds added words alone, and special tokens too."""
        return Splitter(token for token in self.added if not token.special), Splitter(self.added)
