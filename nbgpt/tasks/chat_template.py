"""From the messages of a conversation to a prompt: GPT-2 has no format of its own for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .templates import TextTemplate

Message = Mapping[str, Any]
"""One turn: its "role" ("system", "user" or "assistant") and its "content"."""


@dataclass(frozen=True)
class ChatTemplate:
    """How a conversation becomes a prompt, and where an answer ends.

    Attributes:
        prompt: the text that an answer to these messages continues; raises ValueError if there is none.
        stops: strings that end an answer.
    """

    prompt: Callable[[Sequence[Message]], str]
    stops: tuple[str, ...] = ()


def _transcript(messages: Sequence[Message]) -> str:
    return "".join(f"{message['role']}: {message['content']}\n" for message in messages) + "assistant:"


PLAIN = ChatTemplate(_transcript, ("\nuser:", "\nsystem:", "\nassistant:"))
"""A transcript, "role: content" a line; an answer ends where the next turn begins."""


def jinja_template(source: str) -> ChatTemplate:
    """A Jinja template as transformers has them. Raises ValueError if the source is none."""
    template = TextTemplate(source, "chat template")
    return ChatTemplate(lambda messages: template.render({"messages": messages, "add_generation_prompt": True}))


def load_template(name: str) -> ChatTemplate:
    """The template `plain`, or one in a file. Raises OSError, ValueError or ImportError."""
    return PLAIN if name == "plain" else jinja_template(Path(name).read_text(encoding="utf-8"))
