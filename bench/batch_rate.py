"""What `batch` reaches of the speed at which `bench` reads and writes the same number of tokens."""

from __future__ import annotations

import json
import lzma
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from figures import Figure, share

import nbgpt
from nbgpt.analysis.benchmark import Test, elapsed
from nbgpt.batch.job import Job
from nbgpt.batch.run import BATCH_SIZE, Files, InProcess, run

N_ROWS, N_NEW = 2000, 48
BOOK = Path(__file__).parent.parent / "examples" / "books" / "the-time-machine.txt.xz"


def write_rows(path: Path) -> None:
    """Rows of 3 to 300 words, half of them below 33: passages of a book, their lengths log-normal."""
    rng = random.Random(0)
    with lzma.open(BOOK, "rt", encoding="utf-8") as book, path.open("w", encoding="utf-8") as file:
        words = book.read().split()
        for number in range(N_ROWS):
            length = min(300, max(3, int(rng.lognormvariate(3.5, 0.9))))
            start = rng.randrange(len(words) - length)
            file.write(json.dumps({"number": number, "text": " ".join(words[start : start + length])}) + "\n")


def batch_rate() -> Iterator[Figure]:
    """A file of 2,000 rows of mixed lengths, against the seconds that its tokens take in `bench`'s batches."""
    model = nbgpt.load(threads=2)
    runner, shares, seconds = model.engine.runner, [], []
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        write_rows(rows)
        for number in range(3):
            files = Files(source=str(rows), output=Path(folder) / f"{number}.jsonl")
            job = Job(id="number", options={"max_tokens": N_NEW})
            summary, _ = run(files, job, InProcess(model, BATCH_SIZE))
            depth = summary.prompt_tokens // summary.rows + N_NEW // 4
            reading, writing = Test(n_prompt=512), Test(n_gen=N_NEW // 2, n_sequences=BATCH_SIZE, n_depth=depth)
            steady = sum(
                n / test.n_tokens * median(elapsed(runner, test) for _ in range(3))
                for n, test in ((summary.prompt_tokens, reading), (summary.new_tokens, writing))
            )
            shares.append(steady / summary.seconds)
            seconds.append(summary.seconds)
    explanation = f"{median(seconds):.1f} s for {summary.prompt_tokens} tokens read, {summary.new_tokens} written"
    yield share(f"story-34m int8, {N_ROWS} rows: share of bench's speed", median(shares), 0.92, explanation)
