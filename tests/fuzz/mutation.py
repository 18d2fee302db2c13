"""Mutations of inputs that have JSON in them: one value becomes another, and the rest stays JSON.

Bits that are flipped seldom leave JSON behind: most of what they make is refused by its parser, and reaches no reader.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

_VALUES = [None, True, False, 0, 1, -1, 7, 255, 1 << 31, 1 << 53, 1 << 64, 10**30, 0.5, -1e308, float("nan")]
_VALUES += ["", " ", "a", "é\ud800", "</s>", "../a", "\0", "F32", "1", [], {}, [[]], [0, 1], {"a": 1}, ["a", "a"]]
_SEPARATORS = (b"\0", b"\n")


def mutated(data: bytes, seed: int) -> bytes | None:
    """The input with a change in one of its JSON documents, divided by zero bytes or line breaks; None without any."""
    choices = Random(seed)
    separator = next((one for one in _SEPARATORS if one in data), b"\0")
    parts = data.split(separator)
    places = [place for place, part in enumerate(parts) if part[:1] in (b"{", b"[")]
    if not places:
        return None
    place = choices.choice(places)
    try:
        document = json.loads(parts[place])
        for _ in range(choices.choice([1, 1, 2, 4])):
            _change(document, choices)
        parts[place] = json.dumps(document).encode()
    except (ValueError, RecursionError, OverflowError):  # no JSON, or numbers that are too large to be changed
        return None
    return separator.join(parts)


def _change(document: Any, choices: Random) -> None:
    """Change one list or object of a document: set, remove, add or rename something."""
    containers = [document, *_within(document)]
    one = choices.choice(containers)
    value = choices.choice([choices.choice(_VALUES), _copy_of(choices.choice(containers)), _near(one, choices)])
    keys = list(one) if isinstance(one, dict) else range(len(one))
    if not keys:
        names = [name for other in containers if isinstance(other, dict) for name in other]
        one.update({choices.choice(["a", *names]): value}) if isinstance(one, dict) else one.append(value)
        return
    key = choices.choice(keys)
    action = choices.randrange(8)
    if action == 0:
        del one[key]
    elif action == 1 and isinstance(one, list):
        one.insert(key, value)
    elif action == 1:
        names = [name for other in containers if isinstance(other, dict) for name in other]
        one[choices.choice(names)] = one.pop(key)
    else:
        one[key] = value


def _within(value: Any) -> list[Any]:
    """All lists and objects below a value."""
    found = []
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, (dict, list)):
            found += [inner, *_within(inner)]
    return found


def _near(container: Any, choices: Random) -> Any:
    """A number or text of a container, or one that is almost like it."""
    values = list(container.values() if isinstance(container, dict) else container)
    value = choices.choice(values or [0])
    if isinstance(value, (int, float)):
        return value + choices.choice([-1, 1, 0.5])
    if isinstance(value, str):
        place = choices.randrange(len(value) + 1)
        return value[:place] + choices.choice(["", "a", " ", "\n", "0", "\\", '"']) + value[place + 1 :]
    return _copy_of(value)


def _copy_of(value: Any) -> Any:
    return json.loads(json.dumps(value))
