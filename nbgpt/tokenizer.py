"""Text to token ids and back: byte-level BPE as GPT-2 does it, computed by tiktoken.

A merge table spells bytes as printable characters, because it is a text file; here they are bytes again. tiktoken takes
a token's rank, its place in the table, for its id; a vocabulary with other ids goes through an array from rank to id.
"""

from __future__ import annotations

import codecs
import functools
import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import paths
from .validation import check

if TYPE_CHECKING:
    import tiktoken

END_OF_TEXT = "<|endoftext|>"
_ENDS = (END_OF_TEXT.encode(), b"</s>", b"<eos>")  # an end of text by the names that vocabularies give it
# How text is cut before merging: as in OpenAI's src/encoder.py, in the faster form of tiktoken_ext/openai_public.py
_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]  # bytes that are spelled as themselves
_ALPHABET = [*_PRINTABLE, *sorted({*range(256)} - {*_PRINTABLE})]  # all bytes, in the order of their ranks
_SPELLING = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(256 + i) for i, byte in enumerate(_ALPHABET[188:])}
_FIRST_BYTES = np.array([0, 0xFF, 0xFFFF, 0xFFFFFF, 0xFFFFFFFF], np.uint32)
_FIRST_TEXTS = 2000  # characters to encode before all ranks are worth their price
_MAGIC = b"nbgptbpe"
_CURE = "nbgpt reads GPT-2's kind of tokenizer, byte-level BPE as vocab.json and merges.txt"


