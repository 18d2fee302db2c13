"""Is the read bandwidth that `bench` measures what a C program reaches? Both in turn, medians and their ratio.

python bench/analysis/read_limit.py [-t 1,2] [--rounds 10]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from nbgpt.analysis.benchmark import cpu_name
from nbgpt.analysis.roofline import measure_roofline
from nbgpt.conversion.registry import open_model
from nbgpt.engine.model_runner import ModelRunner


def compiled(folder: str) -> str | None:
    """The C reader as a program; None without a C compiler."""
    compiler = os.environ.get("CC") or shutil.which("cc")
    if compiler is None:
        return None
    program, source = f"{folder}/read_limit", Path(__file__).with_suffix(".c")
    subprocess.run([compiler, "-O3", "-march=native", "-pthread", str(source), "-o", program], check=True)
    return program


def main() -> None:
    """Print a line of Markdown for each number of threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-t", "--threads", default="1,2", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=10, help="default: %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = compiled(folder)
        if program is None:
            sys.exit("no C compiler (cc, or $CC) here: nothing to compare with")
        print(f"{cpu_name()}, medians of {options.rounds} rounds\n")
        print("| threads | C, GB/s | bench, GB/s | bench / C |\n|---|---|---|---|")
        for n_threads in map(int, options.threads.split(",")):
            model = ModelRunner(open_model(), n_threads)
            pairs = []
            for _ in range(options.rounds):
                done = subprocess.run([program, str(n_threads)], check=True, capture_output=True, text=True)
                pairs.append((float(done.stdout), measure_roofline(model).read_gb_s))
            theirs, ours = (median(side) for side in zip(*pairs, strict=True))
            ratio = median(b / c for c, b in pairs)
            print(f"| {n_threads} | {theirs:.1f} | {ours:.1f} | {ratio:.3f} |", flush=True)


if __name__ == "__main__":
    main()
