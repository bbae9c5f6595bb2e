"""Checks of a client's JSON that name the field, in the words of Anthropic's API (wire.md 1.4)."""

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


def is_a(value: Any, kind: type) -> bool:
    """bool is no int here, and an int is a fine float."""
    if kind is bool:
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    return isinstance(value, (int, float)) if kind is float else isinstance(value, kind)


def path(*parts: str | int) -> str:
    return ".".join(str(part) for part in parts if part != "")


def required(body: Mapping[str, Any], name: str, kind: type, at: str = "") -> Any:
    """Raises InvalidRequest."""
    if name not in body:
        raise InvalidRequest(f"{path(at, name)}: Field required")
    return _checked(body[name], kind, path(at, name))


def optional(body: Mapping[str, Any], name: str, kind: type, at: str = "") -> Any:
    """None when absent or null. Raises InvalidRequest."""
    value = body.get(name)
    return None if value is None else _checked(value, kind, path(at, name))


def _checked(value: Any, kind: type, where: str) -> Any:
    if not is_a(value, kind):
        raise InvalidRequest(f"{where}: Input should be {WORDS[kind]}")
    return value


def one_of(value: Any, allowed: tuple[str, ...], where: str) -> str:
    """Raises InvalidRequest."""
    if not isinstance(value, str) or value not in allowed:
        words = [f"'{word}'" for word in allowed]
        text = f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
        raise InvalidRequest(f"{where}: Input should be {text}")
    return value


def json_object(raw: bytes) -> dict[str, Any]:
    """A request body. Raises InvalidRequest."""
    if not raw.strip():
        raise InvalidRequest("The request body is empty; send a JSON object.")
    try:
        body = jsons.loads(raw)
    except jsons.JsonError:
        raise InvalidRequest("The request body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise InvalidRequest("The request body must be a JSON object.")
    return body
