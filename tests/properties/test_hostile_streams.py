"""No bytes of an upstream may raise anything but the decoder's own error or a Failure, however they are cut."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_api.dialects import DIALECTS
from opus_api.upstreams import UPSTREAMS
from opus_api.wire import sse
from opus_api.wire.events import EventError, checked, checked_message
from opus_api.wire.http import Dechunker, FramingError
from opus_api.wire.messages import FoldError, fold, unfold
from tests import grammar
from tests.golden.pipeline import Exchange, answer
from tests.properties.given import JSON, cut, mutated

WAYS = [(dialect, provider) for dialect in DIALECTS for provider in UPSTREAMS]
# Bytes that have a chance to mean something.
MARKS = [
    b"data: ",
    b"event: error\n",
    b"data: [DONE]",
    b"\n\n",
    b"\r",
    b"\n",
    b"\r\n\r\n",
    b":",
    b"\xef\xbb\xbf",
    b"{}",
    b"{",
]
MARKS += [b'{"choices":[', b'{"type":"message_start"}', b'{"error":', b'"x"', b"]}", b"5\r\nhello\r\n0\r\n\r\n"]
BYTES = st.lists(st.sampled_from(MARKS) | st.binary(max_size=6), max_size=20).map(b"".join)

CHUNKS: list[Any] = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "a"}}], "usage": None},
    {"choices": [{"index": 0, "delta": {"reasoning_content": "r", "content": [{"type": "text", "text": "b"}]}}]},
    {
        "choices": [
            {
                "index": 0,
                "delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]},
            }
        ]
    },
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "x"}]},
    {
        "choices": [],
        "usage": {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 1}},
    },
]
USAGE = {"input_tokens": 9, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}
MESSAGE: Any = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [
        {"type": "thinking", "thinking": "t", "signature": "s"},
        {"type": "text", "text": "a"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": USAGE,
}
EVENTS: list[Any] = unfold(MESSAGE)
COMPLETION: Any = {
    "id": "c",
    "choices": [
        {
            "index": 0,
            "message": {
                "content": "a",
                "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 5},
}


def asked(dialect: str, provider: str, stream: bool, data: bytes, pieces: list[bytes]) -> None:
    """Run an exchange; what the client gets must be of its format, whatever came."""
    exchange = Exchange(dialect=dialect, provider=provider)
    body = {"model": "m", "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": "x"}]}
    got = answer(exchange, exchange.parse(body), pieces)
    if got.status != 200 or not stream:
        assert isinstance(json.loads(got.body), dict)
    elif not exchange.verbatim and dialect == "openai":
        grammar.chunks(got.body)
    elif not exchange.verbatim and provider != "practice":  # practice passes on what our own writer wrote
        grammar.check(got.body)


@pytest.mark.parametrize("dialect, provider", WAYS)
@given(data=st.data(), stream=st.booleans())
def test_any_bytes_are_answered(dialect: str, provider: str, stream: bool, data: st.DataObject) -> None:
    raw = data.draw(BYTES)
    asked(dialect, provider, stream, raw, cut(data.draw, raw))


def frames(dialect: str, parts: list[Any]) -> bytes:
    if dialect == "openai":
        return b"".join(b"data: " + json.dumps(part).encode() + b"\n\n" for part in parts) + b"data: [DONE]\n\n"
    named = (part.get("type") if isinstance(part, dict) else None for part in parts)
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (str(name).encode("utf-8", "replace"), json.dumps(part).encode())
        for name, part in zip(named, parts, strict=True)
    )


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("provider, parts", [("openai", CHUNKS), ("anthropic", EVENTS)])
@given(data=st.data(), stream=st.booleans())
def test_a_stream_that_is_nearly_right_is_answered(
    dialect: str, provider: str, parts: list[Any], stream: bool, data: st.DataObject
) -> None:
    raw = frames(provider, data.draw(mutated(parts)))
    asked(dialect, provider, stream, raw, cut(data.draw, raw))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("provider, whole", [("openai", COMPLETION), ("anthropic", MESSAGE)])
@given(data=st.data(), stream=st.booleans())
def test_an_answer_that_is_nearly_right_is_answered(
    dialect: str, provider: str, whole: Any, stream: bool, data: st.DataObject
) -> None:
    raw = json.dumps(data.draw(mutated(whole))).encode()
    asked(dialect, provider, stream, raw, cut(data.draw, raw))


def deep_answers(depth: int) -> list[tuple[str, bytes]]:
    """(provider, answer) of a model that nests what it writes."""
    value: Any = {}
    for _ in range(depth):
        value = {"a": value}
    text = '{"a":' * depth + "{}" + "}" * depth
    block = {"type": "tool_use", "id": "t", "name": "f", "input": value}
    start, *_, end, stop = unfold({**MESSAGE, "content": []})
    block_start = {"type": "content_block_start", "index": 0, "content_block": block}
    delta = {"type": "input_json_delta", "partial_json": text}
    begun = [start, {**block_start, "content_block": {**block, "input": {}}}]
    said = [{"type": "content_block_delta", "index": 0, "delta": delta}, {"type": "content_block_stop", "index": 0}]
    calls = [[{"index": 0, "id": "t", "function": {"name": "f", "arguments": given}}] for given in (value, text)]
    return [
        *(("openai", frames("openai", [{"choices": [{"delta": {"tool_calls": c}}]}, CHUNKS[3]])) for c in calls),
        *(("openai", dumps({"choices": [{"message": {"tool_calls": c}, "finish_reason": "stop"}]})) for c in calls),
        ("anthropic", frames("anthropic", [start, block_start, said[1], end, stop])),
        ("anthropic", frames("anthropic", [*begun, *said, end, stop])),
        ("anthropic", dumps({**MESSAGE, "content": [block]})),
    ]


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("depth", [200, 238, 245, 253, 300, 900])
def test_an_answer_of_any_depth_is_answered(dialect: str, stream: bool, depth: int) -> None:
    for provider, raw in deep_answers(depth):
        asked(dialect, provider, stream, raw, [raw])


# ---- the decoders alone


@given(data=st.data())
def test_events_do_not_depend_on_cuts(data: st.DataObject) -> None:
    raw = data.draw(BYTES)
    whole = [event for batch in sse.decode([raw]) for event in batch]
    assert [event for batch in sse.decode(cut(data.draw, raw)) for event in batch] == whole


@given(data=st.data())
def test_what_is_relayed_does_not_depend_on_cuts(data: st.DataObject) -> None:
    stream = b"".join(b"data: %d\n\n" % n for n in range(data.draw(st.integers(0, 5))))
    raw = stream.replace(b"\n", data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"])))
    relay = sse.WholeEvents()
    pieces = [relay.feed(piece) for piece in cut(data.draw, raw)]
    assert b"".join(pieces) + relay.close() == raw
    assert all(piece.startswith((b"data: ", b"\n")) for piece in pieces if piece)


@given(data=st.data())
def test_broken_framing_raises_only_its_own_error(data: st.DataObject) -> None:
    dechunker = Dechunker()
    with contextlib.suppress(FramingError):
        for piece in cut(data.draw, data.draw(BYTES)):
            dechunker.feed(piece)


@given(data=st.data(), payload=st.lists(st.binary(min_size=1, max_size=30), max_size=5))
def test_right_framing_gives_the_payload_back(data: st.DataObject, payload: list[bytes]) -> None:
    raw = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in payload) + b"0\r\n\r\n"
    dechunker = Dechunker()
    assert b"".join(map(dechunker.feed, cut(data.draw, raw))) == b"".join(payload)
    assert dechunker.done


@given(value=JSON)
def test_checks_take_any_json(value: Any) -> None:
    for check in (checked, checked_message):
        with contextlib.suppress(EventError):
            check(value)


@given(events=mutated(EVENTS))
def test_folding_raises_only_its_own_error(events: list[Any]) -> None:
    with contextlib.suppress(FoldError):
        fold(events)
