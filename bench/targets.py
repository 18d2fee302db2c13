"""Does every kind of kernel that this CPU can run compute the same bits? `nbgpt verify` for each target.

    python bench/targets.py

Targets are those of nbgpt/abi/targets.py whose features this CPU has, and the CPU itself. Kernels are compiled where
there are none yet: 20 to 80 s a target. Writes results/targets.json, in which other CPUs' results stay, and
results/targets.md with a column for each CPU. Exit code 1 if a target has other bits.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from peer_engines.machine import machine

from nbgpt.abi.targets import _KNOWN, host_target

RESULTS = Path(__file__).parent / "results"
SAME, OTHER = "the same bits", "**other bits**"
HOST = "the CPU itself"


def runnable() -> list[str]:
    """Names of the targets whose features this CPU has; the CPU itself is the first."""
    has = host_target().features
    return [HOST, *(name for name, features in _KNOWN.items() if set(features) <= has)]


def verify(target: str) -> str:
    """What `nbgpt verify` says of the kernels for a target."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_CPU")}
    if target != HOST:
        environment["NUMBA_CPU_NAME"] = target
    done = subprocess.run(
        [sys.executable, "-m", "nbgpt", "verify"], env=environment, capture_output=True, text=True, check=False
    )
    if "are the same" not in done.stdout:
        raise RuntimeError(f"nbgpt verify ended with exit code {done.returncode}: {done.stderr.strip()}")
    return OTHER if done.returncode else SAME


def as_table(results: dict[str, dict[str, str]]) -> str:
    """Markdown: a row for each target, a column for each CPU."""
    names = list(dict.fromkeys([HOST, *_KNOWN, *(name for found in results.values() for name in found)]))
    lines = [f"| kernels for | {' | '.join(results)} |", f"|{'---|' * (1 + len(results))}"]
    for name in names:
        cells = [found.get(name, "cannot run") for found in results.values()]
        if set(cells) != {"cannot run"}:
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Verify each target and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=runnable(), default=runnable(), metavar="TARGET")
    parser.add_argument("--output", type=Path, default=RESULTS, help="default: %(default)s")
    options = parser.parse_args()
    file = options.output / "targets.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    found = results.setdefault(f"{machine()['processor']}, LLVM's {host_target().cpu}", {})
    for target in options.only:
        found[target] = verify(target)
        print(f"{target}: {found[target]}", file=sys.stderr)
        file.write_text(json.dumps(results, indent=1) + "\n")
    table = as_table(results)
    head = "# The same bits on every CPU\n\nMade by `python bench/targets.py`, which runs `nbgpt verify`."
    (options.output / "targets.md").write_text(f"{head}\n\n{table}")
    print(table, end="")
    return int(OTHER in (found[target] for target in options.only))


if __name__ == "__main__":
    sys.exit(main())
