"""`score` and `embed`: a file line by line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .parser import add, add_bos, add_model, load_model
from .terminal import read_text, write

if TYPE_CHECKING:
    from ..tasks.scoring import Score
    from .parser import Commands, Parser

_BATCH = 64  # lines that are computed together, and written then


def define_score(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "score", "log-probability of each line of a text: in all, a token, and the line", _score)
    _add_what_is_shared(command)
    command.add_argument("--json", action="store_true", help="an object a line, with each token's log-probability")


def define_embed(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "embed", "a vector for each line of a text, as an object of JSON a line", _embed)
    _add_what_is_shared(command)
    command.add_argument(
        "--pooling", choices=("mean", "last"), default="mean", help="of the tokens' vectors; default: %(default)s"
    )
    command.add_argument(
        "--normalize", action=argparse.BooleanOptionalAction, default=True, help="to length 1; default: yes"
    )


def _add_what_is_shared(command: Parser) -> None:
    command.add_argument("file", help="the text, UTF-8; - is standard input")
    add_model(command)
    add_bos(command, "begin each line with <|endoftext|>; default: as the model's file says")


def _batches(file: str) -> Iterator[list[str]]:
    lines = read_text(file).replace("\r\n", "\n").split("\n")
    if not lines[-1]:  # what follows the last line's end
        lines.pop()
    for start in range(0, len(lines), _BATCH):
        yield lines[start : start + _BATCH]


def _score(options: argparse.Namespace) -> None:
    model = load_model(options)
    for lines in _batches(options.file):
        for line, score in zip(lines, model.score_batch(lines, bos=options.bos), strict=True):
            write(_as_json(line, score) if options.json else f"{score.total:.4f}\t{score.mean:.4f}\t{line}\n")


def _as_json(line: str, score: Score) -> str:
    is_scored = score.logprobs not in ([], [None])  # the mean of nothing is no number, which JSON cannot say
    fields = {"text": line, "total": score.total, "mean": score.mean if is_scored else None}
    return json.dumps({**fields, **vars(score)}, ensure_ascii=False) + "\n"


def _embed(options: argparse.Namespace) -> None:
    model = load_model(options)
    for lines in _batches(options.file):
        vectors = model.embed(lines, options.pooling, normalize=options.normalize, bos=options.bos)
        for line, vector in zip(lines, vectors, strict=True):
            numbers = [float(f"{number:.9g}") for number in vector]  # as many digits as a float32 has
            write(json.dumps({"text": line, "embedding": numbers}, ensure_ascii=False) + "\n")
