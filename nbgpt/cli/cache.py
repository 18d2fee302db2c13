"""`cache`: what nbgpt keeps on this machine, and its removal."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .parser import add
from .terminal import note, printable, write

if TYPE_CHECKING:
    from ..conversion.kept import Kept
    from .parser import Commands


def define_cache(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "cache", "show what nbgpt keeps: conversions, kernels, partial files", _cache)
    command.add_argument(
        "--prune",
        action="store_true",
        help="remove what killed processes have left, kernels of other versions, and conversions unused for 30 days",
    )


def _cache(options: argparse.Namespace) -> None:
    from ..conversion.kept import everything
    from ..paths import home

    kept = everything()
    for one in kept:
        write(_line(one))
    useless = [one for one in kept if one.useless]
    write(f"{_size(kept)} in {len(kept)} files of {printable(str(home()))}\n")
    if not options.prune:
        write(f"{_size(useless)} can go: --prune removes it\n" if useless else "all of it is of use\n")
        return
    removed = [one for one in useless if one.remove()]
    write(f"{_size(removed)} removed\n")
    for one in useless:
        if one not in removed:
            note(f"{one.path} could not be removed")


def _line(one: Kept) -> str:
    useless = f" ({one.useless})" if one.useless else ""
    return f"{one.kind:9} {one.n_bytes / 1e6:9.1f} MB  {one.days:4.0f} days  {printable(one.path.name)}{useless}\n"


def _size(kept: list[Kept]) -> str:
    return f"{sum(one.n_bytes for one in kept) / 1e6:.1f} MB"
