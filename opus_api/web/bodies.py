"""Request bodies: read within limits of size and time; those of the JSON API, checked for what JSON leaves open."""

import json
import time
from typing import Any

import gevent
from flask import Request, Response, request
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]

from opus_api.services.values import FieldError
from opus_api.wire import jsons
from opus_api.wire.errors import ApiError, InvalidRequest, RequestTimeout, TooLarge, Unprocessable

LIMIT = 5 * 1024 * 1024  # bytes
SMALL = 16 * 1024  # of what somebody may send who has not signed in

PATIENCE = 30.0  # seconds for a body, and one more
SLOWEST = 16 * 1024  # for every so many bytes of it that have come
STEP = 64 * 1024
BREATH = 2**20  # bytes after which others get a turn: a fast sender would keep us reading


class BodyCut(InvalidRequest):
    """The client left before its body was whole."""


def received(request: Request, limit: int) -> bytes:
    """The body as it was sent.

    Raises TooLarge as soon as the limit is known to be passed, RequestTimeout, BodyCut, InvalidRequest when its
    framing is broken.
    """
    try:
        return _received(request, limit)
    except ApiError:
        if close := request.environ.get("opus.close"):
            close()  # where the next request begins is not known, or not worth waiting for
        raise


def _received(request: Request, limit: int) -> bytes:
    # Not request.get_data(): it cuts a chunked body at the limit without saying so. gunicorn ends the input itself.
    length = request.content_length
    if (length or 0) > limit:
        raise TooLarge("Request exceeds the maximum size")
    end = limit + 1 if length is None else length
    parts: list[bytes] = []
    size, began = 0, time.monotonic()
    while size < end:
        piece = _piece(request.environ["wsgi.input"], min(STEP, end - size), began + PATIENCE + size / SLOWEST)
        if not piece:
            break
        parts.append(piece)
        size += len(piece)
        if size % BREATH == 0:
            gevent.sleep(0)
    if size > limit:
        raise TooLarge("Request exceeds the maximum size")
    if length is not None and size < length:
        raise BodyCut("The request body ended early.")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _piece(stream: Any, size: int, give_up: float) -> bytes:
    """The next ``size`` bytes, fewer at the end."""
    late = RequestTimeout("The request body came too slowly.")
    try:
        with gevent.Timeout(max(0.0, give_up - time.monotonic()), late):
            piece: bytes = stream.read(size)
            return piece
    except TimeoutError:
        raise late from None
    except OSError:
        raise BodyCut("The request body ended early.") from None
    except ParseException:
        raise InvalidRequest("The request body breaks HTTP framing.") from None


def json_object(limit: int = LIMIT) -> dict[str, Any]:
    """The request's body. Raises InvalidRequest when it is no JSON, Unprocessable when it is no object.

    A field that is named twice is refused: readers differ in which one counts.
    """
    raw = received(request, limit)
    if jsons.has_too_many_values(raw):
        raise InvalidRequest("The body holds too many values.")
    try:
        jsons.loads_strict(raw)  # stricter: no NaN, no halves of characters, no endless nesting
    except jsons.JsonError:
        raise InvalidRequest(f"The body is not valid JSON, or nested more than {jsons.LEVELS} levels deep.") from None
    body = json.loads(raw, object_pairs_hook=_no_duplicates)
    if not isinstance(body, dict):
        raise Unprocessable("The body must be a JSON object.")
    return body


def required_text(body: dict[str, Any], field: str) -> str:
    """A field that must be text, as it was sent. Raises FieldError."""
    value = body.get(field)
    if not isinstance(value, str) or not value:
        raise FieldError(field, "is required.")
    return value


def never_stored(response: Response) -> Response:
    """For whole blueprints: what the management answers is for the person who asked, now."""
    response.headers["Cache-Control"] = "no-store"
    return response


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidRequest(f"The body names the field {name[:100]!r} twice.")
        found[name] = value
    return found
