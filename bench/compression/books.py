"""Texts compressed: sizes beside other programs and beside the model's perplexity, in bench/results/compression.md.

    python bench/compression/books.py BOOK... [--model NAME[:DTYPE]]...

The model's own size is left out, as is that of the other programs. Every compressed text is decompressed and compared.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import lzma
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import zstandard

import nbgpt
from nbgpt.abi.targets import current_target
from nbgpt.analysis.benchmark import cpu_name
from nbgpt.analysis.perplexity import perplexity
from nbgpt.compression import compress, decompress
from nbgpt.compression.container import Container
from nbgpt.compression.windows import windows

PAGE = Path(__file__).parents[1] / "results" / "compression.md"
OTHERS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "gzip -9": (lambda data: gzip.compress(data, 9), gzip.decompress),
    "zstd -19": (zstandard.ZstdCompressor(level=19).compress, zstandard.ZstdDecompressor().decompress),
    "bzip2 -9": (lambda data: bz2.compress(data, 9), bz2.decompress),
    "xz -9e": (lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME), lzma.decompress),
}


HEAD = """# Texts compressed

Made by `python bench/compression/books.py`. {machine}

*Above the NLL*: how much larger the file, with its header, is than the model's negative log-likelihood of the text in
the same chunks, windows and overlap. *Above `eval`*: than the whole text at the NLL a token of `eval perplexity`. The
sizes of the programs and of the models are left out.
"""


@dataclass(frozen=True)
class Result:
    """One text, compressed in one way."""

    name: str
    size: int  # bytes
    seconds: tuple[float, float]  # to compress, to decompress
    above: tuple[float, float] | None = None  # of the model's NLL: in the same windows, by `eval perplexity`

    def line(self, n_characters: int) -> str:
        above = [f"{share:+.2%}" for share in self.above] if self.above else ["", ""]
        cells = [self.name, f"{self.size}", f"{8 * self.size / n_characters:.3f}", *above]
        return " | ".join([*cells, *(f"{seconds:.2f}" for seconds in self.seconds)])


def timed(
    name: str, data: bytes, pack: Callable[[bytes], bytes], unpack: Callable[[bytes], bytes]
) -> tuple[bytes, Result]:
    started = time.perf_counter()
    packed = pack(data)
    between = time.perf_counter()
    if unpack(packed) != data:
        raise RuntimeError(f"{name}: another text came out")
    return packed, Result(name, len(packed), (between - started, time.perf_counter() - between))


def by_model(model: nbgpt.Model, data: bytes) -> Result:
    engine, tokenizer = model.engine, model.tokenizer
    name = f"nbgpt {model.name} {model.dtype}"
    packed, result = timed(
        name, data, lambda octets: compress(engine, tokenizer, octets), lambda file: decompress(engine, tokenizer, file)
    )
    ids = tokenizer.encode(data.decode())
    whole = perplexity(engine, ids, bos_id=tokenizer.bos_id if model.weights.bos else None)
    bits = 8 * len(packed)
    same = bits / (nll_in_windows(model, ids, Container.from_bytes(packed)) / math.log(2)) - 1
    return Result(name, result.size, result.seconds, (same, bits / (whole.nll * len(ids) / math.log(2)) - 1))


def nll_in_windows(model: nbgpt.Model, ids: list[int], container: Container) -> float:
    """The NLL in nats of a text, cut and read as the compressor does."""
    total = 0.0
    for span in container.spans:
        rows = [model.tokenizer.bos_id or 0, *ids[span]]
        for start, first, stop in windows(len(rows) - 1, container.window, container.overlap):
            total += float(model.engine.nll(rows[start : stop + 1], first - start + 1).sum())
    return total


def sections(books: list[Path], models: list[nbgpt.Model]) -> Iterator[str]:
    heads = ["how", "bytes", "bits a character", "above the NLL", "above `eval`", "compress, s", "decompress, s"]
    for book in books:
        data = book.read_bytes()
        yield f"\n## {book.stem}\n\n{len(data)} bytes, {len(data.decode())} characters.\n"
        yield f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}"
        others = [timed(name, data, pack, unpack)[1] for name, (pack, unpack) in OTHERS.items()]
        for result in [*others, *(by_model(model, data) for model in models)]:
            line = f"| {result.line(len(data.decode()))} |"
            print(line)
            yield line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("books", nargs="+", type=Path, help="texts, UTF-8")
    parser.add_argument("--model", action="append", help="NAME or NAME:DTYPE; default: story-34m")
    options = parser.parse_args()
    named = [name.partition(":")[::2] for name in options.model or ["story-34m"]]
    models = [nbgpt.load(name, dtype or None) for name, dtype in named]
    lines = "\n".join(sections(options.books, models))
    machine = f"{cpu_name()}, {os.cpu_count()} CPUs, {current_target().summary}, {date.today()}."
    PAGE.write_text(f"{HEAD.format(machine=machine)}{lines}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
