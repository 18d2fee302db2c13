"""A process in which one engine has one model loaded; it answers requests, a line of JSON each.

`python -m peer_engines.worker ENGINE FILE DTYPE THREADS [plain]` says {"settings": ...} when it is ready, and answers
{"do": "prompt", "ids": [...]} and {"do": "generate", "ids": [[...], ...]} with {"seconds": ...}, and
{"do": "check", "ids": [[...], ...], "file": ...} with {"difference": ..., "relative": ...}: how far its logits are from
those in the file, at most, and in the mean as a share of theirs.
"""

import json
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from .engine import Engine


def answer(engine: Engine, request: dict[str, Any]) -> dict[str, float]:
    ids = request["ids"]
    if request["do"] == "check":
        return compare(engine.logits(ids), np.load(request["file"]))
    engine.clear(1 if request["do"] == "prompt" else len(ids))
    run = engine.prompt if request["do"] == "prompt" else engine.generate
    start = time.perf_counter()
    run(ids)
    return {"seconds": time.perf_counter() - start}


def compare(found: list[np.ndarray], expected: np.ndarray) -> dict[str, float]:
    differences = np.stack(found) - expected
    return {
        "difference": float(np.abs(differences).max()),
        "relative": float(np.sqrt(np.mean(differences**2) / np.mean(expected**2))),
    }


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # engines write to standard output
    name, file, dtype, threads, *plain = sys.argv[1:]
    more = {"is_plain": True} if plain else {}
    engine = import_module(f"peer_engines.{name}").Engine(Path(file), dtype, int(threads), **more)
    print(json.dumps({"settings": engine.settings}), file=replies)
    for line in sys.stdin:
        print(json.dumps(answer(engine, json.loads(line))), file=replies)


if __name__ == "__main__":
    main()
