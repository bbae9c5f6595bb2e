"""Checks of a client's JSON that name the field: a dotted path and the words of the Messages API's own validation."""

from collections.abc import Mapping
from typing import Any

from opus_api.wire import jsons
from opus_api.wire.errors import InvalidRequest

# Python type -> how the vendor's validation calls it
WORDS: dict[Any, str] = {
    str: "a valid string",
    int: "a valid integer",
    bool: "a valid boolean",
    float: "a valid number",
    list: "a valid list",
    dict: "a valid dictionary",
}

LONGEST_MODEL = 256  # characters


def is_a(value: Any, kind: type) -> bool:
    """bool is no int here, and an int is a fine float."""
    if kind is bool:
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    return isinstance(value, (int, float)) if kind is float else isinstance(value, kind)


# Where something stands in a body, step by step. Joined only when an error has to name it.
Path = tuple[str | int, ...]


def refused(at: Path, text: str) -> InvalidRequest:
    """The error that names a field: ``messages.0.content: …``."""
    return InvalidRequest(f"{'.'.join(map(str, at))}: {text}")


def required(body: Mapping[str, Any], name: str, kind: type, at: Path = ()) -> Any:
    """The member. Raises InvalidRequest."""
    value = body.get(name)
    if value.__class__ is kind or is_a(value, kind):
        return value
    if name not in body:
        raise refused((*at, name), "Field required")
    raise refused((*at, name), f"Input should be {WORDS[kind]}")


def model_name(body: Mapping[str, Any]) -> str:
    """Of the request. Names are remembered in many places, so they are bounded. Raises InvalidRequest."""
    name: str = required(body, "model", str)
    if not name:
        raise refused(("model",), "String should have at least 1 character")
    if name[0] == " ":  # the statistics call by such a name what they do not tell apart
        raise refused(("model",), "String should not begin with a space")
    if len(name) > LONGEST_MODEL:
        raise refused(("model",), f"String should have at most {LONGEST_MODEL} characters")
    return name


def optional(body: Mapping[str, Any], name: str, kind: type, at: Path = ()) -> Any:
    """The member, None when absent or null. Raises InvalidRequest."""
    value = body.get(name)
    if value is None or value.__class__ is kind or is_a(value, kind):
        return value
    raise refused((*at, name), f"Input should be {WORDS[kind]}")


def one_of(value: Any, allowed: tuple[str, ...], at: Path) -> str:
    """Raises InvalidRequest."""
    if not isinstance(value, str) or value not in allowed:
        words = [f"'{word}'" for word in allowed]
        text = f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
        raise refused(at, f"Input should be {text}")
    return value


def json_object(raw: bytes) -> dict[str, Any]:
    """A request body. Raises InvalidRequest."""
    if not raw.strip():
        raise InvalidRequest("The request body is empty; send a JSON object.")
    if jsons.has_too_many_values(raw):
        raise InvalidRequest(f"The request body holds more than {jsons.MOST_MARKS:,} JSON values.")
    try:
        body = jsons.loads(raw)
    except jsons.JsonError:
        raise InvalidRequest("The request body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise InvalidRequest("The request body must be a JSON object.")
    return body
