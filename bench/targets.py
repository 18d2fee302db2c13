"""Does every kind of kernel that this CPU can run compute the same bits? `nbgpt verify` for each target.

    python bench/targets.py

Targets are those of nbgpt/abi/targets.py whose features this CPU has, and the CPU itself. Kernels are compiled where
there are none yet: 20 to 80 s a target. Writes results/targets.json, in which other CPUs' results stay, and
results/targets.md with a column for each CPU (bench/emulated.py adds one for ARM). Exit code 1 if a target has other
bits.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from peer_engines.machine import machine

from nbgpt.abi.targets import _KNOWN, host_target

RESULTS = Path(__file__).parent / "results"
SAME, OTHER = "the same bits", "**other bits**"
HOST = "the CPU itself"
HEAD = """\
# The same bits on every CPU

Made by `python bench/targets.py` and `python bench/emulated.py`, which run `nbgpt verify`.
An empty cell: not run there."""


def runnable() -> list[str]:
    """Names of the targets whose features this CPU has; the CPU itself is the first."""
    has = host_target().features
    return [HOST, *(name for name, features in _KNOWN.items() if set(features) <= has)]


def verify(command: list[str], environment: dict[str, str], are_shipped: bool = False) -> str:
    """What a `nbgpt verify` says of the kernels; are_shipped: they come with the wheel, and none may be compiled."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if "are the same" not in done.stdout:
        raise RuntimeError(f"nbgpt verify ended with exit code {done.returncode}: {done.stderr.strip()}")
    if are_shipped and "compiling" in done.stderr:
        raise RuntimeError(f"the wheel has no kernels for this CPU: {done.stderr.strip()}")
    return OTHER if done.returncode else SAME


def verify_here(target: str) -> str:
    """What it says of the kernels for a target on this machine."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_CPU")}
    if target != HOST:
        environment["NUMBA_CPU_NAME"] = target
    return verify([sys.executable, "-m", "nbgpt", "verify"], environment)


class Results:
    """What was found on each CPU, and how: targets.json, of which targets.md is made."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._commit = folder, commit()
        file = folder / "targets.json"
        self._of_cpus: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}

    def add(self, cpu: str, target: str, found: str, seconds: float, versions: str) -> None:
        """Note a target and write the files."""
        run = {"bits": found, "date": f"{date.today()}", "commit": self._commit, "seconds": round(seconds)}
        self._of_cpus.setdefault(cpu, {})[target] = {**run, "versions": versions}
        print(f"{cpu}, {target}: {found} ({seconds:.0f} s)", file=sys.stderr)
        (self._folder / "targets.json").write_text(json.dumps(self._of_cpus, indent=1) + "\n")
        (self._folder / "targets.md").write_text(f"{HEAD}\n\n{self.table()}\n{self.runs()}")

    def table(self) -> str:
        """Markdown: a row for each target, a column for each CPU."""
        names = dict.fromkeys([HOST, *_KNOWN, *(name for found in self._of_cpus.values() for name in found)])
        lines = [f"| kernels for | {' | '.join(self._of_cpus)} |", f"|{'---|' * (1 + len(self._of_cpus))}"]
        for name in names:
            cells = [found[name]["bits"] if name in found else "" for found in self._of_cpus.values()]
            if any(cells):
                lines.append(f"| {name} | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    def runs(self) -> str:
        """Markdown: a line for each CPU about its last run."""
        lines = []
        for cpu, found in self._of_cpus.items():
            last = max(found.values(), key=lambda run: run["date"])
            seconds = sum(run["seconds"] for run in found.values())
            lines.append(f"- {cpu}: {last['date']}, commit {last['commit']}, {last['versions']}; {seconds} s.")
        return "\n".join(lines) + "\n"


def commit() -> str:
    """Of the checkout; with a + if files were changed since."""
    return subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def versions() -> str:
    """Of Python and the packages that bits could depend on."""
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("numba", "llvmlite", "numpy"))
    return f"Python {platform.python_version()}, {packages}"


def main() -> int:
    """Verify each target and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=runnable(), default=runnable(), metavar="TARGET")
    parser.add_argument("--output", type=Path, default=RESULTS, help="default: %(default)s")
    options = parser.parse_args()
    results, is_other = Results(options.output), False
    cpu = f"{machine()['processor']}, LLVM's {host_target().cpu}"
    for target in options.only:
        started = time.perf_counter()
        found = verify_here(target)
        results.add(cpu, target, found, time.perf_counter() - started, versions())
        is_other |= found == OTHER
    print(results.table(), end="")
    return int(is_other)


if __name__ == "__main__":
    sys.exit(main())
