"""Every error once: ApiError and what Flask raises, in the shape of the path that was asked for."""

import logging
import re
import socket
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from types import ModuleType
from typing import Any

import gevent
from flask import Flask, Request, Response, request
from gunicorn.http.errors import NoMoreData, ParseException  # type: ignore[import-untyped]
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm.exc import StaleDataError
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from opus_api.dialects import anthropic, openai
from opus_api.web import contacts
from opus_api.web.console import error_page
from opus_api.web.languages import in_words
from opus_api.wire import ids, jsons
from opus_api.wire.errors import ApiError, InvalidRequest, MethodNotAllowed, NotFound, Phrase, TooLarge, Unavailable

log = logging.getLogger(__name__)

# Paths that only clients of the two APIs ask for, also under base URLs we do not know and for what we do not serve.
CLIENT_PATH = re.compile(
    r"^/*v1|/v1/|/(messages|chat|completions|complete|responses|embeddings|models|files)(/|$)", re.I
)
SIGNS_OF_ANTHROPIC = ("anthropic-version", "x-api-key")  # headers
CHAT_PAGE = "/chat"  # a page of the console, although clients say /chat/completions
JSON_PATHS = ("/api/", "/v2/", "/health", "/openapi.json", "/metrics", "/ready")
# For so many seconds a body that was refused is read and thrown away, so that its sender gets to read why.
DISCARD_SECONDS = {413: 5.0, 408: 0.5}


def register(app: Flask) -> None:
    app.register_error_handler(ApiError, answer)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(SQLAlchemyError, _database)
    app.register_error_handler(ParseException, _framing)
    app.register_error_handler(NoMoreData, _framing)
    app.register_error_handler(Exception, _bug)


def dialect_of(request: Request) -> ModuleType | None:
    """Which dialect the caller of this path speaks; None for the console and its API."""
    return _dialect(request.path, {name for name in SIGNS_OF_ANTHROPIC if name in request.headers})


def _dialect(path: str, headers: Container[str]) -> ModuleType | None:
    if (
        path == "/chat"
        or path.startswith(JSON_PATHS)
        or not (CLIENT_PATH.search(path) or "anthropic-version" in headers)
    ):
        return None
    path = path.lower()
    if "/chat/" in path or path.endswith("/responses"):
        return openai
    if "/messages" in path or any(name in headers for name in SIGNS_OF_ANTHROPIC):
        return anthropic
    return openai


def answer(error: ApiError) -> AnyResponse:
    """The error as its caller reads it."""
    dialect = dialect_of(request)
    if dialect is not None:
        return dialect_error(dialect, error, ids.request_id())
    if request.path.startswith(JSON_PATHS):
        return Response(_plain(error), error.status, dict(error.headers), content_type="application/json")
    page = error_page(error.status, in_words(error.message))
    page.headers.update(error.headers)
    return page


def _plain(error: ApiError) -> bytes:
    return jsons.dumps({"error": {"type": error.type, "message": error.message}})


def raw_refusal(error: ApiError, path: str, headers: Container[str]) -> bytes:
    """A whole HTTP answer for a request that no app has seen: in the dialect of its path, if it got that far.

    ``headers``: the names it brought, lower case.
    """
    dialect, request_id = _dialect(path, headers), ids.request_id()
    body = dialect.error_body(error, request_id) if dialect else _plain(error)
    status = dialect.status(error) if dialect else error.status
    head = {"connection": "close", "content-type": "application/json", "content-length": str(len(body))}
    head |= identity(dialect, request_id) if dialect else {"request-id": request_id}
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in head.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def dialect_error(dialect: ModuleType, error: ApiError, request_id: str) -> Response:
    contacts.note(error, request_id)
    headers = {**identity(dialect, request_id), **error.headers}
    body = dialect.error_body(error, request_id)
    response = Response(body, dialect.status(error), headers, content_type="application/json")
    if error.status in DISCARD_SECONDS:
        response.response = _ThenDiscard(body, request.environ, DISCARD_SECONDS[error.status])
    return response


def identity(dialect: ModuleType, request_id: str) -> dict[str, str]:
    """Our request id, under the names that the caller's SDK looks at."""
    return {"request-id": request_id} | ({"x-request-id": request_id} if dialect is openai else {})


class _ThenDiscard:
    """The answer, then the rest of the request's body for a few seconds: a client that still sends reads nothing."""

    def __init__(self, body: bytes, environ: Mapping[str, Any], seconds: float):
        self._body = body
        self._seconds = seconds
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
        with gevent.Timeout(self._seconds, False), suppress(OSError, ParseException):  # type: ignore[arg-type]
            while self._input.read(65_536):
                pass
            return True
        return False


def _http(error: HTTPException) -> AnyResponse:
    status = error.code or 500
    known: dict[int, ApiError] = {
        400: InvalidRequest("The request is malformed."),
        404: NotFound(Phrase("Not found: %(path)s", path=request.path)),
        405: MethodNotAllowed(
            Phrase("%(method)s is not allowed for %(path)s", method=request.method, path=request.path)
        ),
        413: TooLarge("Request exceeds the maximum size"),
    }
    if 300 <= status < 400:
        return Response(status=status, headers=dict(error.get_headers()))
    found = known.get(status) or ApiError(status, "invalid_request_error" if status < 500 else "api_error", error.name)
    allow = error.get_response().headers.get("allow")
    return answer(ApiError(found.status, found.type, found.message, {"allow": allow} if allow else {}))


def _database(error: SQLAlchemyError) -> AnyResponse:
    if isinstance(error, StaleDataError):  # somebody else deleted the row between our reading and our writing it
        return answer(NotFound("This was deleted meanwhile."))
    log.error("the database failed: %s", type(error).__name__)
    return answer(Unavailable("The database cannot be reached; try again."))


def _framing(error: ParseException | NoMoreData) -> AnyResponse:
    return answer(InvalidRequest("The request body breaks HTTP framing."))


def _bug(error: Exception) -> AnyResponse:
    # The caller learns nothing of our insides; the log has it all.
    log.error("unexpected error in %s %s", request.method, request.path, exc_info=error)
    return answer(ApiError(500, "api_error", "Internal error"))
