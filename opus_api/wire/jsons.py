"""JSON at the edge: orjson, and the standard library for the few texts that orjson refuses."""

import json
from typing import Any, NoReturn

import orjson


class JsonError(ValueError):
    """Not JSON, or nested too deeply."""


def loads(data: bytes | str) -> Any:
    """Raises JsonError. Lone surrogates (an emoji split in two) are accepted: JavaScript clients send them."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise JsonError(str(error)) from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def dumps(value: Any) -> bytes:
    """Compact JSON. Raises JsonError when ``value`` is no JSON or nested deeper than 254 levels, orjson's bound."""
    try:
        return orjson.dumps(value)
    except TypeError:
        pass
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII: lone surrogates stay escapes
    except (TypeError, ValueError, RecursionError) as error:
        raise JsonError(str(error)) from None
    if _too_deep(text):
        raise JsonError("nested too deeply")
    return text.encode()


def _too_deep(text: str) -> bool:
    depth = deepest = 0
    for char in text:  # counts brackets inside strings, too: only a bound
        if char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest > 254


def compact(value: Any) -> str:
    """The same as text, as tool arguments travel inside OpenAI's JSON."""
    return dumps(value).decode()
