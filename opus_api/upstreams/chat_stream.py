"""OpenAI chat chunks to Anthropic events. Pure.

Servers differ in where they put reasoning, usage, ids and indexes; nothing here may raise anything but Failure,
whatever a server sends.
"""

from collections.abc import Mapping
from typing import Any

from opus_api.upstreams.base import Credentials
from opus_api.upstreams.bodies import EARLY, arguments_of, text_of
from opus_api.upstreams.failures import broken, failure_in
from opus_api.upstreams.think_tags import ThinkTags
from opus_api.wire import jsons
from opus_api.wire.chat import STOP_REASON, read_usage
from opus_api.wire.messages import FoldError, MessageWriter, Usage, tool_input
from opus_api.wire.weights import Gauge

Chunk = Mapping[str, Any]


class _Tool:
    """One tool call as its pieces arrive."""

    __slots__ = ("args", "checked", "closed", "complete", "id", "name", "sent")

    def __init__(self) -> None:
        self.id = self.name = ""
        self.args: list[str] = []
        self.sent = 0  # how many pieces of args were written
        self.closed = False
        self.checked = 0  # how many pieces ``complete`` speaks of
        self.complete = False

    def is_complete(self) -> bool:
        """Its arguments are one JSON object. Asked only when a further call begins; each piece is looked at once."""
        if self.checked != len(self.args):
            self.checked = len(self.args)
            self.complete = self.args[-1].rstrip().endswith("}") and _is_object("".join(self.args))
        return self.complete


def _is_object(text: str) -> bool:
    try:
        return isinstance(jsons.loads(text), dict)
    except jsons.JsonError:
        return False


