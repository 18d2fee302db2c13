"""`repl`: type text at a terminal and the model continues it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .parser import add, add_model, load_model

if TYPE_CHECKING:
    from .parser import Commands


def define_repl(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "repl", "type text and see it continued; /help inside says more", _repl)
    add_model(command)
    command.add_argument("-n", "--max-tokens", type=int, default=60, help="of each continuation; default: %(default)s")
    command.add_argument("--seed", type=int, help="the same seed gives the same texts; default: other texts each time")


def _repl(options: argparse.Namespace) -> None:
    from .interactive import Repl, typed_lines
    from .terminal import note

    model = load_model(options)
    repl = Repl(model, {"max_tokens": options.max_tokens, "seed": options.seed})
    note(f"{model.name} {model.dtype}; /help says what can be done, Ctrl-D leaves")
    repl.run(typed_lines())
