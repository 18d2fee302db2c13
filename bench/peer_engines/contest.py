"""Engines side by side: rounds in which each runs once, so that what a shared machine does to one it does to all.

Each engine has a process of its own. Those whose turn it is not are stopped (SIGSTOP): some keep threads spinning. An
engine that ends costs its own figures; only without nbgpt, beside which all others stand, is there no contest.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from . import models
from .engine import BATCH, PROMPT, STEPS

LABELS = {
    "nbgpt": "nbgpt",
    "llama_cpp": "llama.cpp",
    "ctranslate2": "CTranslate2",
    "openvino": "OpenVINO",
    "transformers": "transformers",
}


@dataclass(frozen=True)
class Entrant:
    """An engine with a type of weights, by the engine's own name of it."""

    engine: str
    dtype: str

    @property
    def name(self) -> str:
        return f"{LABELS[self.engine]} {self.dtype}"


CONTESTS = {  # the first runs against each of the others
    "float32": [
        Entrant("nbgpt", "float32"),
        Entrant("llama_cpp", "F32"),
        Entrant("ctranslate2", "float32"),
        Entrant("openvino", "float32"),
        Entrant("transformers", "float32"),
    ],
    "float16": [Entrant("nbgpt", "float16"), Entrant("llama_cpp", "F16"), Entrant("transformers", "bfloat16")],
    "bfloat16": [Entrant("nbgpt", "bfloat16"), Entrant("transformers", "bfloat16")],
    "int8": [
        Entrant("nbgpt", "int8"),
        Entrant("llama_cpp", "Q8_0"),
        Entrant("ctranslate2", "int8"),
        Entrant("openvino", "int8"),
    ],
    "int4": [
        Entrant("nbgpt", "int4"),
        Entrant("llama_cpp", "Q4_0"),
        Entrant("llama_cpp", "Q4_K_M"),
        Entrant("openvino", "int4"),
    ],
}
PP, TG, TG_BATCH = f"pp{PROMPT}", f"tg{STEPS}", f"tg{STEPS}b{BATCH}"
TESTS = {PP: PROMPT, TG: STEPS, TG_BATCH: STEPS * BATCH}
"""Tokens of each test."""
BRIEF = 16
"""Steps of a warm-up that generates."""
PLAIN = {"llama_cpp": "without repacking"}
"""Engines that have a plainer way to run, which is tried when their own fails."""
FARTHEST = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 2e-2, "int8": 0.1, "int4": 0.5}
"""How far logits may be from float32's, both as root mean squares; those of another random model would be at 1.4."""


class EndedError(RuntimeError):
    """The process of an engine has ended."""


class Worker:
    """The process of an entrant, stopped but for its turns."""

    def __init__(self, entrant: Entrant, file: Path, threads: int, *, is_plain: bool = False) -> None:
        command = [sys.executable, "-m", "peer_engines.worker", entrant.engine, str(file), entrant.dtype, str(threads)]
        self.name = entrant.name
        self.log = file.parent / f"{entrant.engine}-{entrant.dtype}.log"
        with self.log.open("w") as log:
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(
                [*command, *["plain"] * is_plain],
                stdin=pipe,
                stdout=pipe,
                stderr=log,
                text=True,
                env=models.environment(),
            )

    def __enter__(self) -> "Worker":
        try:
            self.settings = self._reply()["settings"]
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError), self.process:  # closes its pipes and waits for it
            self.process.kill()

    def ask(self, **request: Any) -> dict[str, float]:
        """Let it run for one request. Raises EndedError."""
        with suppress(OSError):  # it may be gone; then there is no reply
            self.process.send_signal(signal.SIGCONT)
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise EndedError(f"{self.name} ended: {self._reason()} (see {self.log})")
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return json.loads(line)

    def _reason(self) -> str:
        """The signal that ended it, or the last line it wrote."""
        code = self.process.wait()
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        said = self.log.read_text(errors="replace").split("\n")
        return next(filter(None, reversed(said)), "no word")


class Contest:
    """Entrants whose models are loaded."""

    def __init__(self, workers: list[Worker]) -> None:
        self.workers = workers
        self.failures: dict[str, str] = {}  # name -> why it has no figures, or not all
        self._distances: dict[str, dict[str, float]] = {}

    def add(self, entrant: Entrant, start: Callable[[bool], Worker], logits: Path | None) -> None:
        """Start an entrant and compare its logits with those in a file; once more in its plain way if it ends.

        start(is_plain): its worker. Raises EndedError if nbgpt ends.
        """
        reasons = []
        for is_plain in (False, True)[: 1 + (entrant.engine in PLAIN)]:
            try:
                worker = start(is_plain)
                if logits:
                    self._distances[entrant.name] = worker.ask(do="check", ids=models.check_ids(), file=str(logits))
            except EndedError as error:
                reasons.append(str(error))
            else:
                if is_plain:
                    worker.settings += f"; **{PLAIN[entrant.engine]}**, since {reasons[0]}"
                self.workers.append(worker)
                return
        self._fail(entrant.name, "; ".join(reasons))

    def _fail(self, name: str, reason: str) -> None:
        if name.startswith(LABELS["nbgpt"]):
            raise EndedError(reason)
        self.failures[name] = reason

    def check(self, farthest: float) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each entrant's settings and distance from the expected logits; who is too far away is out."""
        for worker in list(self.workers):
            distance = self._distances[worker.name]
            is_same = distance["relative"] <= farthest
            if not is_same:
                self.workers.remove(worker)
            yield worker.name, {"settings": worker.settings, **distance, "is_same_model": is_same}

    def run(self, test: str, rounds: int) -> Iterator[dict[str, float]]:
        """Seconds of each entrant, a round after another; the first to run is the last to run in the next round."""
        for turn in range(rounds + 1):
            request, seconds = self._request(test, turn), {}
            for worker in list(self.workers if turn % 2 else self.workers[::-1]):
                try:
                    seconds[worker.name] = worker.ask(**request)["seconds"]
                except EndedError as error:
                    self.workers.remove(worker)
                    self._fail(worker.name, f"{test}: {error}")
            if turn:  # the first was to warm up
                yield seconds

    def _request(self, test: str, turn: int) -> dict[str, Any]:
        random = np.random.default_rng(turn)
        if test == PP:
            return {"do": "prompt", "ids": random.integers(0, 50257, PROMPT).tolist()}
        shape = (TESTS[test] // STEPS, STEPS if turn else BRIEF)
        return {"do": "generate", "ids": random.integers(0, 50257, shape).tolist()}


@contextmanager
def loaded(files: dict[Entrant, Path], threads: int, logits: Path | None = None) -> Iterator[Contest]:
    """A contest of entrants with their models' files, each with so many threads; logits: as for `Contest.add`."""
    with ExitStack() as stack:
        contest = Contest([])
        for entrant, file in files.items():

            def start(is_plain: bool, entrant: Entrant = entrant, file: Path = file) -> Worker:
                return stack.enter_context(Worker(entrant, file, threads, is_plain=is_plain))

            contest.add(entrant, start, logits)
        yield contest
