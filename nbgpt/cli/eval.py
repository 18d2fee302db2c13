"""`eval`: the list of measures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .eval_benchmarks import define_benchmarks
from .eval_compare import define_compare
from .eval_harness import define_harness
from .eval_perplexity import define_perplexity
from .parser import add

if TYPE_CHECKING:
    from .parser import Commands


def define_eval(commands: Commands) -> None:
    """Add the subcommand."""
    measures = add(commands, "eval", "measure a model").add_subparsers(
        title="measures", metavar="MEASURE", required=True
    )
    define_perplexity(measures)
    define_benchmarks(measures)
    define_compare(measures)
    define_harness(measures)
