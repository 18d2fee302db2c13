"""`warmup`: compile the kernels before their first use."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .parser import DTYPES, add
from .terminal import write

if TYPE_CHECKING:
    from .parser import Commands


def define_warmup(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "warmup", "compile the kernels ahead of their first use", _warmup)
    command.add_argument("--dtype", choices=DTYPES, action="append", help="may be repeated; default: int8")


def _warmup(options: argparse.Namespace) -> None:
    from ..backend.kernel_cache import find_object, load_kernels

    for dtype in options.dtype or ["int8"]:
        load_kernels(dtype)
        write(f"{find_object(dtype).path}\n")
