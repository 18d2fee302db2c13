"""Compress and decompress: the model predicts each token, and the coder writes which of them it was.

A chunk is [beginning of text, its tokens]; row i of it predicts token i. The compressor reads many rows of a chunk in
one pass. The decompressor reads one row of every chunk of a batch, decodes their tokens, and reads those. The logits
have the same bits in both.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Ids
from contextlib import suppress
from dataclasses import dataclass, field
from numbers import Integral

import numpy as np

from ..abi.layout import PAGE
from ..engine.engine import Engine
from ..engine.kv_cache import Sequence
from ..engine.model_runner import MAX_LOGIT_ROWS
from ..formats import FormatError
from ..text.session import describe, fingerprint
from ..tokenizer import Tokenizer
from ..validation import check
from .byte_tokens import encode_bytes
from .coder import Decoder, Encoder
from .container import Chunk, Container
from .frequencies import frequencies
from .windows import chunks, windows

CHUNK_SIZE = 4096
"""Tokens of a chunk. Each begins without a context, which costs; and chunks are decompressed side by side."""
MAX_BATCH = 32
"""Chunks that are decompressed side by side, if the KV cache can hold them."""
Progress = Callable[[int], object]
"""Is called with the number of tokens that were coded since the last call."""


@dataclass
class _Text:
    """A chunk that is being decompressed."""

    decoder: Decoder
    n_tokens: int
    ids: list[int]  # the beginning of text, and the tokens so far
    sequence: Sequence = field(default_factory=Sequence)


def compress(
    engine: Engine,
    tokenizer: Tokenizer,
    data: bytes,
    *,
    chunk_size: int = CHUNK_SIZE,
    window: int | None = None,
    overlap: int | None = None,
    progress: Progress = lambda n: None,
) -> bytes:
    """Compress bytes, losslessly.

    Args:
        engine: runs the model.
        tokenizer: of the model; its vocabulary must have a token for every byte.
        data: any bytes; text in UTF-8 of the kind that the model knows becomes smallest.
        chunk_size: tokens of a chunk, at most.
        window: tokens that the model reads from an empty context; None: its context.
        overlap: tokens that a window repeats from the one before; None: half a window.
        progress: see `Progress`.

    Returns:
        The compressed file.

    Raises:
        ValueError: a size is out of range, or a byte has no token.
    """
    n_ctx = engine.config.n_ctx
    window = n_ctx if window is None else window
    check("window", window, Integral, lambda n: 1 <= n <= n_ctx, f"from 1 to {n_ctx}, the context of this model")
    overlap = window // 2 if overlap is None else overlap
    check("overlap", overlap, Integral, lambda n: 0 <= n < window, f"from 0 to {window - 1}, below the window")
    check("chunk_size", chunk_size, Integral, lambda n: n >= 1, "from 1 on")
    ids = encode_bytes(tokenizer, data, engine.config.n_vocab)
    parts = []
    for part in chunks(len(ids), -(-len(ids) // chunk_size)):
        encoder = Encoder()
        for token, logits in zip(ids[part], _predictions(engine, _rows(tokenizer, ids[part]), window, overlap)):
            counts = frequencies(logits)
            before = int(counts[:token].sum(dtype=np.int64))
            encoder.push(before, int(counts[token]), before + int(counts[token:].sum(dtype=np.int64)))
            progress(1)
        parts.append(Chunk(encoder.finish(), zlib.crc32(tokenizer.decode_bytes(ids[part]))))
    model = describe(engine)
    return Container(model, _fingerprint(engine, tokenizer), window, overlap, len(data), len(ids), parts).to_bytes()


def decompress(
    engine: Engine,
    tokenizer: Tokenizer,
    packed: bytes,
    *,
    chunk: int | None = None,
    batch_size: int = MAX_BATCH,
    progress: Progress = lambda n: None,
) -> bytes:
    """The bytes that `compress` was given.

    Args:
        engine: runs the model that compressed them.
        tokenizer: of the model.
        packed: the compressed file.
        chunk: read this chunk alone, counted from 0; None: all.
        batch_size: chunks that are decoded side by side, at most; the bytes do not depend on it.
        progress: see `Progress`.

    Raises:
        FormatError: the file is damaged, or this CPU computes other bits than the one that compressed it.
        ValueError: another model compressed the file, or chunk or batch_size is out of range.
    """
    return decode(
        engine, tokenizer, Container.from_bytes(packed), chunk=chunk, batch_size=batch_size, progress=progress
    )


def decode(
    engine: Engine,
    tokenizer: Tokenizer,
    container: Container,
    *,
    chunk: int | None = None,
    batch_size: int = MAX_BATCH,
    progress: Progress = lambda n: None,
) -> bytes:
    """`decompress` of a file that has been read."""
    check("batch_size", batch_size, Integral, lambda n: 1 <= n <= MAX_LOGIT_ROWS, f"from 1 to {MAX_LOGIT_ROWS}")
    _check_model(engine, tokenizer, container)
    n_chunks = len(container.chunks)
    wanted = range(n_chunks) if chunk is None else [chunk]
    if chunk is not None:
        check("chunk", chunk, Integral, lambda n: 0 <= n < n_chunks, f"from 0 to {n_chunks - 1}")
    batch = min(batch_size, max(1, engine.cache.n_pages // -(-container.window // PAGE)))
    parts: list[bytes] = []
    for start in range(0, len(wanted), batch):
        parts += _decode_batch(engine, tokenizer, container, wanted[start : start + batch], progress)
    data = b"".join(parts)
    if chunk is None and len(data) != container.n_bytes:
        raise FormatError(f"the compressed file says that it has {container.n_bytes} bytes, and has {len(data)}")
    return data


def _check_model(engine: Engine, tokenizer: Tokenizer, container: Container) -> None:
    if container.fingerprint != _fingerprint(engine, tokenizer):
        raise ValueError(
            f"the file was compressed with the model {container.model!r}, and this one is {describe(engine)!r}: "
            "decompress with the same model, --dtype and --kv-dtype"
        )
    if container.window > engine.config.n_ctx:
        raise FormatError(f"the compressed file has a window of {container.window}, above the context of its model")


def _decode_batch(
    engine: Engine, tokenizer: Tokenizer, container: Container, numbers: Ids[int], progress: Progress
) -> list[bytes]:
    """The bytes of some chunks, which are decoded side by side."""
    spans = chunks(container.n_tokens, len(container.chunks))
    texts = [
        _Text(Decoder(container.chunks[i].coded), spans[i].stop - spans[i].start, _rows(tokenizer, [])) for i in numbers
    ]
    try:
        for start, first, stop in windows(max(text.n_tokens for text in texts), container.window, container.overlap):
            _begin_window(engine, texts, start, first)
            for row in range(first, stop):
                progress(_decode_row(engine, [text for text in texts if row < text.n_tokens]))
    finally:
        for text in texts:
            engine.free(text.sequence)
    return [_checked(tokenizer, text.ids[1:], container.chunks[i], i) for text, i in zip(texts, numbers, strict=True)]


def _begin_window(engine: Engine, texts: list[_Text], start: int, first: int) -> None:
    """Read the rows that the window shares with the one before, into empty sequences."""
    for text in texts:
        engine.free(text.sequence)
    for text in texts:
        if start < first:
            engine.append(text.sequence, text.ids[start:first])


def _decode_row(engine: Engine, texts: list[_Text]) -> int:
    """One more token for each text -> how many."""
    for text, logits in zip(
        texts, engine.logits_after([text.ids[-1] for text in texts], [text.sequence for text in texts]), strict=True
    ):
        sums = np.cumsum(frequencies(logits), dtype=np.int64)
        total = int(sums[-1])
        token = int(np.searchsorted(sums, text.decoder.target(total), side="right"))
        before = int(sums[token - 1]) if token else 0
        text.decoder.take(before, int(sums[token]) - before, total)
        text.ids.append(token)
    return len(texts)


def _checked(tokenizer: Tokenizer, ids: list[int], chunk: Chunk, number: int) -> bytes:
    """The bytes of a chunk's tokens. Raises FormatError if they are not those that were compressed."""
    with suppress(ValueError):  # of an id that has no token
        data = tokenizer.decode_bytes(ids)
        if zlib.crc32(data) == chunk.crc:
            return data
    raise FormatError(
        f"chunk {number} decodes to other bytes than were compressed: this CPU's kernels give the model other bits "
        "than the kernels that compressed it; both need fused multiply-add (FMA), see docs/compression.md"
    )


def _predictions(engine: Engine, rows: list[int], window: int, overlap: int) -> Iterator[np.ndarray]:
    """Logits float32 [n_vocab] after each row of a chunk but the last, which predict its tokens."""
    sequence = Sequence()
    try:
        for start, first, stop in windows(len(rows) - 1, window, overlap):
            engine.free(sequence)
            if start < first:
                engine.append(sequence, rows[start:first])
            for place in range(first, stop, MAX_LOGIT_ROWS):
                part = rows[place : min(place + MAX_LOGIT_ROWS, stop)]
                yield from engine.logits_after(part, [sequence] * len(part))
    finally:
        engine.free(sequence)


def _rows(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """The ids that are read for a chunk: what begins texts, or else the id 0, predicts the first token."""
    return [tokenizer.bos_id or 0, *ids]


def _fingerprint(engine: Engine, tokenizer: Tokenizer) -> bytes:
    """Eight bytes, equal only for the same model with the same types of weights and cache, and the same vocabulary."""
    return hashlib.sha256(f"{fingerprint(engine)} {tokenizer.fingerprint}".encode()).digest()[:8]
