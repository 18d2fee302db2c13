"""`verify`: does this machine compute everybody's bits?"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from .parser import DTYPES, add
from .terminal import write

if TYPE_CHECKING:
    from .parser import Commands

_MOST_NAMES = 5  # that a line of differences lists


def define_verify(commands: Commands) -> None:
    """Add the subcommand."""
    command = add(commands, "verify", "say whether this machine computes the same bits as all others", _verify)
    command.add_argument("model", nargs="?", help="print this model's digest; default: compare what comes with nbgpt")
    command.add_argument("--dtype", choices=DTYPES, help="as for generate")
    command.add_argument("-t", "--threads", type=int, help="default: the physical cores that this process may use")
    command.add_argument("--expect", metavar="DIGEST", help="fail unless the model's digest is this one")


def _verify(options: argparse.Namespace) -> None:
    if options.model is not None:
        _verify_model(options)
    elif options.expect is not None or options.dtype or options.threads is not None:
        raise ValueError("--expect, --dtype and --threads are for a MODEL: name one")
    else:
        _verify_machine()


def _verify_machine() -> None:
    from ..abi.targets import current_target
    from ..verification import VerificationError, checks

    target, started, different = current_target(), time.perf_counter(), set()
    write(f"{'CPU':8} {target.summary}\n")
    for check in checks():
        n_same = check.n_compared - len(check.different)
        named = f"; not {', '.join(check.different[:_MOST_NAMES])}" if check.different else ""
        write(f"{check.name:8} {n_same} of {check.n_compared} are the same{named}\n")
        different.update([check.name] if check.different else [])
    if "files" in different:
        raise VerificationError("files that come with nbgpt are not those that were published: install nbgpt again")
    if different:
        no_fma = "" if target.fma else ": its CPU has no fused multiply-add"
        raise VerificationError(f"this machine computes other bits than all others{no_fma}")
    write(f"this machine computes everybody's bits ({time.perf_counter() - started:.1f} s)\n")


def _verify_model(options: argparse.Namespace) -> None:
    from ..conversion.registry import open_model
    from ..verification import VerificationError, model_digest

    digest = model_digest(open_model(options.model, options.dtype), options.threads)
    write(f"{digest}\n")
    if options.expect is not None and options.expect.lower() != digest:
        raise VerificationError(f"{options.model} has digest {digest} on this machine, not {options.expect}")
