"""Compress and decompress: the model predicts each token, and the coder writes which of them it was.

A chunk is read as rows: row 0 is the beginning of text, row i the chunk's token i - 1, and row i predicts token i. The
compressor knows all rows and reads many of them in a pass. The decompressor reads a row of every chunk of a batch,
decodes a token of each, and reads these next. A row's logits have the same bits in both.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Generator
from collections.abc import Sequence as Ids
from contextlib import closing, suppress
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
from .windows import chunk_spans, windows

CHUNK_SIZE = 4096
"""Tokens of a chunk. Each begins without a context, which takes bytes; and chunks are decompressed side by side."""
MAX_BATCH = 32
"""Chunks that are decompressed side by side, if the KV cache can hold them."""
Progress = Callable[[int, int], object]
"""Is called with the number of tokens that are coded, and with that of all tokens."""


def compress(
    engine: Engine,
    tokenizer: Tokenizer,
    data: bytes,
    *,
    chunk_size: int = CHUNK_SIZE,
    window: int | None = None,
    overlap: int | None = None,
    progress: Progress = lambda done, total: None,
) -> bytes:
    """Compress bytes without loss.

    Args:
        engine: runs the model.
        tokenizer: of the model; its vocabulary must have a token for every byte.
        data: any bytes; what becomes smallest is text, in UTF-8, of the kind that the model knows.
        chunk_size: tokens of a chunk, at most.
        window: tokens that the model reads from an empty context; None: its context.
        overlap: tokens that a window repeats from the one before; None: half a window.
        progress: see `Progress`.

    Returns:
        The compressed file.

    Raises:
        ValueError: data is not bytes, a size is out of range, or a byte has no token.
    """
    check("data", data, (bytes, bytearray), allowed="bytes; encode a text first")
    n_ctx = engine.config.n_ctx
    window = n_ctx if window is None else window
    check("window", window, Integral, lambda n: 1 <= n <= n_ctx, f"from 1 to {n_ctx}, the context of this model")
    overlap = window // 2 if overlap is None else overlap
    check("overlap", overlap, Integral, lambda n: 0 <= n < window, f"from 0 to {window - 1}, below the window")
    check("chunk_size", chunk_size, Integral, lambda n: n >= 1, "from 1 on")
    ids = encode_bytes(tokenizer, data, engine.config.n_vocab)
    parts = []
    for span in chunk_spans(len(ids), -(-len(ids) // chunk_size)):
        encoder, part = Encoder(), ids[span]
        with closing(_predictions(engine, [_begin(tokenizer), *part], window, overlap)) as predictions:
            for done, (token, logits) in enumerate(zip(part, predictions, strict=True), start=span.start + 1):
                encoder.push(*_share(frequencies(logits), token))
                progress(done, len(ids))
        parts.append(Chunk(encoder.finish(), zlib.crc32(tokenizer.decode_bytes(part))))
    identity = _identity(engine, tokenizer)
    return Container(describe(engine), identity, window, overlap, len(data), len(ids), parts).to_bytes()


def decompress(
    engine: Engine,
    tokenizer: Tokenizer,
    packed: bytes,
    *,
    chunk: int | None = None,
    batch_size: int = MAX_BATCH,
    progress: Progress = lambda done, total: None,
) -> bytes:
    """The bytes that `compress` was given.

    Args:
        engine: runs the model that compressed them, with the same types of weights and cache.
        tokenizer: of the model.
        packed: the compressed file.
        chunk: read this chunk alone, counted from 0; None: all.
        batch_size: chunks that are decoded side by side, at most; the result does not depend on it.
        progress: see `Progress`.

    Returns:
        The bytes of the file, or of the chunk.

    Raises:
        FormatError: the file is damaged, or this CPU computes other bits than the one that compressed it.
        ValueError: another model compressed the file, or chunk or batch_size is out of range.
    """
    check("packed", packed, (bytes, bytearray), allowed="the bytes of a compressed file")
    container = Container.from_bytes(packed)
    _check_model(engine, tokenizer, container)
    n_chunks, spans = len(container.chunks), container.spans
    check("batch_size", batch_size, Integral, lambda n: 1 <= n <= MAX_LOGIT_ROWS, f"from 1 to {MAX_LOGIT_ROWS}")
    if chunk is not None:
        check(
            "chunk", chunk, Integral, lambda i: 0 <= i < n_chunks, f"from 0 on, below {n_chunks}, the number of chunks"
        )
    numbers = range(n_chunks) if chunk is None else [chunk]
    total = sum(spans[i].stop - spans[i].start for i in numbers)
    size = min(batch_size, max(1, engine.cache.n_pages // -(-container.window // PAGE)))
    parts: list[bytes] = []
    count = _sum_for(progress, total)
    for start in range(0, len(numbers), size):
        batch = numbers[start : start + size]
        parts += _decode_batch(engine, tokenizer, container, batch, count)
    data = b"".join(parts)
    if chunk is None and len(data) != container.n_bytes:
        raise FormatError(f"the compressed file has {len(data)} bytes, and its header says {container.n_bytes}")
    return data


def _check_model(engine: Engine, tokenizer: Tokenizer, container: Container) -> None:
    if container.identity != _identity(engine, tokenizer):
        raise ValueError(
            f"the file was compressed with the model {container.model!r}, and this one is {describe(engine)!r}: give "
            "the same --model, --dtype and --kv-dtype"
        )
    if container.window > engine.config.n_ctx:
        raise FormatError(f"the compressed file says window {container.window}, above the model's context")


# --- Compressing: a chunk at a time, many rows in a pass --------------------------------------------------------------


def _predictions(engine: Engine, rows: list[int], window: int, overlap: int) -> Generator[np.ndarray]:
    """Logits float32 [n_vocab] after each row of a chunk but the last, which predicts nothing of it."""
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


def _share(counts: np.ndarray, token: int) -> tuple[int, int, int]:
    """Frequencies uint32 [n_vocab] -> the sum of those before the token, the token's own, and the sum of all."""
    before = int(counts[:token].sum(dtype=np.int64))
    return before, int(counts[token]), before + int(counts[token:].sum(dtype=np.int64))


