"""Streams for asyncio: a thread runs the model, so that the event loop is never blocked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

from .stream import Stream


async def begin(stream: Callable[[], Stream]) -> AsyncGenerator[str, None]:
    """The pieces of a stream. A thread makes the stream, since encoding a long prompt takes time."""
    async with aclosing(pieces_of(await asyncio.to_thread(stream))) as pieces:
        async for piece in pieces:
            yield piece


async def complete(streams: Callable[[], list[Stream]], is_one: bool) -> Any:
    """The completions of streams, or the one there is. A thread makes the streams."""
    begun = await asyncio.to_thread(streams)
    async for _ in pieces_of(*begun):
        pass
    completions = [stream.completion for stream in begun]
    return completions[0] if is_one else completions


async def pieces_of(*streams: Stream) -> AsyncGenerator[str, None]:
    """The pieces of streams of one batch, one stream after the other. Closing the generator cancels all of them.

    The thread makes one piece at a time, when it is asked for: other streams run in between.
    """
    loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1, "asyncio-nbgpt")
    try:
        for stream in streams:
            while piece := await loop.run_in_executor(thread, next, stream, ""):
                yield piece
    finally:
        for stream in streams:
            stream.cancel()  # the thread may be in the middle of a piece of many tokens
            thread.submit(list, stream)  # to its end, so that it gives its memory back
        thread.shutdown(wait=False)
