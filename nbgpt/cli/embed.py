"""`embed`: a vector for each line of a file."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from .lines import add_errors, answered
from .parser import add, add_lines, load_model
from .terminal import write

if TYPE_CHECKING:
    import numpy as np

    from .parser import Commands


def define_embed(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "embed", "a vector for each line of a text, as a line of JSON", _embed)
    add_lines(command)
    add_errors(command)
    command.add_argument(
        "--pooling", choices=("mean", "last"), default="mean", help="mean or last token's vector; default: %(default)s"
    )
    command.add_argument(
        "--normalize", action=argparse.BooleanOptionalAction, default=True, help="vectors of length 1; default: yes"
    )


def _embed(options: argparse.Namespace) -> None:
    model = load_model(options)

    def embed(lines: list[str]) -> np.ndarray:
        return model.embed(lines, options.pooling, normalize=options.normalize, bos=options.bos)

    for line, vector in answered(options, embed):
        numbers = [float(f"{number:.9g}") for number in vector]  # 9 digits are enough for any float32
        write(json.dumps({"text": line, "embedding": numbers}, ensure_ascii=False) + "\n")
