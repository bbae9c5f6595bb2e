"""What the real servers send, as bytes: Anthropic's events and OpenAI's chunks, whole messages, lists and errors."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

TEXT = ("Hello", " from", " the", " upstream", ".")
TOOL_ID = "call_1"
INPUT = {"city": "Paris"}


@dataclass
class Said:
    """An answer, whichever format it is told in. ``tools`` are (id, name, input)."""

    model: str = ""
    text: tuple[str, ...] = TEXT
    thinking: tuple[str, ...] = ()
    tools: tuple[tuple[str, str, dict[str, Any]], ...] = ()
    stop: str = ""  # Anthropic's word; by what was said when empty
    input_tokens: int = 12
    cached: int = 3
    written: int = 2
    output_tokens: int = 7
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stop_reason(self) -> str:
        return self.stop or ("tool_use" if self.tools else "end_turn")


def conversation(body: Mapping[str, Any]) -> Said:
    """What a model would say: it calls the first tool it is given, once, and thinks when it may."""
    said = Said(model=body.get("model", ""))
    if (body.get("thinking") or {}).get("type") in ("enabled", "adaptive") or body.get("reasoning_effort"):
        said.thinking = ("Let me", " think.")
    last = body["messages"][-1]
    content = last.get("content")
    has_result = last["role"] == "tool" or (
        isinstance(content, list) and any(block.get("type") == "tool_result" for block in content)
    )
    tools = body.get("tools") or []
    if has_result:
        said.text = ("It is", " sunny.")
    elif tools:
        tool = tools[0].get("function") or tools[0]
        said.text, said.tools = ("Let me look.",), ((TOOL_ID, tool["name"], INPUT),)
    return said


def _pieces(text: str) -> list[str]:
    return [text[: len(text) // 2], text[len(text) // 2 :]]


# ---- Anthropic


def event(data: Mapping[str, Any]) -> bytes:
    return f"event: {data['type']}\ndata: {json.dumps(data, ensure_ascii=False)}   \n\n".encode()


def _usage(said: Said) -> dict[str, Any]:
    return {
        "input_tokens": said.input_tokens,
        "cache_creation_input_tokens": said.written,
        "cache_read_input_tokens": said.cached,
        "output_tokens": said.output_tokens,
    }


def _message(said: Said) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    if said.thinking:
        content.append({"type": "thinking", "thinking": "".join(said.thinking), "signature": "c2lnbmVk"})
    if said.text:
        content.append({"type": "text", "text": "".join(said.text)})
    content += [{"type": "tool_use", "id": id, "name": name, "input": input} for id, name, input in said.tools]
    message = {"id": "msg_upstream", "type": "message", "role": "assistant", "model": said.model, "content": content}
    message |= {"stop_reason": said.stop_reason, "stop_sequence": None, "usage": _usage(said), **said.extra}
    return message


def _blocks(said: Said) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """(the empty block, its deltas)"""
    if said.thinking:
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in said.thinking]
        signature = {"type": "signature_delta", "signature": "c2lnbmVk"}
        yield {"type": "thinking", "thinking": "", "signature": ""}, [*deltas, signature]
    if said.text:
        yield {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in said.text]
    for id, name, input in said.tools:
        pieces = ["", *_pieces(json.dumps(input))]
        block = {"type": "tool_use", "id": id, "name": name, "input": {}}
        yield block, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]


def _anthropic_stream(said: Said, body: Mapping[str, Any]) -> Iterator[bytes]:
    start = {**_message(said), "content": [], "stop_reason": None, "usage": {**_usage(said), "output_tokens": 1}}
    yield event({"type": "message_start", "message": start})
    for index, (block, deltas) in enumerate(_blocks(said)):
        yield event({"type": "content_block_start", "index": index, "content_block": block})
        if index == 0:
            yield event({"type": "ping"})
        for delta in deltas:
            yield event({"type": "content_block_delta", "index": index, "delta": delta})
        yield event({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": said.stop_reason, "stop_sequence": None}
    yield event({"type": "message_delta", "delta": delta, "usage": _usage(said)})
    yield event({"type": "message_stop"})


anthropic = SimpleNamespace(stream=_anthropic_stream, whole=_message)

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def anthropic_error(status: int, message: str) -> dict[str, Any]:
    kind = _ANTHROPIC_TYPES.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_refused"}


def anthropic_models(names: list[str]) -> dict[str, Any]:
    entries = [
        {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"} for name in names
    ]
    return {"data": entries, "has_more": False, "first_id": names[0], "last_id": names[-1]}


# ---- OpenAI

FINISH = {"end_turn": "stop", "max_tokens": "length", "tool_use": "tool_calls", "refusal": "content_filter"}


def data(body: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


def chunk(said: Said, delta: Mapping[str, Any], finish: str | None = None, **more: Any) -> bytes:
    head = {"id": "chatcmpl-upstream", "object": "chat.completion.chunk", "created": 1, "model": said.model}
    return data({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})


def chat_usage(said: Said) -> dict[str, Any]:
    prompt = said.input_tokens + said.cached + said.written
    return {
        "prompt_tokens": prompt,
        "completion_tokens": said.output_tokens,
        "total_tokens": prompt + said.output_tokens,
        "prompt_tokens_details": {"cached_tokens": said.cached, "cache_write_tokens": said.written},
    }


def _openai_stream(said: Said, body: Mapping[str, Any]) -> Iterator[bytes]:
    yield chunk(said, {"role": "assistant", "content": "", "refusal": None})
    for piece in said.thinking:
        yield chunk(said, {"reasoning_content": piece, "content": None})
    for piece in said.text:
        yield chunk(said, {"content": piece})
    for index, (id, name, input) in enumerate(said.tools):
        call = {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}
        yield chunk(said, {"tool_calls": [call]})
        for piece in _pieces(json.dumps(input)):
            yield chunk(said, {"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk(said, {}, FINISH[said.stop_reason])
    if (body.get("stream_options") or {}).get("include_usage"):
        head = {"id": "chatcmpl-upstream", "object": "chat.completion.chunk", "created": 1, "model": said.model}
        yield data({**head, "choices": [], "usage": chat_usage(said)})
    yield b"data: [DONE]\n\n"


def _completion(said: Said) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(said.text) or None, "refusal": None}
    if said.thinking:
        message["reasoning_content"] = "".join(said.thinking)
    if said.tools:
        message["tool_calls"] = [
            {"id": id, "type": "function", "function": {"name": name, "arguments": json.dumps(input)}}
            for id, name, input in said.tools
        ]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": FINISH[said.stop_reason]}
    head = {"id": "chatcmpl-upstream", "object": "chat.completion", "created": 1, "model": said.model}
    return {**head, "choices": [choice], "usage": chat_usage(said)}


openai = SimpleNamespace(stream=_openai_stream, whole=_completion)


_OPENAI_TYPES = {
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
    529: ("overloaded_error", None),
}


def openai_error(status: int, message: str) -> dict[str, Any]:
    kind, code = _OPENAI_TYPES.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def openai_models(names: list[str]) -> dict[str, Any]:
    entries = [{"id": name, "object": "model", "created": 1, "owned_by": "fake"} for name in names]
    return {"object": "list", "data": entries}
