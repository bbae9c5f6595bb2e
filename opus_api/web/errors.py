"""Every error once: ApiError and what Flask raises, in the shape of the path that was asked for."""

import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import ModuleType
from typing import Any

import gevent
from flask import Flask, Request, Response, request
from gunicorn.http.errors import NoMoreData, ParseException  # type: ignore[import-untyped]
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from opus_api.dialects import anthropic, openai
from opus_api.web.console import error_page
from opus_api.wire import ids, jsons
from opus_api.wire.errors import ApiError, InvalidRequest, MethodNotAllowed, NotFound, TooLarge, Unavailable

log = logging.getLogger(__name__)

DIALECT_PATHS = ("/v1", "//v1", "/messages", "/chat", "/models")
JSON_PATHS = ("/api/", "/v2/", "/health", "/openapi.json", "/metrics", "/ready")
DISCARD_SECONDS = 5.0  # for which a body that was refused is read and thrown away


def register(app: Flask) -> None:
    app.register_error_handler(ApiError, answer)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(SQLAlchemyError, _database)
    app.register_error_handler(ParseException, _framing)
    app.register_error_handler(NoMoreData, _framing)
    app.register_error_handler(Exception, _bug)


def dialect_of(request: Request) -> ModuleType | None:
    """Which dialect the caller of this path speaks; None for the console and its API."""
    path = request.path
    if not path.startswith(DIALECT_PATHS):
        return None
    if "/chat/" in path or path.endswith("/responses"):
        return openai
    if "/messages" in path or "anthropic-version" in request.headers or "x-api-key" in request.headers:
        return anthropic
    return openai


def answer(error: ApiError) -> AnyResponse:
    """The error as its caller reads it."""
    dialect = dialect_of(request)
    if dialect is not None:
        return dialect_error(dialect, error, ids.request_id())
    if request.path.startswith(JSON_PATHS):
        body: Mapping[str, Any] = {"error": {"type": error.type, "message": error.message}}
        return Response(jsons.dumps(body), error.status, dict(error.headers), content_type="application/json")
    page = error_page(error.status, error.message)
    page.headers.update(error.headers)
    return page


def dialect_error(dialect: ModuleType, error: ApiError, request_id: str) -> Response:
    headers = {**identity(dialect, request_id), **error.headers}
    body = dialect.error_body(error, request_id)
    response = Response(body, dialect.status(error), headers, content_type="application/json")
    if error.status in (413, 408):
        response.response = _ThenDiscard(body, request.environ)
    return response


def identity(dialect: ModuleType, request_id: str) -> dict[str, str]:
    """Our request id, under the names that the caller's SDK looks at."""
    return {"request-id": request_id} | ({"x-request-id": request_id} if dialect is openai else {})


class _ThenDiscard:
    """The answer, then the rest of the request's body for a few seconds: a client that still sends reads nothing."""

    def __init__(self, body: bytes, environ: Mapping[str, Any]):
        self._body = body
        self._input: Any = environ.get("wsgi.input")
        self._socket: Any = environ.get("gunicorn.socket")

    def __iter__(self) -> Iterator[bytes]:
        yield self._body

    def close(self) -> None:
        if self._input is None or self._discarded() or self._socket is None:
            return
        with suppress(OSError):  # gunicorn would go on reading for as long as the client sends
            self._socket.shutdown(socket.SHUT_RDWR)

    def _discarded(self) -> bool:
        with gevent.Timeout(DISCARD_SECONDS, False), suppress(OSError, ParseException):  # type: ignore[arg-type]
            while self._input.read(65_536):
                pass
            return True
        return False


def _http(error: HTTPException) -> AnyResponse:
    status = error.code or 500
    known: dict[int, ApiError] = {
        400: InvalidRequest("The request is malformed."),
        404: NotFound(f"Not found: {request.path}"),
        405: MethodNotAllowed(f"{request.method} is not allowed for {request.path}"),
        413: TooLarge("Request exceeds the maximum size"),
    }
    if 300 <= status < 400:
        return Response(status=status, headers=dict(error.get_headers()))
    found = known.get(status) or ApiError(status, "invalid_request_error" if status < 500 else "api_error", error.name)
    allow = error.get_response().headers.get("allow")
    return answer(ApiError(found.status, found.type, found.message, {"allow": allow} if allow else {}))


def _database(error: SQLAlchemyError) -> AnyResponse:
    log.error("the database failed: %s", type(error).__name__)
    return answer(Unavailable("The database cannot be reached; try again."))


def _framing(error: ParseException | NoMoreData) -> AnyResponse:
    return answer(InvalidRequest("The request body breaks HTTP framing."))


def _bug(error: Exception) -> AnyResponse:
    # The caller learns nothing of our insides; the log has it all.
    log.error("unexpected error in %s %s", request.method, request.path, exc_info=error)
    return answer(ApiError(500, "api_error", "Internal error"))
