"""How a text is cut: chunks that are coded apart from each other, and the windows in which the model reads a chunk."""

from __future__ import annotations

from collections.abc import Iterator


def chunk_spans(n_tokens: int, n_chunks: int) -> list[slice]:
    """Cut a text into chunks whose lengths differ by one token at most."""
    return [slice(i * n_tokens // n_chunks, (i + 1) * n_tokens // n_chunks) for i in range(n_chunks)]


def windows(n_rows: int, window: int, overlap: int) -> Iterator[tuple[int, int, int]]:
    """The windows of a chunk that has n_rows rows; row i predicts token i from the tokens before it.

    A window has up to `window` rows and begins with the last `overlap` rows of the one before.

    Yields:
        (start, first, stop): read rows start to stop - 1 from an empty context and predict from `first` on.
    """
    start = first = 0
    while first < n_rows:
        stop = min(start + window, n_rows)
        yield start, first, stop
        start, first = stop - overlap, stop
