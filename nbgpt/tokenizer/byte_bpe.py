"""GPT-2's kind of vocabulary: byte-level BPE, computed by tiktoken.

tiktoken takes a token's rank, its place in the order of merging, for its id; a vocabulary with other ids goes through
an array from rank to id.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import paths
from ..strict_json import LARGE_BYTES, parse
from . import merges as tables
from .added import AddedToken
from .base import END_OF_TEXT, Tokenizer
from .merges import CURE
from .stream import CONTEXT, ByteStream, StreamDecoder

if TYPE_CHECKING:
    import tiktoken

# How text is cut before merging: as in OpenAI's src/encoder.py, in the faster form of tiktoken_ext/openai_public.py
_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
_FIRST_BYTES = np.array([0, 0xFF, 0xFFFF, 0xFFFFFF, 0xFFFFFFFF], np.uint32)
_FIRST_TEXTS = 2000  # characters to encode before all ranks are worth their price
_MARK = b"nbgptbpe"
_MARK_WITH_NOTES = b"nbgptbp2"  # followed by the same, and by JSON
_CURE_STORED = "convert the model again"


class ByteBPE(Tokenizer):
    """The bytes of each token, and the order in which pairs of tokens are merged."""

    def __init__(
        self,
        data: bytes,
        lengths: np.ndarray,
        ranked: np.ndarray,
        declared: Iterable[AddedToken] = (),
        prefix_space: bool = False,
    ) -> None:
        """Take the bytes of all tokens by id, on end, their lengths uint32 [n_vocab] (0: no token), what is `ranked`.

        ranked: uint32 [n_ranked], the ids of single bytes and merges in the order of merging. declared: added tokens;
        any other token that is not ranked is special: text is never encoded to it. prefix_space: a text begins with a
        space. Raises ValueError if a byte has no token.
        """
        self.ranked = ranked
        self.prefix_space = prefix_space
        self._data, self._lengths = data, lengths
        self._stops = np.cumsum(lengths, dtype=np.int64)
        self._starts = self._stops - lengths
        singles = {self._slice(i) for i in ranked[lengths[ranked] == 1].tolist()}
        if missing := [byte for byte in range(256) if bytes([byte]) not in singles]:
            raise ValueError(f"vocabulary: {len(missing)} bytes have no token, the first is {missing[0]}; {CURE}")
        is_added = lengths > 0
        is_added[ranked] = False
        known = {token.id: token for token in declared}
        added = sorted({*np.flatnonzero(is_added).tolist(), *known})
        super().__init__(len(lengths), [known.get(i) or self._unranked(i) for i in added])
        self._ids = None if np.array_equal(ranked, np.arange(len(ranked))) else ranked.tolist()
        self._n_encoded = 0
        self._whole: tiktoken.Encoding | None = None

    def _unranked(self, i: int) -> AddedToken:
        return AddedToken(i, self._slice(i).decode(errors="replace"))

    @classmethod
    def shipped(cls) -> ByteBPE:
        """GPT-2's own: its merge table comes with nbgpt, decoded to `to_bytes`."""
        return cls.from_bytes(paths.shipped("vocab.ranks").read_bytes())

    @classmethod
    def from_merges(cls, merges: bytes | str, special: Iterable[str] = (END_OF_TEXT,)) -> ByteBPE:
        """From a merge table, ids in its order: 256 bytes, the merges, the special tokens. Raises ValueError."""
        tokens = tables.ranked_tokens(tables.read_merges(merges))
        ranked = np.arange(len(tokens), dtype=np.uint32)
        return cls._from_tokens([*tokens, *(name.encode() for name in special)], ranked)

    @classmethod
    def from_files(cls, vocab_json: Path, merges_txt: Path) -> ByteBPE:
        """From the two files of a model's folder (OpenAI's are encoder.json and vocab.bpe).

        Tokens that no merge makes are special. Raises ValueError for another kind of tokenizer, and for merges in an
        order in which ranks alone do not lead to them.
        """
        vocabulary = tables.read_vocabulary(vocab_json)
        try:
            pairs = tables.read_merges(merges_txt.read_bytes())
            return cls.from_spellings(vocabulary, pairs)
        except ValueError as error:
            raise ValueError(f"{vocab_json}, {merges_txt.name}: {error}") from None

    @classmethod
    def from_spellings(
        cls,
        vocabulary: Mapping[str, int],
        pairs: Sequence[tuple[str, str]],
        added: Iterable[AddedToken] = (),
        prefix_space: bool = False,
    ) -> ByteBPE:
        """From spellings with their ids and the merges; the ids may have holes, though not more of them than tokens.

        Raises ValueError for another kind of tokenizer.
        """
        added = tuple(added)
        n_vocab = max((*vocabulary.values(), *(token.id for token in added)), default=-1) + 1
        if n_vocab > 2 * (len(vocabulary) + len(added)) + 1000:
            raise ValueError(f"vocabulary: {len(vocabulary)} tokens have ids up to {n_vocab - 1}; {CURE}")
        ranked = tables.ranked_tokens(pairs)
        tables.check_reachable(ranked, pairs)
        tokens = [b""] * n_vocab
        for name, i in vocabulary.items():
            tokens[i] = tables.spelled_bytes(name)
        ids = {token: i for i, token in enumerate(tokens)}
        if missing := [token for token in ranked if token not in ids]:
            raise ValueError(f"vocabulary: no id for {missing[0]!r}, which the merges make; {CURE}")
        places = np.array([ids[token] for token in ranked], np.uint32)
        for token in added:
            tokens[token.id] = tokens[token.id] or token.content.encode(errors="replace")
        return cls._from_tokens(tokens, places, added, prefix_space)

    @classmethod
    def _from_tokens(
        cls, tokens: list[bytes], ranked: np.ndarray, added: Iterable[AddedToken] = (), prefix_space: bool = False
    ) -> ByteBPE:
        """From the tokens by id. Raises ValueError as the constructor, and if a token is ranked twice."""
        n_twice = len(ranked) - len({tokens[i] for i in ranked.tolist()})
        if n_twice:
            raise ValueError(f"vocabulary: {n_twice} tokens stand in it twice; {CURE}")
        lengths = np.array([len(token) for token in tokens], np.uint32)
        return cls(b"".join(tokens), lengths, ranked, added, prefix_space)

    @classmethod
    def from_bytes(cls, data: bytes) -> ByteBPE:
        """The inverse of `to_bytes`. Raises ValueError if it is not that."""
        if data[: len(_MARK)] not in (_MARK, _MARK_WITH_NOTES) or len(data) < len(_MARK) + 8:
            raise ValueError(
                f"stored vocabulary: begins with {data[:8]!r}, expected {_MARK!r} and two counts; {_CURE_STORED}"
            )
        numbers = np.frombuffer(data, "<u4", len(data) // 4)[len(_MARK) // 4 :]
        n_tokens, n_ranked = numbers[:2].tolist()
        lengths, ranked = numbers[2 : 2 + n_tokens], numbers[2 + n_tokens : 2 + n_tokens + n_ranked]
        if not n_tokens >= n_ranked == len(ranked) > 0 or ranked.max() >= n_tokens:
            raise ValueError(f"stored vocabulary: {len(data)} bytes cannot hold {n_tokens} tokens; {_CURE_STORED}")
        start = len(_MARK) + 4 * (2 + n_tokens + n_ranked)
        end = start + int(lengths.sum(dtype=np.int64))
        if end > len(data) or (end < len(data) and data.startswith(_MARK)):
            raise ValueError(f"stored vocabulary: ends at byte {len(data)}, expected {end}; {_CURE_STORED}")
        if data.startswith(_MARK):
            return cls(data[start:end], lengths, ranked)
        return cls(data[start:end], lengths, ranked, *_read_notes(data[end:], n_tokens))

    def to_bytes(self) -> bytes:
        """A mark, two counts, each token's length, `ranked`, the tokens' bytes, and what else there is as JSON."""
        numbers = np.concatenate(([self.n_vocab, len(self.ranked)], self._lengths, self.ranked)).astype("<u4")
        stored = numbers.tobytes() + self._data
        declared = [token for token in self.added if token != self._unranked(token.id) or token.id in self._ranked_ids]
        if not declared and not self.prefix_space:
            return _MARK + stored
        notes = {"added": [asdict(token) for token in declared], "prefix_space": self.prefix_space}
        return _MARK_WITH_NOTES + stored + json.dumps(notes).encode()

    @functools.cached_property
    def _ranked_ids(self) -> frozenset[int]:
        return frozenset(self.ranked.tolist())

    @functools.cached_property
    def tokens(self) -> list[bytes]:
        return [self._data[start:stop] for start, stop in pairwise([0, *self._stops.tolist()])]

    def __contains__(self, i: object) -> bool:
        return isinstance(i, (int, np.integer)) and 0 <= int(i) < self.n_vocab and bool(self._lengths[i])

    def absent_ids(self, n_vocab: int) -> np.ndarray:
        return np.append(np.flatnonzero(self._lengths[:n_vocab] == 0), np.arange(self.n_vocab, n_vocab))

    def _encode(self, text: str, special: bool) -> list[int]:
        if not special and not self._has_words:
            return self._encode_plain(text)
        ids: list[int] = []
        for part in self._splitters[special].split(text):
            if isinstance(part, str):
                ids += self._encode_plain(part)
            else:
                ids.append(part)
        return ids

    @functools.cached_property
    def _has_words(self) -> bool:
        return any(not token.special for token in self.added)

    def _encode_plain(self, text: str) -> list[int]:
        """The ids of a text without added tokens."""
        if self.prefix_space and not text[0].isspace():
            text = " " + text
        ranks = self._encoding_of(text).encode_ordinary(text)
        return ranks if self._ids is None else [self._ids[rank] for rank in ranks]

    def _encoding_of(self, text: str) -> tiktoken.Encoding:
        """What encodes this text, which is merged out of its own substrings: the ranks of these are enough.

        tiktoken takes 30 ms to read all ranks; a program's first short texts do without.
        """
        if self._whole is None:
            self._n_encoded += len(text)
            if self._n_encoded <= _FIRST_TEXTS:
                return _encoding(self._ranks_in(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")))
            self._whole = _encoding({self.tokens[i]: rank for rank, i in enumerate(self.ranked.tolist())})
        return self._whole

    def _ranks_in(self, text: str) -> dict[bytes, int]:
        """The ranks of the tokens that stand in a text, found by the tokens' first bytes."""
        octets = text.encode()
        places, sizes = np.repeat(np.arange(len(octets)), 4), np.tile([1, 2, 3, 4], len(octets))
        stands = np.zeros(1 << 16, bool)
        stands[_hash_heads(octets, places, sizes)] = True
        starts, stops = self._starts[self.ranked], self._stops[self.ranked]
        likely = np.flatnonzero(stands[_hash_heads(self._data, starts, stops - starts)])
        spans = zip(likely.tolist(), starts[likely].tolist(), stops[likely].tolist(), strict=True)
        return {token: rank for rank, start, stop in spans if (token := self._data[start:stop]) in octets}

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        hidden = self.hidden_ids if skip_special else ()
        return b"".join(octets for i in ids if (octets := self._token(i)) and i not in hidden).decode(errors="replace")

    def stream(self, after: Sequence[int] = (), hidden: Collection[int] | None = None) -> StreamDecoder:
        return ByteStream(
            self._token, self.hidden_ids if hidden is None else hidden, [i for i in after[-CONTEXT:] if i in self]
        )

    def _token(self, i: int) -> bytes:
        octets = self._data[self._starts[i] : self._stops[i]] if 0 <= i < self.n_vocab else b""
        if not octets:
            raise self._no_token(i)
        return octets

    def _slice(self, i: int) -> bytes:
        return self._data[self._starts[i] : self._stops[i]]


def _encoding(ranks: dict[bytes, int]) -> tiktoken.Encoding:
    import tiktoken

    return tiktoken.Encoding("nbgpt", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={})


def _hash_heads(data: bytes, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """16 bits, uint32 [n], of the first four bytes, or as many as there are, of each of n pieces of data."""
    words: np.ndarray = np.ndarray(len(data), "<u4", data + bytes(3), strides=(1,))
    heads: np.ndarray = (words[starts] & _FIRST_BYTES[np.minimum(lengths, 4)]) * np.uint32(0x9E3779B1) >> 16
    return heads


def _read_notes(data: bytes, n_tokens: int) -> tuple[list[AddedToken], bool]:
    """The added tokens that were declared, and whether texts begin with a space. Raises ValueError."""
    try:
        notes: Any = parse(data, "stored vocabulary", LARGE_BYTES)
        added = [AddedToken(**fields) for fields in notes["added"]]
        if all(type(token.id) is int and 0 <= token.id < n_tokens and token.content for token in added):
            return added, bool(notes["prefix_space"])
        reason = "an id is out of range"
    except (ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
    raise ValueError(f"stored vocabulary: its notes cannot be read ({reason}); {_CURE_STORED}")
