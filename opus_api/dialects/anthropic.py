"""The Anthropic Messages dialect: what Claude Code, the anthropic SDKs and curl speak. wire.md 1."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from opus_api.wire import jsons
from opus_api.wire.checks import is_a, one_of, optional, path, required
from opus_api.wire.errors import ApiError, InvalidRequest
from opus_api.wire.messages import Event, Message
from opus_api.wire.request import Body, Call

NAME = "anthropic"
STREAM_TYPE = "text/event-stream; charset=utf-8"

OLDEST_VERSION = "2023-06-01"
# From this version on sampling parameters are gone (wire.md 0).
WITHOUT_SAMPLING = "2026-10-21"
SAMPLING = ("temperature", "top_p", "top_k")

# Required members of the content blocks whose shape we know; a block of another type passes as it is.
BLOCKS: Mapping[str, tuple[tuple[str, type], ...]] = {
    "text": (("text", str),),
    "image": (("source", dict),),
    "document": (("source", dict),),
    "search_result": (("source", str), ("title", str), ("content", list)),
    "thinking": (("thinking", str),),
    "redacted_thinking": (("data", str),),
    "tool_use": (("id", str), ("name", str), ("input", dict)),
    "tool_result": (("tool_use_id", str),),
}

# Optional members of the body whose type we rely on.
MEMBERS: Mapping[str, type] = {
    "stream": bool,
    "stop_sequences": list,
    "tools": list,
    "tool_choice": dict,
    "thinking": dict,
    "output_config": dict,
    "metadata": dict,
    "temperature": float,
    "top_p": float,
    "top_k": int,
}

TOOL_CHOICES = ("auto", "any", "tool", "none")
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


def parse(body: Body, headers: Mapping[str, str]) -> Call:
    """A checked ``POST /v1/messages`` body. ``headers``: lower-case names. Raises InvalidRequest naming the field."""
    _check(body, headers)
    if required(body, "max_tokens", int) < 0:
        raise InvalidRequest("max_tokens: Input should be greater than or equal to 0")
    if body["max_tokens"] == 0 and body.get("stream"):
        raise InvalidRequest("max_tokens: 0 (cache pre-warming) cannot be streamed")
    return _call(body, headers, bool(body.get("stream")))


def parse_count(body: Body, headers: Mapping[str, str]) -> Call:
    """A checked ``POST /v1/messages/count_tokens`` body. Raises InvalidRequest."""
    _check(body, headers)
    return _call(body, headers, False)


def _call(body: Body, headers: Mapping[str, str], stream: bool) -> Call:
    kept = {name: value for name, value in headers.items() if name.startswith("anthropic-")}
    return Call(NAME, body["model"], stream, body, lambda call: call.body, kept)


def version(headers: Mapping[str, str]) -> str:
    """``anthropic-version``, a missing one is the oldest. Raises InvalidRequest when it is no date."""
    value = headers.get("anthropic-version", OLDEST_VERSION).strip()
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value, re.ASCII):
        raise InvalidRequest("anthropic-version: Input should be a date such as 2023-06-01")
    return value


def _check(body: Body, headers: Mapping[str, str]) -> None:
    if version(headers) >= WITHOUT_SAMPLING:
        for name in SAMPLING:
            if name in body:
                raise InvalidRequest(f"{name}: Extra inputs are not permitted")
    if not required(body, "model", str):
        raise InvalidRequest("model: String should have at least 1 character")
    for name, kind in MEMBERS.items():
        optional(body, name, kind)
    _check_system(body.get("system"))
    _check_messages(required(body, "messages", list))
    _check_tools(body)


def _check_system(system: Any) -> None:
    if system is None or isinstance(system, str):
        return
    if not isinstance(system, list):
        raise InvalidRequest("system: Input should be a valid string or list of text blocks")
    for index, block in enumerate(system):
        _check_block(block, path("system", index))


def _check_messages(messages: list[Any]) -> None:
    if not messages:
        raise InvalidRequest("messages: at least one message is required")
    for index, message in enumerate(messages):
        at = f"messages.{index}"
        if not isinstance(message, dict):
            raise InvalidRequest(f"{at}: Input should be a valid dictionary")
        one_of(required(message, "role", str, at), ("user", "assistant", "system"), f"{at}.role")
        _check_content(message, at)
    if all(message["role"] == "system" for message in messages):
        raise InvalidRequest("messages: at least one message with role 'user' is required")


def _check_content(message: Mapping[str, Any], at: str) -> None:
    if "content" not in message:
        raise InvalidRequest(f"{at}.content: Field required")
    content = message["content"]
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise InvalidRequest(f"{at}.content: Input should be a valid list")
    for index, block in enumerate(content):
        _check_block(block, f"{at}.content.{index}")


def _check_block(block: Any, at: str) -> None:
    if not isinstance(block, dict):
        raise InvalidRequest(f"{at}: Input should be a valid dictionary")
    kind = block.get("type")
    if not isinstance(kind, str):
        raise InvalidRequest(
            f"{at}.type: Field required" if kind is None else f"{at}.type: Input should be a valid string"
        )
    for name, type_ in BLOCKS.get(kind, ()):
        if not is_a(block.get(name), type_):
            required(block, name, type_, f"{at}.{kind}")
    if kind == "tool_result" and block.get("content") is not None:
        _check_content(block, f"{at}.{kind}")
    elif kind in ("image", "document"):
        required(block["source"], "type", str, f"{at}.{kind}.source")


def _check_tools(body: Body) -> None:
    names = set()
    for index, tool in enumerate(body.get("tools") or ()):
        at = f"tools.{index}"
        if not isinstance(tool, dict):
            raise InvalidRequest(f"{at}: Input should be a valid dictionary")
        if tool.get("type") in (None, "custom"):
            _check_custom_tool(tool, f"{at}.custom")
        name = tool.get("name")
        if name is not None and name in names:
            raise InvalidRequest("tools: Tool names must be unique.")
        names.add(name)
    choice = body.get("tool_choice")
    if choice is not None:
        if one_of(required(choice, "type", str, "tool_choice"), TOOL_CHOICES, "tool_choice.type") == "tool":
            required(choice, "name", str, "tool_choice.tool")
        if not body.get("tools") and choice["type"] in ("any", "tool"):
            raise InvalidRequest("tool_choice: tools must be provided when tool_choice is any or tool")


def _check_custom_tool(tool: Mapping[str, Any], at: str) -> None:
    if not TOOL_NAME.fullmatch(required(tool, "name", str, at)):
        raise InvalidRequest(f"{at}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
    optional(tool, "description", str, at)
    required(tool, "input_schema", dict, at)


def encode(event: Event) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), jsons.dumps(event))


PING = encode({"type": "ping"})


class Encoder:
    """Lists of events to bytes, one piece per list."""

    def __init__(self, call: Call) -> None:
        pass

    def encode(self, events: Iterable[Event]) -> bytes:
        return b"".join([encode(event) for event in events])


def render(call: Call, message: Message) -> bytes:
    return jsons.dumps(message)


def error_body(error: ApiError, request_id: str) -> bytes:
    return jsons.dumps(_error(error, request_id))


def error_event(error: ApiError, request_id: str) -> bytes:
    """The last event of a stream that failed after its first byte."""
    return encode(_error(error, request_id))


def _error(error: ApiError, request_id: str) -> dict[str, Any]:
    detail = {"type": error.type, "message": error.message}
    return {"type": "error", "error": detail, "request_id": request_id}


def status(error: ApiError) -> int:
    return error.status
