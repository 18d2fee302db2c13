"""Every other kind of vocabulary: a tokenizer.json, computed by Hugging Face's package `tokenizers`.

A native file keeps the JSON as it is, without truncation, padding and dropout: a text's ids depend on nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..strict_json import LARGE_BYTES, parse_object
from .added import AddedToken
from .base import Tokenizer
from .merges import spelled_bytes
from .stream import CONTEXT, ByteStream, StreamDecoder, WindowStream

MARK = b"nbgptjsn"
"""What a stored tokenizer.json begins with."""
NEEDS_EXTRA = 'this vocabulary needs the package tokenizers: pip install "nbgpt[tokenizers]"'


class JsonTokenizer(Tokenizer):
    """A tokenizer.json."""

    def __init__(self, data: bytes) -> None:
        """Take the JSON. Raises ValueError if `tokenizers` does not read it, ImportError without that package."""
        self._data = data
        self._plain = _read(data)
        self._plain.encode_special_tokens = True  # their names are text
        self._spec: Any = parse_object(data, "vocabulary", LARGE_BYTES)
        self._names: dict[int, str] = {i: name for name, i in self._plain.get_vocab().items()}
        n_vocab = max(self._names, default=-1) + 1
        if n_vocab > 2 * len(self._names) + 1000:
            raise ValueError(f"vocabulary: {len(self._names)} tokens have ids up to {n_vocab - 1}; is it broken?")
        super().__init__(n_vocab, map(_added, self._spec.get("added_tokens") or []))
        self._break_names()

    def _break_names(self) -> None:
        """Cut texts within the names of special tokens that a model would read, as Unigram has them among its words."""
        tokens = [token for token in self.added if token.special and len(token.content) > 1]
        read = [token.content for token in tokens if token.id in _encoded(self._plain, token.content)]
        if not read:
            return
        from tokenizers import Regex
        from tokenizers.pre_tokenizers import Sequence as Steps
        from tokenizers.pre_tokenizers import Split

        cut = Split(Regex("|".join(f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in read)), "isolated")
        before = self._plain.pre_tokenizer
        self._plain.pre_tokenizer = cut if before is None else Steps([before, cut])

    @functools.cached_property
    def _marking(self) -> Any:
        """The same, that reads special tokens by their names."""
        return _read(self._data)

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> JsonTokenizer:
        """From the parsed JSON. Raises as the constructor."""
        model = dict(spec.get("model") or {})
        if "dropout" in model:
            model["dropout"] = None
        kept = {**spec, "truncation": None, "padding": None, "model": model}
        return cls(json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode(errors="replace"))

    def to_bytes(self) -> bytes:
        return MARK + self._data

    def __contains__(self, i: object) -> bool:
        return i in self._names

    def id_of(self, name: str) -> int | None:
        """The id of a token by its spelling."""
        i: int | None = self._plain.token_to_id(name)
        return i

    def _encode(self, text: str, special: bool) -> list[int]:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return _encoded(self._marking if special else self._plain, text, add_special_tokens=False)

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        hidden = self.hidden_ids if skip_special else ()
        return self._text([i for i in ids if self._token_name(i) and i not in hidden])

    def _text(self, ids: Sequence[int]) -> str:
        with _refusing("cannot use it"):
            text: str = self._plain.decode(ids, skip_special_tokens=False)
            return text

    def stream(self, after: Sequence[int] = (), hidden: Collection[int] | None = None) -> StreamDecoder:
        hidden = self.hidden_ids if hidden is None else hidden
        after = [i for i in after[-CONTEXT:] if i in self]
        if self._joins_bytes:
            return ByteStream(self._token, hidden, after)
        return WindowStream(self._checked_text, hidden, after)

    def _checked_text(self, ids: Sequence[int]) -> str:
        if ids:
            self._token_name(ids[-1])
        return self._text(ids)

    @functools.cached_property
    def _joins_bytes(self) -> bool:
        """Is a text the bytes of its tokens on end?"""
        return (self._spec.get("decoder") or {}).get("type") == "ByteLevel"

    @functools.cached_property
    def _falls_back_on_bytes(self) -> bool:
        """Do tokens like <0xE2> stand for bytes?"""
        decoder = self._spec.get("decoder") or {}
        return any(part.get("type") == "ByteFallback" for part in (decoder, *decoder.get("decoders", ())))

    @functools.cached_property
    def tokens(self) -> list[bytes]:
        return [self._token(i) if i in self._names else b"" for i in range(self.n_vocab)]

    @functools.cached_property
    def _before(self) -> tuple[list[int], str]:
        """A token for others to stand after, and its text."""
        plain = (i for i in sorted(self._names, reverse=True) if i not in self.hidden_ids and self._text([i]).isalnum())
        ids = [i for i in (next(plain, None),) if i is not None]
        return ids, self._text(ids)

    def _token(self, i: int) -> bytes:
        name = self._token_name(i)
        if i in self.hidden_ids:
            return name.encode()
        if self._joins_bytes:
            return spelled_bytes(name)
        if self._falls_back_on_bytes and len(name) == 6 and name.startswith("<0x"):
            return bytes.fromhex(name[3:5])
        before, said = self._before
        return self._text([*before, i])[len(said) :].encode()

    def _token_name(self, i: int) -> str:
        """A token as the vocabulary spells it. Raises ValueError if there is none."""
        if i not in self._names:
            raise self._no_token(i)
        return self._names[i]

    def absent_ids(self, n_vocab: int) -> np.ndarray:
        return np.array([i for i in range(n_vocab) if i not in self._names], np.int64)


def _read(data: bytes) -> Any:
    """A `tokenizers.Tokenizer`. Raises as the constructor of `JsonTokenizer`."""
    try:
        from tokenizers import Tokenizer as Backend
    except ImportError:
        raise ImportError(NEEDS_EXTRA) from None
    with _refusing("cannot read it"):
        return Backend.from_str(data.decode())


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Raise ValueError for what `tokenizers` raises: `Exception` itself, and panics, which are not even that."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())
        raise ValueError(f"vocabulary: tokenizers {what} ({reason:.200}); is the file complete?") from None


def _encoded(backend: Any, text: str, **options: Any) -> list[int]:
    """Ids of a text. Raises ValueError, as some vocabularies that `tokenizers` reads cannot be used."""
    with _refusing("cannot use it"):
        ids: list[int] = backend.encode(text, **options).ids
        return ids


def _added(fields: Any) -> AddedToken:
    known = {name: bool(fields.get(name, False)) for name in ("special", "lstrip", "rstrip", "single_word")}
    return AddedToken(int(fields["id"]), str(fields["content"]), **known)
