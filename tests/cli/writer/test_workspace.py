"""The text and what changes it, beside `Model.generate`."""

import itertools

import pytest

from nbgpt.cli.writer.display import Display
from nbgpt.cli.writer.ending import length_of
from nbgpt.cli.writer.settings import Settings
from nbgpt.cli.writer.workspace import Workspace
from nbgpt.engine.request import Request
from nbgpt.text.stream import Stream

OPENING = "It was a dark and stormy night"


def continued(story, text, **options):
    return story.generate(text, **{"max_tokens": 8, "seed": 3, **options}).text


def test_each_line_is_continued_and_the_text_grows(story, workspace, capsys):
    workspace.add(OPENING)
    first = continued(story, OPENING)
    assert (workspace.text, capsys.readouterr().out) == (OPENING + first, first + "\n")
    workspace.add("He said")
    space = "" if workspace.text.endswith((" ", "\n")) else " "
    second = continued(story, f"{OPENING}{first} He said")
    workspace.add("")
    third = continued(story, f"{OPENING}{first} He said{second}")
    assert space == " "
    assert workspace.text == f"{OPENING}{first} He said{second}{third}"
    assert capsys.readouterr().out == f"{second}\n{third}\n"


def test_without_spaces_the_text_is_what_was_typed(story, new_workspace):
    workspace = new_workspace(space=False)
    workspace.add(OPENING + " ")
    assert workspace.text == OPENING + " " + continued(story, OPENING + " ")


def test_again_moves_the_seed_on(story, workspace):
    workspace.add(OPENING)
    for seed in (4, 5):
        workspace.again(is_same=False)
        assert workspace.text == OPENING + continued(story, OPENING, seed=seed)
        assert workspace.manuscript.turn.seed == workspace.settings["seed"] == seed
    workspace.set(workspace.settings.changed("temperature", "0"))
    workspace.again(is_same=True)
    assert workspace.text == OPENING + continued(story, OPENING, temperature=0)
    assert workspace.settings["seed"] == 5
    for _ in range(3):
        workspace.history.undo()
    assert workspace.text == OPENING + continued(story, OPENING)
    workspace.set(workspace.settings.changed("temperature", "0.8"))
    workspace.again(is_same=False)
    assert workspace.text == OPENING + continued(story, OPENING, seed=6)  # not one of those that were undone


def test_again_shows_the_end_of_what_it_continues(workspace, capsys):
    workspace.add("word " * 500 + OPENING)
    capsys.readouterr()
    workspace.again(is_same=True)
    shown = capsys.readouterr().out
    assert shown.endswith(OPENING + workspace.manuscript.spans[-1].text + "\n")
    assert len(shown) < 400


def test_again_same_repeats(story, new_workspace):
    workspace = new_workspace(seed=None)
    workspace.add(OPENING)
    text = workspace.text
    workspace.again(is_same=True)
    assert workspace.text == text
    assert text == OPENING + continued(story, OPENING, seed=workspace.manuscript.turn.seed)


def test_the_last_seed_is_followed_by_the_first(new_workspace):
    workspace = new_workspace(seed=2**64 - 1)
    workspace.add(OPENING)
    workspace.again(is_same=False)
    assert workspace.settings["seed"] == 0


def test_a_text_that_cannot_be_another_is_said(new_workspace, capsys):
    workspace = new_workspace(greedy=True)
    workspace.add(OPENING)
    workspace.again(is_same=False)
    assert "the text is the same" in capsys.readouterr().err


def test_again_needs_a_continuation(workspace):
    with pytest.raises(ValueError, match="there is nothing to write again"):
        workspace.again(is_same=False)


def test_again_ends_where_the_settings_say_or_where_end_said(new_workspace):
    workspace = new_workspace(max_tokens=100)
    workspace.add(OPENING)
    workspace.set(workspace.settings.changed("end", "sentence"))
    workspace.again(is_same=True)
    assert workspace.text.endswith(".")
    workspace.set(workspace.settings.changed("end", "length"))
    workspace.go_on(workspace.manuscript, "/end sentence", "sentence")
    text = workspace.text
    workspace.again(is_same=True)
    assert workspace.text == text


