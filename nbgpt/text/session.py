"""A text that goes on from call to call: what the model has read of it stays in the cache, and in a file if wanted."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import AsyncGenerator, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from ..abi.layout import PAGE
from ..engine.engine import Engine
from ..engine.kv_cache import Sequence
from ..engine.scheduler import Window, run
from ..engine.speculation import in_common
from ..formats import FormatError
from ..formats.safetensors import Entry, create, read_header
from ..weights import LAYOUT
from .completion import Completion
from .options import Options, parse
from .stream import Stream, Writer

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..model import Model

_FORMAT = "nbgpt session"
_SAMPLE = 2048
"""Bytes at either end of each tensor that tell a model from others."""
_KINDS = {"float32": "F32", "float16": "F16"}
"""What safetensors calls the types that a cache may have."""


class Session:
    """Continues texts that begin alike, and reads only what is new in each.

    It keeps what the cache holds of its last text; the next one shares the longest common beginning, to the token. The
    text that comes out is the same as without. Several threads may use one: what is kept is that of the one that ends
    last. Its memory is given back when it is closed or nobody holds it any more.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._past = _Past(model.engine, [], Sequence())
        self._closed = False

    def __len__(self) -> int:
        """How many tokens it keeps."""
        return len(self._past.ids)

    def generate(self, prompt: str = "", **options: Unpack[Options]) -> Completion:
        """Continue a prompt; options and errors as for `Model.generate`. `timing.prompt_tokens` counts what was read.

        Raises RuntimeError if the session is closed.
        """
        stream = self.stream(prompt, **options)
        for _ in stream:
            pass
        return stream.completion

    def stream(self, prompt: str = "", **options: Unpack[Options]) -> Stream:
        """Continue a prompt piece by piece; options and errors as for `Model.stream`."""
        self._check_open()
        writer = next(self.model._writers(prompt, 1, *parse(self.model.tokenizer, options)))
        return Stream(partial(next, self._grow(writer), False), writer)

    def astream(self, prompt: str = "", **options: Unpack[Options]) -> AsyncGenerator[str, None]:
        """Continue a prompt piece by piece without blocking asyncio's loop: see `Model.astream`."""
        from .aio import begin

        return begin(partial(self.stream, prompt, **options))

    def reset(self) -> None:
        """Forget the text."""
        self._check_open()
        self._past = _Past(self.model.engine, [], Sequence())

    def close(self) -> None:
        """Forget the text and refuse others."""
        self._closed = True
        self._past = _Past(self.model.engine, [], Sequence())

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a session cannot be pickled: save it to a file and load it there")

    def save(self, path: str | Path) -> None:
        """Write what is kept, whole or not at all, to a file that `load` reads. Raises OSError, for a folder too.

        It is a safetensors file with the ids int32 [n] and the pages of keys and values that hold them, and metadata
        that say of which model they are. Texts of others that lie in the same pages are left out.
        """
        self._check_open()
        past, engine = self._past, self.model.engine
        pages = engine.copy_pages(past.sequence)
        ids = np.array(past.ids, np.int32)
        metadata = {
            "format": _FORMAT,
            "model": _describe(self.model),
            "fingerprint": fingerprint(engine),
            "sha256": _checksum(ids, pages),
        }
        with create(Path(path), {"ids": ("I32", ids.shape), "pages": (_kind(engine), pages.shape)}, metadata) as file:
            file.write(ids.data)
            file.write(pages.data)

    @classmethod
    def load(cls, model: Model, path: str | Path) -> Session:
        """A session that goes on from a file.

        Raises FormatError if the file is damaged or none that `save` has written, ValueError if it was with another
        model or another type of cache, OSError. On another kind of CPU the last bits of its numbers may differ from
        those that would be computed there.
        """
        ids, pages = _read(Path(path), model)
        session = cls(model)
        session._past = _Past(model.engine, ids, model.engine.restore(pages, len(ids)))
        return session

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("this session is closed: open another one")

    def _grow(self, writer: Writer) -> Iterator[bool]:
        """Let a text grow by a token a step, from what it has in common with the one before."""
        engine, generation, before = self.model.engine, writer.generation, self._past
        window = generation.window
        n_shared = in_common(before.ids, window.ids[: generation.first_wanted])
        window.sequence = engine.fork(before.sequence, n_shared)
        generation.timing.prompt_tokens -= n_shared
        self._keep(before.ids[:n_shared], before.sequence)
        del before
        steps = run(engine, [generation])  # frees the window when it ends or is dropped, so not before it is kept
        try:
            for _ in steps:
                writer.update()
                if generation.finish_reason:
                    break
                yield True
        except GeneratorExit:  # nobody asks for more
            self._keep_read(window)
            raise
        else:
            self._keep_read(window)
        finally:  # after an error what was shared is left, and nothing of half a step
            engine.free(window.sequence)
        yield True

    def _keep_read(self, window: Window) -> None:
        self._keep(window.ids[: window.sequence.length], window.sequence)

    def _keep(self, ids: list[int], sequence: Sequence) -> None:
        """Keep a text that stands at the beginning of a sequence, instead of the one before."""
        if not self._closed:
            self._past = _Past(self.model.engine, ids, self.model.engine.fork(sequence, len(ids)))


