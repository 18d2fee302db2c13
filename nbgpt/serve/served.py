"""The models of a server, by the names that requests choose them by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

from ..abi.layout import PAGE
from ..model import Model
from ..text.session import fingerprint
from .errors import ApiError


class Served:
    """A model under the name that requests choose it by."""

    def __init__(self, name: str, model: Model, created: int) -> None:
        self.name, self.model, self.created = name, model, created

    @cached_property
    def fingerprint(self) -> str:
        """Equal for models that give the same texts: the first digits of the hash that session files carry too."""
        return "nbgpt-" + fingerprint(self.model.engine)[:16]

    @property
    def texts_in_memory(self) -> int:
        """How many texts as long as the context fit the KV cache."""
        engine = self.model.engine
        return engine.cache.n_pages // max(1, -(-engine.config.n_ctx // PAGE))


class Models:
    """All models of a server, by name."""

    def __init__(self, models: Mapping[str, Model], created: int) -> None:
        self._served = {name: Served(name, model, created) for name, model in models.items()}

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served.values())

    def find(self, name: str | None) -> Served:
        """The model of this name; None: the first. Raises ApiError."""
        if name is not None and name not in self._served:
            message = f"there is no model {name[:100]!r}; choose {', '.join(map(repr, self._served))}"
            raise ApiError(404, message, param="model", code="model_not_found")
        served = next(iter(self)) if name is None else self._served[name]
        try:
            served.model.engine.check_open()
        except RuntimeError as error:
            raise ApiError(503, str(error)) from None
        return served
