"""The pages of the server: the playground with what it is made of, and the description of the API."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response

from . import explain_pages
from .bodies import StrictRoute
from .errors import ApiError
from .generation import Server

PREFIX = "/playground/"
"""Where the parts of the pages lie."""
_FOLDER = Path(__file__).parent / "playground"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def routes(server: Server) -> APIRouter:
    """The routes, for an application."""
    router = APIRouter(route_class=StrictRoute, include_in_schema=False)
    files = {path.name: path.read_bytes() for path in _FOLDER.iterdir() if path.suffix in _TYPES}

    def answer(name: str) -> Response:
        if name not in files:
            raise ApiError(404, f"there is no {PREFIX}{name[:100]}")
        return Response(files[name], media_type=_TYPES[Path(name).suffix], headers=_HEADERS)

    @router.get("/")
    async def index() -> Response:
        return answer("index.html")

    @router.get("/docs")
    async def docs() -> Response:
        return answer("docs.html")

    @router.get(PREFIX + "{name}")
    async def part(name: str) -> Response:
        return answer(name)

    explain_pages.add_routes(router, server, PREFIX, _HEADERS)
    return router
