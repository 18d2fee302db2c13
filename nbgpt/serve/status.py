"""Routes about the server itself: its models, its health, its metrics."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from .errors import ApiError, responses
from .generation import Server
from .served import Served


def _described(served: Served) -> dict[str, Any]:
    model = served.model
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "nbgpt",
        "max_model_len": model.config.n_ctx,
        "dtype": model.dtype,
        "system_fingerprint": served.fingerprint,
        "has_labels": model.config.n_labels > 0,
    }


def routes(server: Server) -> APIRouter:
    """The routes, for an application."""
    router = APIRouter()

    @router.get("/v1/models", summary="The models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_described(served) for served in server.models]}

    @router.get("/v1/models/{name:path}", summary="A model", responses=responses(404))
    async def model(name: str) -> dict[str, Any]:
        return _described(server.models.find(name))

    @router.get("/health", summary="Is the process alive?", responses=responses(503))
    async def health() -> dict[str, str]:
        if not server.worker.is_alive:
            raise ApiError(503, "the engine thread is not running")
        return {"status": "alive"}

    @router.get("/ready", summary="Are texts taken now?", responses=responses(503))
    async def ready() -> dict[str, str]:
        if not server.worker.is_alive or server.worker.is_full:
            raise ApiError(503, "the queue is full" if server.worker.is_alive else "the engine thread is not running")
        for served in server.models:
            server.models.find(served.name)  # refuses a model that was closed
        return {"status": "ready"}

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router
