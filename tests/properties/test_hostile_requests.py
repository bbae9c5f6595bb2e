"""No body that is JSON may raise anything but an ApiError, on any way through the gateway."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opus_api.dialects import DIALECTS, anthropic
from opus_api.upstreams import UPSTREAMS, practice
from opus_api.wire.errors import ApiError
from tests.golden.pipeline import Exchange
from tests.properties.given import ANTHROPIC, JSON, OPENAI, mutated

WAYS = [(dialect, provider) for dialect in DIALECTS for provider in UPSTREAMS]
EXTREMES: dict[str, Any] = {"vision": False, "files": False, "prefill": False, "single_system": True, "top_k": True}
EXTREMES |= {"reasoning": True, "replay_reasoning": True, "string_content": True, "tool_id_length": 5, "max_tokens": 50}


def send(dialect: str, provider: str, body: dict[str, Any], model: str = "claude-opus-4-8") -> None:
    """All the way to the upstream's request, in both tempers of its options. Raises ApiError at most."""
    known = {option.name for option in UPSTREAMS[provider].options}
    for options in ({}, {name: value for name, value in EXTREMES.items() if name in known}):
        exchange = Exchange(dialect=dialect, provider=provider, model=model, options=options)
        request = exchange.request(exchange.parse(body))
        json.loads(request.body or b"")
        if provider == "practice":
            assert list(practice.reply(request).script)


@pytest.mark.parametrize("dialect, provider", WAYS)
@given(body=st.dictionaries(st.sampled_from(["model", "messages", "max_tokens", "tools", "system"]) | st.text(), JSON))
def test_any_object_is_answered(dialect: str, provider: str, body: dict[str, Any]) -> None:
    with contextlib.suppress(ApiError):
        send(dialect, provider, body)


@pytest.mark.parametrize("provider", UPSTREAMS)
@given(body=mutated(ANTHROPIC))
@example(body=ANTHROPIC)
def test_a_body_that_is_nearly_right_is_answered(provider: str, body: dict[str, Any]) -> None:
    with contextlib.suppress(ApiError):
        send("anthropic", provider, body)


@pytest.mark.parametrize("provider", UPSTREAMS)
@given(body=mutated(OPENAI), model=st.sampled_from(["claude-haiku-4-5", "claude-fable-5-1", "claude-3-opus", "x"]))
@example(body=OPENAI, model="x")
def test_an_openai_body_that_is_nearly_right_is_answered(provider: str, body: dict[str, Any], model: str) -> None:
    with contextlib.suppress(ApiError):
        send("openai", provider, body, model)


@given(body=mutated(ANTHROPIC), version=st.text() | st.just("2026-10-21"))
def test_counting_refuses_or_takes_any_body(body: dict[str, Any], version: str) -> None:
    with contextlib.suppress(ApiError):
        anthropic.parse_count(body, {"anthropic-version": version})


def test_the_bodies_that_are_mutated_are_right_to_begin_with() -> None:
    for dialect, body in (("anthropic", ANTHROPIC), ("openai", OPENAI)):
        without_schema = {name: value for name, value in body.items() if name not in ("stop_sequences",)}
        exchange = Exchange(dialect=dialect, provider="practice")
        assert exchange.request(exchange.parse(without_schema))


@pytest.mark.parametrize("dialect, provider", WAYS)
@pytest.mark.parametrize("depth", [100, 300, 900])
def test_depth_is_no_crash(dialect: str, provider: str, depth: int) -> None:
    deep: Any = {"type": "object"}
    for _ in range(depth):
        deep = {"type": "object", "properties": {"a": deep}}
    tool = {"name": "f", "input_schema": deep, "parameters": deep}
    schema = {"type": "json_schema", "json_schema": {"schema": deep}}
    user = {"role": "user", "content": "use a tool"}
    use = {"type": "tool_use", "id": "t", "name": "f", "input": deep}
    result = {"type": "tool_result", "tool_use_id": "t"}
    history = [user, {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    function = {"name": "f", "arguments": '{"a":' * depth + "{}" + "}" * depth}
    called = [
        user,
        {"role": "assistant", "tool_calls": [{"id": "t", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "t", "content": ""},
    ]
    for change in (
        {"tools": [tool]},
        {"tools": [{"type": "function", "function": tool}]},
        {"response_format": schema},
        {"messages": history},
        {"messages": called},
    ):
        body = {"model": "m", "max_tokens": 9, "messages": [user], **change}
        with contextlib.suppress(ApiError):
            send(dialect, provider, body)
