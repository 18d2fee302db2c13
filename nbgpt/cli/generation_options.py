"""Options of `Model.generate` on the command line: made from their declarations, for every subcommand that has some."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from ..text.options import OPTIONS, DraftModel

if TYPE_CHECKING:
    from ..sampling.declaration import Option


def _bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not ID=BIAS, as 262=-5") from None


_HOW: Mapping[Any, dict[str, Any]] = {
    Integral: {"type": int},
    Real: {"type": float},
    bool: {"action": "store_true"},
    Iterable: {"action": "append"},
    Mapping: {"action": "append", "type": _bias},
}
"""How argparse reads an option, by its kind; a kind that is not here is text."""


def add_option(group: argparse._ActionsContainer, declared: Option, default: str = "") -> None:
    """Offer an option of `Model.generate`. It has no default here: what is not given is left to the library.

    default: as the help shows it; "": that of `Model.generate`.
    """
    how = dict(_HOW.get(declared.kind, {}))
    if declared.kind is bool and declared.default is None:
        how["action"] = argparse.BooleanOptionalAction
    if declared.choices:
        how["choices"] = declared.choices
    elif declared.metavar:
        how["metavar"] = declared.metavar
    default = default or declared.shown_default()
    parts = declared.help, "may be repeated" * (how.get("action") == "append"), f"default: {default}" * bool(default)
    flags = [flag for flag in (declared.short, declared.flag) if flag]
    text = "; ".join(filter(None, parts))
    group.add_argument(*flags, dest=declared.name, default=argparse.SUPPRESS, help=text, **how)


def given_options(options: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of `Model.generate` that were given."""
    from ..model import load

    convert: dict[type, Callable[[Any], Any]] = {Mapping: dict, DraftModel: load}
    given = {name: value for name, value in vars(options).items() if name in OPTIONS}
    for name in given:
        if make := convert.get(OPTIONS[name].kind):
            given[name] = make(given[name])
    return given
