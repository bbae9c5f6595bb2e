"""The bodies of the JSON API: read within a limit and checked for what JSON leaves open."""

import json
from typing import Any

import orjson
from flask import Response, request

from opus_api.services.values import FieldError
from opus_api.wire.errors import InvalidRequest, Unprocessable

LIMIT = 5 * 1024 * 1024  # bytes
SMALL = 16 * 1024  # of what somebody may send who has not signed in


def json_object(limit: int = LIMIT) -> dict[str, Any]:
    """The request's body. Raises InvalidRequest when it is no JSON, Unprocessable when it is no object.

    A field that is named twice is refused: readers differ in which one counts.
    """
    request.max_content_length = limit
    raw = request.get_data(cache=False)
    try:
        orjson.loads(raw)  # stricter: no NaN, no halves of characters, no endless nesting
    except orjson.JSONDecodeError:
        raise InvalidRequest("The body is not valid JSON.") from None
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
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidRequest(f"The body names the field {name[:100]!r} twice.")
        found[name] = value
    return found
