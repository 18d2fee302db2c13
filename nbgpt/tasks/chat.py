"""A conversation: the transcript is the prompt, and the oldest turns leave it when it outgrows the context."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Protocol

from ..config import GPT2Config
from ..text.session import Session
from .chat_template import PLAIN, ChatTemplate

MAX_TOKENS = 100


class Converses(Protocol):
    """A model that can keep a text from call to call, as `nbgpt.Model` does."""

    config: GPT2Config

    def encode(self, prompt: str, bos: bool | None = None) -> list[int]:
        """Token ids of a prompt."""
        ...

    def session(self) -> Session:
        """A session."""
        ...


class Chat:
    """A conversation with a model.

    Each answer continues the whole transcript, as the template writes it. When the transcript and `max_tokens` new
    tokens do not fit the context, whole exchanges (a message and its answer) are left out, oldest first; the system
    message stays. The model reads again only what is new, unless an exchange was left out.
    """

    def __init__(self, model: Converses, template: ChatTemplate = PLAIN, system: str = "", **options: Any) -> None:
        """Begin a conversation.

        Args:
            model: answers.
            template: makes a prompt of messages.
            system: a text that stands before the conversation; "": none.
            options: as for `Model.stream`; max_tokens is 100 unless given.
        """
        self._model, self._template = model, template
        self._session = model.session()
        self._options = {"max_tokens": MAX_TOKENS, **options}
        self._system = [{"role": "system", "content": system}] if system else []
        self.exchanges: list[tuple[str, str]] = []
        """Messages with their answers."""
        self.n_dropped = 0
        """How many exchanges the last prompt was made without."""

    def stream(self, message: str) -> Generator[str, None, None]:
        """The answer to a message, piece by piece; if the iterator is closed early, the exchange ends there.

        Raises ValueError if the message alone does not fit the context, or the template refuses it.
        """
        prompt = self._prompt(message)
        stops = self._options.get("stop") or ()
        stop = [*([stops] if isinstance(stops, (str, int)) else stops), *self._template.stops]
        stream = self._session.stream(prompt, **{**self._options, "stop": stop})
        answer = ""
        try:
            for piece in stream:
                piece = piece if answer else piece.lstrip()  # the space between the prompt and the answer
                answer += piece
                yield piece
        finally:
            stream.cancel()
            self.exchanges.append((message, answer.rstrip()))

    def _prompt(self, message: str) -> str:
        """The prompt with as many of the last exchanges as fit; sets `n_dropped`."""
        room = self._model.config.n_ctx - self._options["max_tokens"]
        for n_dropped in range(len(self.exchanges) + 1):
            prompt = self._template.prompt(self._messages(self.exchanges[n_dropped:], message))
            n_tokens = len(self._model.encode(prompt, self._options.get("bos")))
            if n_tokens <= room:
                self.n_dropped = n_dropped
                return prompt
        raise ValueError(
            f"the message makes a prompt of {n_tokens} tokens; beside max_tokens {self._options['max_tokens']} the "
            f"context of {self._model.config.n_ctx} has room for {max(0, room)}: shorten it, or lower max_tokens"
        )

    def _messages(self, exchanges: list[tuple[str, str]], message: str) -> list[Mapping[str, str]]:
        roles, said = ("user", "assistant"), [text for exchange in exchanges for text in exchange]
        turns = [{"role": roles[number % 2], "content": text} for number, text in enumerate([*said, message])]
        return [*self._system, *turns]
