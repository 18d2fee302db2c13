"""`classify`: the label of each line of a file."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from .lines import add_errors, answered
from .parser import add, add_bos, add_loading, load_model
from .terminal import printable, write

if TYPE_CHECKING:
    from ..tasks.classification import Classification
    from .parser import Commands


def define_classify(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "classify", "the label of each line of a text, with its probability", _classify)
    command.add_argument("model", help="a classifier's name or file: see train-classifier; or a fine-tune with a head")
    command.add_argument("file", nargs="?", default="-", help="the text, UTF-8; default: standard input")
    add_loading(command)
    add_errors(command)
    add_bos(command, "begin each line with <|endoftext|>; default: as the model's file says")
    command.add_argument(
        "--json", action="store_true", help="a line of JSON for each line, with the probability of every label"
    )


def _classify(options: argparse.Namespace) -> None:
    model = load_model(options)
    for line, found in answered(options, lambda lines: model.classify(lines, bos=options.bos)):
        write(_as_json(line, found) if options.json else _as_line(line, found, model.config.multi_label))


def _as_line(line: str, found: Classification, multi_label: bool) -> str:
    """Label, probability and text; of independent labels those with more than 1/2, which may be none."""
    odds = found.probabilities
    names = [name for name, p in odds.items() if p > 0.5] if multi_label else [found.label]
    return f"{','.join(map(printable, names))}\t{','.join(f'{odds[name]:.4f}' for name in names)}\t{line}\n"


def _as_json(line: str, found: Classification) -> str:
    fields = {"text": line, "label": found.label, "probabilities": found.probabilities}
    return json.dumps(fields, ensure_ascii=False) + "\n"
