"""`/v1/completions`: the continuations of prompts."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from ..sampling.logprobs import TokenLogprob
from ..tokenizer import Tokenizer
from .answers import answer, openai_token
from .bodies import StrictRoute
from .errors import ApiError, responses
from .generation import Server, begin, check_logprobs, options_of, prompts_of
from .schemas import Completion, CompletionRequest


class TextShape:
    """Choices of `/v1/completions`."""

    whole_object = chunk_object = "text_completion"
    id_prefix = "cmpl-"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def choice(self, text: str, logprobs: list[TokenLogprob] | None) -> dict[str, Any]:
        """The fields of a whole text."""
        return self.delta(text, logprobs, True, 0)

    def delta(self, text: str, logprobs: list[TokenLogprob] | None, is_first: bool, offset: int) -> dict[str, Any]:
        """The fields of a part of a text, which begins with the given character."""
        return {"text": text, "logprobs": None if logprobs is None else self._logprobs(logprobs, offset)}

    def _logprobs(self, logprobs: list[TokenLogprob], offset: int) -> dict[str, Any]:
        offsets = []
        for one in logprobs:
            offsets.append(offset)
            offset += len(one.text)
        tops = [
            [{"id": i, "text": openai_token(self._tokenizer.bytes_of(i)), "logprob": p} for i, p in one.top.items()]
            for one in logprobs
        ]
        return {
            "tokens": [one.text for one in logprobs],
            "token_logprobs": [one.logprob for one in logprobs],
            "top_logprobs": [{top["text"]: top["logprob"] for top in place} or None for place in tops],
            "text_offset": offsets,
            "token_ids": [one.token for one in logprobs],
            "top_tokens": tops,
        }


def routes(server: Server) -> APIRouter:
    """The route, for an application."""
    router = APIRouter(route_class=StrictRoute)

    @router.post(
        "/v1/completions",
        response_model=Completion,
        responses=responses(404, 429, 503),
        summary="Continue a prompt, or several",
    )
    async def completions(request: Request, body: CompletionRequest) -> Response:
        if body.suffix:
            raise ApiError(400, "suffix is not offered: GPT-2 reads from left to right only", param="suffix")
        check_logprobs(body.logprobs, server.limits)
        options = options_of(body, server.limits)
        generation = await begin(server, body, prompts_of(body.prompt), options, body.best_of)
        shape = TextShape(generation.served.model.tokenizer)
        return await answer(server, request, body, generation, shape, body.logprobs is not None)

    return router
