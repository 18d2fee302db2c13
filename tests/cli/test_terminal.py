"""Text in and out of a process: what is read, what reaches a terminal, and what does not."""

import io
import sys

import pytest

from nbgpt.cli.terminal import decode, line_batches, note, printable, read_text, shaded, write_pieces
from nbgpt.formats import FormatError


def stdin_of(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_text_of_a_file_and_of_standard_input(tmp_path, monkeypatch):
    text = "Naïve café 😀\r\n"
    (tmp_path / "text").write_bytes(text.encode())
    stdin_of(monkeypatch, text.encode())
    assert read_text(str(tmp_path / "text")) == read_text("-") == text


def test_a_closed_standard_input_is_empty(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert read_text("-") == ""


def test_other_encodings_are_refused_by_the_place():
    with pytest.raises(FormatError, match=r"^here is not UTF-8 \(byte 0xff at 2\): convert it"):
        decode(b"ab\xff", "here")


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a\r\nb", ["a", "b"]),
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"a\rb\x0cc\n", ["a\rb\x0cc"]),  # Python's splitlines would cut here
    ],
)
def test_lines(monkeypatch, data, lines):
    stdin_of(monkeypatch, data)
    assert [line for batch in line_batches("-", 2) for line in batch] == lines


def test_lines_come_in_batches(monkeypatch):
    stdin_of(monkeypatch, b"1\n2\n3\n4\n5\n")
    assert list(line_batches("-", 2)) == [["1", "2"], ["3", "4"], ["5"]]


@pytest.mark.parametrize(
    ("pieces", "out"), [(["a", "b"], "ab\n"), (["a\n"], "a\n"), ([], "\n"), (["", "x"], "x\n")], ids=str
)
def test_pieces_end_with_a_whole_line(capsys, pieces, out):
    write_pieces(pieces)
    assert capsys.readouterr().out == out


@pytest.mark.parametrize(("before", "out"), [([], ""), (["half"], "half\n")], ids=str)
def test_an_error_leaves_whole_lines(capsys, before, out):
    def pieces():
        yield from before
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_pieces(pieces())
    assert capsys.readouterr().out == out


def test_a_note_is_one_line(capsys):
    note("one\ntwo\x1b[31m")
    assert capsys.readouterr().err == "nbgpt: one two?[31m\n"


def test_a_note_without_standard_error(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    note("nobody reads this")


def test_printable():
    assert printable("a\tb\r\nc \x1b\x07\u202e é") == "a b c ??? é"


ESCAPES = {
    "256 colours": ("", {0.0: "5;217", 0.25: "5;229", 1.0: "5;157"}),
    "true colour": ("truecolor", {0.0: "2;255;155;155", 0.25: "2;255;255;155", 1.0: "2;155;255;155"}),
}


@pytest.mark.parametrize(("terminal", "colors"), ESCAPES.values(), ids=ESCAPES)
def test_shades_go_from_red_over_yellow_to_green(monkeypatch, terminal, colors):
    monkeypatch.setenv("COLORTERM", terminal)
    for probability, color in colors.items():
        assert shaded("text", probability) == f"\x1b[30;48;{color}mtext\x1b[0m"


def test_line_breaks_are_not_shaded(monkeypatch):
    monkeypatch.setenv("COLORTERM", "")
    assert shaded("a\n\nb\n", 1.0) == "\x1b[30;48;5;157ma\x1b[0m\n\n\x1b[30;48;5;157mb\x1b[0m\n"
