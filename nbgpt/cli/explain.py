"""`explain`: write the explain page of a text."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..partial import whole_file
from .parser import add, add_bos, add_model, load_model
from .terminal import decode, printable, read_text, write

if TYPE_CHECKING:
    from .parser import Commands

_NAME = "explain.html"


def define_explain(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "explain", "show what the model does to a text, as a page for a browser", _explain)
    command.add_argument("text", help="256 tokens at most; - is standard input")
    add_model(command)
    command.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="where the page goes, in place of what is there; - is standard output; default: standard output, or if "
        f"that is a terminal {_NAME}, unless there is one",
    )
    add_bos(command, "begin with <|endoftext|>; default: as the model's file says")


def _explain(options: argparse.Namespace) -> None:
    from ..analysis.explain import check_length, page

    output = _output(options.output)
    if options.text == "-":
        text = read_text("-").removesuffix("\n")
    else:
        text = decode(options.text.encode(errors="surrogateescape"), "the text")
    model = load_model(options)
    check_length(len(model.encode(text, options.bos)))  # before a long text is traced
    whole = page(model.trace(text, bos=options.bos), printable(f"{model.name} {model.dtype}"))
    if output == "-":
        write(whole)
    else:
        with whole_file(Path(output)) as file:
            file.write(whole.encode())
        write(f"{printable(output)}\n")


def _output(chosen: str | None) -> str:
    """The file to write, "-" for standard output; a terminal gets a file instead."""
    if chosen is not None:
        return chosen
    if sys.stdout is None or not sys.stdout.isatty():
        return "-"
    if Path(_NAME).exists():
        raise ValueError(f"{_NAME} is here already: choose a file with -o")
    return _NAME