@pytest.mark.parametrize("end", ["sentence", "paragraph"])
@pytest.mark.parametrize("color", ["off", "probability"])
def test_a_continuation_ends_with_a_sentence(story, new_workspace, end, color):
    workspace = new_workspace(max_tokens=120, end=end, color=color)
    workspace.add(OPENING)
    whole = continued(story, OPENING, max_tokens=120)
    assert workspace.text == OPENING + whole[: length_of(whole, end, OPENING)]
    assert len(workspace.text) < len(OPENING + whole)


def test_probabilities_are_those_of_generate(story, new_workspace):
    workspace = new_workspace(color="probability")
    workspace.add(OPENING)
    found = story.generate(OPENING, max_tokens=8, seed=3, logprobs=0)
    spans = workspace.manuscript.spans[1:]
    assert [span.text for span in spans] == [one.text for one in found.logprobs]
    assert [span.probability for span in spans] == pytest.approx(
        [2.718281828459045**one.logprob for one in found.logprobs]
    )


def test_what_was_typed_is_shown_with_what_follows(new_workspace, capsys):
    workspace = new_workspace(shows_typed=True)
    workspace.add(OPENING)
    assert capsys.readouterr().out == workspace.text + "\n"
    before = workspace.text
    workspace.add("He said")
    assert capsys.readouterr().out == workspace.text[len(before) :].removeprefix(" ") + "\n"


@pytest.mark.parametrize("written", [0, 2])
def test_an_error_of_the_model_leaves_the_text(workspace, capsys, monkeypatch, written):
    """Whatever it is, and after however many tokens; what was being written again is still there."""
    workspace.add(OPENING)
    before, take = workspace.manuscript, Request.take
    for change in (lambda: workspace.add("He said"), lambda: workspace.again(is_same=False)):
        n_calls = itertools.count()

        def fail(self, *arguments, n_calls=n_calls):
            if next(n_calls) == written:
                raise OverflowError("too large")
            take(self, *arguments)

        monkeypatch.setattr(Request, "take", fail)
        capsys.readouterr()
        with pytest.raises(OverflowError):
            change()
        monkeypatch.undo()
        assert workspace.manuscript is before
        assert capsys.readouterr().out.endswith("\n")


def interrupt_after(monkeypatch, n):
    """Ctrl-C when the model is asked for piece number n."""
    next_piece, n_calls = Stream.__next__, itertools.count()

    def interrupted(self):
        if next(n_calls) == n:
            raise KeyboardInterrupt
        return next_piece(self)

    monkeypatch.setattr(Stream, "__next__", interrupted)


@pytest.mark.parametrize("n", [0, 3])
def test_ctrl_c_keeps_what_is_written(story, workspace, monkeypatch, capsys, n):
    interrupt_after(monkeypatch, n)
    workspace.add(OPENING)
    monkeypatch.undo()
    whole = continued(story, OPENING)
    written = workspace.text.removeprefix(OPENING)
    assert whole.startswith(written)
    assert (0 < len(written) < len(whole)) == bool(n)
    assert capsys.readouterr().out == written + "\n"
    workspace.again(is_same=True)
    assert workspace.text == OPENING + whole


def test_ctrl_c_ends_a_program_that_nobody_watches(new_workspace, monkeypatch):
    workspace = new_workspace(is_interactive=False)
    interrupt_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        workspace.add(OPENING)


def test_settings_are_tried(story, workspace):
    before = workspace.settings
    for values in ({"logit_bias": 5}, {"stop": [""]}, {"temperature": -1}, {"min_tokens": 300}):
        with pytest.raises(ValueError, match=next(iter(values))):
            workspace.set(Settings(values))
        assert workspace.settings is before
    with pytest.raises(ValueError, match="max_tokens is 0"):
        Workspace(story, Settings({"max_tokens": 0}), Display(is_terminal=False))


def test_a_text_that_outgrows_the_context(new_workspace, story):
    workspace = new_workspace(overflow="truncate_left", max_tokens=2)
    text = "word " * (story.config.n_ctx + 100) + "end"
    workspace.add(text)
    assert workspace.text.startswith(text)
    assert len(workspace.text) > len(text)


def test_the_end_of_the_text(workspace, capsys):
    workspace.change(workspace.manuscript.typed("word " * 200 + "end"), "test")
    workspace.show_end()
    shown = capsys.readouterr().out
    assert shown.startswith("… word ")
    assert shown.endswith("word end\n")
    assert 250 < len(shown) < 310
