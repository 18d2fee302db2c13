"""Undo and redo over states that never change."""

from __future__ import annotations

from typing import Generic, TypeVar

_State = TypeVar("_State")


class History(Generic[_State]):
    """States in the order in which they came, and which of them is the present one."""

    def __init__(self, first: _State) -> None:
        self._states = [first]
        self._changes: list[str] = []  # what led from each state to the next
        self._at = 0

    @property
    def now(self) -> _State:
        """The present state."""
        return self._states[self._at]

    def change(self, state: _State, change: str) -> None:
        """Go to a new state; what was undone can be redone no more. change: says what happened, for a message."""
        self._states[self._at + 1 :] = [state]
        self._changes[self._at :] = [change]
        self._at += 1

    def undo(self) -> str:
        """Go back to the state before -> the change that was taken back. Raises ValueError if there is none."""
        if not self._at:
            raise ValueError("there is nothing to undo")
        self._at -= 1
        return self._changes[self._at]

    def redo(self) -> str:
        """Go to the state that `undo` left -> the change that was made again. Raises ValueError if there is none."""
        if self._at == len(self._changes):
            raise ValueError("there is nothing to redo")
        self._at += 1
        return self._changes[self._at - 1]
