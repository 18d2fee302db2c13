"""Fuzzes every target of `targets.py`, two at a time, and says how many inputs were tried and what they reached.

    python tests/fuzz/fuzz.py                       # 3 seconds each, as .ci/run does
    python tests/fuzz/fuzz.py --seconds 180 --record    # 45 minutes in all, for docs/reliability.md
    python tests/fuzz/fuzz.py --only gguf --seconds 60

Inputs that a target fails on lie in build/fuzz afterwards: `python tests/fuzz/targets.py NAME FILE` runs one again.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "reliability.md"
FOUND = ROOT / "build" / "fuzz"
MEMORY, PATIENCE = 1536, 20
"""MiB of a process, and seconds for one input, above which it has failed."""


class Outcome(NamedTuple):
    """Of one target."""

    name: str
    code: int
    n_inputs: int
    coverage: int
    log: str


def fuzz(name: str, seconds: int) -> Outcome:
    """Fuzz a target in a process of its own."""
    FOUND.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        limits = [f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY}", f"-timeout={PATIENCE}", "-max_len=16384"]
        command = [sys.executable, str(HERE / "targets.py"), name, *limits, f"-artifact_prefix={FOUND}/{name}-"]
        path = os.pathsep.join([str(ROOT), str(HERE.parent)])
        done = subprocess.run(
            [*command, corpus, str(HERE / "seeds" / name)],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    n_inputs = [int(n) for n in re.findall(r"^#(\d+)\s", done.stderr, re.MULTILINE)]
    n_inputs += [int(n) for n in re.findall(r"^Done (\d+) runs", done.stderr, re.MULTILINE)]
    coverage = [int(n) for n in re.findall(r"cov: (\d+)", done.stderr)]
    return Outcome(name, done.returncode, max(n_inputs, default=0), max(coverage, default=0), done.stdout + done.stderr)


def record(outcomes: list[Outcome], seconds: int) -> None:
    """Put what ran into docs/reliability.md, where the rows of other targets stay."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    start, end = "|---|---:|---:|---:|---|\n", "<!-- end of fuzz -->"
    before, table = PAGE.read_text(encoding="utf-8").split(start)
    table, after = table.split(end)
    rows = {line.split(" ")[1]: line for line in table.splitlines()}
    for one in outcomes:
        when = f"{datetime.date.today()}, {commit.strip()}{', **FAILED**' if one.code else ''}"
        rows[one.name] = f"| {one.name} | {seconds} | {one.n_inputs} | {one.coverage} | {when} |"
    lines = "".join(f"{rows[name]}\n" for name in sorted(rows))
    PAGE.write_text(before + start + lines + end + after, encoding="utf-8")


def main() -> int:
    """Exit code 1 if any target has failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3, help="for each target; default: %(default)s")
    parser.add_argument("--only", action="append", help="a target; may be repeated")
    parser.add_argument("--record", action="store_true", help="write the outcome into docs/reliability.md")
    options = parser.parse_args()
    names = options.only or sorted(path.name for path in (HERE / "seeds").iterdir())
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda name: fuzz(name, options.seconds), names))
    for one in outcomes:
        print(f"{one.name:18} {one.n_inputs:9} inputs, coverage {one.coverage:6}{'' if not one.code else ', FAILED'}")
        if one.code:
            print("\n".join(line for line in one.log.splitlines() if not line.startswith("#")))
    if options.record:
        record(outcomes, options.seconds)
    return any(one.code for one in outcomes)


if __name__ == "__main__":
    sys.exit(main())
