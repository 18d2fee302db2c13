"""`completion`: a script that lets a shell complete commands and options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from .parser import add
from .terminal import write

if TYPE_CHECKING:
    from .parser import Commands, Parser

_SHELLS = ("bash", "zsh", "tcsh")


def define_completion(commands: Commands, new_parser: Callable[[], Parser]) -> None:
    """Add the subcommand. new_parser: makes the whole parser, whose commands and options are completed."""
    command = add(commands, "completion", "a script for a shell, to complete commands and options with Tab")
    command.description = (
        f'{command.description} For bash: eval "$(nbgpt completion bash)"; for zsh put the output into a file _nbgpt '
        'in a folder of $fpath. It completes the command nbgpt, and needs pip install "nbgpt[completion]".'
    )
    command.add_argument("shell", choices=_SHELLS)
    command.set_defaults(run=partial(_completion, new_parser))


def _completion(new_parser: Callable[[], Parser], options: argparse.Namespace) -> None:
    try:
        import shtab
    except ImportError:
        raise ImportError('completion needs the package shtab: pip install "nbgpt[completion]"') from None
    parser = new_parser()
    parser.prog = "nbgpt"
    write(shtab.complete(parser, options.shell) + "\n")
