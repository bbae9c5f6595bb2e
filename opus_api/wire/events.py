"""The shapes of stream events and messages as the Messages API sends them, checked where they come in.

What stands behind an upstream's door may rely on them; members and types we do not know pass untouched.
"""

from collections.abc import Mapping
from typing import Any

# Members of the events, deltas and blocks we know, and their types.
EVENTS: Mapping[str, Mapping[str, type]] = {
    "message_start": {"message": dict},
    "content_block_start": {"index": int, "content_block": dict},
    "content_block_stop": {"index": int},
    "message_delta": {"delta": dict},
}
DELTAS: Mapping[str, tuple[str, type]] = {
    "text_delta": ("text", str),
    "input_json_delta": ("partial_json", str),
    "thinking_delta": ("thinking", str),
    "signature_delta": ("signature", str),
    "citations_delta": ("citation", dict),
}
BLOCKS: Mapping[str, Mapping[str, type]] = {
    "text": {"text": str},
    "thinking": {"thinking": str},
    "tool_use": {"id": str, "name": str},
}


class EventError(ValueError):
    """An event or a message is not of its shape."""


def checked(event: Any) -> dict[str, Any]:
    """``event`` itself, when it has the members that its type promises. Raises EventError."""
    try:
        kind = event["type"]
        if kind == "content_block_delta":  # by far the most
            _check_delta(event["delta"])
            _check(event["index"], int)
            return event  # type: ignore[no-any-return] # it has members by name: a dict
        for name, type_ in EVENTS.get(kind, {}).items():
            _check(event[name], type_)
        if kind == "content_block_start":
            _check_block(event["content_block"])
        elif kind == "message_start":
            _check_optional(event["message"], "usage", dict)
        elif kind == "message_delta":
            _check_optional(event, "usage", dict)
            _check_optional(event["delta"], "stop_reason", str)
        _check(kind, str)
    except (KeyError, TypeError):
        raise EventError("malformed event") from None
    return event  # type: ignore[no-any-return] # as above


def checked_message(message: Any) -> dict[str, Any]:
    """``message`` itself, when it is a whole answer of the Messages API. Raises EventError."""
    try:
        if message["type"] != "message":
            raise TypeError
        _check(message["content"], list)
        for block in message["content"]:
            _check_block(block)
        _check_optional(message, "usage", dict)
        _check_optional(message, "stop_reason", str)
    except (KeyError, TypeError):
        raise EventError("malformed message") from None
    return message  # type: ignore[no-any-return] # as above


def _check_delta(delta: Any) -> None:
    member = DELTAS.get(delta["type"])
    if member is not None and delta[member[0]].__class__ is not member[1]:
        raise TypeError


def _check_block(block: Any) -> None:
    for name, type_ in BLOCKS.get(block["type"], {}).items():
        _check(block[name], type_)
    _check(block["type"], str)
    if block["type"] == "text":
        _check_optional(block, "citations", list)


def _check(value: Any, type_: type) -> None:
    if value.__class__ is not type_:  # exactly: a bool is no index
        raise TypeError


def _check_optional(members: Any, name: str, type_: type) -> None:
    if members.get(name) is not None:
        _check(members[name], type_)
