"""Stop strings: found wherever pieces are cut, and nothing is held back that cannot become one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbgpt.text.stop_strings import StopStrings


def read(pieces, stops):
    """-> what was let through in all, whether a stop was found, and what had been let through after each piece."""
    gate, through, after = StopStrings(stops), "", []
    for piece in pieces:
        through += gate.push(piece)
        after.append(through)
        if gate.found:
            return through, True, after
    return through + gate.finish(), False, after


TEXT = "one two\n\nthree"


@pytest.mark.parametrize("end", range(len(TEXT) + 1))
@pytest.mark.parametrize("start", range(len(TEXT) + 1))
def test_a_stop_text_that_straddles_pieces(start, end):
    pieces = [TEXT[: min(start, end)], TEXT[min(start, end) : max(start, end)], TEXT[max(start, end) :]]
    assert read(pieces, ["o\n\nt"])[:2] == ("one tw", True)
    assert read(pieces, ["o\n\nT"])[:2] == (TEXT, False)


def test_one_character_at_a_time():
    through, found, after = read("aab-aabc-x", ["aabc"])
    assert (through, found) == ("aab-", True)
    assert after == ["", "", "", "aab-", "aab-", "aab-", "aab-", "aab-"]  # aab may become aabc, - may not


def test_the_first_of_several():
    assert read(["a STOP b END c"], ["END", "STOP"])[:2] == ("a ", True)
    assert read(["xaby"], ["ab", "xabz"])[:2] == ("x", True)


def test_what_ends_like_a_beginning_comes_at_the_end():
    assert read(["say <", "/"], ["</s>"])[:2] == ("say </", False)


def test_none():
    assert read(["a", "", "b"], []) == ("ab", False, ["a", "a", "ab"])


@settings(max_examples=500, deadline=None)
@given(
    pieces=st.lists(st.text("ab", max_size=4), max_size=12),
    stops=st.lists(st.text("ab", min_size=1, max_size=5), max_size=3),
)
def test_twin(pieces, stops):
    """After each piece: all of the text but its longest end that is a beginning of a stop text."""
    through, found, after = read(pieces, stops)
    text = ""
    for piece, so_far in zip(pieces, after, strict=False):
        text += piece
        starts = [text.index(stop) for stop in stops if stop in text]
        if starts:
            assert (through, found) == (so_far, True)
            assert so_far == text[: min(starts)]
            return
        beginnings = {stop[:n] for stop in stops for n in range(len(stop))} | {""}
        held = max((beginning for beginning in beginnings if text.endswith(beginning)), key=len)
        assert so_far == text[: len(text) - len(held)]
    assert (through, found) == (text, False)
