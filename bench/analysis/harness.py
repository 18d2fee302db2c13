"""lm-evaluation-harness with nbgpt beside its `hf` backend, the same weights and requests, in turns: medians of ratios.

python bench/analysis/harness.py FOLDER [-t 2] [--rounds 5]

FOLDER has a GPT-2 as transformers saves it, with GPT-2's vocabulary. The requests are of three kinds, made from the
documentation in this repository: last words of passages (as LAMBADA), four endings of a context (as HellaSwag), and
whole texts (rolling). `hf` runs at the batch size that is fastest for it in a first round. Needs the extra `parity`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

import nbgpt
from nbgpt import paths
from nbgpt.analysis.benchmark import cpu_name
from nbgpt.analysis.harness import HarnessModel

ROOT = Path(__file__).parents[2]
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
KINDS = {"last words": "loglikelihood", "four endings": "loglikelihood", "whole texts": "loglikelihood_rolling"}
"""Requests by what they ask for, and the method that answers them."""


def requests() -> dict[str, list[Instance]]:
    """Requests of each kind."""
    words = " ".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))).split()
    passages = [words[start : start + 60] for start in range(0, 6000, 60)]
    pairs = [(" ".join(one[:-1]), f" {one[-1]}") for one in passages]
    endings = [
        (" ".join(one[:40]), " " + " ".join(passages[(number + step) % len(passages)][40:55]))
        for number, one in enumerate(passages[:50])
        for step in range(4)
    ]
    texts = [(" ".join(words[start : start + 1500]),) for start in range(0, 6000, 1500)]
    rows = {"last words": pairs, "four endings": endings, "whole texts": texts}
    return {kind: [Instance(KINDS[kind], {}, row, 0) for row in rows[kind]] for kind in KINDS}


def gpt2_tokenizer() -> Any:
    """GPT-2's tokenizer of transformers, from the merges that come with nbgpt."""
    lines = paths.shipped("vocab.bpe").read_text(encoding="utf-8").split("\n")[1:]
    merges = [tuple(line.split(" ")) for line in lines if line]
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that stand for themselves in bytes_to_unicode
    letters = [chr(byte) for byte in own] + [chr(256 + number) for number in range(256 - len(own))]
    tokens = [*letters, *map("".join, merges), "<|endoftext|>"]
    return transformers.GPT2Tokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def answer(model: Any, kind: str, asked: list[Instance]) -> Any:
    return getattr(model, KINDS[kind])(asked, disable_tqdm=True)


def best_batch_size(hf: HFLM, kind: str, asked: list[Instance]) -> int:
    """The batch size at which `hf` is fastest."""
    seconds = {}
    for size in BATCH_SIZES[: 3 if kind == "whole texts" else None]:  # whole contexts: the logits take gigabytes
        hf.batch_size_per_gpu = size
        seconds[size], _ = timed(partial(answer, hf, kind, asked))
    return min(seconds, key=seconds.__getitem__)


def difference(expected: Any, found: Any) -> str:
    """The largest difference of log-likelihoods, and how many continuations are likeliest for one of both alone."""
    if isinstance(expected[0], tuple):
        flags = sum(a[1] != b[1] for a, b in zip(expected, found, strict=True))
        largest = max(abs(a[0] - b[0]) for a, b in zip(expected, found, strict=True))
        return f"{largest:.2g}; {flags} of {len(expected)}"
    return f"{max(abs(a - b) for a, b in zip(expected, found, strict=True)):.2g}"


def main() -> None:
    """Print a line of Markdown for each kind of request and each dtype."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a GPT-2 as transformers saves it")
    parser.add_argument("-t", "--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    peer = transformers.GPT2LMHeadModel.from_pretrained(options.folder, dtype=torch.float32).eval()
    hf = HFLM(pretrained=peer, tokenizer=gpt2_tokenizer(), batch_size=1)
    ours = {dtype: HarnessModel(nbgpt.load(options.folder, dtype, options.threads)) for dtype in ("float32", "int8")}
    print(f"{cpu_name()}, {options.threads} threads, medians of {options.rounds} rounds\n")
    print("| requests | hf, s (batch size) | dtype | nbgpt, s | hf / nbgpt | difference; other greedy answers |")
    print("|---|---|---|---|---|---|")
    for kind, asked in requests().items():
        hf.batch_size_per_gpu = size = best_batch_size(hf, kind, asked)
        rounds = []
        for _ in range(options.rounds):
            runs = {name: timed(partial(answer, model, kind, asked)) for name, model in {"hf": hf, **ours}.items()}
            rounds.append({name: seconds for name, (seconds, _) in runs.items()})
        theirs = median(one["hf"] for one in rounds)
        for dtype in ours:
            ratio = median(one["hf"] / one[dtype] for one in rounds)
            apart = difference(runs["hf"][1], runs[dtype][1])
            seconds = median(one[dtype] for one in rounds)
            print(f"| {kind} | {theirs:.2f} ({size}) | {dtype} | {seconds:.2f} | {ratio:.2f} | {apart} |", flush=True)


if __name__ == "__main__":
    main()
