"""The OpenAI Chat Completions dialect: what the openai SDKs, Cursor and Cherry Studio speak. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from opus_api.dialects.openai_answer import PING, Encoder, render
from opus_api.dialects.openai_request import DROPPED, MAPPED, to_canonical
from opus_api.wire import jsons
from opus_api.wire.checks import Path, model_name, one_of, optional, refused, required
from opus_api.wire.errors import ApiError, InvalidRequest
from opus_api.wire.request import Body, Call

__all__ = ["NAME", "PING", "STREAM_TYPE", "Encoder", "error_body", "error_event", "parse", "render", "status"]

NAME = "openai"
STREAM_TYPE = "text/event-stream; charset=utf-8"

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MEMBERS: Mapping[str, type] = {
    "stream": bool,
    "stream_options": dict,
    "tools": list,
    "functions": list,
    "max_tokens": int,
    "max_completion_tokens": int,
    "temperature": float,
    "top_p": float,
    "response_format": dict,
    "modalities": list,
    "parallel_tool_calls": bool,
}

# How a message names a field, ours as Anthropic's: its path, a colon.
FIELD = re.compile(r"([a-z_]+)(?:\.\w+)*(?=: )")

# What Anthropic says of a context that is too small; OpenAI's clients look at the code.
OVERLONG = re.compile("prompt is too long|input length and `max_tokens` exceed")

# our type -> OpenAI's (type, code)
ERRORS: Mapping[str, tuple[str, str | None]] = {
    "invalid_request_error": ("invalid_request_error", None),
    "authentication_error": ("invalid_request_error", "invalid_api_key"),
    "billing_error": ("insufficient_quota", "insufficient_quota"),
    "permission_error": ("invalid_request_error", "permission_denied"),
    "not_found_error": ("invalid_request_error", "not_found"),
    "conflict_error": ("invalid_request_error", "conflict"),
    "request_too_large": ("invalid_request_error", "request_too_large"),
    "rate_limit_error": ("rate_limit_error", "rate_limit_exceeded"),
    "timeout_error": ("server_error", "timeout"),
    "overloaded_error": ("server_error", "overloaded"),
}


def parse(body: Body, headers: Mapping[str, str]) -> Call:
    """A checked ``POST /v1/chat/completions`` body. Raises InvalidRequest naming the field."""
    if "messages" not in body and "input" in body:
        raise InvalidRequest("input: this is a Responses API body; /chat/completions takes 'messages'")
    model_name(body)
    for name, kind in MEMBERS.items():
        optional(body, name, kind)
    for name in ("max_tokens", "max_completion_tokens"):
        if body.get(name) is not None and body[name] < 1:
            raise InvalidRequest(f"{name}: Input should be greater than or equal to 1")
    _check_messages(required(body, "messages", list))
    usage = bool((body.get("stream_options") or {}).get("include_usage"))
    kept = {name: value for name, value in headers.items() if name == "anthropic-beta"}
    return Call(NAME, body["model"], bool(body.get("stream")), body, to_canonical, kept, include_usage=usage)


def _check_messages(messages: list[Any]) -> None:
    if not messages:
        raise refused(("messages",), "at least one message is required")
    for index, message in enumerate(messages):
        at = ("messages", index)
        if not isinstance(message, dict):
            raise refused(at, "Input should be a valid dictionary")
        one_of(required(message, "role", str, at), ROLES, (*at, "role"))
        _check_content(message, (*at, "content"))
        optional(message, "tool_calls", list, at)
        if message["role"] == "tool":
            required(message, "tool_call_id", str, at)


def _check_content(message: Mapping[str, Any], at: Path) -> None:
    content = message.get("content")
    if isinstance(content, str):
        return
    if content is None:
        if message["role"] not in ("assistant", "function"):
            raise refused(at, "Field required")
        return
    if not isinstance(content, list):
        raise refused(at, "Input should be a valid string or list of content parts")
    for index, part in enumerate(content):
        if not isinstance(part, dict):
            raise refused((*at, index), "Input should be a valid dictionary")
        required(part, "type", str, (*at, index))


# ---- errors


def status(error: ApiError) -> int:
    """OpenAI has no 529; the SDKs know 503."""
    return 503 if error.status == 529 else error.status


def error_body(error: ApiError, request_id: str) -> bytes:
    return jsons.dumps(_error(error))


def error_event(error: ApiError, request_id: str) -> bytes:
    """The last event of a stream that failed after its first byte; no [DONE] follows."""
    return b"data: " + jsons.dumps(_error(error)) + b"\n\n"


def _error(error: ApiError) -> dict[str, Any]:
    kind, code = ERRORS.get(error.type, ("server_error", None))
    if error.type == "not_found_error" and error.message.startswith("model: "):
        code = "model_not_found"
    if OVERLONG.match(error.message):
        code = "context_length_exceeded"
    return {"error": {"message": error.message, "type": kind, "param": _param(error), "code": code, **error.words}}


def _param(error: ApiError) -> str | None:
    """The field of the request that a 400 is about."""
    found = FIELD.match(error.message) if error.type == "invalid_request_error" else None
    return found[0] if found and found[1] in MAPPED | DROPPED else None
