"""The built-in practice provider: an offline upstream to try everything with. Pure: a script of bytes and pauses.

It streams text, thinks when thinking is on, calls a tool when tools are given and the prompt asks for it, and fails in
named ways when the last prompt carries one of the marks in FAULTS. It speaks Anthropic's event stream.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from opus_api.upstreams.anthropic import Anthropic
from opus_api.upstreams.base import Credentials, Field, Option, Probe
from opus_api.upstreams.bodies import encoded
from opus_api.upstreams.chat_request import refuse_thread
from opus_api.wire import jsons, sse
from opus_api.wire.http import Flow, HttpRequest
from opus_api.wire.messages import Event, MessageWriter, Usage
from opus_api.wire.request import Body, Call
from opus_api.wire.turns import blocks_of

SCHEME = "practice:"
PAUSE = 0.02  # seconds between two words
SLOW_PAUSE = 1.0
NEVER = 86_400.0
DEEPEST_SAMPLE = 20  # levels of objects in a made-up tool input

Step = bytes | float  # what comes, or seconds of silence

# mark in the prompt -> what happens
FAULTS: Mapping[str, str] = {
    "429": "HTTP 429 rate_limit_error with retry-after: 1",
    "529": "HTTP 529 overloaded_error",
    "cut": "the connection is cut after some text",
    "stall": "silence after some text, until UPSTREAM_IDLE_TIMEOUT",
    "garbage": "an event that is not JSON, after some text",
    "slow": "one word a second",
}
MARK = re.compile(r"\[\[practice:(\w+)\]\]")
STATUS_FAULTS = {"429": ("rate_limit_error", {"retry-after": "1"}), "529": ("overloaded_error", {})}
ASKS_FOR_TOOL = re.compile(r"\b(tools?|use|call|run|invoke|look up|search|weather)\b|工具|调用|使用|查", re.I)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    script: Iterator[Step]


@dataclass(eq=False)
class Practice(Anthropic):
    name: str = "practice"
    label: str = "Practice (built in)"
    native: str = ""  # never verbatim: what comes is always read
    default_base_url: str = SCHEME + "//"
    fields: tuple[Field, ...] = ()
    options: tuple[Option, ...] = ()
    terms: str = "Built in: no model is asked."
    model_names: Mapping[str, str] = field(default_factory=dict)

    def request(self, call: Call, model: str, credentials: Credentials, verbatim: bool) -> HttpRequest:
        refuse_thread(call.canonical())
        body = {**call.canonical(), "model": call.model, "input_estimate": call.input_estimate}
        return HttpRequest("POST", f"{SCHEME}//messages", {}, encoded(body))

    def probe(self, credentials: Credentials) -> Flow[Probe]:
        yield from ()
        return Probe(True, "Practice is always there.", ["practice"])


def reply(request: HttpRequest) -> Reply:
    """What the practice provider answers to its request."""
    body = jsons.loads(request.body or b"{}")
    mark = MARK.search(_prompt(body))
    fault = mark[1] if mark and mark[1] in FAULTS else ""
    if fault in STATUS_FAULTS:
        kind, headers = STATUS_FAULTS[fault]
        error = {"type": "error", "error": {"type": kind, "message": f"practice: {FAULTS[fault]}"}}
        return Reply(int(fault), {"content-type": "application/json", **headers}, iter([jsons.dumps(error)]))
    return Reply(200, {"content-type": "text/event-stream"}, _script(body, fault))


def _script(body: Body, fault: str) -> Iterator[Step]:
    writer = MessageWriter(body["model"], body["input_estimate"], _thinks(body))
    tokens = words = 0
    for step in _plan(body, writer):
        tokens += step
        words += writer.open == "text"
        yield from map(_bytes, writer.take())
        yield SLOW_PAUSE if fault == "slow" else PAUSE
        if fault in _AFTER_SOME_TEXT and words >= 5:
            yield from _AFTER_SOME_TEXT[fault]
            return
    writer.finish("end_turn", Usage(input_tokens=body["input_estimate"], output_tokens=max(tokens, 1)))
    yield b"".join(map(_bytes, writer.take()))


_AFTER_SOME_TEXT: Mapping[str, tuple[Step, ...]] = {
    "cut": (),
    "stall": (NEVER,),
    "garbage": (b"event: content_block_delta\ndata: {not json\n\n",),
}


def _bytes(event: Event) -> bytes:
    return sse.encode(event["type"], jsons.dumps(event))


def _plan(body: Body, writer: MessageWriter) -> Iterator[int]:
    """Writes the answer word by word; yields how many tokens each step stands for."""
    if _thinks(body):
        for word in _words("This is practice, so there is little to think about."):
            writer.thinking(word)
            yield 1
    tool = _wanted_tool(body)
    for word in _words(_text(body, tool)):
        writer.text(word)
        yield 1
    if tool:
        writer.tool("", tool["name"])
        quoted = re.findall(r'"([^"]+)"', _prompt(body))
        writer.tool_json(jsons.compact(_sample(tool["input_schema"], quoted)))
        yield 10


def _words(text: str) -> list[str]:
    return re.findall(r"\S+\s*", text)


def _text(body: Body, tool: Body | None) -> str:
    results = _results(body)
    if results:
        return f"This is practice: no model was asked. The tool answered: {results[-1][:500]}"
    if tool:
        return f"This is practice: no model was asked. Calling the tool {tool['name']}."
    prompt = MARK.sub("", _prompt(body)).strip()
    return (
        f"This is practice: no model was asked. You wrote: {prompt[:500] or '(nothing)'}\n"
        "Add an account on the page /cookies and real models answer here."
    )


def _thinks(body: Body) -> bool:
    return (body.get("thinking") or {}).get("type") in ("enabled", "adaptive")


def _last_blocks(body: Body) -> list[Body]:
    """Of the last user message."""
    last: Body = next((m for m in reversed(body["messages"]) if m["role"] == "user"), {})
    return blocks_of(last.get("content"))


def _prompt(body: Body) -> str:
    text = "\n".join(block["text"] for block in _last_blocks(body) if block["type"] == "text")
    # Without the reminders that Claude Code adds to the user's words. A regular expression would not be linear here.
    words, *reminders = text.split("<system-reminder>")
    return (words + "".join(part.partition("</system-reminder>")[2] for part in reminders)).strip()


def _results(body: Body) -> list[str]:
    """The texts of the tool results that the last user message brings."""
    results = [blocks_of(block.get("content")) for block in _last_blocks(body) if block["type"] == "tool_result"]
    return ["".join(item["text"] for item in items if item["type"] == "text") for items in results]


def _wanted_tool(body: Body) -> Body | None:
    """The tool that is asked for: named in the prompt, forced by tool_choice, or the first when it says "tool"."""
    tools = [tool for tool in body.get("tools") or [] if tool.get("type") in (None, "custom")]
    choice = body.get("tool_choice") or {"type": "auto"}
    if not tools or choice["type"] == "none" or (_results(body) and choice["type"] == "auto"):
        return None
    if choice["type"] == "tool":
        return next((tool for tool in tools if tool["name"] == choice["name"]), None)
    prompt = _prompt(body)
    words = {word.lower() for word in re.findall(r"[\w-]+", prompt)}
    named = next((tool for tool in tools if tool["name"].lower() in words), None)
    return named or (tools[0] if choice["type"] == "any" or ASKS_FOR_TOOL.search(prompt) else None)


def _sample(schema: Body, quoted: list[str], depth: int = 0) -> Any:
    """An input that fits the schema, as far as it is plain: quoted text of the prompt, else a value of the type."""
    properties = schema.get("properties")
    if not isinstance(properties, dict) or depth > DEEPEST_SAMPLE:
        return {}
    required = schema.get("required")
    names = [name for name in required if isinstance(name, str)] if isinstance(required, list) else list(properties)
    return {name: _value(properties[name], quoted, depth) for name in names if name in properties}


def _value(schema: Any, quoted: list[str], depth: int) -> Any:
    if not isinstance(schema, dict):
        return "practice"
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    match schema.get("type"):
        case "integer" | "number":
            return 1
        case "boolean":
            return True
        case "array":
            return []
        case "object":
            return _sample(schema, quoted, depth + 1)
        case _:
            return quoted.pop(0) if quoted else "practice"


UPSTREAM = Practice()
