"""Texts beside asyncio's loop: a thread lets them grow, so that the loop never waits for a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

from .stream import Stream


async def begin(stream: Callable[[], Stream]) -> AsyncGenerator[str, None]:
    """The pieces of a stream that a thread begins, since a prompt may be long."""
    async with aclosing(pieces_of(await asyncio.to_thread(stream))) as pieces:
        async for piece in pieces:
            yield piece


async def pieces_of(*streams: Stream) -> AsyncGenerator[str, None]:
    """The pieces of streams that grow together, one stream after the other. When it is closed, they are cancelled.

    The thread is asked for one piece at a time, so texts that others ask for take turns with these, and what nobody
    asks for is not made.
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
