"""`python -m nbgpt batch` under kill -9, beside other engines, and its memory.

    python bench/batch.py [--only SECTION ...] [--llama-server BINARY --gguf FILE]

The rows are made up: words of English, prompts of 3 to 300 words, a log-normal number of them. Rows are answered by
story-34m. For llama-server, FILE is its Q8_0: `--write-model FOLDER` writes the model as Hugging Face has it, of which
llama.cpp's convert_hf_to_gguf.py and llama-quantize make it. Writes results/batch.md. Nothing else should run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from figures import Figure, Results
from load_generator import closed_loop, running
from safetensors.numpy import load_file, save_file

import nbgpt
from nbgpt.tasks.training.export import export
from nbgpt.weights import ClassifierHead

WORDS = (
    "the a old young man woman sea river house night morning storm and but when she he they walked said saw looked",
    "cold dark small great of to in with over under again never once little door window hand letter road hill horse",
)
N_NEW = 32
N_CLIENTS = 16
N_KILLS = 3
PORT = 8769
MIB = 1 << 20
DRAW = {"temperature": 0.8, "top_k": 40}


def write_rows(path: Path, n: int, most_words: int = 300, seed: int = 0) -> list[str]:
    """Rows with a number and a prompt, as JSON lines -> the prompts."""
    chance, words, prompts = random.Random(seed), " ".join(WORDS).split(), []
    with path.open("w") as file:
        for number in range(n):
            n_words = min(most_words, max(3, round(chance.lognormvariate(math.log(20), 0.9))))
            prompts.append(" ".join(chance.choices(words, k=n_words)))
            file.write(json.dumps({"number": number, "prompt": prompts[-1]}) + "\n")
    return prompts


def command(source: Path, output: Path, *more: str) -> list[str]:
    """That answers all rows of a file."""
    drawing = [part for name, value in DRAW.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    fixed = ["--max-tokens", str(N_NEW), "--ignore-eos", *drawing, "--seed", "7", "--json"]
    return [sys.executable, "-m", "nbgpt", "batch", str(source), "-o", str(output), *fixed, *more]


def run(arguments: list[str]) -> dict[str, Any]:
    """Run a command to its end -> its summary."""
    done = subprocess.run(arguments, stdout=subprocess.PIPE, check=True, stdin=subprocess.DEVNULL)
    return json.loads(done.stdout)


def killed_after(arguments: list[str], seconds: float) -> bool:
    """Run a command and kill it with all its processes; False if it ended before."""
    process = subprocess.Popen(
        arguments,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


# --- Sections ---------------------------------------------------------------------------------------------------------


def kills(options: argparse.Namespace, work: Path) -> Iterator[Figure]:
    """The output of a run that is killed with kill -9 at three random moments, beside that of an undisturbed one."""
    source, whole = work / "rows.jsonl", work / "whole.jsonl"
    write_rows(source, options.rows)
    summary = run(command(source, whole))
    measured = f"{summary['seconds']:.0f} s, {summary['rows_per_second']:.0f} rows/s"
    yield Figure(f"{options.rows} rows of story-34m, undisturbed", "", measured, None)
    ways = {"one process": [], "two processes": ["--workers", "2"]}
    if find_spec("ray"):
        ways["Ray, two actors"] = ["--ray", "local", "--cpus-per-worker", "1"]
    else:
        yield Figure('Ray (pip install "nbgpt[ray]")', "", "not installed", None)
    for way, more in ways.items():
        output, chance = work / f"{way.replace(' ', '-')}.jsonl", random.Random(way)
        arguments, moments = command(source, output, *more), []
        for _ in range(N_KILLS):
            moments.append(chance.uniform(0.1, 0.9) * (10 + summary["seconds"]) / N_KILLS)
            if not killed_after(arguments, moments[-1]):
                break
        last = run([*arguments])
        is_same = output.read_bytes() == whole.read_bytes()
        killed = f"killed after {', '.join(f'{moment:.0f} s' for moment in moments)}"
        measured = f"{'the same' if is_same else 'another'} file ({killed}; {last['resumed']} rows were done by then)"
        yield Figure(f"{way}, {len(moments)} x kill -9", "the same file", measured, is_same)


def peers(options: argparse.Namespace, work: Path) -> Iterator[Figure]:
    """New tokens a second on 500 of the rows, 32 new tokens each; models are loaded before the clock starts."""
    source, folder = work / "few.jsonl", write_model(work / "story-34m")
    prompts = write_rows(source, options.peer_rows)
    speeds = {f"nbgpt {dtype}": _ours(source, work, folder, dtype) for dtype in ("int8", "float32")}
    if find_spec("transformers"):
        speeds["transformers float32"] = _transformers(folder, prompts)
    if options.llama_server and options.gguf:
        speeds["llama-server Q8_0"] = _llama_server(options, prompts)
    found = {name: median(one() for _ in range(options.rounds)) for name, one in speeds.items()}
    ours = found["nbgpt int8"]
    goals = {"transformers float32": 5.0, "llama-server Q8_0": 2.0}
    for name, value in found.items():
        goal, ratio = goals.get(name), ours / value
        measured = f"{value:.0f} tokens/s" + (f", nbgpt int8 / it: {ratio:.2f}" if value != ours else "")
        yield Figure(name, f"int8 ≥ {goal:g} x" if goal else "", measured, ratio >= goal if goal else None)
    for name in goals.keys() - found.keys():
        yield Figure(name, "", "not there", None)
    if theirs := found.get("transformers float32"):
        yield Figure("float32 beside float32", "", f"{found['nbgpt float32'] / theirs:.2f} x transformers", None)


def _ours(source: Path, work: Path, folder: Path, dtype: str) -> Callable[[], float]:
    more = [] if dtype == "int8" else ["--model", str(folder), "--dtype", dtype]

    def measure() -> float:
        summary = run([*command(source, work / f"{dtype}.jsonl", *more), "--overwrite"])
        return summary["new_tokens"] / summary["seconds"]

    return measure


def _transformers(folder: Path, prompts: list[str]) -> Callable[[], float]:
    """Its pipeline with batches of 16, long prompts beside short ones as they come."""
    import torch
    import transformers

    model = transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.GPT2TokenizerFast.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token
    pipe = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer, batch_size=16)

    def measure() -> float:
        start = time.perf_counter()
        pipe(prompts, do_sample=True, **DRAW, min_new_tokens=N_NEW, max_new_tokens=N_NEW)
        return len(prompts) * N_NEW / (time.perf_counter() - start)

    return measure


def _llama_server(options: argparse.Namespace, prompts: list[str]) -> Callable[[], float]:
    """16 clients that ask again as soon as they have an answer."""
    threads = str(len(os.sched_getaffinity(0)))
    start = [options.llama_server, "-m", options.gguf, "--port", str(PORT), "--host", "127.0.0.1", "-t", threads]
    start += ["-np", str(N_CLIENTS), "-c", str(1024 * N_CLIENTS), "--no-webui"]

    def body(number: int) -> dict[str, Any]:
        drawn = {"max_tokens": N_NEW, "ignore_eos": True, "seed": number, **DRAW}
        return {"prompt": prompts[number % len(prompts)], **drawn}

    def measure() -> float:
        with running(start, PORT):
            load = asyncio.run(closed_loop(PORT, body, N_CLIENTS, math.ceil(len(prompts) / N_CLIENTS)))
        return len(load.answers) * N_NEW / load.seconds

    return measure


def memory(options: argparse.Namespace, work: Path) -> Iterator[Figure]:
    """Memory of a run over many short rows that is not of a file, as the weights are; pages of the KV cache count."""
    source = work / "many.jsonl"
    write_rows(source, options.memory_rows, most_words=3)
    more = ["--max-tokens", "1", "--kv-memory", "64M", "--overwrite"]
    process = subprocess.Popen(command(source, work / "many-answers.jsonl", *more), stdout=subprocess.PIPE)
    seen = []
    while process.poll() is None:
        with suppress(OSError, StopIteration):
            status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            seen.append(next(int(line.split()[1]) / 1024 for line in status if line.startswith("RssAnon")))
        time.sleep(0.2)
    if process.returncode:
        raise RuntimeError(f"batch ended with exit code {process.returncode}")
    most, early = max(seen), max(seen[: max(1, len(seen) // 5)])
    what = f"{options.memory_rows} rows: most memory besides the model, with the pages of the KV cache in use"
    yield Figure(what, "≤ 300 MiB", f"{most:.0f} MiB; {early:.0f} MiB in the first fifth of the time", most <= 300)


def write_model(folder: Path) -> Path:
    """story-34m in float32, as Hugging Face's GPT2LMHeadModel reads it: the numbers that its int8 stand for."""
    if not folder.exists():
        with nbgpt.load() as model:
            n_embd, n_layer = model.config.n_embd, model.config.n_layer
            nothing, one = np.zeros(n_embd), np.ones(n_embd)
            head = ClassifierHead(("a", "b"), False, n_layer, "last", nothing, one, np.eye(2, n_embd), np.zeros(2))
            export(model.weights, model.tokenizer, head, True, folder)
        config, weights = folder / "config.json", folder / "model.safetensors"
        fields = json.loads(config.read_text()) | {"architectures": ["GPT2LMHeadModel"], "n_ctx": model.config.n_ctx}
        config.write_text(json.dumps(fields))
        (folder / "tokenizer_config.json").unlink()  # llama.cpp's converter knows GPT-2's vocabulary without BOS only
        tensors = {name: tensor for name, tensor in load_file(weights).items() if name != "score.weight"}
        save_file(tensors, weights, {"format": "pt"})
    return folder


