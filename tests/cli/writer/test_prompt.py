"""A real terminal with prompt_toolkit."""

import runpy
import sys
from pathlib import Path

import pytest
from pseudo_terminal import Terminal

pytest.importorskip("prompt_toolkit", reason="an extra: pip install nbgpt[repl]")
OPENING = "It was a dark and stormy night"


@pytest.fixture(scope="module")
def terminal(home):
    with Terminal("repl", "--seed", 3, "-n", 30, columns=60, NBGPT_HOME=home) as terminal:
        terminal.ready()
        yield terminal


@pytest.fixture(autouse=True)
def _new(terminal):
    terminal.enter("/new")
    terminal.enter("/set seed 3")
    terminal.screen.reset()
    terminal.type("\x0c")  # Ctrl-L draws the prompt on the empty screen
    terminal.ready()


def test_what_was_typed_flows_into_the_models_words(terminal, story):
    terminal.enter(OPENING)
    whole = OPENING + story.generate(OPENING, max_tokens=30, seed=3).text
    assert " ".join(terminal.text.split()) == " ".join(f"{whole} >".split())
    assert max(map(len, terminal.text.split("\n"))) <= 60
    assert terminal.color_of("a dark and") == {("default", "default")}
    assert ("cyan", "default") in terminal.color_of(terminal.text.split("\n")[1])
    terminal.enter("/text")
    assert terminal.text.count(OPENING) == 2


def test_colors_by_probability(terminal):
    terminal.enter("/set color probability")
    terminal.enter(OPENING)
    backgrounds = {bg for _, bg in terminal.color_of(terminal.text.split("\n")[-3])}
    terminal.enter("/set color model")
    assert len(backgrounds - {"default"}) > 1


def test_tab_completes(terminal):
    terminal.type("/alt\t")
    terminal.until("> /alternatives")
    terminal.type("\x15/set tempe\t")
    terminal.until("> /set temperature")
    terminal.type("\x15/set t\t")
    terminal.until("typical_p")
    assert "keep tokens of typical" in terminal.text
    terminal.type("\x07\x15")
    terminal.ready()


def test_history_and_its_search(terminal):
    terminal.enter("/tokens Once upon")
    terminal.type("\x1b[A")
    terminal.until("> /tokens Once upon")
    terminal.type("\x03")
    terminal.ready()
    terminal.type("\x12Once")
    terminal.until("`Once': /tokens Once upon")
    terminal.type("\r")
    terminal.until("> /tokens Once upon")
    terminal.type("\x03")
    terminal.ready()


@pytest.mark.parametrize(
    "keys", ["one line\x1b\rand another", "one line\\\rand another", "\x1b[200~one line\nand another\x1b[201~"]
)
def test_several_lines(terminal, keys):
    terminal.type(keys)
    terminal.until("and another")
    assert "> one line\n  and another" in terminal.text
    terminal.type("\r")
    terminal.until(lambda: "> one line" not in terminal.text)
    terminal.ready()
    assert terminal.text.startswith("one line\nand another")


def test_ctrl_c_stops_the_model_and_keeps_what_it_wrote(terminal):
    terminal.enter("/set max_tokens 900")
    terminal.type(OPENING + "\r")
    terminal.until(lambda: terminal.text.count("\n") > 4)
    terminal.type("\x03")
    terminal.ready()
    terminal.enter("/tokens")
    assert "tokens" in terminal.text
    terminal.enter("/set max_tokens 30")
    terminal.type("given up\x03")
    terminal.ready()


def test_mistakes_are_one_line(terminal):
    terminal.enter("/set temperature 5000")
    assert "nbgpt: temperature is 5000, which is unlikely" in terminal.text
    terminal.enter("/set temperature 5000!")
    terminal.enter("/set temperature 0.8")
    assert terminal.text.count("unlikely") == 1


def test_ctrl_d_leaves(home):
    with Terminal("repl", "--seed", 3, NBGPT_HOME=home) as terminal:
        terminal.ready()
        assert terminal.leave() == 0


def test_an_editor(home, tmp_path):
    """It has the terminal to itself, and may ask there."""
    (tmp_path / "ed.py").write_text(
        "import sys, pathlib\npath = pathlib.Path(sys.argv[1])\n"
        "path.write_text(path.read_text().replace('dark', input('which night? ')))\n"
    )
    editor = f"{sys.executable} {tmp_path / 'ed.py'}"
    with Terminal("repl", "--seed", 3, "-n", 5, NBGPT_HOME=home, EDITOR=editor) as terminal:
        terminal.enter(OPENING)
        terminal.type("/edit\r")
        terminal.until("which night?")
        terminal.type("bright\r")
        terminal.ready()
        assert "It was a bright and stormy night" in terminal.text


def test_the_page_shows_this_session(home):
    """If not: `python docs/writing.py`."""
    page = Path(__file__).parents[3] / "docs" / "writing.py"
    made = runpy.run_path(str(page))
    assert made["session"](made["typed"](made["SESSION"], str(home))) in page.with_suffix(".md").read_text("utf-8")
