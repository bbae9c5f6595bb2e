"""What hypothesis may send us: any JSON, requests that are nearly right, conversations that are, any streams."""

import copy
import itertools
import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

Body = dict[str, Any]

# Half an emoji is fine in JSON and comes from JavaScript clients; hypothesis leaves it out unless asked.
TEXT = st.text(st.characters(), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.just(2**70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ANY_SIZE = st.integers(1, 40)


def cut(draw: Callable[[Any], Any], data: bytes) -> list[bytes]:
    """``data`` in pieces of drawn sizes, with moments of silence."""
    sizes = itertools.cycle(draw(st.lists(ANY_SIZE, min_size=1, max_size=8)))
    pieces = [b""]
    while data:
        size = next(sizes)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


# ---- nearly right

ANTHROPIC: Body = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 4000,
    "stream": True,
    "system": [{"type": "text", "text": "x-anthropic-billing-header: a"}, {"type": "text", "text": "Be brief."}],
    "stop_sequences": ["END"],
    "temperature": 0.5,
    "top_k": 3,
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    "metadata": {"user_id": "u"},
    "tools": [
        {"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}}},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
    ],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "messages": [
        {"role": "user", "content": "use a tool"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "Let me."},
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"title": "T", "url": "u"}]},
                {"type": "tool_use", "id": "t:1", "name": "f", "input": {"a": "b"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t:1",
                    "is_error": True,
                    "content": [
                        {"type": "text", "text": "x"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAA="}},
                    ],
                },
                {
                    "type": "document",
                    "title": "T",
                    "context": "C",
                    "citations": {"enabled": True},
                    "source": {"type": "content", "content": [{"type": "text", "text": "d"}]},
                },
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}},
                {"type": "image", "source": {"type": "url", "url": "https://x/i.png"}},
                {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "r"}]},
            ],
        },
        {"role": "system", "content": "Mid."},
    ],
}
OPENAI: Body = {
    "model": "claude-sonnet-4-5",
    "stream": True,
    "stream_options": {"include_usage": True},
    "max_completion_tokens": 100,
    "temperature": 1.5,
    "stop": ["END"],
    "user": "u",
    "reasoning_effort": "high",
    "response_format": {"type": "json_schema", "json_schema": {"name": "r", "schema": {"type": "object"}}},
    "parallel_tool_calls": False,
    "tools": [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}}}},
        {"type": "custom", "custom": {"name": "g", "format": {"type": "text"}}},
    ],
    "functions": [{"name": "h", "parameters": {}}],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
    },
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "use a tool"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAA="}},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAA=", "filename": "a.pdf"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
                {"id": "b", "type": "custom", "custom": {"name": "g", "input": "x"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "x"}]},
        {"role": "tool", "tool_call_id": "b", "content": "y"},
        {"role": "developer", "content": "Mid."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "function_call": None},
        {"role": "user", "content": "Go on."},
    ],
}


@st.composite
def mutated(draw: Callable[[Any], Any], base: Any) -> Any:
    """``base`` with a few of its values replaced by anything or left out, wherever they stand."""
    value = copy.deepcopy(base)
    for _ in range(draw(st.integers(1, 3))):
        _mutate(draw, value)
    return value


def _mutate(draw: Callable[[Any], Any], value: Any) -> None:
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = draw(st.sampled_from(keys))
        if isinstance(value[key], dict | list) and draw(st.integers(0, 3)):
            value = value[key]
            continue
        if draw(st.integers(0, 4)):
            value[key] = draw(JSON)
        else:
            del value[key]
        return


# ---- conversations that are right

SAID = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(lambda text: text.strip())
INPUT = st.dictionaries(
    SAID, st.none() | st.booleans() | st.integers(-9, 9) | SAID | st.lists(SAID, max_size=2), max_size=2
)


@st.composite
def conversations(draw: Callable[[Any], Any]) -> list[Body]:
    """Anthropic messages: users and assistants in turn; every tool call is answered, in any order."""
    ids = (f"toolu_{n}" for n in itertools.count())
    messages: list[Body] = [{"role": "user", "content": _texts(draw, 1)}]
    for _ in range(draw(st.integers(0, 3))):
        calls = [
            {"type": "tool_use", "id": next(ids), "name": draw(st.sampled_from(["f", "g"])), "input": draw(INPUT)}
            for _ in range(draw(st.integers(0, 3)))
        ]
        messages.append({"role": "assistant", "content": _texts(draw, 0 if calls else 1) + calls})
        results = [
            {"type": "tool_result", "tool_use_id": call["id"], "content": draw(SAID)}
            for call in draw(st.permutations(calls))
        ]
        messages.append({"role": "user", "content": results + _texts(draw, 0 if results else 1)})
    return messages


def _texts(draw: Callable[[Any], Any], least: int) -> list[Body]:
    return [{"type": "text", "text": text} for text in draw(st.lists(SAID, min_size=least, max_size=2))]


# ---- streams

DELTA = st.one_of(
    st.fixed_dictionaries({"content": TEXT | st.none()}),
    st.fixed_dictionaries({"reasoning_content": TEXT, "content": st.none() | TEXT}),
    st.fixed_dictionaries({"reasoning": TEXT}),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": st.just("")}),
    st.just({}),
)


@st.composite
def tool_deltas(draw: Callable[[Any], Any]) -> list[Body]:
    """The pieces of a few calls, each in its order; the calls may be mixed, and their pieces cut anywhere."""
    indexed = draw(st.booleans())
    calls = [_pieces(draw, n, indexed) for n in range(draw(st.integers(1, 3)))]
    if indexed and draw(st.booleans()):
        merged: list[Body] = []
        while any(calls):
            merged.append(draw(st.sampled_from([call for call in calls if call])).pop(0))
        return [{"tool_calls": [piece]} for piece in merged]
    return [{"tool_calls": [piece]} for call in calls for piece in call]


def _pieces(draw: Callable[[Any], Any], number: int, indexed: bool) -> list[Body]:
    arguments = json.dumps(draw(INPUT), ensure_ascii=False)
    head = {"index": number} if indexed else {}
    id = f"call_{number}"
    if not indexed or draw(st.booleans()):  # whole
        return [{**head, "id": id, "type": "function", "function": {"name": "f", "arguments": arguments}}]
    at = draw(st.integers(0, len(arguments)))
    return [
        {**head, "id": id, "type": "function", "function": {"name": "f", "arguments": ""}},
        {**head, "function": {"arguments": arguments[:at]}},
        {**head, "id": "", "function": {"name": "", "arguments": arguments[at:]}},
    ]


@st.composite
def chat_streams(draw: Callable[[Any], Any]) -> bytes:
    """A stream of chunks as some server might send it, right but for what servers differ in."""
    deltas = draw(st.lists(DELTA, max_size=6))
    if draw(st.booleans()):
        deltas += draw(tool_deltas())
    deltas += draw(st.lists(DELTA, max_size=2))
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    reason = draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))
    end: Body = {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    inside = draw(st.booleans())
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks += [{**end, "usage": usage}] if inside else [end, {"choices": [], "usage": usage}]
    frames = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
    comments = st.sampled_from([b"", b": wait\n\n"])
    stream = b"".join(draw(comments) + frame for frame in frames)
    stream += draw(st.sampled_from([b"", b"data: [DONE]\n\n"]))
    return stream.replace(b"\n", draw(st.sampled_from([b"\n", b"\r\n", b"\r"])))
