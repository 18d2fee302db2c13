"""Arguments that are refused name themselves, their value and what is allowed."""

from numbers import Integral

import numpy as np
import pytest

from nbgpt.validation import check


@pytest.mark.parametrize("value", [1, np.int64(7)])
def test_what_holds_is_let_through(value):
    check("n", value, Integral, lambda n: n >= 1, "from 1 on")


@pytest.mark.parametrize(("value", "shown"), [(0, "0"), (1.0, "1.0"), ("1", "'1'"), (None, "None")])
def test_a_whole_number(value, shown):
    with pytest.raises(ValueError, match=r"^n is ") as error:
        check("n", value, Integral, lambda n: n >= 1, "from 1 on")
    assert str(error.value) == f"n is {shown}; it must be a whole number from 1 on"


def test_a_kind_alone():
    check("text", "", str, allowed="a str")
    with pytest.raises(ValueError, match=r"^text is 3; it must be a str$"):
        check("text", 3, str, allowed="a str")


def test_a_value_of_another_kind_is_not_asked_whether_it_holds():
    with pytest.raises(ValueError, match="must be a number"):
        check("x", "a", (int, float), lambda x: x > 0, "a number above 0")
