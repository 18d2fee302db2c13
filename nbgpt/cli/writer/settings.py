"""What `/set` changes: the options of `Model.generate`, and those of the terminal, all with their declarations."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, cast

from ...engine.request import random_seed
from ...sampling.declaration import Option, declared, option
from ...text.options import OPTIONS
from .display import Color
from .manuscript import End


@dataclass(frozen=True, kw_only=True)
class TerminalOptions:
    """The options of the terminal."""

    end: End = option(  # noqa: RUF009 - a dataclass field
        "length",
        "terminal",
        "where a continuation ends: after max_tokens (length), or before that with its first sentence or paragraph",
        str,
        choices=("length", "sentence", "paragraph"),
    )
    space: bool = option(True, "terminal", "put a space before what you type where one is missing", bool)
    color: Color = option(  # noqa: RUF009 - a dataclass field
        "model",
        "terminal",
        "colour the model's words: all alike (model), from red, unlikely, to green, likely (probability), or not (off)",
        str,
        choices=("model", "probability", "off"),
    )


_UNSETTABLE = ("logits_processors", "draft_model", "echo", "batch_size", "sample", "logprobs")  # the terminal's own
SETTABLE: Mapping[str, Option] = {
    **{name: one for name, one in OPTIONS.items() if name not in _UNSETTABLE},
    **declared(TerminalOptions),
}
"""Every setting, by name."""
_ALWAYS_SHOWN = (
    "max_tokens",
    "temperature",
    "top_k",
    "top_p",
    "repetition_penalty",
    "seed",
    *declared(TerminalOptions),
)
_BOOLS = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
_NONES = ("null", "none")


class Settings:
    """The values of settings. It never changes: `changed` returns another one."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        """Take the values that differ from the defaults."""
        self.values = dict(values)

    def __getitem__(self, name: str) -> Any:
        return self.values.get(name, SETTABLE[name].default)

    def changed(self, name: str, text: str) -> Settings:
        """The settings with another value of one of them, as it was typed.

        Raises ValueError if there is no such setting, or if the value is never allowed or unlikely to be meant. `!` at
        the end of a number says that it is meant.
        """
        one = setting(name)
        is_meant = one.kind in (Integral, Real) and text.endswith("!")
        value = _value(text.removesuffix("!").strip() if is_meant else text, one)
        if not one.is_converted and not (value is None and one.default is None):
            value = one.checked(value)
        if not is_meant and (doubt := one.doubt(value)):
            raise ValueError(f"{doubt}. If it is meant: /set {name} {text}!")
        return Settings({**self.values, name: value})

    def with_seed(self, seed: int) -> Settings:
        """The settings with another seed."""
        return Settings({**self.values, "seed": seed})

    def next_seed(self) -> int:
        """The seed of the next text: the one that is set, or a random one."""
        seed = self["seed"]
        return random_seed() if seed is None else cast(int, seed)

    def for_generate(self) -> dict[str, Any]:
        """The keyword arguments of `Model.generate`."""
        asked = {name: value for name, value in self.values.items() if name in OPTIONS}
        return asked | {"logprobs": 0} if self["color"] == "probability" else asked

    def table(self) -> str:
        """A line for each setting that is changed, or often is."""
        names = [name for name in SETTABLE if name in (*_ALWAYS_SHOWN, *self.values)]
        width = max(map(len, names))
        return "\n".join(f"{name:{width}}  {shown(self[name], SETTABLE[name])}" for name in names)

    def explained(self, name: str) -> str:
        """What a setting does, its value, its default, and what is allowed and usual."""
        one = setting(name)
        allowed = ", ".join(map(str, one.choices)) or ("on or off" if one.kind is bool else one.allowed)
        facts = {
            "now": shown(self[name], one),
            "default": one.shown_default() or shown(one.default, one),
            "allowed": allowed,
            "usual": one.usual.text if one.usual else "",
        }
        lines = [f"  {fact}: {text}" for fact, text in facts.items() if text]
        return "\n".join([f"{name}: {one.help}", *lines])


def setting(name: str) -> Option:
    """The declaration of a setting. Raises ValueError for a name that is none, with the nearest one."""
    if name in SETTABLE:
        return SETTABLE[name]
    if name in OPTIONS:
        raise ValueError(f"{name} cannot be set here; choose one of {', '.join(SETTABLE)}")
    from difflib import get_close_matches

    near = get_close_matches(name, SETTABLE, 1)
    raise ValueError(f"no setting is called {name!r}; " + (f"did you mean {near[0]!r}?" if near else "/set lists them"))


def shown(value: Any, one: Option) -> str:
    """A value as it can be typed."""
    if one.kind is bool and value is not None:
        return "on" if value else "off"
    return value if isinstance(value, str) and value and one.choices else repr(value)


def _value(text: str, one: Option) -> Any:
    """What was typed: on or off, a Python literal, or else the text itself."""
    if one.default is None and text.lower() in _NONES:
        return None
    if one.kind is bool:
        return _BOOLS.get(text.lower(), text)
    with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = ast.literal_eval(text)
        if one.kind is not str or isinstance(value, str | None):
            return value
    with contextlib.suppress(ValueError):
        return float(text) if one.kind is Real else text  # "inf" is no literal
    return text