class Tokenizer:
    """A vocabulary: the bytes of each token, and the order in which pairs of tokens are merged."""

    def __init__(self, data: bytes, lengths: np.ndarray, ranked: np.ndarray) -> None:
        """Take the bytes of all tokens by id, on end, their lengths uint32 [n_vocab], and what is `ranked`.

        ranked: uint32 [n_ranked], the ids of single bytes and merges in the order of merging. Tokens that are not
        ranked are special: text is never encoded to them.
        Raises ValueError if a byte has no token or there is no end of text.
        """
        self.ranked = ranked
        self._data, self._lengths = data, lengths
        self._stops = np.cumsum(lengths, dtype=np.int64)
        self._starts = self._stops - lengths
        singles = {self._token(i) for i in ranked[lengths[ranked] == 1].tolist()}
        if missing := [byte for byte in range(256) if bytes([byte]) not in singles]:
            raise ValueError(f"vocabulary: {len(missing)} bytes have no token, the first is {missing[0]}; {_CURE}")
        is_special = np.ones(len(lengths), bool)
        is_special[ranked] = False
        self.special = {self._token(i): i for i in np.flatnonzero(is_special).tolist()}
        ends = [self.special[name] for name in _ENDS if name in self.special]
        if not ends:
            raise ValueError(f"vocabulary: no end of text; add {END_OF_TEXT} to vocab.json")
        self.eos_id: int = ends[0]
        self.adds_bos = False  # if prompts begin with <|endoftext|> unless told otherwise
        self._ids = None if np.array_equal(ranked, np.arange(len(ranked))) else ranked.tolist()
        self._n_encoded = 0
        self._whole: tiktoken.Encoding | None = None

    @classmethod
    def shipped(cls) -> Tokenizer:
        """GPT-2's own vocabulary of 50257 tokens: its merge table comes with nbgpt, decoded to `to_bytes`."""
        return cls.from_bytes(paths.shipped("vocab.ranks").read_bytes())

    @classmethod
    def from_tokens(cls, tokens: list[bytes], ranked: np.ndarray) -> Tokenizer:
        """From the tokens by id. Raises ValueError as the constructor, and if a token is ranked twice."""
        n_twice = len(ranked) - len({tokens[i] for i in ranked.tolist()})
        if n_twice:
            raise ValueError(f"vocabulary: {n_twice} tokens stand in it twice; {_CURE}")
        return cls(b"".join(tokens), np.array([len(token) for token in tokens], np.uint32), ranked)

    @classmethod
    def from_merges(cls, merges: bytes | str, special: Iterable[str] = (END_OF_TEXT,)) -> Tokenizer:
        """From a merge table, ids in its order: 256 bytes, the merges, the special tokens. Raises ValueError."""
        tokens, _ = _read_merges(merges)
        ranked = np.arange(len(tokens), dtype=np.uint32)
        return cls.from_tokens([*tokens, *(name.encode() for name in special)], ranked)

    @classmethod
    def from_files(cls, vocab_json: Path, merges_txt: Path) -> Tokenizer:
        """From the two files of a model's folder (OpenAI's are encoder.json and vocab.bpe).

        Tokens that no merge makes are special. Raises ValueError for another kind of tokenizer, for ids that are not
        0, 1, ... n - 1, and for merges in an order in which ranks alone do not lead to them.
        """
        vocabulary = _read_vocabulary(vocab_json)
        try:
            tokens, n_left = _read_merges(merges_txt.read_bytes())
            _check_reachable(tokens, n_left)
        except ValueError as error:
            raise ValueError(f"{merges_txt}: {error}") from None
        ids = {token: i for i, token in enumerate(vocabulary)}
        if missing := [token for token in tokens if token not in ids]:
            raise ValueError(f"{vocab_json}: no id for {missing[0]!r}, which {merges_txt.name} makes; {_CURE}")
        return cls.from_tokens(vocabulary, np.array([ids[token] for token in tokens], np.uint32))

    @classmethod
    def stored(cls, data: bytes | None) -> Tokenizer:
        """The vocabulary that a native file brings along, or GPT-2's own if it brings none. Raises ValueError."""
        return cls.shipped() if data is None else cls.from_bytes(data)

    @classmethod
    def from_bytes(cls, data: bytes) -> Tokenizer:
        """The inverse of `to_bytes`. Raises ValueError if it is not that."""
        cure = "convert the model again"
        if not data.startswith(_MAGIC) or len(data) < len(_MAGIC) + 8:
            raise ValueError(f"stored vocabulary: begins with {data[:8]!r}, expected {_MAGIC!r} and two counts; {cure}")
        numbers = np.frombuffer(data, "<u4", len(data) // 4)[len(_MAGIC) // 4 :]
        n_tokens, n_ranked = numbers[:2].tolist()
        lengths, ranked = numbers[2 : 2 + n_tokens], numbers[2 + n_tokens : 2 + n_tokens + n_ranked]
        if not n_tokens >= n_ranked == len(ranked) > 0 or ranked.max() >= n_tokens:
            raise ValueError(f"stored vocabulary: {len(data)} bytes cannot hold {n_tokens} tokens; {cure}")
        start = len(_MAGIC) + 4 * (2 + n_tokens + n_ranked)
        end = start + int(lengths.sum(dtype=np.int64))
        if end != len(data):
            raise ValueError(f"stored vocabulary: ends at byte {len(data)}, expected {end}; {cure}")
        return cls(data[start:], lengths, ranked)

    def to_bytes(self) -> bytes:
        """The vocabulary in one piece: a mark, two counts, each token's length, `ranked`, and the tokens' bytes."""
        numbers = np.concatenate(([self.n_vocab, len(self.ranked)], self._lengths, self.ranked)).astype("<u4")
        return b"".join((_MAGIC, numbers.tobytes(), self._data))

    @property
    def n_vocab(self) -> int:
        return len(self._lengths)

    @functools.cached_property
    def tokens(self) -> list[bytes]:
        """The bytes of each token by id."""
        return [self._data[start:stop] for start, stop in pairwise([0, *self._stops.tolist()])]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of `to_bytes()`, in hexadecimal."""
        import hashlib

        return hashlib.sha256(self.to_bytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokenizer):
            return NotImplemented
        return self.to_bytes() == other.to_bytes()

    def encode(self, text: str) -> list[int]:
        """The ids of a text; a special token's name in it is text like any other, a lone surrogate becomes U+FFFD.

        Raises ValueError for what is no text, None and an empty list included.
        """
        if not isinstance(text, str):
            raise ValueError(f"the text is {text!r:.60}; it must be a str")
        ranks = self._encoding_of(text).encode_ordinary(text) if text else []
        return ranks if self._ids is None else [self._ids[rank] for rank in ranks]

    def encode_prompt(self, text: str, bos: bool | None = None) -> list[int]:
        """Ids of a prompt, after <|endoftext|> if bos (None: as the model's file says) or if there is no text.

        Raises ValueError for a prompt that is no text and a bos that is neither True, False nor None.
        """
        check("bos", bos, (bool, np.bool_, type(None)), allowed="True, False or None")
        ids = self.encode(text)
        begin = self.adds_bos if bos is None else bos
        return [self.eos_id, *ids] if begin or not ids else ids

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

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of some tokens, special ones by their names. Raises ValueError for an id that has no token."""
        return b"".join(map(self._token, ids))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some tokens; bytes that are not UTF-8 become U+FFFD. Raises ValueError as `decode_bytes`."""
        return self.decode_bytes(ids).decode(errors="replace")

    def stream(self) -> StreamDecoder:
        """A decoder that takes one id at a time."""
        return StreamDecoder(self)

    def _token(self, i: int) -> bytes:
        if not 0 <= i < self.n_vocab:
            raise ValueError(f"token id {i} is not in the vocabulary; its ids end at {self.n_vocab - 1}")
        return self._data[self._starts[i] : self._stops[i]]


class StreamDecoder:
    """Text from ids one by one; a character whose bytes are spread over tokens comes with the last of them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, i: int) -> str:
        """The text that an id completes, perhaps none. Raises ValueError for an id that has no token."""
        return self._utf8.decode(self._tokenizer.decode_bytes((i,)))

    def finish(self) -> str:
        """What is left when no id follows: U+FFFD if a character is incomplete, otherwise nothing."""
        return self._utf8.decode(b"", final=True)


def _encoding(ranks: dict[bytes, int]) -> tiktoken.Encoding:
    import tiktoken

    return tiktoken.Encoding("nbgpt", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={})


def _hash_heads(data: bytes, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """16 bits, uint32 [n], of the first four bytes, or as many as there are, of each of n pieces of data."""
    words: np.ndarray = np.ndarray(len(data), "<u4", data + bytes(3), strides=(1,))
    heads: np.ndarray = (words[starts] & _FIRST_BYTES[np.minimum(lengths, 4)]) * np.uint32(0x9E3779B1) >> 16
    return heads


def _read_merges(merges: bytes | str) -> tuple[list[bytes], list[int]]:
    """The 256 single bytes and the merged tokens in order, and of each merged one the length of its left part.

    Raises ValueError.
    """
    text = merges if isinstance(merges, str) else merges.decode()
    text = text.replace("\r\n", "\n")
    if text.startswith("#version"):
        text = text.partition("\n")[2]
    text = text.strip("\n")
    pairs = [line.split(" ") for line in text.split("\n")] if text else []
    if any(len(pair) != 2 or "" in pair for pair in pairs):
        raise ValueError(f"merges: a line is not two tokens with a space between them; {_CURE}")
    byte_of = {spelling: byte for byte, spelling in _SPELLING.items()}
    try:
        merged = [bytes(map(byte_of.__getitem__, left + right)) for left, right in pairs]
    except KeyError:
        raise ValueError(f"merges: a character stands for no byte; {_CURE}") from None
    return [bytes([byte]) for byte in _ALPHABET] + merged, [len(left) for left, _ in pairs]


def _read_vocabulary(path: Path) -> list[bytes]:
    """The bytes of each token by id; a name that is not spelled in bytes stands for itself. Raises ValueError."""
    try:
        vocabulary: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error}); {_CURE}") from None
    if not isinstance(vocabulary, dict) or any(type(i) is not int for i in vocabulary.values()):
        raise ValueError(f"{path}: not an object from tokens to ids; {_CURE}")
    names = sorted(vocabulary, key=vocabulary.__getitem__)
    if [vocabulary[name] for name in names] != list(range(len(names))):
        raise ValueError(f"{path}: ids are not 0 to {len(names) - 1}, each once; {_CURE}")
    byte_of = {spelling: byte for byte, spelling in _SPELLING.items()}
    spelled = byte_of.keys()
    return [
        bytes(map(byte_of.__getitem__, name)) if spelled >= set(name) else name.encode(errors="replace")
        for name in names
    ]


def _check_reachable(tokens: list[bytes], n_left: list[int]) -> None:
    """Raise ValueError unless merging by rank makes every token out of the two parts that its merge names.

    tiktoken knows ranks, not pairs: it merges any two neighbours that are a token together. If every token, taken
    alone, comes from its own pair, no other pair that spells it can ever stand in a text, and the two ways agree.
    """
    ranks = {token: rank for rank, token in enumerate(tokens)}
    for rank, left in enumerate(n_left, start=256):
        token = tokens[rank]
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            best, at = min((ranks.get(a + b, rank), at) for at, (a, b) in enumerate(pairwise(parts)))
            if best >= rank:
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if ranks[token] != rank or parts != [token[:left], token[left:]]:
            raise ValueError(f"merge {rank - 255} makes {token!r} in a way that ranks do not; {_CURE}")
