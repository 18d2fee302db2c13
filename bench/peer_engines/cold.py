"""From the start of a process to its first token, engine after engine in every round."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from . import models
from .contest import Entrant
from .first_token import PROMPT

ENTRANTS = [Entrant("nbgpt", "int8"), Entrant("llama_cpp", "Q8_0"), Entrant("ctranslate2", "int8")]


def rounds(
    files: dict[Entrant, Path], threads: int, pairs: int, failures: dict[str, str]
) -> Iterator[dict[str, float]]:
    """Seconds of each entrant, a round after another. One that fails is out, and its reason goes to failures."""
    running = [entrant for entrant in ENTRANTS if entrant in files]
    for turn in range(pairs + 1):
        seconds = {}
        for entrant in running[:: 1 if turn % 2 else -1]:
            try:
                seconds[entrant.name] = _first_byte(_command(entrant, files[entrant], threads))
            except RuntimeError as error:
                if entrant.engine == "nbgpt":
                    raise
                failures[entrant.name] = f"cold start: {error}"
                running.remove(entrant)
        if turn:  # the first filled the page cache, and compiled nbgpt's kernels if there were none
            yield seconds


def _command(entrant: Entrant, file: Path, threads: int) -> list[str]:
    if entrant.engine != "nbgpt":
        return [sys.executable, "-m", "peer_engines.first_token", entrant.engine, str(file), str(threads)]
    options = ["--model", str(file), "--threads", str(threads), "--max-tokens", "1", "--greedy", "--quiet"]
    return [sys.executable, "-m", "nbgpt", "generate", PROMPT, *options]


def _first_byte(command: list[str]) -> float:
    start = time.perf_counter()
    with subprocess.Popen(
        command, env=models.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        first = process.stdout.read(1)
        seconds = time.perf_counter() - start
        _, said = process.communicate()
    if not first or process.returncode:
        raise RuntimeError(f"{' '.join(command)} printed nothing: {said.decode(errors='replace')[-500:]}")
    return seconds
