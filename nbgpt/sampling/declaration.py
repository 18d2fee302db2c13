"""Declarations of options: each is a field of a dataclass; checks, command line and docs are made from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cache
from numbers import Integral, Real
from operator import index
from typing import Any, Final, NamedTuple

from ..validation import check

GROUPS: Final = {
    "length": "A text ends where the model writes <|endoftext|>, or where one of these ends it.",
    "sampling": "The model gives each token a probability, and one token is drawn. The temperature makes the "
    "probabilities sharper or flatter; the options after it, in this order, drop unlikely tokens before the draw.",
    "samples": "The same seed gives the same text, in any batch and with any number of threads.",
    "repetition": "Small models repeat themselves. These make tokens that were used before less likely, in greedy mode "
    "too.",
    "words": "Tokens can be made likelier or banned, and so can words of several tokens.",
    "form": 'The new text has a given form. These need pip install "nbgpt[constrain]".',
    "speed": "Tokens are guessed, and several guesses are checked in one pass; the text is the same. For one text at a "
    "time.",
    "output": "What is returned besides the new text.",
}
"""Groups in which options are shown, in this order, with a sentence about each."""
_SAME: Final = object()


class Range(NamedTuple):
    """Numbers that are allowed, and how the error says it after "it must be"."""

    text: str
    holds: Callable[[Any], bool]
    usual: Range | None = None
    """Those that make sense, and why, as `Option.doubt` says it after "it is usually"; None: all of them."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """A keyword argument of `Model.generate`, declared by `option` as a field of a dataclass.

    Attributes:
        name: name of the keyword argument and of the field.
        annotation: type of the keyword argument, as written.
        is_converted: `text.options.parse` converts and checks the argument before the field stores it.
        default: value if it is not given; None if that depends on the model or the call.
        stored: default of the field.
        help: one sentence for `--help` and docs/api.md, without the default.
        group: the key of GROUPS under which it is shown.
        kind: type that is checked, and how the command line reads it: Integral, Real, bool, str, Iterable (a list of
            texts), Mapping (from token ids to numbers), or another class.
        default_text: description of the default, if its value does not show it.
        allowed: which values are allowed, as the error says it after "it must be"; "" if the field does not check it.
        holds: whether a value of the kind is allowed.
        usual: which of the allowed values make sense; None: all of them.
        choices: the allowed values, if they are few.
        flag: flag of the command line; None if it is not offered there.
        short: one-letter flag.
        metavar: name of the value in `--help`.
    """

    name: str = ""
    annotation: str = ""
    is_converted: bool = False
    default: Any
    stored: Any
    help: str
    group: str
    kind: type
    default_text: str = ""
    allowed: str = ""
    holds: Callable[[Any], bool] = lambda value: True
    usual: Range | None = None
    choices: tuple[Any, ...] = ()
    flag: str | None = ""
    short: str = ""
    metavar: str = ""

    def checked(self, value: Any) -> Any:
        """The value, integers and bools as Python's own. Raises ValueError if it is not allowed."""
        if value is None and self.stored is None:
            return None
        if self.choices and value not in self.choices:
            raise ValueError(f"{self.name} is {value!r}; choose {', '.join(map(repr, self.choices))}")
        if self.kind is bool:
            from numpy import bool_  # not above: the command line reads the declarations before it may import NumPy

            allowed = "True, False or None" if self.stored is None else "True or False"
            check(self.name, value, (bool, bool_), allowed=allowed)
            return bool(value)
        if self.allowed:
            check(self.name, value, self.kind, self.holds, self.allowed)
        return index(value) if self.kind is Integral else value  # NumPy's integers overflow

    def doubt(self, value: Any) -> str:
        """Why an allowed value is hardly meant, for where a person types it; "" if it is usual."""
        if value is None or self.usual is None or self.usual.holds(value):
            return ""
        return f"{self.name} is {value!r}, which is unlikely: it is usually {self.usual.text}"

    def shown_default(self) -> str:
        """The default as `--help` and docs/api.md show it; "" if there is none."""
        if self.default_text or isinstance(self.default, bool) or self.default is None:
            return self.default_text
        return f"{self.default:g}" if isinstance(self.default, Real) else str(self.default or "")


def option(default: Any, group: str, help: str, kind: Any, *, stored: Any = _SAME, takes: str = "", **more: Any) -> Any:
    """A field that declares an option.

    Args:
        default: see `Option`.
        group: see `Option`.
        help: see `Option`.
        kind: see `Option`.
        stored: default of the field, if it differs from the caller's.
        takes: annotation of the keyword argument, if `text.options.parse` converts it to another type.
        more: other attributes of `Option`.
    """
    stored = default if stored is _SAME else stored
    declaration = Option(
        **{"annotation": takes, "is_converted": bool(takes), "default": default, "stored": stored},
        **{"help": help, "group": group, "kind": kind, **more},
    )
    metadata = {"option": declaration}
    if isinstance(stored, dict):
        return field(default_factory=stored.copy, metadata=metadata)
    return field(default=stored, metadata=metadata)


def number(default: float, allowed: Range, group: str, metavar: str, help: str, **more: Any) -> Any:
    """A field that declares a real number in a range: see `option`."""
    return option(default, group, help, Real, metavar=metavar, **_bounds(allowed), **more)


def whole(default: int | None, allowed: Range, group: str, metavar: str, help: str, **more: Any) -> Any:
    """A field that declares a whole number in a range: see `option`."""
    return option(default, group, help, Integral, metavar=metavar, **_bounds(allowed), **more)


def _bounds(allowed: Range) -> dict[str, Any]:
    return {"allowed": allowed.text, "holds": allowed.holds, "usual": allowed.usual}


@cache
def declared(cls: type) -> dict[str, Option]:
    """The options that a dataclass declares, by name, in the order of its fields."""
    return {one.name: _complete(one) for one in fields(cls) if "option" in one.metadata}


def _complete(one: Any) -> Option:
    """The option of a field, completed with the field's name and annotation."""
    given: Option = one.metadata["option"]
    is_optional = given.default is None and "None" not in one.type
    return replace(
        given,
        name=one.name,
        annotation=given.annotation or one.type + " | None" * is_optional,
        flag=None if given.flag is None else given.flag or f"--{one.name.replace('_', '-')}",
    )


def check_fields(instance: Any) -> None:
    """Check the options that a frozen dataclass declares, without converted ones, and keep what `checked` returns."""
    cls: type = type(instance)
    for name, one in declared(cls).items():
        if not one.is_converted:
            object.__setattr__(instance, name, one.checked(getattr(instance, name)))
