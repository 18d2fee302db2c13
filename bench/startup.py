"""Where the time from the start of a process to its first token goes: `python bench/startup.py`.

A process that nobody watches gives the totals: from before it is started until the first byte of text is in the pipe,
and until it has ended. In another each import and each call that is named below is timed, less what is timed within it,
so that the parts add up. Medians of processes that take turns; kernels are compiled and files in the page cache.
"""

from __future__ import annotations

import sys
import time

HERE = time.monotonic()
TYPE_CHECKING = False  # a watched process must not have imported typing, or anything, before its time
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

COMMAND = ["generate", "Once upon a time", "--max-tokens", "1", "--seed", "1", "--quiet"]
LIMIT = 25.0
"""Milliseconds; a part that takes longer should be split."""
INTERPRETER, OTHER, WRITING = "Python: interpreter", "Python: -m, and between the parts", "nbgpt: writing"
MODULES = {
    "argparse": "Python: argparse",
    "dataclasses": "Python: dataclasses",
    "hashlib": "Python: hashlib",
    "json": "Python: json",
    "pathlib": "Python: pathlib",
    "typing": "Python: typing",
    "numpy": "NumPy: the package",
    "numpy._core": "NumPy: core",
    "numpy._core._add_newdocs": "NumPy: core, docstrings",
    "numpy._core._multiarray_umath": "NumPy: core, compiled",
    "numpy._typing": "NumPy: types",
    "numpy.lib": "NumPy: lib",
    "numpy.linalg": "NumPy: linalg",
    "tiktoken": "tokenizer: tiktoken",
    **dict.fromkeys(
        ("nbgpt", "nbgpt.cli.main", "nbgpt.model", "nbgpt.engine.engine", "nbgpt.text.options"), "nbgpt: its modules"
    ),
}
"""Module -> the part that its import belongs to; one that is not named belongs to the part that imports it first."""
CALLS = {
    "nbgpt.cli.main": {"new_parser": "nbgpt: command line"},
    "nbgpt.engine.model_runner": {
        "ModelRunner.forward": "first pass: Python",
        "ModelRunner._reserve": "first pass: buffers",
    },
    "nbgpt.backend.kernel_cache": {
        "find_object": "kernels: find",
        "source_digest": "kernels: hash the sources",
        "read_object": "kernels: check",
        "_link": "kernels: link",
    },
    "nbgpt.backend.topology": {"default_threads": "threads: how many"},
    "nbgpt.backend.thread_pool": {
        "ThreadPool._start": "threads: start",
        "ThreadPool.run": "first pass: compiled",
    },
    "nbgpt.cli.terminal": {"write": WRITING},
    "nbgpt.model": {"open_model": "weights: find, map, check"},
    "nbgpt.tokenizer.byte_bpe": {"ByteBPE.shipped": "tokenizer: read"},
    "nbgpt.tokenizer.base": {"Tokenizer.encode": "tokenizer: encode"},
}
"""Module -> functions in it -> the part that calls of them belong to."""


class Clock:
    """Seconds by part, in the order in which the parts begin; what is timed within a part is not the part's."""

    def __init__(self, started: float) -> None:
        self._seconds = {INTERPRETER: HERE - started, OTHER: 0.0}
        self._open, self._since = [OTHER], HERE

    def _turn(self) -> None:
        now = time.monotonic()
        self._seconds[self._open[-1]] += now - self._since
        self._since = now

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time noted."""

        def call_and_note(*args: Any, **options: Any) -> Any:
            self._turn()
            self._seconds.setdefault(part, 0.0)
            self._open.append(part)
            try:
                return call(*args, **options)
            finally:
                self._turn()
                self._open.pop()
                if part == WRITING and args[0]:
                    self._report()

        return call_and_note

    def _report(self) -> None:
        import json
        import os

        print(json.dumps(self._seconds), file=sys.stderr, flush=True)
        os._exit(0)


class Watch:
    """An entry of sys.meta_path that lets a clock time modules and calls."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in MODULES and name not in CALLS:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec: Any = next(spec for finder in others if (spec := finder.find_spec(name, path, target)))
        execute, timed = spec.loader.exec_module, self._clock.timed

        def execute_and_wrap(module: ModuleType) -> None:
            execute(module)
            for dotted, part in CALLS.get(name, {}).items():
                *owners, last = dotted.split(".")
                owner = getattr(module, owners[0]) if owners else module
                call = timed(part, getattr(owner, last))
                is_bound = isinstance(vars(owner)[last], classmethod)
                setattr(owner, last, staticmethod(call) if is_bound else call)

        spec.loader.exec_module = timed(MODULES[name], execute_and_wrap) if name in MODULES else execute_and_wrap
        if name in MODULES:
            spec.loader.create_module = timed(MODULES[name], spec.loader.create_module)  # loads what is compiled
        return spec


def watched(started: float) -> None:
    """Run nbgpt with the clock on; at the first text, write seconds by part to standard error and end."""
    sys.meta_path.insert(0, Watch(Clock(started)))
    import runpy

    sys.argv[1:] = COMMAND
    sys.path[0] = ""  # the current folder comes first, as for python -m
    runpy.run_module("nbgpt", run_name="__main__", alter_sys=True)


# --- The process that starts the others -------------------------------------------------------------------------------


def time_parts() -> dict[str, float]:
    """Milliseconds by part of one process."""
    import json
    import subprocess

    command = [sys.executable, __file__, "--watched", repr(time.monotonic())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {part: 1e3 * seconds for part, seconds in json.loads(done.stderr.splitlines()[-1]).items()}


def time_totals() -> dict[str, float]:
    """Milliseconds until the first text of one process and until its end."""
    import subprocess

    started = time.monotonic()
    with subprocess.Popen([sys.executable, "-m", "nbgpt", *COMMAND], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)
        first = time.monotonic()
        process.stdout.read()
    return {"first token": 1e3 * (first - started), "end": 1e3 * (time.monotonic() - started)}


def medians(samples: list[dict[str, float]]) -> dict[str, float]:
    """By name; parts are in the order in which they begin."""
    import statistics

    return {name: statistics.median(sample[name] for sample in samples) for name in samples[0]}


def as_table(totals: dict[str, float], parts: dict[str, float]) -> list[str]:
    """Lines for people."""
    lines = [f"{'part':36}{'ms':>8}{'sum':>9}"]
    total = 0.0
    for part, spent in parts.items():
        total += spent
        lines.append(f"{part:36}{spent:8.1f}{total:9.1f}{'  longer than ' + str(LIMIT) if spent > LIMIT else ''}")
    lines += [f"{name + ', nobody watching':36}{spent:17.1f}" for name, spent in totals.items()]
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Start processes and print what was measured."""
    import argparse
    import json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", "--processes", type=int, default=20, help="of each kind; default: %(default)s")
    parser.add_argument("--json", action="store_true", help="one object, milliseconds, instead of the table")
    options = parser.parse_args(arguments)
    time_totals()
    time_parts()
    totals, parts = zip(*((time_totals(), time_parts()) for _ in range(options.processes)), strict=True)
    result = {"totals": medians(list(totals)), "parts": medians(list(parts))}
    for line in [json.dumps(result)] if options.json else as_table(**result):
        print(line)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--watched"]:
        watched(float(sys.argv[2]))
    else:
        main()