class ChatDecoder:
    """``chunk`` what arrived, ``finish`` at the end; the events gather in ``writer``.

    ``mends``: whether tool calls are put right here, because a client reads them as they come and not folded.
    """

    def __init__(
        self,
        writer: MessageWriter,
        tool_names: Mapping[str, str],
        stops: list[str],
        credentials: Credentials,
        mends: bool,
    ):
        self._writer = writer
        self._tool_names = tool_names
        self._stops = stops
        self._credentials = credentials
        self._mends = mends
        self._think = ThinkTags() if credentials.options.get("think_tags") else None
        self._tools: list[_Tool] = []  # in order of appearance
        self._by_key: dict[int | str, _Tool] = {}
        self._live: _Tool | None = None  # whose block is open
        self._finish_reason = ""
        self._refused = False
        self._beyond_repair = False  # the arguments of some tool call
        self._stop_sequence: str | None = None
        self._usage: Mapping[str, Any] | None = None
        self._gauge = Gauge()  # for where the upstream does not count

    def chunk(self, data: Any) -> None:
        """One chunk, or a whole completion. Raises Failure."""
        if not isinstance(data, dict):
            raise broken("upstream sent invalid JSON")
        if ("error" in data or "choices" not in data) and (failure := failure_in(data, self._credentials)):
            raise failure
        if self._writer.finished:
            return
        usage = data.get("usage")
        if usage and isinstance(usage, dict):  # some send it with every chunk: the last one counts
            self._usage = usage
        choices = data.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                if isinstance(choice, dict) and not choice.get("index"):  # the first; some leave the index out
                    self._choice(choice)

    def finish(self) -> None:
        """The end was reached. Raises Failure when no finish_reason had come, for the stream was cut, and when some
        tool call is none that a client could run."""
        if self._writer.finished:
            return
        if not self._finish_reason:
            raise broken(EARLY)
        if self._think:
            self._write(self._think.close())
        self._close_live()
        for tool in self._tools:
            if not tool.closed:
                self._open(tool)
                self._close_live()
        if self._beyond_repair and self._finish_reason != "length":
            raise broken("upstream returned invalid tool arguments")
        reason = "content_filter" if self._refused else self._finish_reason
        reason = "stop_sequence" if self._stop_sequence else STOP_REASON.get(reason, "end_turn")
        self._writer.finish(reason, self._counted(), self._stop_sequence)

    @property
    def said_all(self) -> bool:
        return bool(self._finish_reason)

    @property
    def saw_usage(self) -> bool:
        return self._usage is not None

    def _counted(self) -> Usage:
        if self._usage is not None:
            return read_usage(self._usage)
        return Usage(input_tokens=self._writer.input_tokens, output_tokens=self._gauge.tokens)

    def _choice(self, choice: Chunk) -> None:
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict):
            self._delta(delta)
        reason = choice.get("finish_reason")
        if not reason or not isinstance(reason, str):
            return
        if reason == "error":  # OpenRouter, when the server behind it fails
            raise failure_in(choice, self._credentials) or broken("upstream ended with an error")
        self._finish_reason = reason
        stop = choice.get("stop_reason")  # vLLM names the sequence that stopped it
        if reason == "stop" and isinstance(stop, str) and stop in self._stops:
            self._stop_sequence = stop

    def _delta(self, delta: Chunk) -> None:
        get = delta.get
        if get("reasoning_content") or get("reasoning") or get("reasoning_details"):
            self._thinking(_reasoning(delta))
        if content := get("content"):
            if isinstance(content, str):
                self._text(content)
            else:
                self._parts(content)
        if (refusal := get("refusal")) and isinstance(refusal, str):
            self._text(refusal)
            self._refused = True
        if calls := get("tool_calls"):
            self._tool_calls(calls)
        elif function := get("function_call"):  # the form before tool_calls
            self._tool_calls([{"index": 0, "function": function}])

    # ---- text and thinking

    def _text(self, text: str) -> None:
        self._gauge.add(text)
        if self._think and not self._think.done:
            self._write(self._think.feed(text))
            return
        if self._live:
            self._close_live()
        self._writer.text(text)

    def _thinking(self, text: str) -> None:
        if not text:
            return
        self._gauge.add(text)
        if self._writer.thinking_wanted:
            self._close_live()
            self._writer.thinking(text)

    def _write(self, pieces: list[tuple[bool, str]]) -> None:
        for is_thinking, text in pieces:
            if is_thinking:
                self._writer.thinking(text)
            else:
                self._close_live()
                self._writer.text(text)

    def _parts(self, content: Any) -> None:
        """Mistral's reasoning models send a list of parts."""
        for part in content if isinstance(content, list) else ():
            if not isinstance(part, dict):
                continue
            if part.get("type") == "thinking":
                self._thinking(_joined(part.get("thinking")))
            elif isinstance(part.get("text"), str) and part["text"]:
                self._text(part["text"])

    # ---- tool calls

    def _tool_calls(self, calls: Any) -> None:
        if self._think:
            self._write(self._think.close())
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict):
                self._tool_call(call)

    def _tool_call(self, call: Chunk) -> None:
        function = call.get("function")
        if not isinstance(function, dict):
            function = {}
        id, name = text_of(call.get("id")), text_of(function.get("name"))
        tool = self._tool(call.get("index"), id, name)
        tool.id = tool.id or id
        tool.name = tool.name or name
        arguments = arguments_of(function.get("arguments"))
        if not tool.args:
            arguments = arguments.lstrip()
        if tool.closed:
            if arguments.strip():
                raise broken("upstream sent arguments of a finished tool call")
            return
        if arguments:
            self._gauge.add(arguments)
            tool.args.append(arguments)
        if tool is self._live:
            self._send(tool)
        else:
            self._open_if_possible(tool)

    def _tool(self, index: Any, id: str, name: str) -> _Tool:
        """Which call a piece belongs to: by index, else by id, else the last. A new id under an index is a new call."""
        key: int | str = index if isinstance(index, int) else id
        if key == "" and self._tools:
            last = self._tools[-1]
            if not (name and last.name and last.is_complete()):
                return last
            key = len(self._tools)  # a whole further call with neither index nor id
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
        self._send(tool)

    def _send(self, tool: _Tool) -> None:
        if not tool.args or not tool.args[0].startswith("{"):
            return  # what is no object must be made one when it is whole
        self._writer.tool_json("".join(tool.args[tool.sent :]))
        tool.sent = len(tool.args)

    def _close_live(self) -> None:
        if self._live:
            self._writer.tool_json(self._rest(self._live))
            self._live.closed = True
            self._live = None
            self._writer.close_block()

    def _rest(self, tool: _Tool) -> str:
        """What the arguments of a call that has ended still lack."""
        if not tool.args:
            return ""
        if not self._mends:
            return "".join(tool.args[tool.sent :])
        try:
            if not tool.sent:
                return jsons.compact(tool_input("".join(tool.args)))
            # Out of tokens, Anthropic's models leave it open, too; clients look at the stop_reason.
            whole = self._finish_reason == "length" or tool.is_complete()
            return "" if whole else jsons.closing("".join(tool.args))
        except (FoldError, jsons.JsonError):
            self._beyond_repair = True
            return ""


def _reasoning(delta: Chunk) -> str:
    """From one of three places, by vendor: DeepSeek and Qwen; Groq and Cerebras; OpenRouter. Never the same twice."""
    for name in ("reasoning_content", "reasoning"):
        if isinstance(delta.get(name), str) and delta[name]:
            return str(delta[name])
    return _joined(delta.get("reasoning_details"))


def _joined(items: Any) -> str:
    """The texts of a list of parts."""
    if isinstance(items, str):
        return items
    if not isinstance(items, list):
        return ""
    return "".join(item["text"] for item in items if isinstance(item, dict) and isinstance(item.get("text"), str))
