"""What is fuzzed: each target reads bytes that anybody may have written, and raises nothing but what it documents.

python tests/fuzz/targets.py NAME [libFuzzer's options] FOLDER...     # coverage-guided, by atheris
"""

from __future__ import annotations

import functools
import sys

import serve_targets  # noqa: F401
import text_targets  # noqa: F401
import vocabulary_targets  # noqa: F401
import weights_targets  # noqa: F401
from harness import SEEDS as SEEDS
from harness import TARGETS as TARGETS
from harness import run as run
from mutation import mutated


def main() -> None:
    """Fuzz one target until libFuzzer's options say that it is enough."""
    import atheris

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        changed = mutated(data, seed) if seed % 2 else None
        return atheris.Mutate(data, max_size) if changed is None else changed[:max_size]

    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["nbgpt", "pickletools", "jinja2"]):
        for path in sorted((SEEDS / name).iterdir()):  # imports what the target imports
            run(name, path.read_bytes())
    atheris.Setup(sys.argv, functools.partial(run, name), custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
