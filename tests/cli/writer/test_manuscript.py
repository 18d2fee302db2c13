"""Who wrote what, and where a space is missing."""

import pytest

from nbgpt.cli.writer.manuscript import Manuscript, Span, Turn, cut, needs_space

BY_BOTH = Manuscript((Span("Once upon a time"),)).written([Span(", there", True), Span(" was", True)], 7, "sentence")


@pytest.mark.parametrize(
    ("before", "after", "is_missing"),
    [
        ("", "He", False),
        ("night.", "He", True),
        ("night. ", "He", False),
        ("night.\n", "He", False),
        ("night", ", and", False),
        ("night", " and", False),
        ("night", "!", False),
        ("the girl", "'s house", False),
        ("the girl", "’s house", False),
        ("he said:", '"Come"', True),
        ('he said: "', "Come", False),
        ('he said: "Come', '" and went', False),
        ('"Come."', "He went", True),
        ("he said: “", "Come", False),
        ("(", "see below)", False),
        ("night", "(see below)", True),
        ("half-", "open", False),
        ("a dash—", "and on", False),
        ("it was", "42", True),
        ("日本", "語", False),
        ("naïve", "état", True),
        ("night.", "", False),
    ],
)
def test_a_missing_space(before, after, is_missing):
    assert needs_space(before, after) == is_missing


@pytest.mark.parametrize(
    ("typed", "spaced", "text"),
    [
        ("He said ", True, "It was dark. He said"),
        ("He said ", False, "It was dark.He said "),
        ("", True, "It was dark."),
        ("  ", True, "It was dark."),
        ("one\ntwo\n", True, "It was dark. one\ntwo\n"),
    ],
)
def test_typed(typed, spaced, text):
    manuscript = Manuscript((Span("It was dark.", True),), Turn(0, 1, None)).typed(typed, spaced)
    assert (manuscript.text, manuscript.turn) == (text, None)
    assert [span.is_written for span in manuscript.spans] == [True, False][: 1 + (text != "It was dark.")]


def test_written():
    assert BY_BOTH.spans == (Span("Once upon a time"), Span(", there was", True))
    assert BY_BOTH.turn == Turn(1, 7, "sentence")
    assert BY_BOTH.before_turn() == Manuscript((Span("Once upon a time"),))
    with pytest.raises(ValueError, match="nothing to write again"):
        BY_BOTH.typed("He").before_turn()


def test_probabilities_keep_the_spans_apart():
    spans = [Span(" a", True, 0.5), Span(" b", True, 0.25)]
    assert Manuscript().written(spans, 1).spans == tuple(spans)


@pytest.mark.parametrize(
    "text",
    ["", "Once", "Once upon a time, there was", "Twice upon a time, there was", "Once upon a time, there", "XY"],
)
def test_replaced(text):
    replaced = BY_BOTH.replaced(text)
    assert replaced.text == text
    assert replaced.turn is None
    ours = "".join(span.text for span in replaced.spans if span.is_written)
    assert ours in ", there was"


def test_a_change_in_the_middle_leaves_both_ends_to_whoever_wrote_them():
    replaced = BY_BOTH.replaced("Once upon a midnight dreary, there was")
    assert [(span.text, span.is_written) for span in replaced.spans if span.is_written] == [(", there was", True)]


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (0, 3), (2, 5), (3, 6), (1, 99), (9, 12)])
def test_cut(start, stop):
    spans = [Span("abc"), Span("def", True, 0.5), Span("ghi", True)]
    found = cut(spans, start, stop)
    assert "".join(span.text for span in found) == "abcdefghi"[start:stop]
    written = "".join(span.text for span in found if span.is_written)
    assert written == "abcdefghi"[max(3, start) : max(3, stop)]
    assert all(span.probability == (0.5 if span.text == "def" else None) for span in found)
