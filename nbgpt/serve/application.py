"""`app`: the server as an ASGI application, to be run by `python -m nbgpt serve` or mounted into another one."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from ..model import Model
from ..tasks.chat_template import ChatTemplate
from ..version import __version__
from . import chat, completions, errors, pages, status, texts, tokens
from .generation import Server
from .guard import Guard, Keys
from .limits import Limits
from .metrics import Metrics
from .served import Models
from .worker import Worker

_DESCRIPTION = (
    "GPT-2 on CPUs behind OpenAI's API. A request with a seed has one answer, whoever else is being served; every "
    "choice names its seed, and system_fingerprint the model."
)


_ABOUT: dict[str, Any] = {"title": "nbgpt", "version": __version__, "description": _DESCRIPTION}
_ABOUT |= {"docs_url": None, "redoc_url": None}  # they load scripts from other sites
_ABOUT |= {"redirect_slashes": False}  # a redirection would repeat the Host header that the client has sent


def app(
    model: Model | Mapping[str, Model],
    *,
    limits: Limits | None = None,
    keys: Keys | None = None,
    hosts: Collection[str] | None = None,
    cors_origins: Collection[str] = (),
    chat_template: ChatTemplate | None = None,
) -> FastAPI:
    """An ASGI application that serves a model, or several by name.

    Args:
        model: the model; several: by the name that requests choose, the first one without a choice.
        limits: what clients may ask for.
        keys: API keys that are accepted; None: no key is needed.
        hosts: names by which requests may call this server; None: any. On loopback these guard against DNS rebinding.
        cors_origins: origins of other sites' pages that may call it from a browser.
        chat_template: how a conversation becomes a prompt; None: chat is refused.

    Returns:
        The application. It starts a thread when the first request comes, which ends with the application's lifespan.
    """
    models = model if isinstance(model, Mapping) else {model.name: model}
    server = _server(models, limits or Limits(), chat_template)

    @asynccontextmanager
    async def lifespan(application: FastAPI) -> AsyncIterator[None]:
        yield
        server.stop()

    application = FastAPI(**_ABOUT, lifespan=lifespan)
    for module in (completions, chat, texts, tokens, status, pages):
        application.include_router(module.routes(server))
    errors.install(application)
    application.add_middleware(
        Guard,
        keys=keys or Keys(),
        hosts=hosts,
        origins=cors_origins,
        limits=server.limits,
        metrics=server.metrics,
        open_prefix=pages.PREFIX,
    )
    if cors_origins:
        application.add_middleware(
            CORSMiddleware, allow_origins=list(cors_origins), allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    application.state.server = server
    return application


def _server(models: Mapping[str, Model], limits: Limits, chat_template: ChatTemplate | None) -> Server:
    metrics = Metrics()
    worker = Worker(limits.max_batch, limits.max_queue, metrics)
    metrics.watch(worker.counts, {name: model.engine for name, model in models.items()})
    executors = ThreadPoolExecutor(4, "nbgpt-serve"), ThreadPoolExecutor(2, "nbgpt-grammar")
    return Server(Models(models, int(time.time())), worker, limits, metrics, chat_template, *executors)
