"""What the parsers of all subcommands have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from ..abi.layout import HEAD_DTYPE
from .terminal import printable

if TYPE_CHECKING:
    from ..model import Model

    Commands = argparse._SubParsersAction["Parser"]

DTYPES = tuple(HEAD_DTYPE)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"nbgpt: {printable(message)}; `{self.prog} --help` explains\n")


def add(commands: Commands, name: str, text: str, run: Callable[[argparse.Namespace], None] | None = None) -> Parser:
    """A subcommand and the function that runs it."""
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(run=run)
    return command


def add_model(command: argparse._ActionsContainer) -> None:
    """Which model, and how it runs."""
    command.add_argument(
        "-m",
        "--model",
        help="native file, folder or file of official weights, or name; default: the embedded story-34m",
    )
    command.add_argument("--dtype", choices=DTYPES, help="type of the weights; default: what the file has, or int8")
    command.add_argument("-t", "--threads", type=int, help="default: the physical cores there are")
    command.add_argument(
        "--kv-dtype",
        choices=("float32", "float16"),
        default="float32",
        help="type of the keys and values that are kept; float16 halves them, and rounds them; default: %(default)s",
    )


def load_model(options: argparse.Namespace) -> Model:
    """The model that the options of `add_model` ask for."""
    from ..model import load

    return load(options.model, options.dtype, options.threads, options.kv_dtype)


def add_bos(command: argparse._ActionsContainer, text: str) -> None:
    """Whether texts begin with <|endoftext|>; None if nothing is said."""
    command.add_argument("--bos", action=argparse.BooleanOptionalAction, default=None, help=text)
