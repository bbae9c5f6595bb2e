"""The official SDKs read our streams, and make of them what we make of them ourselves."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_api.dialects import DIALECTS
from opus_api.dialects import openai as openai_dialect
from opus_api.upstreams import UPSTREAMS
from opus_api.wire.messages import fold
from tests import grammar, sdks
from tests.golden.pipeline import Exchange, answer
from tests.golden.test_golden import CASES, Case
from tests.properties.accumulators import anthropic_message, openai_completion
from tests.properties.given import chat_streams, cut

GOLDEN = Path(grammar.__file__).parent / "golden"
BODY: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
BODY["thinking"] = {"type": "adaptive"}


def streams(dialect: str) -> list[str]:
    return [
        name for name in CASES if Case(name).exchange.dialect == dialect and (GOLDEN / name / "client-out.sse").exists()
    ]


def served(name: str) -> bytes:
    return (GOLDEN / name / "client-out.sse").read_bytes()


def told(message: dict[str, Any]) -> dict[str, Any]:
    """What both accumulators keep of a message."""
    kept = {name: message.get(name) for name in ("id", "role", "model", "stop_reason", "stop_sequence")}
    known = ("type", "text", "thinking", "signature", "data", "id", "name", "input")
    blocks = [{name: block[name] for name in known if name in block} for block in message["content"]]
    usage = {name: message["usage"].get(name) for name in ("input_tokens", "output_tokens", "cache_read_input_tokens")}
    return {**kept, "content": blocks, "usage": usage}


@pytest.mark.parametrize("name", streams("anthropic"))
def test_the_anthropic_sdk_reads_every_golden_stream_as_we_fold_it(name: str) -> None:
    events = grammar.check(served(name))
    if events[-1]["type"] == "error":
        with pytest.raises(sdks.anthropic.APIStatusError):
            anthropic_message(served(name))
        return
    assert told(anthropic_message(served(name))) == told(fold(events))


@pytest.mark.parametrize("name", streams("openai"))
def test_the_openai_sdk_reads_every_golden_stream_as_we_fold_it(name: str) -> None:
    chunks = [chunk for chunk in grammar.chunks(served(name)) if isinstance(chunk, dict)]
    if "error" in chunks[-1]:
        with pytest.raises(sdks.openai.APIError):
            openai_completion(served(name))
        return
    case = Case(name)
    call = case.exchange.parse(case.body)
    batches = UPSTREAMS[case.exchange.provider].events(call, iter([case.answered]), case.exchange.credentials)
    whole = json.loads(openai_dialect.render(call, fold(itertools.chain.from_iterable(batches))))
    told = openai_completion(served(name))
    assert completed(told) == completed(whole)
    if any(chunk.get("usage") for chunk in chunks):
        counters = ("prompt_tokens", "completion_tokens", "total_tokens")
        assert [told["usage"][name] for name in counters] == [whole["usage"][name] for name in counters]


def completed(completion: dict[str, Any]) -> dict[str, Any]:
    """What both accumulators keep of a completion."""
    choice = completion["choices"][0]
    message = choice["message"]
    kept = {name: message.get(name) or None for name in ("content", "reasoning_content", "annotations")}
    return {**kept, "finish_reason": choice["finish_reason"], "calls": _calls(choice)}


@given(data=st.data())
def test_any_upstream_stream_obeys_the_grammar_and_the_anthropic_sdk_agrees(data: st.DataObject) -> None:
    exchange = Exchange()
    got = answer(exchange, exchange.parse({**BODY, "stream": True}), cut(data.draw, data.draw(chat_streams())))
    assert got.status == 200
    events = grammar.check(got.body)
    assert events[-1]["type"] == "message_stop"
    message = fold(events)
    assert told(anthropic_message(got.body)) == told(message)


@given(data=st.data())
def test_a_client_without_streaming_gets_the_same_message(data: st.DataObject) -> None:
    stream = data.draw(chat_streams())
    exchange = Exchange()
    whole = told(json.loads(answer(exchange, exchange.parse(BODY), cut(data.draw, stream)).body))
    spelled = told(fold(grammar.events(answer(exchange, exchange.parse({**BODY, "stream": True}), [stream]).body)))
    assert {**whole, "id": ""} == {**spelled, "id": ""}


@given(data=st.data())
def test_the_openai_sdk_makes_of_our_stream_what_we_render_whole(data: st.DataObject) -> None:
    there = Exchange()
    stream = answer(there, there.parse({**BODY, "stream": True}), [data.draw(chat_streams())]).body
    back = Exchange(dialect="openai", provider="anthropic")
    body = {"model": "m", "messages": BODY["messages"], "stream_options": {"include_usage": True}}
    streamed = answer(back, back.parse({**body, "stream": True}), cut(data.draw, stream)).body
    chunks = grammar.chunks(streamed)
    assert chunks[-1] == "[DONE]"
    whole = json.loads(answer(back, back.parse(body), [stream]).body)
    completion = openai_completion(streamed)
    assert completion["usage"] == whole["usage"]
    ours, theirs = whole["choices"][0], completion["choices"][0]
    assert theirs["finish_reason"] == ours["finish_reason"]
    assert (theirs["message"].get("content") or None) == ours["message"]["content"]
    assert _calls(theirs) == _calls(ours)


def _calls(choice: dict[str, Any]) -> list[Any]:
    calls = choice["message"].get("tool_calls") or []
    return [(call["id"], call["type"], _called(call)) for call in calls]


def _called(call: dict[str, Any]) -> tuple[str, Any]:
    if call["type"] == "custom":
        return call["custom"]["name"], call["custom"]["input"]
    return call["function"]["name"], json.loads(call["function"]["arguments"])


def test_both_dialects_are_covered() -> None:
    assert all(streams(dialect) for dialect in DIALECTS)
