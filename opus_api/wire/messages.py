"""The canonical form: Anthropic Messages as plain dicts, its event stream, its one writer and its fold.

Shapes are those of the Messages API (wire.md 1.8, 1.9); keys we do not know pass through untouched.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from opus_api.wire import ids, jsons

Event = dict[str, Any]
Message = dict[str, Any]
Block = dict[str, Any]

# Marks thinking that no Anthropic model signed; stripped again before a request goes to Anthropic.
UNSIGNED = "opus:unsigned"

COUNTERS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")


def ping() -> Event:
    return {"type": "ping"}


@dataclass(slots=True)
class Usage:
    """Token counters of one answer; ``input_tokens`` excludes cached ones, as Anthropic counts."""

    input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int | None = None

    def as_dict(self) -> dict[str, Any]:
        counters: dict[str, Any] = {name: getattr(self, name) for name in COUNTERS}
        if self.thinking_tokens is not None:
            counters["output_tokens_details"] = {"thinking_tokens": self.thinking_tokens}
        return counters

    def update(self, usage: Mapping[str, Any]) -> None:
        """Take over what ``usage`` says; counters are cumulative and an absent one keeps its value."""
        for name in COUNTERS:
            value = usage.get(name)
            if isinstance(value, int):
                setattr(self, name, value)
        details = usage.get("output_tokens_details")
        if isinstance(details, dict) and isinstance(details.get("thinking_tokens"), int):
            self.thinking_tokens = details["thinking_tokens"]

    @property
    def prompt_tokens(self) -> int:
        return self.input_tokens + self.cache_creation_input_tokens + self.cache_read_input_tokens


@dataclass(slots=True)
class MessageWriter:
    """Writes the event stream of one message. It alone knows which block is open; others say what they received.

    Events gather in ``out``; ``take()`` hands them over. Nothing is written before the first content or finish, so that
    a failure before it can still become an HTTP status.
    """

    model: str
    input_tokens: int  # the estimate that message_start carries
    thinking_wanted: bool = True
    out: list[Event] = field(default_factory=list)
    started: bool = False
    finished: bool = False
    index: int = -1
    open: str = ""  # "", "text", "thinking" or "tool_use"
    tools: int = 0  # tool_use blocks so far

    def take(self) -> list[Event]:
        out, self.out = self.out, []
        return out

    def text(self, text: str) -> None:
        if not text:
            return
        if self.open != "text":
            self._start({"type": "text", "text": ""})
        self._delta({"type": "text_delta", "text": text})

    def thinking(self, text: str) -> None:
        if not text or not self.thinking_wanted:
            return
        if self.open != "thinking":
            self._start({"type": "thinking", "thinking": "", "signature": ""})
        self._delta({"type": "thinking_delta", "thinking": text})

    def tool(self, id: str, name: str) -> None:
        self._start({"type": "tool_use", "id": id or ids.tool_id(), "name": name, "input": {}})
        self.tools += 1

    def tool_json(self, text: str) -> None:
        """A piece of the open tool call's input."""
        if text:
            self._delta({"type": "input_json_delta", "partial_json": text})

    def close_block(self) -> None:
        if not self.open:
            return
        if self.open == "thinking":
            self._delta({"type": "signature_delta", "signature": UNSIGNED})
        self.out.append({"type": "content_block_stop", "index": self.index})
        self.open = ""

    def finish(self, stop_reason: str, usage: Usage, stop_sequence: str | None = None) -> None:
        """``stop_reason`` is Anthropic's word, as far as the upstream told; tools called make it tool_use."""
        self._begin()
        self.close_block()
        if self.tools and stop_reason != "max_tokens":
            stop_reason = "tool_use"
        elif not self.tools and stop_reason == "tool_use":
            stop_reason = "end_turn"
        delta: dict[str, Any] = {"stop_reason": stop_reason, "stop_sequence": stop_sequence}
        if stop_reason == "refusal":
            delta["stop_details"] = {"type": "refusal", "category": None, "explanation": None}
        self.out.append({"type": "message_delta", "delta": delta, "usage": usage.as_dict()})
        self.out.append({"type": "message_stop"})
        self.finished = True

    def _begin(self) -> None:
        if self.started:
            return
        self.started = True
        message: Message = {"id": ids.message_id(), "type": "message", "role": "assistant", "model": self.model}
        message |= {"content": [], "stop_reason": None, "stop_sequence": None}
        message["usage"] = Usage(input_tokens=self.input_tokens, output_tokens=1).as_dict()
        self.out.append({"type": "message_start", "message": message})
        self.out.append(ping())

    def _start(self, block: Block) -> None:
        self._begin()
        self.close_block()
        self.index += 1
        self.open = block["type"]
        self.out.append({"type": "content_block_start", "index": self.index, "content_block": block})

    def _delta(self, delta: dict[str, Any]) -> None:
        self.out.append({"type": "content_block_delta", "index": self.index, "delta": delta})


