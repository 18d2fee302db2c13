"""`python -m nbgpt serve` under load, beside the engine in one process, and beside llama-server if it is there.

    python bench/serve.py --model FOLDER [--llama-server BINARY --gguf float16=FILE int8=FILE] [--only SECTION ...]

FOLDER is a GPT-2 124M with its vocabulary; random weights do as well: bench/peers.py makes some. The load generator
(load_generator.py) shares the two cores with the server, and its CPU time is named; the section locust needs the
package locust. What is compared is measured in turn, and medians are shown. Writes results/serve.md. Nothing else
should run on the machine meanwhile.

llama-server is built from the llama.cpp in the source distribution of llama-cpp-python (cmake -B build -G Ninja
-DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF; ninja -C build llama-server llama-quantize); convert_hf_to_gguf.py there
makes the F16 file, and llama-quantize Q8_0 of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
from figures import Figure, Results
from load_generator import Body, Load, closed_loop, cpu_of_main_thread, open_loop, running

import nbgpt

N_CLIENTS, N_PROMPT, N_NEW, N_ROUNDS = 16, 30, 100, 3
N_STEPS = 40  # over which the time of one is averaged
PORT, PEER_PORT, SMALL_PORT = 8765, 8766, 8767
GGUF_OF = {"float16": "F16", "int8": "Q8_0"}


@dataclass
class Bench:
    """A model of one type: in this process, behind our server, and behind llama-server."""

    dtype: str
    model: nbgpt.Model
    command: list[str]  # that starts our server, but for its port
    pid: int
    peer: list[str]  # that starts llama-server, if there is one
    n_asked: int = field(default=0)

    def prompts(self, n: int, length: int = N_PROMPT) -> list[list[int]]:
        """Prompts that were not asked before, so that no prefix is known."""
        self.n_asked += 1
        return np.random.default_rng(self.n_asked).integers(0, 50256, (n, length)).tolist()

    def body(self, is_streamed: bool = False, **more: Any) -> Body:
        """Bodies that our server and llama-server take alike."""
        prompts = self.prompts(4096)
        fixed = {
            "max_tokens": N_NEW,
            "temperature": 0.8,
            "top_k": 40,
            "stream": is_streamed,
            "ignore_eos": True,
            **more,
        }
        return lambda number: {"prompt": prompts[number % len(prompts)], "seed": number, **fixed}

    def in_process(self, n: int, max_tokens: int = N_NEW) -> float:
        """Seconds of n texts generated together by `Model.generate`."""
        prompts, start = self.prompts(n), time.perf_counter()
        self.model.generate(prompts, max_tokens=max_tokens, batch_size=n, ignore_eos=True, seed=0)
        return time.perf_counter() - start

    def loop(self, body: Body, n_clients: int = N_CLIENTS, n_rounds: int = N_ROUNDS, port: int = PORT) -> Load:
        """A closed loop of clients."""
        return asyncio.run(closed_loop(port, body, n_clients, n_rounds))

    @contextmanager
    def peer_running(self) -> Iterator[None]:
        """Start llama-server, if there is one. It ends with the section: the others are measured without it."""
        with running(self.peer, PEER_PORT) if self.peer else nullcontext():
            yield


def speed(load: Load) -> float:
    """New tokens a second."""
    return len(load.answers) * N_NEW / load.seconds


def p(values: list[float], percent: int) -> float:
    """A percentile."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def in_turn(runs: dict[str, Callable[[], Any]], rounds: int = 3) -> dict[str, list[Any]]:
    """What each call returns, all of them in turn."""
    results: dict[str, list[Any]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            results[name].append(run())
    return results


def throughput(bench: Bench) -> Iterator[Figure]:
    """Tokens a second of 16 clients, prompts of 30 tokens and 100 new ones."""
    runs: dict[str, Callable[[], Any]] = {
        "process": lambda: N_CLIENTS * N_NEW / bench.in_process(N_CLIENTS),
        "whole": lambda: bench.loop(bench.body()),
        "streamed": lambda: bench.loop(bench.body(is_streamed=True)),
    }
    if bench.peer:
        runs["llama-server"] = lambda: bench.loop(bench.body(is_streamed=True), port=PEER_PORT)
    with bench.peer_running():
        results = in_turn(runs)
    alone = median(results["process"])
    yield Figure(f"{bench.dtype}: 16 texts in one process", "", f"{alone:.0f} tokens/s", None)
    for name, goal in (("whole", 0.90), ("streamed", 0.80)):
        value = median(map(speed, results[name]))
        cpu = median(load.generator_cpu / load.seconds for load in results[name])
        measured = f"{value / alone:.2f} ({value:.0f} tokens/s; the generator takes {cpu:.0%} of a core)"
        what = f"{bench.dtype}: 16 clients, answers {name}"
        yield Figure(what, f"≥ {goal:.2f} of it", measured, value / alone >= goal)
    if bench.peer:
        theirs, ours = median(map(speed, results["llama-server"])), median(map(speed, results["streamed"]))
        what = f"{bench.dtype}: streamed, beside llama-server {GGUF_OF[bench.dtype]}"
        yield Figure(what, "≥ 2 x", f"{ours / theirs:.2f} x ({theirs:.0f} tokens/s)", ours / theirs >= 2)


def single(bench: Bench) -> Iterator[Figure]:
    """One client beside `Model.generate`."""
    results = in_turn(
        {
            "process": lambda: bench.in_process(1),
            "server": lambda: bench.loop(bench.body(), n_clients=1, n_rounds=1).seconds,
        },
        rounds=7,
    )
    ratio = median(results["process"]) / median(results["server"])
    yield Figure(f"{bench.dtype}: one client", "≥ 0.95 of generate", f"{ratio:.2f}", ratio >= 0.95)


def first_token(bench: Bench) -> Iterator[Figure]:
    """Seconds to the first token, of random arrivals at 80 % of the capacity, and of 16 requests at once."""
    capacity = median(speed(bench.loop(bench.body(is_streamed=True))) for _ in range(2)) / N_NEW
    load = asyncio.run(open_loop(PORT, bench.body(is_streamed=True), 100, 0.8 * capacity))
    prefill = median(bench.in_process(1, max_tokens=1) for _ in range(9))
    n_rows = 2 * N_CLIENTS  # the full row budget beside 16 texts
    reading, writing = (median(bench.in_process(n_rows, n) for _ in range(3)) for n in (1, 1 + N_STEPS))
    step = (writing - reading) / N_STEPS
    value, limit = p([answer.first for answer in load.answers], 99), 3 * (step + prefill)
    measured = f"{value * 1e3:.0f} ms (median {median(answer.first for answer in load.answers) * 1e3:.0f})"
    goal = f"≤ {limit * 1e3:.0f} ms, 3 x (a step of 32 rows + prefill of one)"
    yield Figure(f"{bench.dtype}: p99 at 80 % of the capacity", goal, measured, value <= limit)
    burst = in_turn(
        {
            "process": lambda: bench.in_process(N_CLIENTS, max_tokens=1),
            "server": lambda: p([a.first for a in bench.loop(bench.body(is_streamed=True), n_rounds=1).answers], 99),
        },
        rounds=5,
    )
    ratio = median(burst["server"]) / median(burst["process"])
    measured = f"{ratio:.2f} x ({median(burst['server']) * 1e3:.0f} ms)"
    yield Figure(f"{bench.dtype}: p99 of 16 at once", "≤ 1.3 x the prefill in one process", measured, ratio <= 1.3)


def joining(bench: Bench) -> Iterator[Figure]:
    """The gaps between the parts of 8 streams while prompts of 900 tokens join them."""

    async def measure(joins: int) -> list[float]:
        streams = asyncio.create_task(closed_loop(PORT, bench.body(is_streamed=True, max_tokens=600), 8, 1))
        long = bench.prompts(joins, 900) if joins else []
        for prompt in long:
            await asyncio.sleep(0.4)
            await closed_loop(PORT, lambda _, ids=prompt: {"prompt": ids, "max_tokens": 1, "seed": 0}, 1, 1)
        load = await streams
        return [b - a for answer in load.answers for a, b in zip(answer.events[1:], answer.events[2:], strict=False)]

    alone, joined = asyncio.run(measure(0)), asyncio.run(measure(6))
    ratio = p(joined, 95) / median(alone)
    measured = f"{ratio:.2f} ({p(joined, 95) * 1e3:.0f} and {median(alone) * 1e3:.0f} ms)"
    yield Figure(f"{bench.dtype}: p95 while prompts join / median without", "≤ 3", measured, ratio <= 3)


def queueing(bench: Bench) -> Iterator[Figure]:
    """64 clients on 16 places, the first round left out."""
    with running([*bench.command, "--port", str(SMALL_PORT), "--max-batch", str(N_CLIENTS)], SMALL_PORT):
        bench.loop(bench.body(), n_rounds=1, port=SMALL_PORT)
        results = in_turn(
            {
                "few": lambda: bench.loop(bench.body(), port=SMALL_PORT),
                "many": lambda: bench.loop(bench.body(), n_clients=64, port=SMALL_PORT),
            }
        )
    late = [[one.seconds for n, one in enumerate(load.answers) if n % N_ROUNDS] for load in results["many"]]
    ratio = median(max(seconds) / min(seconds) for seconds in late)
    share = median(map(speed, results["many"])) / median(map(speed, results["few"]))
    yield Figure(f"{bench.dtype}: 64 clients, longest / shortest answer", "≤ 1.5", f"{ratio:.2f}", ratio <= 1.5)
    yield Figure(f"{bench.dtype}: 64 clients, throughput beside 16", "≥ 1 (0.97: noise)", f"{share:.2f}", share >= 0.97)


def cost(bench: Bench) -> Iterator[Figure]:
    """CPU time of the server's HTTP thread: parsing, validation, tokens to text, JSON, sockets."""

    def microseconds(is_streamed: bool) -> float:
        before = cpu_of_main_thread(bench.pid)
        load = bench.loop(bench.body(is_streamed))
        return (cpu_of_main_thread(bench.pid) - before) / (len(load.answers) * N_NEW) * 1e6

    results = in_turn({"streamed": lambda: microseconds(True), "whole": lambda: microseconds(False)})
    for name, goal in (("streamed", 80), ("whole", 10)):
        value = median(results[name])
        yield Figure(f"{bench.dtype}: a token {name}", f"≤ {goal} µs", f"{value:.1f} µs", value <= goal)


def locust(bench: Bench) -> Iterator[Figure]:
    """Locust with 16 users for 30 seconds, a public load generator, on the same two cores."""
    ports = {"nbgpt": PORT, "llama-server": PEER_PORT} if bench.peer else {"nbgpt": PORT}
    with bench.peer_running():
        for name, port in ports.items():
            yield Figure(f"{bench.dtype}: {name}", "", locust_figures(port), None)


def locust_figures(port: int) -> str:
    """What Locust says of a server."""
    command = ["locust", "-f", str(Path(__file__).with_name("locustfile.py")), "--headless", "--json"]
    command += ["-u", str(N_CLIENTS), "-r", str(N_CLIENTS), "-t", "30s", "--host", f"http://127.0.0.1:{port}"]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, check=True, text=True)
    row = json.loads(done.stdout)[0]
    times = sorted((float(ms), n) for ms, n in row["response_times"].items())
    half, seen = row["num_requests"] / 2, 0
    middle = next(ms for ms, n in times if (seen := seen + n) >= half)
    rate = row["num_requests"] / (row["last_request_timestamp"] - row["start_time"])
    answered = f"{rate:.1f} requests/s, {rate * N_NEW:.0f} tokens/s, median {middle:.0f} ms"
    return f"{answered}, {row['num_failures']} failures"


