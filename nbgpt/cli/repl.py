"""`repl`: write a text in turns with the model, at a terminal or with the lines of standard input."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from .parser import add, add_model, load_model

if TYPE_CHECKING:
    from .parser import Commands

_ABOUT = (
    "Each line is added to the text, and the model continues it; /help inside says more. "
    'With pip install "nbgpt[repl]" Tab shows what commands and settings mean. A pipe gets the continuations alone, a '
    "line for each."
)


def define_repl(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "repl", "write a text in turns with the model", _repl)
    command.description = f"{command.description} {_ABOUT}"
    add_model(command)
    command.add_argument(
        "-n", "--max-tokens", type=int, default=60, help="most new tokens of each continuation; default: %(default)s"
    )
    command.add_argument(
        "--seed", type=int, help="seed of the first continuation; /again takes the next; default: another one each time"
    )


def _repl(options: argparse.Namespace) -> None:
    from .terminal import is_terminal
    from .writer.completion import completions
    from .writer.display import Display, default_color
    from .writer.front import open_front
    from .writer.repl import Repl
    from .writer.settings import Settings
    from .writer.workspace import Workspace

    model = load_model(options)
    front = open_front(completions, keeps_typed=False)
    values = {"max_tokens": options.max_tokens, "seed": options.seed, "overflow": "truncate_left"}
    display = Display(is_terminal(sys.stdout))
    workspace = Workspace(
        model,
        Settings({**values, "color": default_color()}),
        display,
        is_interactive=front.is_interactive,
        shows_typed=not front.keeps_typed,
    )
    if front.is_interactive:
        display.note(f"{model.name} {model.dtype}; /help says what can be done, Ctrl-D leaves")
    Repl(workspace, is_interactive=front.is_interactive).run(front.lines)
