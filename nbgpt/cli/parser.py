"""Argument parsing that subcommands share: the parser class, and the options for model, dtype, threads and bos."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from ..abi.layout import HEAD_DTYPE
from .invocation import as_called
from .terminal import printable

if TYPE_CHECKING:
    from ..model import Model

    Commands = argparse._SubParsersAction["Parser"]

DTYPES = tuple(HEAD_DTYPE)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that reports a usage error in one line, and names commands as this user calls them."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"nbgpt: {printable(_without_choices(message))}; `{self.prog} --help` explains\n")

    def format_help(self) -> str:
        return as_called(super().format_help())


def _without_choices(message: str) -> str:
    """The message about a command that does not exist, with the name nearest to it instead of all names."""
    found = re.fullmatch(r"argument (?:COMMAND|MEASURE): invalid choice: '(.*)' \(choose from (.*)\)", message)
    if not found:
        return message
    from difflib import get_close_matches

    near = get_close_matches(found[1], re.findall(r"[\w-]+", found[2]), 1)
    return f"there is no command {found[1]!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def add(commands: Commands, name: str, text: str, run: Callable[[argparse.Namespace], None] | None = None) -> Parser:
    """Add a subcommand with its help text and the function that runs it."""
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(run=run)
    return command


def add_model(command: argparse._ActionsContainer) -> None:
    """Add the option that says which model to load, and those of `add_loading`."""
    command.add_argument(
        "-m",
        "--model",
        help="native file, folder or file of official weights, or name; default: the embedded story-34m",
    )
    add_loading(command)


def add_loading(command: argparse._ActionsContainer) -> None:
    """Add the options that say how to load a model: --dtype, and those of `add_running`."""
    command.add_argument("--dtype", choices=DTYPES, help="type of the weights; default: what the file has, or int8")
    add_running(command)


def add_running(command: argparse._ActionsContainer) -> None:
    """Add the options that say what a model may use: --threads, --kv-dtype, --kv-memory."""
    command.add_argument("-t", "--threads", type=int, help="default: the physical cores that this process may use")
    command.add_argument(
        "--kv-dtype",
        choices=("float32", "float16"),
        default="float32",
        help="type of the KV cache; float16 takes half the memory and rounds; default: %(default)s",
    )
    command.add_argument(
        "--kv-memory",
        metavar="SIZE",
        type=_bytes,
        help="memory that the KV cache may take, such as 512M or 2G; default: a quarter of the memory of the machine "
        "or its control group",
    )


def _bytes(text: str) -> int:
    number, unit = text.upper().removesuffix("B").removesuffix("I"), 1
    for power, letter in enumerate("KMGT", start=1):
        if number.endswith(letter):
            number, unit = number[:-1], 1024**power
    try:
        size = int(float(number) * unit)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 512M or 2G") from None
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return size


def load_model(options: argparse.Namespace) -> Model:
    """Load the model that the options of `add_model` name."""
    from ..model import load

    return load(options.model, options.dtype, options.threads, options.kv_dtype, options.kv_memory)


def add_bos(command: argparse._ActionsContainer, text: str) -> None:
    """Add --bos and --no-bos, whether texts begin with <|endoftext|>; None if neither is given."""
    command.add_argument("--bos", action=argparse.BooleanOptionalAction, default=None, help=text)


def add_lines(command: argparse._ActionsContainer) -> None:
    """Add the arguments of a subcommand that reads a file line by line: the file, the model, --bos."""
    command.add_argument("file", help="the text, UTF-8; - is standard input")
    add_model(command)
    add_bos(command, "begin each line with <|endoftext|>; default: as the model's file says")
