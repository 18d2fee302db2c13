"""Progress bars."""

import io
import sys
from functools import partial

from nbgpt.progress import counting, progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def at_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def test_no_bar_without_a_terminal(capsys):
    with counting("reading", "text") as progress:
        for n in range(5):
            progress(n, 4)
    with progress_bar("reading", "text", 4, delay=0) as bar:
        bar.update(4)
    assert capsys.readouterr() == ("", "")


def test_a_bar_at_a_terminal(monkeypatch):
    terminal = at_terminal(monkeypatch)
    with progress_bar("reading", "text", 4, delay=0) as bar:
        bar.update(4)
    assert "reading: 100%" in terminal.getvalue()
    assert "4/4" in terminal.getvalue()


def test_no_bar_for_quick_work(monkeypatch):
    terminal = at_terminal(monkeypatch)
    with progress_bar("reading", "text", 4) as bar:
        bar.update(4)
    assert terminal.getvalue() == ""


def test_what_is_done_and_what_there_is(monkeypatch):
    terminal = at_terminal(monkeypatch)
    monkeypatch.setattr("nbgpt.progress.progress_bar", partial(progress_bar, delay=0))
    with counting("reading", "text") as progress:
        progress(2, 5)
        progress(3, 5)
    assert "3/5" in terminal.getvalue()
