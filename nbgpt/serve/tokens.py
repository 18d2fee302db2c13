"""Routes between texts and token ids."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from .bodies import StrictRoute
from .errors import responses
from .generation import Server
from .schemas import DetokenizeRequest, TokenizeRequest


def routes(server: Server) -> APIRouter:
    """The routes, for an application."""
    router = APIRouter(route_class=StrictRoute, responses=responses(404))

    @router.post("/tokenize", summary="The token ids of a text")
    async def tokenize(body: TokenizeRequest) -> dict[str, Any]:
        served = server.models.find(body.model)
        tokenizer = served.model.tokenizer
        ids = await server.read(lambda: tokenizer.encode_prompt(body.prompt, body.bos, body.special))
        texts = [tokenizer.decode([token], skip_special=False) for token in ids]
        return {"model": served.name, "count": len(ids), "max_model_len": served.model.config.n_ctx} | {
            "tokens": ids,
            "texts": texts,
        }

    @router.post("/detokenize", summary="The text of token ids")
    async def detokenize(body: DetokenizeRequest) -> dict[str, Any]:
        served = server.models.find(body.model)
        text = await server.read(lambda: served.model.tokenizer.decode(body.tokens, skip_special=False))
        return {"model": served.name, "prompt": text}

    return router