# --- Decompressing: a row of each chunk in a pass ---------------------------------------------------------------------


@dataclass
class _Text:
    """A chunk that is being decoded."""

    number: int  # of the chunk
    decoder: Decoder
    n_tokens: int
    rows: list[int]  # those that are known
    sequence: Sequence = field(default_factory=Sequence)


def _sum_for(progress: Progress, total: int) -> Callable[[int], None]:
    """A function that is called with how many more tokens are done."""
    done = 0

    def count(n: int) -> None:
        nonlocal done
        done += n
        progress(done, total)

    return count


def _decode_batch(
    engine: Engine, tokenizer: Tokenizer, container: Container, numbers: Ids[int], count: Callable[[int], object]
) -> list[bytes]:
    """The bytes of the chunks with these numbers."""
    texts = [
        _Text(i, Decoder(container.chunks[i].coded), span.stop - span.start, [_begin(tokenizer)])
        for i in numbers
        for span in [container.spans[i]]
    ]
    try:
        for start, first, stop in windows(max(text.n_tokens for text in texts), container.window, container.overlap):
            _read_overlap(engine, texts, start, first)
            for row in range(first, stop):
                count(_decode_row(engine, [text for text in texts if row < text.n_tokens]))
    finally:
        for text in texts:
            engine.free(text.sequence)
    return [_checked(tokenizer, text.rows[1:], container.chunks[i], i) for text, i in zip(texts, numbers, strict=True)]


def _read_overlap(engine: Engine, texts: list[_Text], start: int, first: int) -> None:
    """Begin a window: empty each sequence and read rows start to first - 1."""
    for text in texts:
        engine.free(text.sequence)
    for text in texts:
        if start < first:
            engine.append(text.sequence, text.rows[start:first])


def _decode_row(engine: Engine, texts: list[_Text]) -> int:
    """Read the last row of each text and decode the token that follows -> how many. Raises FormatError."""
    logits = engine.logits_after([text.rows[-1] for text in texts], [text.sequence for text in texts])
    for text, row in zip(texts, logits, strict=True):
        sums = np.cumsum(frequencies(row), dtype=np.int64)
        total = int(sums[-1])
        token = int(np.searchsorted(sums, text.decoder.target(total), side="right"))
        before = int(sums[token - 1]) if token else 0
        text.decoder.take(before, int(sums[token]) - before, total)
        if text.decoder.is_astray:  # or a forged number of tokens would keep it busy for ever
            raise _other_bytes(text.number)
        text.rows.append(token)
    return len(texts)


def _checked(tokenizer: Tokenizer, ids: list[int], chunk: Chunk, number: int) -> bytes:
    """The bytes of a chunk's tokens. Raises FormatError if they are not those that were compressed."""
    with suppress(ValueError):  # of an id that has no token
        data = tokenizer.decode_bytes(ids)
        if zlib.crc32(data) == chunk.crc:
            return data
    raise _other_bytes(number)


def _other_bytes(number: int) -> FormatError:
    return FormatError(
        f"chunk {number} decodes to other bytes than were compressed: this CPU or nbgpt computes other logits than "
        "the compressor's; use the same version, on CPUs that have fused multiply-add (FMA)"
    )


# --- Both -------------------------------------------------------------------------------------------------------------


def _begin(tokenizer: Tokenizer) -> int:
    """Row 0 of a chunk: what begins texts, or id 0 in a vocabulary that has no such token."""
    return 0 if tokenizer.bos_id is None else tokenizer.bos_id


def _identity(engine: Engine, tokenizer: Tokenizer) -> bytes:
    """Eight bytes, equal only for the same model with the same types of weights and cache, and the same vocabulary."""
    return hashlib.sha256(f"{fingerprint(engine)} {tokenizer.fingerprint}".encode()).digest()[:8]
