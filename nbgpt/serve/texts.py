"""Routes for texts that are only read: embeddings, scores, labels."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from fastapi import APIRouter

from ..text.prompts import Text
from .bodies import StrictRoute
from .errors import ApiError, responses
from .generation import Server, prompts_of
from .schemas import EmbeddingRequest, TextsRequest


def _checked(server: Server, texts: Any) -> list[Text]:
    listed = prompts_of(texts)
    if not 1 <= len(listed) <= server.limits.max_texts:
        raise ApiError(400, f"input has {len(listed)} texts; from 1 to {server.limits.max_texts}", param="input")
    return listed


def _base64(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def routes(server: Server) -> APIRouter:
    """The routes, for an application."""
    router = APIRouter(route_class=StrictRoute, responses=responses(404))

    @router.post("/v1/embeddings", summary="A vector for each text")
    async def embeddings(body: EmbeddingRequest) -> dict[str, Any]:
        served, texts = server.models.find(body.model), _checked(server, body.input)
        model = served.model
        if body.dimensions not in (None, model.config.n_embd):
            raise ApiError(
                400, f"dimensions is {body.dimensions}; this model has {model.config.n_embd}", param="dimensions"
            )
        vectors = await server.read(lambda: model.embed(texts, body.pooling or "mean"))
        n_tokens = sum(len(model.encode(text)) for text in texts)
        form = _base64 if body.encoding_format == "base64" else np.ndarray.tolist
        data = [{"object": "embedding", "index": i, "embedding": form(vector)} for i, vector in enumerate(vectors)]
        usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
        return {"object": "list", "model": served.name, "data": data, "usage": usage}

    @router.post("/score", summary="The log-probability of each token of texts")
    async def score(body: TextsRequest) -> dict[str, Any]:
        served, texts = server.models.find(body.model), _checked(server, body.input)
        scores = await server.read(lambda: served.model.score_batch(texts, bos=body.bos))
        data = [
            {
                "index": index,
                "total": one.total,
                "tokens": one.texts,
                "token_ids": one.tokens,
                "token_logprobs": one.logprobs,
            }
            for index, one in enumerate(scores)
        ]
        return {"object": "list", "model": served.name, "data": data}

    @router.post("/classify", summary="The label of each text, by a model with a classification head")
    async def classify(body: TextsRequest) -> dict[str, Any]:
        served, texts = server.models.find(body.model), _checked(server, body.input)
        labels = await server.read(lambda: served.model.classify(texts, bos=body.bos))
        data = [
            {"index": index, "label": one.label, "probabilities": {k: float(p) for k, p in one.probabilities.items()}}
            for index, one in enumerate(labels)
        ]
        return {"object": "list", "model": served.name, "data": data}

    return router
