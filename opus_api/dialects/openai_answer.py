"""Anthropic answers as OpenAI Chat Completions: the chunk stream and the whole completion. Pure."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from opus_api.dialects.openai_request import custom_tools
from opus_api.wire import ids, jsons
from opus_api.wire.chat import finish_reason, write_usage
from opus_api.wire.messages import Event, Message, Usage
from opus_api.wire.request import Call

PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"


class _Cited:
    """The web pages that an answer cites, as annotations: each is about the text block that cites it."""

    def __init__(self) -> None:
        self.annotations: list[dict[str, Any]] = []
        self._start = self._end = 0  # of the block, in characters of the whole text
        self._pages: list[Mapping[str, Any]] = []

    def begin(self, block: Mapping[str, Any]) -> None:
        self._start = self._end
        self.text(block["text"])
        for citation in block.get("citations") or ():
            self.cite(citation)

    def text(self, text: str) -> None:
        self._end += len(text)

    def cite(self, citation: Any) -> None:
        if isinstance(citation, dict) and citation.get("type") == "web_search_result_location":
            self._pages.append(citation)

    def end(self) -> None:
        for page in self._pages:
            told = {name: str(page.get(name) or "") for name in ("title", "url")}
            found = {"start_index": self._start, "end_index": self._end, **told}
            self.annotations.append({"type": "url_citation", "url_citation": found})
        self._pages = []


class Encoder:
    """Lists of events to bytes, one piece per list. The events are checked ones.

    Knows which tool call is open, by its running number: that is not the block index.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._customs = custom_tools(call.body)
        self._created = int(time.time())
        self._usage = Usage()
        self._stop_reason: str | None = None
        self._tools = -1
        self._open: Mapping[str, Any] | None = None  # the tool_use block in progress
        self._arguments: list[str] | None = None  # held back: of a custom tool, whose input must be unwrapped
        self._silent = True  # no arguments of the open call have been sent
        self._cited = _Cited()
        self._frame("")

    def _frame(self, message_id: str) -> None:
        head = {"id": f"chatcmpl-{message_id}", "object": "chat.completion.chunk", "created": self._created}
        self._head = head | {"model": self._call.model}
        self._before = b"data: " + jsons.dumps(self._head)[:-1] + b',"choices":[{"index":0,"delta":'
        self._after = b',"finish_reason":null}]}\n\n'

    def encode(self, events: Iterable[Event]) -> bytes:
        return b"".join([self._write(event) for event in events])

    def _write(self, event: Event) -> bytes:
        match event["type"]:
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
        match block["type"]:
            case "tool_use":
                return self._on_tool(block)
            case "text":
                self._cited.begin(block)
                return self._delta({"content": block["text"]}) if block["text"] else b""
            case "thinking" if block["thinking"]:
                return self._delta({"reasoning_content": block["thinking"]})
        return b""

    def _on_delta(self, delta: Mapping[str, Any]) -> bytes:
        match delta["type"]:
            case "text_delta":
                self._cited.text(delta["text"])
                return self._delta({"content": delta["text"]})
            case "thinking_delta":
                return self._delta({"reasoning_content": delta["thinking"]})
            case "input_json_delta" if self._open is not None and delta["partial_json"]:
                return self._on_arguments(delta["partial_json"])
            case "citations_delta":
                self._cited.cite(delta["citation"])
        return b""

    # ---- tool calls

    def _tool_delta(self, call: Mapping[str, Any]) -> bytes:
        return self._delta({"tool_calls": [{"index": self._tools, **call}]})

    def _on_tool(self, block: Mapping[str, Any]) -> bytes:
        self._tools += 1
        self._open = block
        self._silent = True
        if block["name"] in self._customs:
            self._arguments = []
            return b""
        function = {"name": block["name"], "arguments": ""}
        return self._tool_delta({"id": block["id"], "type": "function", "function": function})

    def _on_arguments(self, text: str) -> bytes:
        self._silent = False
        if self._arguments is not None:
            self._arguments.append(text)
            return b""
        return self._tool_delta({"function": {"arguments": text}})

    def _on_stop(self) -> bytes:
        block, self._open = self._open, None
        if block is None:
            self._cited.end()
            return b""
        input = block.get("input") or {}
        if self._arguments is not None:
            text = "".join(self._arguments)
            self._arguments = None
            return self._tool_delta(_custom_call(block, _unwrapped(text, input)))
        return self._tool_delta({"function": {"arguments": jsons.compact(input)}}) if self._silent else b""

    def _end(self) -> bytes:
        choice = {"index": 0, "delta": {}, "finish_reason": finish_reason(self._stop_reason or "end_turn")}
        # All at once: OpenAI's SDKs cannot add up lists of them.
        out = self._delta({"annotations": self._cited.annotations}) if self._cited.annotations else b""
        out += b"data: " + jsons.dumps({**self._head, "choices": [choice]}) + b"\n\n"
        if self._call.include_usage:
            usage = {**self._head, "choices": [], "usage": write_usage(self._usage)}
            out += b"data: " + jsons.dumps(usage) + b"\n\n"
        return out + DONE


def _unwrapped(text: str, input: Any) -> str:
    """The free text of a custom tool's call: its one member, or all of it when a model did not keep to that."""
    if text:
        try:
            input = jsons.loads_shallow(text)
        except jsons.JsonError:
            return text
    if isinstance(input, dict) and isinstance(input.get("input"), str):
        return str(input["input"])
    return jsons.compact(input)


def _custom_call(block: Mapping[str, Any], input: str) -> dict[str, Any]:
    return {"id": block["id"], "type": "custom", "custom": {"name": block["name"], "input": input}}


# ---- the whole completion


def render(call: Call, message: Message) -> bytes:
    """A whole Anthropic message as a chat completion."""
    usage = Usage()
    usage.update(message.get("usage") or {})
    reason = finish_reason(message.get("stop_reason") or "end_turn")
    choice = {"index": 0, "message": _message(call, message), "logprobs": None, "finish_reason": reason}
    id = message.get("id") or ids.message_id()
    head = {"id": f"chatcmpl-{id}", "object": "chat.completion", "created": int(time.time())}
    return jsons.dumps(head | {"model": call.model, "choices": [choice], "usage": write_usage(usage)})


def _message(call: Call, message: Message) -> dict[str, Any]:
    blocks = message["content"]
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    out: dict[str, Any] = {"role": "assistant", "content": text or None, "refusal": None}
    if annotations := _annotations(blocks):
        out["annotations"] = annotations
    if thinking := "".join(block["thinking"] for block in blocks if block["type"] == "thinking"):
        out["reasoning_content"] = thinking
    customs = custom_tools(call.body)
    if calls := [_tool_call(block, customs) for block in blocks if block["type"] == "tool_use"]:
        out["tool_calls"] = calls
    return out


def _annotations(blocks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    cited = _Cited()
    for block in blocks:
        if block["type"] == "text":
            cited.begin(block)
            cited.end()
    return cited.annotations


def _tool_call(block: Mapping[str, Any], customs: set[str]) -> dict[str, Any]:
    input = block.get("input") or {}
    if block["name"] in customs:
        return _custom_call(block, _unwrapped("", input))
    function = {"name": block["name"], "arguments": jsons.compact(input)}
    return {"id": block["id"], "type": "function", "function": function}