SECTIONS = {one.__name__: one for one in (throughput, single, first_token, joining, queueing, cost, locust)}


def benches(options: argparse.Namespace) -> Iterator[Bench]:
    """A server of each type, one after the other."""
    files = dict(one.split("=", 1) for one in options.gguf)
    for dtype in options.dtypes:
        command = [sys.executable, "-m", "nbgpt", "serve", "--model", f"bench={options.model}", "--dtype", dtype]
        command += ["--threads", "2", "--log-level", "warning"]
        with ExitStack() as stack:
            model = stack.enter_context(nbgpt.load(options.model, dtype, 2))
            pid = stack.enter_context(running([*command, "--port", str(PORT)], PORT))
            peer = []
            if options.llama_server and dtype in files:
                peer = [options.llama_server, "-m", files[dtype], "--port", str(PEER_PORT), "--host", "127.0.0.1"]
                peer += ["-t", "2", "-np", str(N_CLIENTS), "-c", str(1024 * N_CLIENTS), "--no-repack", "--no-webui"]
            yield Bench(dtype, model, command, pid, peer)


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a folder with a GPT-2 124M")
    parser.add_argument("--dtypes", nargs="+", default=["int8", "float16"])
    parser.add_argument("--llama-server", metavar="BINARY")
    parser.add_argument("--gguf", nargs="*", default=[], metavar="DTYPE=FILE", help="the same model for llama-server")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION")
    folder = Path(__file__).parent / "results"
    parser.add_argument("--output", type=Path, default=folder, help="where serve.md and serve.json are; %(default)s")
    options = parser.parse_args()
    figures: dict[str, list[Figure]] = {name: [] for name in options.only}
    for bench in benches(options):
        bench.in_process(N_CLIENTS)
        bench.loop(bench.body(), n_rounds=1)
        for name in options.only:
            for figure in SECTIONS[name](bench):
                print(f"{name}: {figure.what}: {figure.measured}; goal {figure.goal}", file=sys.stderr)
                figures[name].append(figure)
    head = "# The server under load\n\nMade by `python bench/serve.py`. GPT-2 124M, two threads."
    results = Results(options.output / "serve.json", head, SECTIONS)
    for name in options.only:
        results.keep(name, figures[name])


if __name__ == "__main__":
    main()
