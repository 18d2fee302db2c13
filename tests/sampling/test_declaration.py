"""Declaring an option is enough: its check, message, flag and default follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from nbgpt.sampling.declaration import Range, check_fields, declared, number, option, whole


def test_an_option_is_its_declaration():
    @dataclass(frozen=True)
    class More:
        top_a: float = number(0.0, Range("from 0 to 1", lambda x: 0 <= x <= 1), "sampling", "A", "keep less")
        n_a: int | None = whole(None, Range("from 1 on", lambda n: n >= 1), "sampling", "N", "keep N")
        is_mild: bool = option(False, "sampling", "be mild", bool)

        def __post_init__(self):
            check_fields(self)

    assert More(0.5, np.uint8(3), np.True_) == More(0.5, 3, True)
    assert type(More(n_a=np.uint8(3)).n_a) is int
    with pytest.raises(ValueError, match="top_a is 2; it must be from 0 to 1"):
        More(2)
    with pytest.raises(ValueError, match="is_mild is 1; it must be True or False"):
        More(is_mild=1)
    with pytest.raises(ValueError, match="n_a is 0; it must be a whole number from 1 on"):
        More(n_a=0)
    top_a, n_a, is_mild = declared(More).values()
    assert (top_a.name, top_a.flag, top_a.default, top_a.annotation) == ("top_a", "--top-a", 0.0, "float")
    assert (is_mild.flag, is_mild.shown_default(), top_a.shown_default()) == ("--is-mild", "", "0")
    assert (n_a.annotation, n_a.shown_default(), More().n_a) == ("int | None", "", None)


def test_what_is_allowed_may_be_unlikely():
    usual = Range("from 0 to 2; above, it is hot", lambda x: x <= 2)

    @dataclass(frozen=True)
    class Weather:
        warmth: float = number(1.0, Range("from 0 on", lambda x: x >= 0, usual), "sampling", "W", "be warm")
        n_clouds: int | None = whole(None, Range("from 0 on", lambda n: n >= 0), "sampling", "N", "be cloudy")

    warmth, n_clouds = declared(Weather).values()
    assert warmth.checked(5) == 5
    assert warmth.doubt(5) == "warmth is 5, which is unlikely: it is usually from 0 to 2; above, it is hot"
    assert [warmth.doubt(0.5), n_clouds.doubt(10**9), n_clouds.doubt(None)] == ["", "", ""]
