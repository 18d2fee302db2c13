"""Jinja templates that come from users: they see the values they are given, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template


class TextTemplate:
    """A Jinja template in a sandbox; a name that it uses and is not given is an error."""

    def __init__(self, source: str, what: str) -> None:
        """Compile a template.

        Args:
            source: the template.
            what: names it in errors.

        Raises:
            ValueError: the source is no template.
            ImportError: Jinja is not installed.
        """
        try:
            from jinja2 import StrictUndefined, TemplateSyntaxError
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError:
            raise ImportError('templates need the package jinja2: pip install "nbgpt[templates]"') from None
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _raise
        self._what = what
        try:
            self._template: Template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise ValueError(f"{what}: line {error.lineno}: {error.message}") from None
        except RecursionError:
            raise ValueError(f"{what}: its parts are nested too deeply") from None

    def render(self, values: Mapping[str, Any]) -> str:
        """The text that the template makes of values, by name. Raises ValueError if it cannot."""
        from jinja2 import TemplateError

        try:
            return self._template.render(values)
        except (
            TemplateError,
            ArithmeticError,
            LookupError,
            RecursionError,
            AttributeError,
            TypeError,
            ValueError,
        ) as error:
            raise ValueError(f"{self._what}: {error}") from None


def _raise(message: str) -> None:
    """What templates call `raise_exception`, as those of transformers do."""
    from jinja2 import TemplateError

    raise TemplateError(message)
