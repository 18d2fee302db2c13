"""JSON of requests, read within the limits of `strict_json`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from ..strict_json import parse
from ..validation import FormatError


class StrictRoute(APIRoute):
    """A route whose requests are `StrictRequest`s."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given another kind of request."""
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return strictly


class StrictRequest(Request):
    """A request whose body is JSON without a key twice, neither too deep nor of too many values."""

    async def json(self) -> Any:
        """The body. Raises HTTPException with status 400."""
        body = await self.body()
        try:
            return parse(body, "the body", limit=len(body))  # the guard has bounded its size
        except FormatError as error:
            raise HTTPException(400, str(error)) from None
