"""A load generator for OpenAI's completions API: plain sockets, so that it takes little of the processor it shares."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"


@dataclass
class Answer:
    """When an answer came, in seconds of `time.perf_counter`."""

    asked: float
    events: list[float] = field(default_factory=list)  # when parts of the body came
    body: bytes = b""

    @property
    def first(self) -> float:
        """Seconds until the first part."""
        return self.events[0] - self.asked

    @property
    def seconds(self) -> float:
        """Seconds until the last part."""
        return self.events[-1] - self.asked


async def ask(port: int, body: dict[str, Any], path: str = "/v1/completions") -> Answer:
    """Ask once, on a connection of its own. Raises RuntimeError for an answer that is no 200."""
    reader, writer = await asyncio.open_connection(HOST, port, limit=1 << 24)
    data, answer = json.dumps(body).encode(), Answer(time.perf_counter())
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    headers = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    if "transfer-encoding: chunked" in headers:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            answer.body += await reader.readexactly(size)
            await reader.readexactly(2)
            answer.events.append(time.perf_counter())
    else:
        answer.body = await reader.readexactly(int(headers.split("content-length:")[1].split("\r\n")[0]))
        answer.events.append(time.perf_counter())
    writer.close()
    if " 200 " not in headers.split("\r\n")[0]:
        raise RuntimeError(f"{headers.splitlines()[0]}: {answer.body[:300]!r}")
    return answer


Body = Callable[[int], dict[str, Any]]
"""From the number of a request to its body."""


@dataclass
class Load:
    """What a run of requests took."""

    seconds: float
    generator_cpu: float  # seconds of this process
    answers: list[Answer]


async def closed_loop(port: int, body: Body, n_clients: int, n_rounds: int) -> Load:
    """Each client asks again as soon as it has its answer."""
    answers: list[list[Answer]] = [[] for _ in range(n_clients)]

    async def client(number: int) -> None:
        for turn in range(n_rounds):
            answers[number].append(await ask(port, body(number + n_clients * turn)))

    return await _timed([client(number) for number in range(n_clients)], answers)


async def open_loop(port: int, body: Body, n_requests: int, per_second: float, seed: int = 0) -> Load:
    """Requests arrive at random (a Poisson process), whether earlier ones are answered or not."""
    answers: list[list[Answer]] = [[] for _ in range(n_requests)]
    chance, at = random.Random(seed), 0.0
    arrivals = [at := at + chance.expovariate(per_second) for _ in range(n_requests)]

    async def client(number: int) -> None:
        await asyncio.sleep(arrivals[number])
        answers[number].append(await ask(port, body(number)))

    return await _timed([client(number) for number in range(n_requests)], answers)


async def _timed(clients: list[Awaitable[None]], answers: list[list[Answer]]) -> Load:
    cpu, start = time.process_time(), time.perf_counter()
    await asyncio.gather(*clients)
    return Load(time.perf_counter() - start, time.process_time() - cpu, [one for mine in answers for one in mine])


@contextmanager
def running(command: list[str], port: int, environment: dict[str, str] | None = None) -> Iterator[int]:
    """Run a server until it answers /health -> its process id."""
    process = subprocess.Popen(command, env={**os.environ, **(environment or {})}, stderr=subprocess.DEVNULL, stdout=-3)
    try:
        deadline = time.monotonic() + 120
        while not _is_up(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not answer on port {port}; it ended with {process.poll()}")
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait(60)


def _is_up(port: int) -> bool:
    import http.client

    try:
        connection = http.client.HTTPConnection(HOST, port, timeout=2)
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False


def cpu_of_main_thread(pid: int) -> float:
    """Seconds of the processor that the first thread of a process has taken: that of asyncio's loop.

    From Linux's schedstat (sched-stats.rst), in nanoseconds; stat counts hundredths of a second.
    """
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9
