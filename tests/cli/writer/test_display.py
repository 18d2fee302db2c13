"""The screen beside textwrap's lines, and what pyte shows."""

import itertools
import random
import re
import textwrap

import pyte
import pytest

from nbgpt.cli.writer.display import Display, default_color, visible
from nbgpt.cli.writer.manuscript import Span

ESCAPE = re.compile(r"\x1b\[[\d;]*m")
TEXT = (
    "It was a dark and stormy night; the rain fell in torrents, except at occasional intervals, when it was checked by "
    "a violent gust of wind.\n\nIt was in London that our scene lies."
)


def pieces_of(text, seed):
    """The text cut anywhere."""
    chance = random.Random(seed)
    cuts = sorted({0, len(text), *(chance.randrange(len(text)) for _ in range(30))})
    return [text[start:stop] for start, stop in itertools.pairwise(cuts)]


@pytest.mark.parametrize("columns", [15, 30, 79])
@pytest.mark.parametrize("seed", range(3))
def test_lines_are_those_of_textwrap(capsys, columns, seed):
    display = Display(is_terminal=True, columns=lambda: columns)
    for piece in pieces_of(TEXT, seed):
        display.add(Span(piece, True), "model")
    display.end()
    lines = ESCAPE.sub("", capsys.readouterr().out)
    expected = [textwrap.fill(line, columns, break_on_hyphens=False) for line in TEXT.split("\n")]
    assert lines == "\n".join(expected) + "\n"


def test_a_screen_of_that_width_shows_the_same(capsys):
    """The terminal breaks no line by itself, though some are as long as it is wide."""
    screen = pyte.Screen(20, 20)
    display = Display(is_terminal=True, columns=lambda: 20)
    for piece in pieces_of(TEXT, 1):
        display.add(Span(piece))
    display.end()
    pyte.Stream(screen).feed(capsys.readouterr().out.replace("\n", "\r\n"))
    expected = "\n".join(textwrap.fill(line, 20) for line in TEXT.split("\n"))
    assert "\n".join(line.rstrip() for line in screen.display).rstrip() == expected


def test_a_word_longer_than_the_line_and_wide_characters(capsys):
    display = Display(is_terminal=True, columns=lambda: 6)
    for part in ("a ", "123456789", " bc ", "日本", " de"):
        display.add(Span(part))
    display.end()
    assert capsys.readouterr().out == "a\n123456789 bc\n日本\nde\n"  # 789 and bc share a line; 日本 has four columns


def test_a_pipe_gets_the_text_as_it_is(capsys):
    display = Display(is_terminal=False)
    display.add(Span("a\x1b[31m  long ", True, 0.5), "probability")
    display.end()
    assert capsys.readouterr().out == "a\x1b[31m  long \n"


def test_colors(capsys, monkeypatch):
    monkeypatch.setenv("COLORTERM", "")
    display = Display(is_terminal=True, columns=lambda: 80)
    for color in ("off", "model", "probability"):
        for span in (Span("we"), Span(" write", True, 1.0)):
            display.add(span, color)
        display.end()
    off, model, probability = capsys.readouterr().out.splitlines()
    assert off == "we write"
    assert model == "we\x1b[36m \x1b[0m\x1b[36mwrite\x1b[0m"
    assert probability == "we\x1b[30;48;5;157m \x1b[0m\x1b[30;48;5;157mwrite\x1b[0m"


@pytest.mark.parametrize(
    ("variables", "color"),
    [({"TERM": "xterm"}, "model"), ({"TERM": "xterm", "NO_COLOR": "1"}, "off"), ({"TERM": "dumb"}, "off"), ({}, "off")],
)
def test_color_is_left_out_where_it_is_not_wanted(monkeypatch, variables, color):
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert default_color() == color


def test_control_characters_do_not_reach_the_terminal():
    assert visible("a\x1b[2J\r\x07b\nc\td é 😀") == "a�[2J��b\nc   d é 😀"


def test_words_that_wait_are_written_when_asked(capsys):
    display = Display(is_terminal=True, columns=lambda: 80)
    display.add(Span("a wom"))
    display.flush()
    assert capsys.readouterr().out == "a wom"
    display.add(Span("an"))
    display.end()
    assert capsys.readouterr().out == "an\n"


def test_long_lines_of_answers_go_on_below_their_last_column(capsys):
    display = Display(is_terminal=True, columns=lambda: 30)
    display.say("short\n  /why [X]  what it is that the model thought\nwords and words and more of them\n")
    lines = capsys.readouterr().out.splitlines()
    indent = " " * len("  /why [X]  ")
    assert lines == [
        "short",
        "  /why [X]  what it is that",
        f"{indent}the model thought",
        "words and words and more of",
        "them",
    ]
    Display(is_terminal=False).say("words and words and more of them " * 5)
    assert capsys.readouterr().out.count("\n") == 1


def test_messages_are_broken_at_a_terminal_and_one_line_elsewhere(capsys):
    Display(is_terminal=True, columns=lambda: 20).note("nothing is\nto be undone here")
    assert capsys.readouterr() == ("nbgpt: nothing is to\nbe undone here\n", "")
    Display(is_terminal=False).note("nothing is\nto be undone here")
    assert capsys.readouterr() == ("", "nbgpt: nothing is to be undone here\n")
