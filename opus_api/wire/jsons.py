"""JSON at the edge: orjson, and the standard library for the few texts that orjson refuses."""

import json
import math
from typing import Any, NoReturn

import orjson

DEEPEST = 254  # levels that ``dumps`` writes: orjson's bound


class JsonError(ValueError):
    """Not JSON, or nested too deeply."""


def loads(data: bytes | str) -> Any:
    """Raises JsonError. Lone surrogates (an emoji split in two) are accepted: JavaScript clients send them."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(data, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise JsonError(str(error)) from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large")
    return value


def dumps(value: Any) -> bytes:
    """Compact JSON. Raises JsonError when ``value`` is no JSON or nested deeper than DEEPEST levels."""
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
    return deepest > DEEPEST


def compact(value: Any) -> str:
    """The same as text, as tool arguments travel inside OpenAI's JSON."""
    return dumps(value).decode()


CLOSER = {"{": "}", "[": "]"}


def loads_cut(text: str) -> Any:
    """JSON whose end is missing, as a model leaves it that ran out of tokens: what is open is closed, and a last
    member that is not whole is left out. Raises JsonError when that does not help either."""
    open_: list[str] = []
    whole_until, open_there = 0, ""  # where a comma or an opener last stood, and the closers needed from there
    in_string = escaped = False
    for position, char in enumerate(text):
        if in_string:
            if escaped or char == "\\":
                escaped = not escaped
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in CLOSER:
            open_.append(CLOSER[char])
            whole_until, open_there = position + 1, "".join(reversed(open_))
        elif char in "]}" and open_:
            open_.pop()
        elif char == ",":
            whole_until, open_there = position, "".join(reversed(open_))
    try:
        return loads(text + '"' * in_string + "".join(reversed(open_)))
    except JsonError:
        return loads(text[:whole_until] + open_there)
