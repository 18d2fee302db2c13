"""The pages of the server: the playground, and what it is made of."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response

from .errors import ApiError
from .generation import Server

PREFIX = "/playground/"
"""Where the parts of the playground lie."""
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
    router = APIRouter(include_in_schema=False)
    files = {path.name: path.read_bytes() for path in _FOLDER.iterdir() if path.suffix in _TYPES}

    def answer(name: str) -> Response:
        if name not in files:
            raise ApiError(404, f"there is no {PREFIX}{name[:100]}")
        return Response(files[name], media_type=_TYPES[Path(name).suffix], headers=_HEADERS)

    @router.get("/")
    async def index() -> Response:
        return answer("index.html")

    @router.get(PREFIX + "{name}")
    async def part(name: str) -> Response:
        return answer(name)

    return router
