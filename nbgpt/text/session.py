"""A text that goes on from call to call: what the model has read of it stays in the cache, and in a file if wanted."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from .. import weights
from ..abi.layout import PAGE
from ..engine.engine import Engine
from ..engine.kept_text import KeptText
from ..formats import FormatError
from ..formats.safetensors import Entry, create, read_header
from ..paths import named
from ..tokenizer import Tokenizer
from .completion import Completion
from .options import Options, parse
from .prompts import Prompt, Text, new_writers
from .stream import Batch, Stream

if TYPE_CHECKING:
    from typing_extensions import Unpack

_FORMAT = "nbgpt session"
_KINDS = {"float32": "F32", "float16": "F16"}
"""What safetensors calls the types that a cache may have."""


class Session:
    """Continues texts that begin alike, and reads only what is new in each.

    It keeps what the cache holds of its last text; the next one shares the longest common prefix, to the token. The
    text is the same as without a session. Several threads may use one session: the text that ends last is kept. Its
    memory is given back when it is closed or nobody holds it any more; if others need the memory meanwhile, the text is
    dropped, and read again when the session goes on.
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._kept = KeptText()
        self._closed = False

    def __len__(self) -> int:
        """How many tokens it keeps."""
        return len(self._settled().ids)

    def generate(self, prompt: Text | Prompt = "", **options: Unpack[Options]) -> Completion:
        """Continue a prompt; options and errors as for `Model.generate`. Raises RuntimeError if the session is closed.

        `timing.prompt_tokens` counts the tokens that were read, without those found in the cache.
        """
        return self.stream(prompt, **options).finish()

    def stream(self, prompt: Text | Prompt = "", **options: Unpack[Options]) -> Stream:
        """Continue a prompt piece by piece; options and errors as for `Model.stream`."""
        self._check_open()
        one = prompt if isinstance(prompt, Prompt) else Prompt(prompt)
        asked = parse(self._tokenizer, {**options, **one.options})
        (writer,) = new_writers(self._engine, self._tokenizer, one.text, *asked, kept=self._kept)
        batch = Batch(self._engine, [writer], 1)
        # if a stream is dropped, its text is kept; the garbage collector may call this, so it takes no lock
        weakref.finalize(batch, self._kept.ended.append, writer.request.window).atexit = False
        return Stream(batch, writer)

    def astream(self, prompt: Text | Prompt = "", **options: Unpack[Options]) -> AsyncGenerator[str, None]:
        """Continue a prompt piece by piece without blocking asyncio's loop: see `Model.astream`."""
        from .aio import begin

        return begin(partial(self.stream, prompt, **options))

    def reset(self) -> None:
        """Forget the text."""
        self._check_open()
        self._forget()

    def close(self) -> None:
        """Forget the text; `stream`, `generate`, `reset` and `save` then raise RuntimeError."""
        self._closed = True
        self._forget()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a session cannot be pickled: save it to a file and load it there")

    def save(self, path: str | Path) -> None:
        """Write the kept text to a file that `load` reads: the whole file or none. Raises OSError, also for a folder.

        It is a safetensors file with the ids int32 [n], the pages of the KV cache that hold them [n_pages, page_size],
        and metadata that name the model. Positions of these pages that belong to other texts are written as zeros.
        """
        self._check_open()
        engine = self._engine
        kept, pages = engine.copy_kept(self._kept)
        ids = np.array(kept, np.int32)
        metadata = {
            "format": _FORMAT,
            "model": describe(engine),
            "fingerprint": fingerprint(engine),
            "sha256": _checksum(ids, pages),
        }
        with create(Path(path), {"ids": ("I32", ids.shape), "pages": (_kind(engine), pages.shape)}, metadata) as file:
            file.write(ids.data)
            file.write(pages.data)

    @classmethod
    def load(cls, engine: Engine, tokenizer: Tokenizer, path: str | Path) -> Session:
        """A session that goes on from a file.

        Raises FormatError if the file is damaged or was not written by `save`, ValueError if it was saved with another
        model or another dtype of the KV cache, and OSError if it cannot be read. If it was saved on another kind of
        CPU, the last bits of its keys and values may differ from what this CPU would compute.
        """
        ids, pages = _read(Path(path), engine)
        session = cls(engine, tokenizer)
        session._kept = engine.restore_kept(ids, pages)
        return session

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this session is closed: open another one")

    def _settled(self) -> KeptText:
        self._engine.settle(self._kept)
        return self._kept

    def _forget(self) -> None:
        kept, self._kept = self._kept, KeptText()
        self._engine.forget(kept)


def fingerprint(engine: Engine) -> str:
    """A SHA-256, in hexadecimal digits, that is equal only where saved pages are valid: same model, same cache layout.

    It covers what `weights.fingerprint` covers, and the type and layout of the cache.
    """
    return weights.fingerprint(engine.weights, cache=[_kind(engine), PAGE, engine.cache.page_size])


def describe(engine: Engine) -> str:
    """The model for messages: its name, and the types of its weights and of its cache."""
    return f"{engine.weights.name} {engine.weights.dtype}, cache {engine.cache.dtype}"


def _kind(engine: Engine) -> str:
    return _KINDS[engine.cache.dtype]


def _checksum(ids: np.ndarray, pages: np.ndarray) -> str:
    digest = hashlib.sha256(ids.data)
    digest.update(pages.data)
    return digest.hexdigest()


def _read(path: Path, engine: Engine) -> tuple[list[int], np.ndarray]:
    """Ids and pages of a file that `Session.save` has written. Raises as `Session.load`."""
    entries, metadata = read_header(path)
    if metadata.get("format") != _FORMAT:
        raise FormatError(f"{path} is no session: expected a file that `Session.save` has written")
    if metadata.get("fingerprint") != fingerprint(engine):
        saved = metadata.get("model", "another one")
        raise ValueError(
            f"{path} is a session of {saved}, and this model is {describe(engine)}: load that model for it"
        )
    cache, config = engine.cache, engine.config
    ids_at, pages_at = (entries.get(name, Entry("", (0,), 0, 0)) for name in ("ids", "pages"))
    n = ids_at.shape[0] if ids_at.shape else -1
    expected = ("I32", (n,)), (_kind(engine), (-(-n // PAGE), cache.page_size))
    if (ids_at[:2], pages_at[:2]) != expected or n > config.n_ctx:
        raise FormatError(f"{path}: ids {ids_at[:2]} and pages {pages_at[:2]} are not those of a text: save it again")
    octets = []
    with named(path), path.open("rb") as file:
        for at in (ids_at, pages_at):
            file.seek(at.start)
            octets.append(file.read(at.stop - at.start))
            if len(octets[-1]) < at.stop - at.start:
                raise FormatError(f"{path} was cut short while it was read: save it again")
    ids, pages = np.frombuffer(octets[0], "<i4"), np.frombuffer(octets[1], cache.dtype)
    if _checksum(ids, pages) != metadata.get("sha256"):
        raise FormatError(f"{path}: damaged, its checksum is another: save it again")
    if n and not 0 <= ids.min() <= ids.max() < config.n_vocab:
        raise FormatError(f"{path}: has ids that are not in 0..{config.n_vocab - 1}: save it again")
    return ids.tolist(), pages.reshape(pages_at.shape)
