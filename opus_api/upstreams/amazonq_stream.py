"""Amazon Q's event stream to Anthropic events. Pure.

The service sends no end and no stop reason: the body's regular end is the answer's. Nothing here raises anything but
Failure, whatever is sent.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from opus_api.upstreams import amazonq_failures
from opus_api.upstreams.base import Credentials
from opus_api.upstreams.bodies import EARLY, arguments_of, text_of
from opus_api.upstreams.failures import broken, scrub
from opus_api.upstreams.stop_sequences import StopSequences
from opus_api.wire import jsons
from opus_api.wire.eventstream import StreamMessage
from opus_api.wire.messages import MessageWriter, Usage, counter
from opus_api.wire.request import Call

BYTES_PER_TOKEN = 4  # of UTF-8, for limits and estimates where the service does not count
MOST_CREDITS = 1e6  # of one answer; more is a mistake
Payload = Mapping[str, Any]


class _Tool:
    """One tool call as its pieces arrive."""

    __slots__ = ("args", "id", "name", "sent", "stopped")

    def __init__(self, id: str, name: str):
        self.id, self.name = id, name
        self.args: list[str] = []
        self.sent = 0  # how many pieces were written
        self.stopped = False


class AnswerReader:
    """``read`` each message, ``finish`` at the body's end; events gather in ``writer``. ``done``: no more is wanted."""

    def __init__(
        self,
        writer: MessageWriter,
        tool_names: Mapping[str, str],
        stops: Iterable[str],
        most_tokens: int,
        credentials: Credentials,
    ):
        self._saw_usage = False
        self._credits = 0.0
        self._writer = writer
        self._tool_names = tool_names
        self._stops = StopSequences(stops)
        self._most_bytes = most_tokens * BYTES_PER_TOKEN
        self._credentials = credentials
        self._tools: dict[str, _Tool] = {}
        self._queue: list[_Tool] = []  # calls whose block is still to come
        self._live: _Tool | None = None  # whose block is open
        self._waiting: list[str] = []  # text that came while a tool call was open
        self._bytes = 0  # of the answer
        self._usage: Usage | None = None
        self._answered = False  # something came that belongs to an answer
        self._invalid_state = ""

    @property
    def done(self) -> bool:
        return self._writer.finished

    def read(self, message: StreamMessage) -> None:
        """Raises Failure."""
        if self.done:
            return
        if message.headers.get(":message-type") in ("exception", "error"):
            raise amazonq_failures.of_message(message, self._credentials)
        handle = _HANDLERS.get(message.headers.get(":event-type"))
        if handle is None:  # the service adds kinds of events: those we do not know are not for us
            return
        try:
            payload = jsons.loads(message.payload)
        except jsons.JsonError:
            raise broken("upstream sent invalid JSON") from None
        if isinstance(payload, dict):
            handle(self, payload)

    def finish(self) -> None:
        """The body has ended regularly. Raises Failure when the answer in it has not."""
        if self.done:
            return
        if any(not tool.stopped for tool in self._tools.values()):
            raise broken(EARLY)
        self._writer.text(self._stops.close())
        if not self._writer.started and not self._answered:
            raise broken(self._invalid_state or "upstream sent an empty answer")
        self._writer.finish("end_turn", self._counted())

    def account(self, call: Call) -> None:
        """Note what the answer has cost so far."""
        call.usage_estimated, call.credits = not self._saw_usage, self._credits

    def _counted(self) -> Usage:
        if self._usage is not None:
            return self._usage
        return Usage(input_tokens=self._writer.input_tokens, output_tokens=self._bytes // BYTES_PER_TOKEN + 1)

    def _grow(self, text: str) -> None:
        """Count, and end the answer at the client's limit: the service knows none."""
        self._bytes += len(text.encode("utf-8", "replace"))
        if self._bytes >= self._most_bytes:
            self._writer.finish("max_tokens", self._counted())

    # ---- events

    def _on_text(self, payload: Payload) -> None:
        text = text_of(payload.get("content"))
        if not text or self.done:
            return
        if self._live:
            self._waiting.append(text)
            return
        self._writer.text(self._stops.feed(text))
        if self._stops.found:
            self._writer.finish("stop_sequence", self._counted(), self._stops.found)
        else:
            self._grow(text)

    def _on_reasoning(self, payload: Payload) -> None:
        self._answered = True
        if self._live:
            return
        if data := text_of(payload.get("redactedContent")):
            self._writer.redacted_thinking(data)
        if text := text_of(payload.get("text")):
            self._writer.thinking(text)
        if signature := text_of(payload.get("signature")):
            self._writer.sign(signature)
        self._grow(text)

    def _on_tool(self, payload: Payload) -> None:
        tool = self._tool(text_of(payload.get("toolUseId")), text_of(payload.get("name")))
        arguments = arguments_of(payload.get("input"))
        if tool.stopped:
            if arguments:
                raise broken("upstream sent arguments of a finished tool call")
            return
        if arguments:
            tool.args.append(arguments)
        if payload.get("stop") is True:
            _check_object("".join(tool.args))
            tool.stopped = True
        self._write_tools()

    def _on_usage(self, payload: Payload) -> None:
        self._answered = True
        usage = payload.get("tokenUsage")
        if not isinstance(usage, dict):
            return
        self._saw_usage = True
        self._usage = Usage(
            input_tokens=counter(usage.get("uncachedInputTokens")) or 0,
            cache_creation_input_tokens=counter(usage.get("cacheWriteInputTokens")) or 0,
            cache_read_input_tokens=counter(usage.get("cacheReadInputTokens")) or 0,
            output_tokens=counter(usage.get("outputTokens")) or 0,
        )

    def _on_metering(self, payload: Payload) -> None:
        """What the answer cost; no tokens."""
        self._answered = True
        used: Any = payload.get("usage")
        is_number = isinstance(used, (int, float)) and not isinstance(used, bool)
        if payload.get("unit", "credit") == "credit" and is_number and 0 < used < MOST_CREDITS:
            self._credits += used

    def _on_context(self, payload: Payload) -> None:
        self._answered = True

    def _on_invalid_state(self, payload: Payload) -> None:
        text = text_of(payload.get("message")) or text_of(payload.get("reason")) or "upstream is in an invalid state"
        self._invalid_state = scrub(text, self._credentials)

    # ---- tool calls: their blocks follow each other, whatever the order of the pieces

    def _tool(self, id: str, name: str) -> _Tool:
        if id not in self._tools:
            if not name:
                raise broken("upstream sent a tool call without a name")
            self._tools[id] = _Tool(id, name)
            self._queue.append(self._tools[id])
        return self._tools[id]

    def _write_tools(self) -> None:
        """As much as can be written: the open call, and those behind it once it is complete."""
        while (tool := self._open_tool()) is not None:
            self._send(tool)
            if self.done or not tool.stopped:
                return
            self._writer.close_block()
            self._live = None
        texts, self._waiting = self._waiting, []
        for text in texts:
            self._on_text({"content": text})

    def _open_tool(self) -> _Tool | None:
        if self._live is None and self._queue:
            self._live = self._queue.pop(0)
            self._writer.text(self._stops.close())
            self._writer.tool(self._live.id, self._tool_names.get(self._live.name, self._live.name))
        return self._live

    def _send(self, tool: _Tool) -> None:
        text = "".join(tool.args[tool.sent :])
        tool.sent = len(tool.args)
        self._writer.tool_json(text)
        self._grow(text)


_HANDLERS: Mapping[Any, Callable[[AnswerReader, Payload], None]] = {
    "assistantResponseEvent": AnswerReader._on_text,
    "codeEvent": AnswerReader._on_text,
    "reasoningContentEvent": AnswerReader._on_reasoning,
    "toolUseEvent": AnswerReader._on_tool,
    "metadataEvent": AnswerReader._on_usage,
    "meteringEvent": AnswerReader._on_metering,
    "contextUsageEvent": AnswerReader._on_context,
    "invalidStateEvent": AnswerReader._on_invalid_state,
}


def _check_object(text: str) -> None:
    """Raises Failure: arguments cut off must never look like a call."""
    try:
        whole = not text or isinstance(jsons.loads(text), dict)
    except jsons.JsonError:
        whole = False
    if not whole:
        raise broken("upstream returned invalid tool arguments")
