"""`score`: log-probability of each line of a file."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from .lines import add_errors, answered
from .parser import add, add_lines, load_model
from .terminal import write

if TYPE_CHECKING:
    from ..tasks.scoring import Score
    from .parser import Commands


def define_score(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "score", "log-probability of each line of a text: total, per token, then the line", _score)
    command.description = f"{command.description} A line without a scored token has 0 and nan."
    add_lines(command)
    add_errors(command)
    command.add_argument(
        "--json", action="store_true", help="a line of JSON for each line, with each token's log-probability"
    )


def _score(options: argparse.Namespace) -> None:
    model = load_model(options)
    for line, score in answered(options, lambda lines: model.score_batch(lines, bos=options.bos)):
        write(_as_json(line, score) if options.json else f"{score.total:.4f}\t{score.mean:.4f}\t{line}\n")


def _as_json(line: str, score: Score) -> str:
    is_scored = score.logprobs not in ([], [None])  # without a scored token the mean is nan, which JSON does not have
    fields = {"text": line, "total": score.total, "mean": score.mean if is_scored else None}
    return json.dumps({**fields, **vars(score)}, ensure_ascii=False) + "\n"
