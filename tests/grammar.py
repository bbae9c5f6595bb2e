"""What a stream must look like: the frames of both dialects, the order of Anthropic's events. Used by all stream tests.

stream  := ping* message_start (block | ping)* message_delta+ message_stop
block i := content_block_start (content_block_delta | ping)* content_block_stop      i = 0, 1, 2, …
anywhere after message_start: error, and nothing after it
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

Event = dict[str, Any]

COUNTERS = {"input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens"}
DELTA_OF = {
    "text_delta": "text",
    "citations_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "thinking",
    "input_json_delta": "tool_use",
}


def events(stream: bytes) -> list[Event]:
    """The events of an Anthropic stream, each in its one form: ``event: <type>``, ``data: <one line>``, blank."""
    return [_event(frame) for frame in _frames(stream)]


def chunks(stream: bytes) -> list[Any]:
    """The data of an OpenAI stream: parsed JSON, "[DONE]", or a comment as it is."""
    return [_chunk(frame) for frame in _frames(stream)]


def _frames(stream: bytes) -> Iterator[str]:
    assert b"\r" not in stream, "line ends are LF only"
    assert not stream.startswith(b"\xef\xbb\xbf"), "no byte order mark"
    assert stream.endswith(b"\n\n") or not stream, "the last frame has its blank line"
    for frame in stream.split(b"\n\n")[:-1]:
        assert frame, "no empty frame"
        yield frame.decode()


def _event(frame: str) -> Event:
    name, data = frame.split("\n")
    event: Event = json.loads(data.removeprefix("data: "))
    assert name == f"event: {event['type']}", frame
    return event


def _chunk(frame: str) -> Any:
    assert "\n" not in frame, frame
    if frame.startswith(":"):
        return frame
    data = frame.removeprefix("data: ")
    return data if data == "[DONE]" else json.loads(data)


def check(stream: bytes) -> list[Event]:
    """The events of a stream that obeys the grammar; AssertionError says where it does not."""
    found = events(stream)
    check_events(found)
    return found


def check_events(found: Iterable[Event]) -> None:
    state = Grammar()
    for position, event in enumerate(found):
        problem = state.feed(event)
        assert not problem, f"event {position}, {json.dumps(event)[:200]}: {problem}"
    assert state.ended, "the stream ends without message_stop or error"


class Grammar:
    """``feed`` says what is wrong with the next event, "" when nothing is."""

    def __init__(self) -> None:
        self.ended = False
        self._started = False
        self._blocks = 0
        self._open = ""  # the type of the open block
        self._signed = False
        self._stop_reason: str | None = None
        self._tools = 0

    def feed(self, event: Event) -> str:
        kind = event["type"]
        if self.ended:
            return "nothing may follow message_stop or error"
        if kind == "ping":
            return ""
        if not self._started and kind != "message_start":
            return "message_start comes first"
        rule = getattr(self, f"_{kind}", None)
        return rule(event) if rule else ""  # kinds that are new are to be ignored

    def _message_start(self, event: Event) -> str:
        message = event["message"]
        if self._started:
            return "a second message_start"
        self._started = True
        if (message["type"], message["role"], message["content"]) != ("message", "assistant", []):
            return "not an empty assistant message"
        if message["stop_reason"] is not None or not isinstance(message["model"], str):
            return "stop_reason is null and model is set at the start"
        return "" if message["usage"].keys() >= COUNTERS else "all four counters belong in usage"

    def _content_block_start(self, event: Event) -> str:
        block = event["content_block"]
        if self._open:
            return "the last block is still open"
        if self._stop_reason is not None:
            return "no block after message_delta"
        if event["index"] != self._blocks:
            return f"index {self._blocks} is next"
        self._blocks += 1
        self._open, self._signed = block["type"], False
        if block["type"] == "tool_use":
            self._tools += 1
            return (
                "" if block["id"] and block["name"] and block["input"] == {} else "a tool needs id and name, input {}"
            )
        empty = {"text": "", "thinking": "", "signature": ""}
        return "" if all(block.get(k, v) == v for k, v in empty.items()) else "text and thinking start empty"

    def _content_block_delta(self, event: Event) -> str:
        kind = event["delta"]["type"]
        if not self._open or event["index"] != self._blocks - 1:
            return "no such open block"
        if kind in DELTA_OF and DELTA_OF[kind] != self._open:
            return f"{kind} in a block of type {self._open}"
        if self._signed:
            return "the signature comes last"
        self._signed = kind == "signature_delta"
        return ""

    def _content_block_stop(self, event: Event) -> str:
        if not self._open or event["index"] != self._blocks - 1:
            return "no such open block"
        problem = "" if self._open != "thinking" or self._signed else "thinking without signature"
        self._open = ""
        return problem

    def _message_delta(self, event: Event) -> str:
        if self._open:
            return "a block is still open"
        self._stop_reason = event["delta"]["stop_reason"]
        if not isinstance(event["usage"]["output_tokens"], int):
            return "usage belongs here"
        if self._stop_reason is None:
            return "a stop_reason belongs here"
        if (self._stop_reason == "tool_use") != bool(self._tools) and self._stop_reason != "max_tokens":
            return "stop_reason tool_use and tool_use blocks go together"
        return ""

    def _message_stop(self, event: Event) -> str:
        self.ended = True
        return "" if self._stop_reason is not None else "message_delta comes before"

    def _error(self, event: Event) -> str:
        self.ended = True
        error = event["error"]
        return "" if error["type"].endswith("_error") and error["message"] else "an error needs type and message"
