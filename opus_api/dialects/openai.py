"""The OpenAI Chat Completions dialect: what the openai SDKs, Cursor and Cherry Studio speak. wire.md 3.1, 3.2."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from opus_api.dialects.openai_request import to_canonical
from opus_api.wire import ids, jsons
from opus_api.wire.chat import FINISH_REASON, write_usage
from opus_api.wire.checks import one_of, optional, required
from opus_api.wire.errors import ApiError, InvalidRequest
from opus_api.wire.messages import Event, Message, Usage
from opus_api.wire.request import Body, Call

NAME = "openai"
STREAM_TYPE = "text/event-stream; charset=utf-8"
PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"

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
    "parallel_tool_calls": bool,
}

# our type -> OpenAI's (type, code); wire.md 4.6
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
        raise InvalidRequest("input: this is a Responses API body; send 'messages' to /chat/completions")
    if not required(body, "model", str):
        raise InvalidRequest("model: String should have at least 1 character")
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
        raise InvalidRequest("messages: at least one message is required")
    for index, message in enumerate(messages):
        at = f"messages.{index}"
        if not isinstance(message, dict):
            raise InvalidRequest(f"{at}: Input should be a valid dictionary")
        one_of(required(message, "role", str, at), ROLES, f"{at}.role")
        content = message.get("content")
        if isinstance(content, list):
            for position, part in enumerate(content):
                if not isinstance(part, dict) or not isinstance(part.get("type"), str):
                    raise InvalidRequest(f"{at}.content.{position}.type: Field required")
        elif not isinstance(content, str) and not (content is None and message["role"] in ("assistant", "function")):
            raise InvalidRequest(f"{at}.content: Input should be a valid string or list of content parts")
        optional(message, "tool_calls", list, at)
        if message["role"] == "tool":
            required(message, "tool_call_id", str, at)


# ---- answers


class Encoder:
    """Lists of events to bytes, one piece per list (wire.md 4.5).

    Knows the running number of tool calls, which is not the block index.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._created = int(time.time())
        self._usage = Usage()
        self._stop_reason: str | None = None
        self._tools = -1
        self._pending_input: Any = None  # of a tool block whose arguments have not come as deltas
        self._frame("")

    def _frame(self, message_id: str) -> None:
        head = {"id": f"chatcmpl-{message_id}", "object": "chat.completion.chunk", "created": self._created}
        self._head = head | {"model": self._call.model}
        self._before = b"data: " + jsons.dumps(self._head)[:-1] + b',"choices":[{"index":0,"delta":'
        self._after = b',"finish_reason":null}]}\n\n'

    def encode(self, events: Iterable[Event]) -> bytes:
        return b"".join([self._write(event) for event in events])

    def _write(self, event: Event) -> bytes:
        match event.get("type"):
            case "content_block_delta":
                return self._on_delta(event["delta"])
            case "content_block_start":
                return self._on_start(event["content_block"])
            case "content_block_stop":
                return self._on_stop()
            case "ping":
                return PING
            case "message_start":
                return self._on_message_start(event["message"])
            case "message_delta":
                self._stop_reason = event["delta"].get("stop_reason") or self._stop_reason
                self._usage.update(event.get("usage") or {})
            case "message_stop":
                return self._end()
        return b""

    def _delta(self, delta: Mapping[str, Any]) -> bytes:
        return self._before + jsons.dumps(delta) + self._after

    def _on_message_start(self, message: Message) -> bytes:
        self._frame(message.get("id") or ids.message_id())
        self._usage.update(message.get("usage") or {})
        return self._delta({"role": "assistant", "content": ""})

    def _on_start(self, block: Mapping[str, Any]) -> bytes:
        if block["type"] != "tool_use":
            return self._delta({"content": block["text"]}) if block.get("text") else b""
        self._tools += 1
        self._pending_input = block.get("input") or {}
        function = {"name": block["name"], "arguments": ""}
        return self._tool_delta({"id": block["id"], "type": "function", "function": function})

    def _on_delta(self, delta: Mapping[str, Any]) -> bytes:
        match delta.get("type"):
            case "text_delta":
                return self._delta({"content": delta["text"]})
            case "thinking_delta":
                return self._delta({"reasoning_content": delta["thinking"]})
            case "input_json_delta" if delta["partial_json"]:
                self._pending_input = None
                return self._tool_delta({"function": {"arguments": delta["partial_json"]}})
        return b""

    def _tool_delta(self, call: Mapping[str, Any]) -> bytes:
        return self._delta({"tool_calls": [{"index": self._tools, **call}]})

    def _on_stop(self) -> bytes:
        if self._pending_input is None:
            return b""
        arguments = jsons.compact(self._pending_input)
        self._pending_input = None
        return self._tool_delta({"function": {"arguments": arguments}})

    def _end(self) -> bytes:
        reason = FINISH_REASON.get(self._stop_reason or "end_turn", "stop")
        choice = {"index": 0, "delta": {}, "finish_reason": reason}
        out = b"data: " + jsons.dumps({**self._head, "choices": [choice]}) + b"\n\n"
        if self._call.include_usage:
            usage = {**self._head, "choices": [], "usage": write_usage(self._usage)}
            out += b"data: " + jsons.dumps(usage) + b"\n\n"
        return out + DONE


def render(call: Call, message: Message) -> bytes:
    """A whole Anthropic message as a chat completion."""
    usage = Usage()
    usage.update(message.get("usage") or {})
    reason = FINISH_REASON.get(message.get("stop_reason") or "end_turn", "stop")
    choice = {"index": 0, "message": _message(message), "logprobs": None, "finish_reason": reason}
    head = {"id": f"chatcmpl-{message['id']}", "object": "chat.completion", "created": int(time.time())}
    return jsons.dumps(head | {"model": call.model, "choices": [choice], "usage": write_usage(usage)})


def _message(message: Message) -> dict[str, Any]:
    blocks = message["content"]
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    out: dict[str, Any] = {"role": "assistant", "content": text or None, "refusal": None}
    if thinking := "".join(block["thinking"] for block in blocks if block["type"] == "thinking"):
        out["reasoning_content"] = thinking
    if calls := [_tool_call(block) for block in blocks if block["type"] == "tool_use"]:
        out["tool_calls"] = calls
    return out


def _tool_call(block: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": block["name"], "arguments": jsons.compact(block["input"])}
    return {"id": block["id"], "type": "function", "function": function}


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
    return {"error": {"message": error.message, "type": kind, "param": None, "code": code}}
