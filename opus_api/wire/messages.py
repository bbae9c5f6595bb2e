"""The canonical form: Anthropic Messages as plain dicts, its event stream, its one writer and its fold.

Shapes are those of the Messages API; keys we do not know pass through untouched.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from opus_api.wire import ids, jsons
from opus_api.wire.events import EventError, checked

Event = dict[str, Any]
Message = dict[str, Any]
Block = dict[str, Any]

# Marks thinking that no Anthropic model signed; stripped again before a request goes to Anthropic.
UNSIGNED = "opus:unsigned"

COUNTERS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")


LARGEST_COUNT = 2**53  # no token counter is larger; what a number is without loss in every JSON reader


def ping() -> Event:
    return {"type": "ping"}


def counter(value: Any) -> int | None:
    """A token counter as an upstream sent it, None when it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < LARGEST_COUNT:
        return None
    return int(value)


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
        """Take over what ``usage`` says; counters are cumulative and an absent one keeps its value. Never raises."""
        for name in COUNTERS:
            if (value := counter(usage.get(name))) is not None:
                setattr(self, name, value)
        details = usage.get("output_tokens_details")
        if isinstance(details, dict) and (value := counter(details.get("thinking_tokens"))) is not None:
            self.thinking_tokens = value

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
    open: str = ""  # the type of the open block, "" when there is none
    signature: str = UNSIGNED  # of the thinking that is open
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

    def sign(self, signature: str) -> None:
        """The signature of the open thinking, as the upstream sent it."""
        if self.open == "thinking":
            self.signature = signature

    def redacted_thinking(self, data: str) -> None:
        if self.thinking_wanted:
            self._start({"type": "redacted_thinking", "data": data})
            self.close_block()

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
            self._delta({"type": "signature_delta", "signature": self.signature})
            self.signature = UNSIGNED
        self.out.append({"type": "content_block_stop", "index": self.index})
        self.open = ""

    def finish(self, stop_reason: str, usage: Usage, stop_sequence: str | None = None) -> None:
        """``stop_reason`` is Anthropic's word, as far as the upstream told; tools called make it tool_use (many
        compatible servers say "stop" then), and only they do."""
        self._begin()
        self.close_block()
        if self.tools and stop_reason != "max_tokens":
            stop_reason = "tool_use"
        elif not self.tools and stop_reason == "tool_use":
            stop_reason = "end_turn"
        delta: dict[str, Any] = {"stop_reason": stop_reason}
        delta["stop_sequence"] = stop_sequence if stop_reason == "stop_sequence" else None
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
        try:
            checked(event)
        except EventError as error:
            raise FoldError(str(error)) from None
        match event["type"]:
            case "message_start":
                self._message = {**event["message"], "content": []}
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
            raise FoldError("upstream stream ended early")
        for index in {index for index, _ in self._pieces}:
            self._close(index)
        return self._message

    def _content(self) -> list[Block]:
        if self._message is None:
            raise FoldError("content before message_start")
        content: list[Block] = self._message["content"]
        return content

    def _block(self, index: int) -> Block:
        content = self._content()
        if not 0 <= index < len(content):
            raise FoldError(f"block {index} was never started")
        return content[index]

    def _on_delta(self, index: int, delta: dict[str, Any]) -> None:
        block = self._block(index)
        kind = delta["type"]
        if kind in _GROWS:
            self._pieces.setdefault((index, _GROWS[kind]), []).append(delta[_GROWS[kind]])
        elif kind == "signature_delta":
            block["signature"] = delta["signature"]
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or []), delta["citation"]]

    def _close(self, index: int) -> None:
        block = self._block(index)
        for member in ("text", "thinking"):
            if pieces := self._pieces.pop((index, member), None):
                block[member] = str(block.get(member) or "") + "".join(pieces)
        if text := "".join(self._pieces.pop((index, "partial_json"), ())):
            block["input"] = tool_input(text)

    def _on_message_delta(self, event: Event) -> None:
        if self._message is None:
            raise FoldError("message_delta before message_start")
        self._message.update(event["delta"])
        usage = {name: value for name, value in (event.get("usage") or {}).items() if value is not None}
        self._message["usage"] = {**(self._message.get("usage") or {}), **usage}
        for name in event.keys() - {"type", "delta", "usage"}:  # context_management and what may come
            self._message[name] = event[name]


def tool_input(text: str) -> Any:
    """The input that a tool call's arguments spell. Raises FoldError when they are no JSON even after one repair."""
    try:
        value = jsons.loads_shallow(text)
    except jsons.JsonError:
        try:
            value = jsons.loads_cut(text)
        except jsons.JsonError:
            raise FoldError("upstream returned invalid tool arguments") from None
    return value if isinstance(value, dict) else {"value": value}


def unfold(message: Message) -> list[Event]:
    """The stream that spells a whole message: what ``fold`` makes this message of."""
    start = {**message, "content": [], "stop_reason": None, "stop_sequence": None, "usage": message.get("usage") or {}}
    events: list[Event] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(message["content"]):
        opening, deltas = _spelled(block)
        events.append({"type": "content_block_start", "index": index, "content_block": opening})
        events += ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        events.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": message.get("stop_reason") or "end_turn", "stop_sequence": message.get("stop_sequence")}
    events.append({"type": "message_delta", "delta": end, "usage": message.get("usage") or {}})
    events.append({"type": "message_stop"})
    return events


def _spelled(block: Block) -> tuple[Block, list[dict[str, Any]]]:
    """(what content_block_start carries, the deltas that follow); blocks of other kinds come whole in their start."""
    match block["type"]:
        case "text":
            return {**block, "text": ""}, [{"type": "text_delta", "text": block["text"]}]
        case "thinking":
            deltas = [{"type": "thinking_delta", "thinking": block["thinking"]}]
            deltas.append({"type": "signature_delta", "signature": str(block.get("signature") or "")})
            return {**block, "thinking": "", "signature": ""}, deltas
        case "tool_use":
            text = jsons.compact(block.get("input") or {})
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": text}]
        case _:
            return block, []
