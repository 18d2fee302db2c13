"""Public calls of models at random, on threads: results are those of the calls alone.

    python tests/soak/threads.py --minutes 10

Some threads call anything that two models can do. Between calls sessions are dropped half-way, streams are cancelled,
garbage is collected, other models are opened and closed, and processes forked. The other threads all write short texts
with a third model, in every way in which texts are written: they share its steps, its cache has four pages, and most
steps are somebody's last. Python switches threads every 10 microseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

STORY = "It was a dark and stormy night; the rain fell in torrents"
OPTIONS = {"max_tokens": 6, "temperature": 2.0, "seed": 4}
SHORT = [{"max_tokens": n, "temperature": 2.0, "seed": n} for n in (1, 2, 3)]
PAGES = 4
"""Of the cache of the model that writes short texts: a text of its full context takes them all."""

CALLS = {
    "generate": lambda model: [one.text for one in model.generate([STORY, "Once"], n=2, **OPTIONS)],
    "stream": lambda model: "".join(model.stream(STORY, **OPTIONS)),
    "logits": lambda model: model.logits(model.encode(STORY)).tobytes(),
    "score": lambda model: model.score(STORY).logprobs,
    "rank": lambda model: model.rank(STORY, [" a", " night"]),
    "embed": lambda model: model.embed([STORY, "Once"]).tobytes(),
    "beam_search": lambda model: [one.tokens for one in model.beam_search(STORY, 3, max_tokens=4)],
    "contrastive_search": lambda model: model.contrastive_search(STORY, max_tokens=4).tokens,
    "session": lambda model: model.session().generate(STORY, **OPTIONS).text,
    "compress": lambda model: model.decompress(model.compress(STORY.encode())),
}


def tokens(model) -> list[list[int]]:
    """The ids as the engine yields them, to somebody who does something else between two of them."""
    from nbgpt.text.options import parse
    from nbgpt.text.prompts import new_writers

    asked = [parse(model.tokenizer, options) for options in SHORT]
    requests = [new_writers(model.engine, model.tokenizer, STORY, *each)[0].request for each in asked]
    return [[paused(token) for token in model.engine.tokens(request)] for request in requests]


def paused(token: int) -> int:
    time.sleep(random.uniform(0, 1e-3))  # about as long as a step of another thread
    return token


def batch(model) -> list[tuple[int, object]]:
    """Rows of a file of prompts, two at a time; the stop string never comes, but is looked for."""
    from nbgpt.batch.generation import Generating
    from nbgpt.batch.job import Question
    from nbgpt.batch.row import Row

    questions = (Question(Row(number, "prompts", number + 1), STORY, number, len(STORY)) for number in range(4))
    answers = Generating(model, {"max_tokens": 2, "temperature": 2.0, "stop": ["never"]}, 2).answers(questions)
    return sorted((answer.row.number, answer.fields["text"]) for answer in answers)


async def served(model, worker) -> list[str]:
    """The samples of a request to the server."""
    from nbgpt.serve.worker import TextGroup
    from nbgpt.text.options import parse
    from nbgpt.text.prompts import new_writers

    asked = parse(model.tokenizer, SHORT[1])
    group = TextGroup(model.engine, new_writers(model.engine, model.tokenizer, STORY, *asked, n=3), is_streamed=True)
    worker.submit(group)
    texts = ["", "", ""]
    async for deltas in group.deltas():
        for delta in deltas:
            texts[delta.index] += delta.text
    return texts


def divided(model) -> list[str]:
    """Streams of one call, each iterated over by a thread of its own."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map("".join, model.stream([STORY, "Once"], **SHORT[2])))


def cancel(model) -> None:
    """A stream that is dropped after a piece, and a session after a text."""
    next(iter(model.stream(STORY, **OPTIONS)))
    model.session().generate("Once", **OPTIONS)


def fork(model) -> None:
    """A child process that uses the model, as after os.fork."""
    expected = CALLS["stream"](model)
    child = multiprocessing.get_context("fork").Process(
        target=lambda: os._exit(0 if CALLS["stream"](model) == expected else 1)
    )
    child.start()
    child.join(120)
    assert child.exitcode == 0, child.exitcode