class _Past:
    """Ids that were read, and the sequence that holds them, which is freed with it. Neither is changed."""

    def __init__(self, engine: Engine, ids: list[int], sequence: Sequence) -> None:
        self.ids = ids
        self.sequence = sequence
        weakref.finalize(self, engine.free, sequence).atexit = False


def fingerprint(engine: Engine) -> str:
    """Tells a model, as the cache sees it, from any other: a SHA-256 as hexadecimal digits.

    It covers the config, the type of the weights and of the cache, the layout of both, the checksum of the weights that
    the file was made from, and of each tensor its name, type and shape and the first and last 2 KiB.
    """
    weights = engine.weights
    facts = {
        "config": weights.config.to_dict(),
        "weights": [weights.dtype, LAYOUT, weights.metadata.get("source_sha256")],
        "cache": [_kind(engine), PAGE, engine.cache.page_size],
        "tensors": [[name, entry.dtype, entry.shape] for name, entry in weights.entries.items()],
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for entry in weights.entries.values():
        digest.update(weights.block[entry.start : min(entry.start + _SAMPLE, entry.stop)].data)
        digest.update(weights.block[max(entry.stop - _SAMPLE, entry.start) : entry.stop].data)
    return digest.hexdigest()


def _describe(model: Model) -> str:
    return f"{model.name} {model.dtype}, cache {model.engine.cache.memory.dtype}"


def _kind(engine: Engine) -> str:
    return _KINDS[str(engine.cache.memory.dtype)]


def _checksum(ids: np.ndarray, pages: np.ndarray) -> str:
    digest = hashlib.sha256(ids.data)
    digest.update(pages.data)
    return digest.hexdigest()


def _read(path: Path, model: Model) -> tuple[list[int], np.ndarray]:
    """Ids and pages of a file that `Session.save` has written. Raises as `Session.load`."""
    entries, metadata = read_header(path)
    if metadata.get("format") != _FORMAT:
        raise FormatError(f"{path} is no session: expected a file that `Session.save` has written")
    if metadata.get("fingerprint") != fingerprint(model.engine):
        saved = metadata.get("model", "another one")
        raise ValueError(
            f"{path} is a session of {saved}, and this model is {_describe(model)}: load that model for it"
        )
    cache, config = model.engine.cache, model.config
    ids_at, pages_at = (entries.get(name, Entry("", (0,), 0, 0)) for name in ("ids", "pages"))
    n = ids_at.shape[0] if ids_at.shape else -1
    expected = ("I32", (n,)), (_kind(model.engine), (-(-n // PAGE), cache.page_size))
    if (ids_at[:2], pages_at[:2]) != expected or n > config.n_ctx:
        raise FormatError(f"{path}: ids {ids_at[:2]} and pages {pages_at[:2]} are not those of a text: save it again")
    with path.open("rb") as file:
        file.seek(ids_at.start)
        ids = np.frombuffer(file.read(ids_at.stop - ids_at.start), "<i4")
        file.seek(pages_at.start)
        pages = np.frombuffer(file.read(pages_at.stop - pages_at.start), cache.memory.dtype)
    if _checksum(ids, pages) != metadata.get("sha256"):
        raise FormatError(f"{path}: damaged, its checksum is another: save it again")
    if n and not 0 <= ids.min() <= ids.max() < config.n_vocab:
        raise FormatError(f"{path}: has ids that are not in 0..{config.n_vocab - 1}: save it again")
    return ids.tolist(), pages.reshape(pages_at.shape)
