"""From the messages of a conversation to a prompt: GPT-2 has no format of its own for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ApiError

if TYPE_CHECKING:
    from jinja2 import Template

PLAIN = """\
{% for message in messages %}{{ message.role }}: {{ message.content }}
{% endfor %}assistant:"""
"""A transcript; the answer ends where the next turn begins."""
PLAIN_STOPS = ("\nuser:", "\nsystem:", "\nassistant:")


class ChatTemplate:
    """A Jinja template as transformers has them: it is given messages, and writes the prompt."""

    def __init__(self, source: str, stops: Sequence[str] = ()) -> None:
        """stops: strings that end an answer. Raises ValueError if the source is no template."""
        from jinja2 import StrictUndefined, TemplateSyntaxError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _raise
        try:
            self._template: Template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise ValueError(f"chat template: line {error.lineno}: {error.message}") from None
        self.stops = tuple(stops)

    def prompt(self, messages: list[Mapping[str, Any]]) -> str:
        """The text that the answer continues. Raises ApiError if the template refuses the messages."""
        from jinja2 import TemplateError

        try:
            return self._template.render(messages=messages, add_generation_prompt=True)
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ApiError(400, f"the chat template refuses these messages: {error}", param="messages") from None


def load_template(name: str) -> ChatTemplate:
    """The template `plain`, or one in a file. Raises OSError or ValueError."""
    if name == "plain":
        return ChatTemplate(PLAIN, PLAIN_STOPS)
    return ChatTemplate(Path(name).read_text(encoding="utf-8"))


def _raise(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)