class Soak:
    """Threads that call models until the time is over."""

    def __init__(self, folder: Path, seconds: float, seed: int) -> None:
        from folders import write_random_model

        import nbgpt
        from nbgpt.serve.metrics import Metrics
        from nbgpt.serve.worker import Worker

        self.path = write_random_model(folder / "random.safetensors")
        self.load, self.seconds, self.seed = nbgpt.load, seconds, seed
        self.models = [nbgpt.load(self.path, threads=n) for n in (1, 2)]
        self.alone = {name: call(self.models[0]) for name, call in CALLS.items()}
        page_bytes = self.models[0].engine.cache.page_bytes
        self.small = nbgpt.load(self.path, threads=2, kv_memory=PAGES * page_bytes)
        metrics = Metrics()
        self.worker = Worker(max_batch=4, max_queue=100, metrics=metrics)
        metrics.watch(self.worker.counts, {"small": self.small.engine})
        self.short_calls = {
            "tokens": lambda: tokens(self.small),
            "short stream": lambda: ["".join(self.small.stream(STORY, **options)) for options in SHORT],
            "short generate": lambda: [one.text for one in self.small.generate([STORY, "Once"], n=2, **SHORT[2])],
            "batch": lambda: batch(self.small),
            "served": lambda: asyncio.run(served(self.small, self.worker)),
            "divided": lambda: divided(self.small),
            "dropped": lambda: next(self.small.stream(STORY, **OPTIONS)),
            "metrics": lambda: metrics.text().count(b"kv_cache_usage"),
        }
        self.short_alone = {name: call() for name, call in self.short_calls.items()}
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []

    def work(self, number: int) -> None:
        choices = random.Random(self.seed * 1000 + number)
        while time.monotonic() < self.end and not self.wrong:
            model = choices.choice(self.models)
            name = choices.choice([*CALLS, "cancel", "collect", "close"])
            self.noting(name, lambda name=name, model=model: self.act(name, model))

    def write_short(self, number: int) -> None:
        choices = random.Random(self.seed * 1000 + 500 + number)
        while time.monotonic() < self.end and not self.wrong:
            name = choices.choice([*self.short_calls])
            self.noting(name, lambda name=name: self.compare(name, self.short_calls[name](), self.short_alone[name]))

    def noting(self, name: str, work) -> None:
        try:
            work()
        except Exception as error:
            self.wrong.append(f"{name}: {error!r}")
        self.done[name] += 1

    def compare(self, name: str, found, expected) -> None:
        if found != expected:
            self.wrong.append(f"{name}: {found!r:.200} instead of {expected!r:.200}")

    def act(self, name: str, model) -> None:
        if name == "cancel":
            cancel(model)
        elif name == "collect":
            gc.collect()
        elif name == "close":
            with self.load(self.path, threads=2, kv_memory=32 << 20) as other:
                assert CALLS["score"](other) == self.alone["score"]
        else:
            self.compare(name, CALLS[name](model), self.alone[name])

    def run(self, n_threads: int = 4) -> str:
        """What was done. Raises AssertionError for a wrong result, a call that hangs, or pages that are not free."""
        interval, self.end = sys.getswitchinterval(), time.monotonic() + self.seconds  # compiling does not count
        sys.setswitchinterval(1e-5)
        try:
            works = [(work, n) for n in range(n_threads) for work in (self.work, self.write_short)]
            threads = [threading.Thread(target=work, args=(n,), daemon=True) for work, n in works]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(max(0.0, self.end - time.monotonic()) + 120)
                assert not thread.is_alive(), "a call hangs"
        finally:
            sys.setswitchinterval(interval)
        assert not self.wrong, self.wrong
        self.worker.stop()
        for model in (*self.models, self.small):
            fork(model)
            gc.collect()
            assert model.engine.kv_bytes_in_use == 0
            model.close()
        return f"{sum(self.done.values())} calls, {', '.join(f'{n} {name}' for name, n in sorted(self.done.items()))}"


def soak(seconds: float, seed: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return Soak(Path(folder), seconds, seed).run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(soak(60 * options.minutes, options.seed))


if __name__ == "__main__":
    main()