SECTIONS = {one.__name__: one for one in (kills, peers, memory)}


def main() -> None:
    """Measure sections and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    option = parser.add_argument
    option("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION")
    option("--rows", type=int, default=20_000, help="that are answered under kill -9; default: %(default)s")
    option("--peer-rows", type=int, default=500, help="that every engine answers; default: %(default)s")
    option("--memory-rows", type=int, default=10**6, help="default: %(default)s")
    option("--rounds", type=int, default=3, help="of each engine; default: %(default)s")
    option("--llama-server", metavar="BINARY")
    option("--gguf", metavar="FILE", help="story-34m as Q8_0")
    option("--write-model", metavar="FOLDER", type=Path, help="only write story-34m as Hugging Face has it")
    option("--output", type=Path, default=Path(__file__).parent / "results", help="default: %(default)s")
    options = parser.parse_args()
    if options.write_model:
        write_model(options.write_model)
        return
    head = "# A batch under kill -9, beside other engines\n\nMade by `python bench/batch.py`."
    results = Results(options.output / "batch.json", head, SECTIONS)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            figures = []
            for figure in SECTIONS[name](options, Path(folder)):
                print(f"{name}: {figure.what}: {figure.measured}; goal {figure.goal or 'none'}", file=sys.stderr)
                figures.append(figure)
            results.keep(name, figures)


if __name__ == "__main__":
    main()
