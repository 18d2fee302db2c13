"""nbgpt beside llama.cpp, CTranslate2, OpenVINO and transformers: the same weights, threads and method, in turns.

    python3 -m venv peers && peers/bin/pip install -r bench/requirements-peers.txt
    peers/bin/python bench/peers.py

writes peers.md, peers.json and peers.svg into bench/results/, section after section. With 10 pairs and two threads
counts that takes about a quarter of an hour, in which nothing else should run. What is installed of the peers runs; one
that ends or cannot read the model is named with the reason. Figures of another machine are kept in peers-MACHINE.json,
and shown beside those of this one.
"""

import argparse
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from peer_engines import cold, contest, models
from peer_engines.contest import CONTESTS, FARTHEST, TESTS, TG_BATCH, Entrant
from peer_engines.machine import busy
from peer_engines.report import BUSY
from peer_engines.results import Results

sys.path.insert(0, str(models.REPOSITORY))
from nbgpt import paths

COLD = "cold"
STOPS = (signal.SIGINT, signal.SIGTERM)
LONG = {("float32", TG_BATCH), ("float16", TG_BATCH), ("bfloat16", TG_BATCH)}
"""Run only when the test is asked for: ten minutes more, of what the other rows say already."""


def main() -> None:
    options = _options()
    for number in STOPS:
        signal.signal(number, _stop)
    results = Results(options.results)
    peers = Peers(options, results)
    try:
        for threads in options.threads:
            for dtype in CONTESTS:
                peers.run_contests(dtype, threads)
        if not options.only or COLD in options.only:
            peers.run_cold_start()
    except RuntimeError as error:
        sys.exit(f"peers: {error}")
    _say(f"{options.results / 'peers.md'}\n")


def _stop(number: int, frame: object) -> None:
    """End the workers on the way out; another signal must not disturb that."""
    for one in STOPS:
        signal.signal(one, signal.SIG_IGN)
    sys.exit(128 + number)


def _options() -> argparse.Namespace:
    words = [*TESTS, *CONTESTS, COLD]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    option = parser.add_argument
    option(
        "--pairs", type=int, default=10, help="rounds of each test, in which every engine runs; default: %(default)s"
    )
    option("--threads", type=_numbers, default=[2, 1], help="default: 2,1")
    option(
        "--only",
        type=lambda text: text.split(","),
        default=[],
        metavar="WORDS",
        help=f"some of {', '.join(words)}, with commas: these tests, of these types of weights; default: all of them, "
        f"but {TG_BATCH} of the float types, which take long, only when {TG_BATCH} is asked for",
    )
    option("--work", type=Path, default=paths.home() / "peers", help="folder for models, 3.5 GB; default: %(default)s")
    option("--results", type=Path, default=models.REPOSITORY / "bench" / "results", help="default: %(default)s")
    option("--cold-model", type=Path, help="Hugging Face folder for the cold start; default: the random 124M")
    options = parser.parse_args()
    if unknown := [word for word in options.only if word not in words]:
        parser.error(f"--only {unknown[0]}: choose from {', '.join(words)}")
    if options.pairs < 1:
        parser.error(f"--pairs is {options.pairs}; it must be at least 1")
    return options


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _say(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)


class Peers:
    """A run: what was asked for, and where it goes."""

    def __init__(self, options: argparse.Namespace, results: Results) -> None:
        self.options, self.results = options, results
        self.source: Path | None = None

    def run_contests(self, dtype: str, threads: int) -> None:
        """All tests of a type of weights, with the same loaded models."""
        tests = [test for test in TESTS if self._is_asked_for(dtype, test)]
        if not tests:
            return
        files = self._files(self._random_model(), CONTESTS[dtype])
        _say(f"{dtype}, {threads} threads: {', '.join(entrant.name for entrant in files)}\n")
        with contest.loaded(files, threads, self.source / "logits.npy") as loaded:
            self._name(loaded.failures)
            for name, found in loaded.check(FARTHEST[dtype]):
                self.results.add_entrant(name, found)
                if not found["is_same_model"]:
                    _say(f"  {name} computes something else (logits off by {found['relative']:.0%}) and is left out\n")
            for test in tests:
                others = busy()
                if others > BUSY:
                    _say(
                        f"  the machine is not ours alone: {others:.0%} of it is busy; engines that spin suffer most\n"
                    )
                seconds = self._samples(f"  {test:8}", loaded.run(test, self.options.pairs))
                self._name(loaded.failures)
                self.results.add_section(
                    test=test, dtype=dtype, threads=threads, tokens=TESTS[test], busy=others, seconds=seconds
                )

    def run_cold_start(self) -> None:
        folder, threads = self.options.cold_model, max(self.options.threads)
        source = models.with_vocabulary(self.options.work, folder) if folder else self._random_model()
        files = self._files(source, cold.ENTRANTS)
        failures: dict[str, str] = {}
        seconds = self._samples("cold start", cold.rounds(files, threads, self.options.pairs, failures))
        self._name(failures)
        self.results.add_cold_start(model=source.name, threads=threads, seconds=seconds)

    def _is_asked_for(self, dtype: str, test: str) -> bool:
        only = self.options.only
        tests, dtypes = [word for word in only if word in TESTS], [word for word in only if word in CONTESTS]
        if only and not tests and not dtypes:
            return False
        return dtype in (dtypes or CONTESTS) and (test in tests if tests else (dtype, test) not in LONG)

    def _random_model(self) -> Path:
        if self.source is None:
            self.source = models.random_model(self.options.work)
        return self.source

    def _files(self, source: Path, entrants: Iterable[Entrant]) -> dict[Entrant, Path]:
        """Each entrant's own form of a model; what is not there is made. Those that cannot run are named."""
        versions, files = self.results.data["versions"], {}
        for one in entrants:
            try:
                if one.engine not in versions:
                    raise models.NoModelError(f"{contest.LABELS[one.engine]} is not installed")
                files[one] = models.converted(self.options.work, source, one.engine, one.dtype, versions[one.engine])
            except models.NoModelError as error:
                if one.engine == "nbgpt":
                    raise
                self._name({one.name: str(error)})
        return files

    def _name(self, failures: dict[str, str]) -> None:
        """Say which entrants have no figures, or not all of them, and keep the reasons."""
        for name, reason in failures.items():
            if self.results.add_failure(name, reason):
                _say(f"  {name} is left out: {reason.splitlines()[0]}\n")

    def _samples(self, title: str, rounds: Iterator[dict[str, float]]) -> dict[str, list[float]]:
        """Seconds of each entrant in every round; those that did not run in all of them are left out."""
        _say(title)
        samples: dict[str, list[float]] = {}
        for seconds in rounds:
            _say(".")
            for name, one in seconds.items():
                samples.setdefault(name, []).append(one)
        _say("\n")
        most = max(map(len, samples.values()), default=0)
        return {name: seconds for name, seconds in samples.items() if len(seconds) == most}


if __name__ == "__main__":
    main()