class FoldError(ValueError):
    """The events are no whole message; the text says what is wrong."""


def fold(events: Iterable[Event]) -> Message:
    """The message that a stream spells out, as the official SDKs accumulate it. Raises FoldError."""
    folder = Folder()
    for event in events:
        folder.feed(event)
    return folder.message()


# Which member of a block a delta extends, and from which of its own members.
_GROWS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


class Folder:
    """``feed`` events, then ask for the ``message``."""

    def __init__(self) -> None:
        self._message: Message | None = None
        self._pieces: dict[tuple[int, str], list[str]] = {}  # joined when the block ends: += would be quadratic
        self._complete = False

    def feed(self, event: Event) -> None:
        """Raises FoldError."""
        match event.get("type"):
            case "message_start":
                self._message = {**event["message"], "content": list(event["message"].get("content") or [])}
            case "content_block_start":
                self._content().append(dict(event["content_block"]))
            case "content_block_delta":
                self._on_delta(event["index"], event["delta"])
            case "content_block_stop":
                self._close(event["index"])
            case "message_delta":
                self._on_message_delta(event)
            case "message_stop":
                self._complete = True

    def message(self) -> Message:
        """Raises FoldError when the stream has not ended."""
        if self._message is None or not self._complete:
            raise FoldError("stream ended early")
        for index in {index for index, _ in self._pieces}:
            self._close(index)
        return self._message

    def _content(self) -> list[Block]:
        if self._message is None:
            raise FoldError("content before message_start")
        content: list[Block] = self._message["content"]
        return content

    def _on_delta(self, index: int, delta: dict[str, Any]) -> None:
        content = self._content()
        if not 0 <= index < len(content):
            raise FoldError(f"delta of unknown block {index}")
        kind = delta.get("type")
        if kind in _GROWS:
            self._pieces.setdefault((index, _GROWS[kind]), []).append(delta[_GROWS[kind]])
        elif kind == "signature_delta":
            content[index]["signature"] = delta["signature"]
        elif kind == "citations_delta":
            content[index]["citations"] = [*(content[index].get("citations") or []), delta["citation"]]

    def _close(self, index: int) -> None:
        block = self._content()[index] if 0 <= index < len(self._content()) else {}
        for member in ("text", "thinking"):
            if pieces := self._pieces.pop((index, member), None):
                block[member] = block.get(member, "") + "".join(pieces)
        if text := "".join(self._pieces.pop((index, "partial_json"), ())):
            try:
                value = jsons.loads(text)
            except jsons.JsonError:
                raise FoldError("upstream returned invalid tool arguments") from None
            block["input"] = value if isinstance(value, dict) else {"value": value}

    def _on_message_delta(self, event: Event) -> None:
        if self._message is None:
            raise FoldError("message_delta before message_start")
        self._message.update(event.get("delta") or {})
        usage = {name: value for name, value in (event.get("usage") or {}).items() if value is not None}
        self._message["usage"] = {**(self._message.get("usage") or {}), **usage}
        for name in event.keys() - {"type", "delta", "usage"}:  # context_management and what may come
            self._message[name] = event[name]
