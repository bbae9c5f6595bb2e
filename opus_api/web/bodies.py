"""The bodies of the JSON API: read within a limit and checked for what JSON leaves open."""

import json
from typing import Any, NoReturn

from flask import request

from opus_api.services.values import FieldError
from opus_api.wire.errors import InvalidRequest, Unprocessable

LIMIT = 5 * 1024 * 1024  # bytes


def json_object() -> dict[str, Any]:
    """The request's body. Raises InvalidRequest when it is no JSON, Unprocessable when it is no object.

    A field that is named twice is refused: readers differ in which one counts.
    """
    request.max_content_length = LIMIT
    try:
        body = json.loads(
            request.get_data(cache=False).decode(), object_pairs_hook=_no_duplicates, parse_constant=_no_constant
        )
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise InvalidRequest("The body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise Unprocessable("The body must be a JSON object.")
    return body


def required_text(body: dict[str, Any], field: str) -> str:
    """A field that must be text, as it was sent. Raises FieldError."""
    value = body.get(field)
    if not isinstance(value, str) or not value:
        raise FieldError(field, "is required.")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"The body names the field {twice[:100]!r} twice.")
    return found


def _no_constant(word: str) -> NoReturn:
    raise InvalidRequest(f"The body is not valid JSON: {word} is no JSON value.")
