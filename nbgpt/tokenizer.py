"""Text to token ids and back: byte-level BPE as GPT-2 does it, computed by tiktoken.

A merge table spells bytes as printable characters, because it is a text file; here they are bytes again. tiktoken takes
a token's rank, its place in the table, for its id; a vocabulary with other ids goes through an array from rank to id.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from . import paths

END_OF_TEXT = "<|endoftext|>"
_ENDS = (END_OF_TEXT.encode(), b"</s>", b"<eos>")  # an end of text by the names that vocabularies give it
# How text is cut before merging: as in OpenAI's src/encoder.py, in the faster form of tiktoken_ext/openai_public.py
_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]  # bytes that are spelled as themselves
_ALPHABET = [*_PRINTABLE, *sorted({*range(256)} - {*_PRINTABLE})]  # all bytes, in the order of their ranks
_SPELLING = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(256 + i) for i, byte in enumerate(_ALPHABET[188:])}
_MAGIC = b"nbgptbpe"
_CURE = "nbgpt reads GPT-2's kind of tokenizer, byte-level BPE as vocab.json and merges.txt"


class Tokenizer:
    """A vocabulary: the bytes of each token, and the order in which pairs of tokens are merged."""

    def __init__(self, tokens: list[bytes], ranked: np.ndarray) -> None:
        """Take `tokens` by id, and in `ranked` [n_ranked] the ids of single bytes and merges in the order of merging.

        Tokens that are not ranked are special: text is never encoded to them. Raises ValueError if a token is ranked
        twice, a byte has no token or there is no end of text.
        """
        import tiktoken

        in_order = np.array_equal(ranked, np.arange(len(ranked)))
        by_rank = tokens[: len(ranked)] if in_order else [tokens[i] for i in ranked.tolist()]
        ranks = dict(zip(by_rank, range(len(ranked)), strict=True))
        if len(ranks) != len(ranked):
            raise ValueError(f"vocabulary: {len(ranked) - len(ranks)} tokens stand in it twice; {_CURE}")
        if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
            raise ValueError(f"vocabulary: {len(missing)} bytes have no token, the first is {missing[0]}; {_CURE}")
        self.tokens = tokens
        self.ranked = ranked
        is_special = np.ones(len(tokens), bool)
        is_special[ranked] = False
        self.special = {tokens[i]: i for i in np.flatnonzero(is_special).tolist()}
        ends = [self.special[name] for name in _ENDS if name in self.special]
        if not ends:
            raise ValueError(f"vocabulary: no end of text; add {END_OF_TEXT} to vocab.json")
        self.eos_id: int = ends[0]
        self._ids = None if in_order else ranked.tolist()
        self._encoding = tiktoken.Encoding("nbgpt", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={})

    @classmethod
    def shipped(cls) -> Tokenizer:
        """GPT-2's own vocabulary of 50257 tokens, from the merge table that comes with nbgpt."""
        return cls.from_merges(paths.shipped("vocab.bpe").read_bytes())

    @classmethod
    def from_merges(cls, merges: bytes | str, special: Iterable[str] = (END_OF_TEXT,)) -> Tokenizer:
        """From a merge table, ids in its order: 256 bytes, the merges, the special tokens. Raises ValueError."""
        tokens, _ = _read_merges(merges)
        return cls([*tokens, *(name.encode() for name in special)], np.arange(len(tokens), dtype=np.uint32))

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
        return cls(vocabulary, np.array([ids[token] for token in tokens], np.uint32))

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
        ends = np.cumsum(lengths, dtype=np.int64) + start
        if ends[-1] != len(data):
            raise ValueError(f"stored vocabulary: ends at byte {len(data)}, expected {ends[-1]}; {cure}")
        return cls([data[begin:end] for begin, end in pairwise([start, *ends.tolist()])], ranked)

    def to_bytes(self) -> bytes:
        """The vocabulary in one piece: a mark, two counts, each token's length, `ranked`, and the tokens' bytes."""
        sizes = [len(self.tokens), len(self.ranked)]
        numbers = np.concatenate((sizes, [len(token) for token in self.tokens], self.ranked)).astype("<u4")
        return b"".join((_MAGIC, numbers.tobytes(), *self.tokens))

    @property
    def n_vocab(self) -> int:
        return len(self.tokens)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of `to_bytes()`, in hexadecimal."""
        import hashlib

        return hashlib.sha256(self.to_bytes()).hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokenizer):
            return NotImplemented
        return self.tokens == other.tokens and np.array_equal(self.ranked, other.ranked)

    def encode(self, text: str) -> list[int]:
        """The ids of a text; a special token's name in it is text like any other, a lone surrogate becomes U+FFFD."""
        ranks = self._encoding.encode_ordinary(text)
        return ranks if self._ids is None else [self._ids[rank] for rank in ranks]

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
        if not 0 <= i < len(self.tokens):
            raise ValueError(f"token id {i} is not in the vocabulary; its ids end at {len(self.tokens) - 1}")
        return self.tokens[i]


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


def _read_merges(merges: bytes | str) -> tuple[list[bytes], list[int]]:
    """The 256 single bytes and the merged tokens in order, and of each merged one the length of its left part.

    The arithmetic is on the whole table at once: this runs at every start of the program. Raises ValueError.
    """
    text = merges if isinstance(merges, str) else merges.decode()
    text = text.replace("\r\n", "\n")
    if text.startswith("#version"):
        text = text.partition("\n")[2]
    text = text.strip("\n") + "\n"
    singles = [bytes([byte]) for byte in _ALPHABET]
    if text == "\n":
        return singles, []
    codes = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2")
    spaces, ends = np.flatnonzero(codes == ord(" ")), np.flatnonzero(codes == ord("\n"))
    starts = np.concatenate(([0], ends[:-1] + 1))
    if len(spaces) != len(ends) or np.any(spaces <= starts) or np.any(spaces >= ends - 1):
        raise ValueError(f"merges: a line is not two tokens with a space between them; {_CURE}")
    byte_of = np.full(1 << 16, -1, np.int16)
    byte_of[[ord(spelling) for spelling in _SPELLING.values()]] = list(_SPELLING)
    octets = np.delete(byte_of[codes], spaces)
    ends_in_octets = ends - np.arange(1, len(ends) + 1)
    if np.count_nonzero(octets < 0) != len(ends):
        raise ValueError(f"merges: a character stands for no byte; {_CURE}")
    data = octets.astype(np.uint8).tobytes()
    merged = [data[before + 1 : end] for before, end in pairwise([-1, *ends_in_octets.tolist()])]
    return singles + merged, (spaces - starts).tolist()


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
