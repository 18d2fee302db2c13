"""Undo and redo beside a list of everything that was."""

import pytest

from nbgpt.cli.writer.history import History


def test_back_and_forth():
    history = History("")
    for state in ("a", "ab", "abc"):
        history.change(state, f"to {state}")
    assert [history.undo() for _ in range(3)] == ["to abc", "to ab", "to a"]
    assert history.now == ""
    with pytest.raises(ValueError, match="nothing to undo"):
        history.undo()
    assert [(history.redo(), history.now) for _ in range(3)] == [("to a", "a"), ("to ab", "ab"), ("to abc", "abc")]
    with pytest.raises(ValueError, match="nothing to redo"):
        history.redo()


def test_a_change_forgets_what_was_undone():
    history = History(0)
    history.change(1, "one")
    history.undo()
    history.change(2, "two")
    with pytest.raises(ValueError, match="nothing to redo"):
        history.redo()
    assert (history.undo(), history.now) == ("two", 0)
