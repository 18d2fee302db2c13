"""Errors as OpenAI's API reports them: a status, and a JSON object with message, type, param and code."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

RETRY_SECONDS = 1
_MESSAGE = 500
"""Characters of a message; what a longer one quotes is cut out of its middle."""
_FAULT = "the server has failed; its log says how"
_LOG = logging.getLogger("nbgpt.serve")
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ErrorFields(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every answer that reports an error."""

    error: ErrorFields


class ApiError(Exception):
    """An error that the client is told."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(_shortened(message))
        self.status, self.param, self.code = status, param and _shortened(param), code

    def body(self) -> dict[str, Any]:
        """The JSON that describes it."""
        is_ours = self.status >= 500
        kind = _TYPES.get(self.status, "server_error" if is_ours else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole answer."""
        headers = {}
        if self.status in (429, 503):
            headers["Retry-After"] = str(RETRY_SECONDS)
        if self.status in (408, 413):  # the rest of the body is not read
            headers["Connection"] = "close"
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)


def _shortened(text: str) -> str:
    """A text of the client's that can be sent back: no longer than a few lines, without lone surrogates."""
    if len(text) > _MESSAGE:
        text = f"{text[: _MESSAGE // 2]} … {text[-_MESSAGE // 2 :]}"
    return text.encode("utf-8", "backslashreplace").decode()


def error_of(raised: BaseException) -> ApiError:
    """What the client is told of an exception that ended its work."""
    if isinstance(raised, ApiError):
        return raised
    if isinstance(raised, (ValueError, TypeError)):
        return ApiError(400, str(raised))
    if isinstance(raised, MemoryError):
        return ApiError(503, str(raised) or "out of memory")
    _LOG.error("a fault", exc_info=raised)
    return ApiError(500, _FAULT)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors that a route documents."""
    return {status: {"model": ErrorBody} for status in (400, 401, 403, 413, 422, *statuses)}


def install(application: FastAPI) -> None:
    """Let all errors of an application be answered in this form."""

    @application.exception_handler(ApiError)
    async def of_api(request: Request, error: ApiError) -> JSONResponse:
        return error.response()

    @application.exception_handler(RequestValidationError)
    async def of_validation(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return ApiError(422, "the body is not taken for JSON: send Content-Type: application/json").response()
        places = [str(place) for place in first["loc"] if place != "body" and not str(place).startswith("function-")]
        param = places[0] if places else None
        where = ".".join(places[:1] + [place for place in places[1:] if place.isdigit()])
        return ApiError(422, f"{where or 'body'}: {first['msg'][:300]}", param=param).response()

    @application.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        message = str(error.detail) if error.status_code != 404 else f"there is no {request.scope['path'][:200]}"
        answer = ApiError(error.status_code, message).response()
        answer.headers.update(error.headers or {})
        return answer

    @application.exception_handler(Exception)
    async def of_fault(request: Request, error: Exception) -> JSONResponse:
        return ApiError(500, _FAULT).response()  # uvicorn logs it
