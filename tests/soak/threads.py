"""Public calls of two models at random, on threads: results are those of the calls alone.

    python tests/soak/threads.py --minutes 10

Between calls sessions are dropped half-way, streams are cancelled, garbage is collected, other models are opened and
closed, and processes forked, while Python switches threads every 10 microseconds.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

STORY = "It was a dark and stormy night; the rain fell in torrents"
OPTIONS = {"max_tokens": 6, "temperature": 2.0, "seed": 4}

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
    """Threads that call two models until the time is over."""

    def __init__(self, folder: Path, seconds: float, seed: int) -> None:
        from folders import text_config, write_text_model
        from models import random_params

        import nbgpt

        config = text_config()
        self.path = write_text_model(folder / "random.safetensors", config, random_params(config))
        self.load, self.end, self.seed = nbgpt.load, time.monotonic() + seconds, seed
        self.models = [nbgpt.load(self.path, threads=n) for n in (1, 2)]
        self.alone = {name: call(self.models[0]) for name, call in CALLS.items()}
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []

    def work(self, number: int) -> None:
        choices = random.Random(self.seed * 1000 + number)
        while time.monotonic() < self.end and not self.wrong:
            model = choices.choice(self.models)
            name = choices.choice([*CALLS, "cancel", "collect", "close"])
            try:
                self.act(name, model)
            except Exception as error:
                self.wrong.append(f"{name}: {error!r}")
            self.done[name] += 1

    def act(self, name: str, model) -> None:
        if name == "cancel":
            cancel(model)
        elif name == "collect":
            gc.collect()
        elif name == "close":
            with self.load(self.path, threads=2, kv_memory=32 << 20) as other:
                assert CALLS["score"](other) == self.alone["score"]
        elif (found := CALLS[name](model)) != self.alone[name]:
            self.wrong.append(f"{name}: {found!r:.200}")

    def run(self, n_threads: int = 4) -> str:
        """What was done. Raises AssertionError for a wrong result, a call that hangs, or pages that are not free."""
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            threads = [threading.Thread(target=self.work, args=(n,), daemon=True) for n in range(n_threads)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(max(0.0, self.end - time.monotonic()) + 120)
                assert not thread.is_alive(), "a call hangs"
        finally:
            sys.setswitchinterval(interval)
        assert not self.wrong, self.wrong
        for model in self.models:
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
