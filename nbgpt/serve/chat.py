"""`/v1/chat/completions`: conversations, by the template that the server was given."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from ..sampling.logprobs import TokenLogprob
from ..tasks.chat_template import ChatTemplate
from ..tokenizer import Tokenizer
from .answers import answer, openai_token
from .bodies import StrictRoute
from .errors import ApiError, responses
from .generation import Server, begin, check_logprobs, options_of
from .schemas import ChatCompletion, ChatRequest

_NO_TEMPLATE = "GPT-2 has no chat format: start the server with --chat-template plain or a file, or use /v1/completions"


class ChatShape:
    """Choices of `/v1/chat/completions`."""

    whole_object, chunk_object = "chat.completion", "chat.completion.chunk"
    id_prefix = "chatcmpl-"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def choice(self, text: str, logprobs: list[TokenLogprob] | None) -> dict[str, Any]:
        """The fields of a whole text, without the space between the prompt and the answer."""
        return {
            "message": {"role": "assistant", "content": text.removeprefix(" ")},
            "logprobs": self._logprobs(logprobs),
        }

    def delta(self, text: str, logprobs: list[TokenLogprob] | None, is_first: bool, offset: int) -> dict[str, Any]:
        """The fields of a part of a text; the space between the prompt and the answer is not sent."""
        delta = {"role": "assistant", "content": text.removeprefix(" ")} if is_first else {"content": text}
        return {"delta": delta, "logprobs": self._logprobs(logprobs)}

    def _logprobs(self, logprobs: list[TokenLogprob] | None) -> dict[str, Any] | None:
        if logprobs is None:
            return None
        content = [
            {
                **self._entry(one.token, one.logprob),
                "top_logprobs": [self._entry(token, logprob) for token, logprob in one.top.items()],
            }
            for one in logprobs
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprob: float | None) -> dict[str, Any]:
        octets = self._tokenizer.bytes_of(token)
        return {"token": openai_token(octets), "logprob": logprob, "bytes": list(octets)}


def _prompt(template: ChatTemplate, body: ChatRequest) -> str:
    try:
        return template.prompt([message.model_dump(exclude_none=True) for message in body.messages])
    except ValueError as error:
        raise ApiError(400, f"the chat template refuses these messages: {error}", param="messages") from None


def routes(server: Server) -> APIRouter:
    """The route, for an application."""
    router = APIRouter(route_class=StrictRoute)

    @router.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses=responses(404, 429, 503),
        summary="Continue a conversation",
        description="GPT-2 was not trained on conversations: the server's --chat-template makes a prompt of them.",
    )
    async def chat(request: Request, body: ChatRequest) -> Response:
        if server.chat_template is None:
            raise ApiError(400, _NO_TEMPLATE, code="no_chat_template")
        options = options_of(body, server.limits)
        options.pop("logprobs", None)
        if body.max_completion_tokens is not None:
            options["max_tokens"] = body.max_completion_tokens
        if body.logprobs:
            options["logprobs"] = body.top_logprobs or 0
            check_logprobs(body.top_logprobs, server.limits)
        stops = options.get("stop", [])
        options["stop"] = [*([stops] if isinstance(stops, (str, int)) else stops), *server.chat_template.stops]
        prompt = _prompt(server.chat_template, body)
        generation = await begin(server, body, [prompt], options)
        shape = ChatShape(generation.served.model.tokenizer)
        return await answer(server, request, body, generation, shape, bool(body.logprobs))

    return router
