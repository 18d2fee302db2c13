"""`eval lambada`, `choices`, `hellaswag` and `cbt`: benchmarks whose files the user has."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..progress import counting
from .measures import add_json, shown, write_json, write_lines
from .parser import Parser, add, add_bos, add_model, load_model
from .terminal import printable, read_text

if TYPE_CHECKING:
    from ..analysis.measure import Measure
    from .parser import Commands


def define_benchmarks(measures: Commands) -> None:
    """Add the subcommands."""
    _define(measures, "lambada", 'last words of passages; JSONL, {"text": ...} a line', _lambada)
    _define(
        measures,
        "choices",
        'multiple choice; JSONL, {"context": ..., "choices": [...], "label": number of the right one, from 0} a line',
        _choices,
    )
    command = _define(measures, "hellaswag", "endings of descriptions; JSONL as it is published", _hellaswag)
    command.add_argument(
        "--protocol",
        choices=("lm-eval", "llm.c"),
        default="lm-eval",
        help="lm-eval: the activity before the context, brackets removed, acc_norm by characters; llm.c: the texts as "
        "they are, acc_norm by tokens; default: %(default)s",
    )
    _define(measures, "cbt", "a word of a sentence of a children's book; numbered lines as they are published", _cbt)


def _define(measures: Commands, name: str, text: str, run: Any) -> Parser:
    command = add(measures, name, text, run)
    command.add_argument("file", help="the examples, UTF-8; - is standard input")
    add_model(command)
    add_bos(command, "begin each context with <|endoftext|>; default: as the model's file says")
    add_json(command)
    return command


def _lambada(options: argparse.Namespace) -> None:
    from ..analysis.lambada import LAMBADA

    _run(options, LAMBADA)


def _choices(options: argparse.Namespace) -> None:
    from ..analysis.choices import CHOICES

    _run(options, CHOICES)


def _hellaswag(options: argparse.Namespace) -> None:
    from ..analysis.hellaswag import HELLASWAG

    _run(options, HELLASWAG[options.protocol])


def _cbt(options: argparse.Namespace) -> None:
    from ..analysis.cbt import CBT

    _run(options, CBT)


def _run(options: argparse.Namespace, measure: Measure) -> None:
    """Read the file, measure the model and write what was found."""
    examples = measure.read(read_text(options.file), "standard input" if options.file == "-" else options.file)
    model = load_model(options)
    with counting("reading", "text") as progress:
        found = measure.run(model.engine, model.tokenizer, examples, bos=options.bos, progress=progress)
    counts = {"protocol": found.protocol, "n": found.n, "n_truncated": found.n_truncated}
    if options.json:
        write_json({"model": model.name, "dtype": model.dtype, **counts, **found.estimates})
        return
    cut = f", {found.n_truncated} cut to the context of {model.config.n_ctx}" if found.n_truncated else ""
    write_lines(
        [
            ("model", f"{printable(model.name)} {model.dtype}"),
            ("protocol", found.protocol),
            ("examples", f"{found.n}{cut}"),
            *((name, shown(estimate)) for name, estimate in found.estimates.items()),
        ]
    )
