"""OpenAI chat chunks to Anthropic events: the state machine of wire.md 4.3. Pure."""

from collections.abc import Mapping
from typing import Any

from opus_api.upstreams.base import Credentials
from opus_api.upstreams.bodies import EARLY
from opus_api.upstreams.failures import broken, error_in, judge
from opus_api.wire import jsons
from opus_api.wire.chat import STOP_REASON, read_usage
from opus_api.wire.messages import MessageWriter, Usage

Chunk = Mapping[str, Any]


class _Tool:
    """One tool call as its pieces arrive."""

    __slots__ = ("args", "checked", "closed", "id", "name", "waiting")

    def __init__(self) -> None:
        self.id = self.name = ""
        self.args: list[str] = []  # sent
        self.waiting: list[str] = []  # not yet sent
        self.closed = False
        self.checked = 0  # pieces of args that were seen not to be complete

    def is_complete(self) -> bool:
        """Its arguments are one JSON value. Asked only when a further call begins, and once per new piece."""
        if self.checked == len(self.args):
            return False
        self.checked = len(self.args)
        try:
            jsons.loads("".join(self.args))
        except jsons.JsonError:
            return False
        return True


class ChatDecoder:
    """``chunk`` what arrived, ``finish`` at the end; the events gather in ``writer``."""

    def __init__(
        self, writer: MessageWriter, tool_names: Mapping[str, str], stops: list[str], credentials: Credentials
    ):
        self._writer = writer
        self._tool_names = tool_names
        self._stops = stops
        self._credentials = credentials
        self._tools: list[_Tool] = []  # in order of appearance
        self._by_key: dict[int | str, _Tool] = {}
        self._live: _Tool | None = None  # whose block is open
        self._finish_reason: str | None = None
        self._stop_sequence: str | None = None
        self._usage: Usage | None = None
        self._letters = 0  # of the answer, for an estimate where the upstream does not count

    def chunk(self, data: Any) -> None:
        """One chunk, or a whole completion. Raises Failure."""
        if not isinstance(data, dict):
            raise broken("upstream sent invalid JSON")
        if "error" in data and (found := error_in(data)):
            _, message, status = found
            raise judge(status or 502, message, {}, self._credentials)
        if usage := data.get("usage"):
            self._usage = read_usage(usage)
        for choice in data.get("choices") or ():
            if not choice.get("index"):  # the first; some vendors leave the index out
                self._choice(choice)

    def finish(self) -> None:
        """The end was reached. Raises Failure when no finish_reason had come: the stream was cut."""
        if self._writer.finished:
            return
        if self._finish_reason is None:
            raise broken(EARLY)
        self._close_live()
        for tool in self._tools:
            if not tool.closed:
                self._open(tool)
                self._close_live()
        usage = self._usage or Usage(input_tokens=self._writer.input_tokens, output_tokens=self._letters // 4 + 1)
        reason = "stop_sequence" if self._stop_sequence else STOP_REASON.get(self._finish_reason, "end_turn")
        self._writer.finish(reason, usage, self._stop_sequence)

    @property
    def saw_usage(self) -> bool:
        return self._usage is not None

    def _choice(self, choice: Chunk) -> None:
        delta = choice.get("delta") or choice.get("message")
        if delta:
            self._delta(delta)
        if reason := choice.get("finish_reason"):
            self._finish_reason = reason
            stop = choice.get("stop_reason")  # vLLM names the sequence that stopped it
            if reason == "stop" and isinstance(stop, str) and stop in self._stops:
                self._stop_sequence = stop

    def _delta(self, delta: Chunk) -> None:
        if reasoning := _reasoning(delta):
            self._close_live()
            self._writer.thinking(reasoning)
            self._letters += len(reasoning)
        if content := delta.get("content"):
            self._content(content)
        if refusal := delta.get("refusal"):
            self._content(refusal)
            self._finish_reason = self._finish_reason or "content_filter"
        for position, call in enumerate(delta.get("tool_calls") or ()):
            self._tool_call(call, position)

    def _content(self, content: Any) -> None:
        if isinstance(content, str):
            self._close_live()
            self._writer.text(content)
            self._letters += len(content)
            return
        for part in content:  # Mistral's reasoning models send a list of parts
            if part.get("type") == "thinking":
                self._close_live()
                self._writer.thinking("".join(item.get("text", "") for item in part.get("thinking") or ()))
            elif isinstance(part.get("text"), str):
                self._content(part["text"])

    # ---- tool calls

    def _tool_call(self, call: Chunk, position: int) -> None:
        function = call.get("function") or {}
        tool = self._tool(call.get("index"), call.get("id") or "", position)
        tool.id = tool.id or call.get("id") or ""
        tool.name = tool.name or function.get("name") or ""
        arguments = function.get("arguments")
        text = arguments if isinstance(arguments, str) else jsons.compact(arguments) if arguments else ""
        if tool.closed:
            if text.strip():
                raise broken("upstream sent arguments of a finished tool call")
        elif tool is self._live:
            tool.args.append(text)
            self._writer.tool_json(text)
        else:
            tool.waiting.append(text)
            self._open_if_possible(tool)

    def _tool(self, index: Any, id: str, position: int) -> _Tool:
        """Which call a piece belongs to: by index, else by id, else the last one. A new id under an index is a new call."""
        key: int | str = index if isinstance(index, int) else id
        if key == "" and self._tools:
            return self._tools[-1]
        tool = self._by_key.get(key)
        if tool is None or (id and tool.id and id != tool.id):
            tool = self._by_key[key] = _Tool()
            self._tools.append(tool)
        return tool

    def _open_if_possible(self, tool: _Tool) -> None:
        if not tool.name:
            return
        if self._live and self._live.is_complete():
            self._close_live()
        if self._live is None:
            self._open(tool)

    def _open(self, tool: _Tool) -> None:
        if not tool.name:
            raise broken("upstream sent a tool call without a name")
        self._writer.tool(tool.id, self._tool_names.get(tool.name, tool.name))
        self._live = tool
        text = "".join(tool.waiting)
        tool.waiting = []
        tool.args.append(text)
        self._writer.tool_json(text)

    def _close_live(self) -> None:
        if self._live:
            self._live.closed = True
            self._live = None
            self._writer.close_block()


def _reasoning(delta: Chunk) -> str:
    """The three places vendors put it (wire.md 3.3); never the same text twice."""
    for name in ("reasoning_content", "reasoning"):
        if isinstance(delta.get(name), str) and delta[name]:
            return str(delta[name])
    details = delta.get("reasoning_details")
    if isinstance(details, list):
        return "".join(item["text"] for item in details if isinstance(item, dict) and isinstance(item.get("text"), str))
    return ""
