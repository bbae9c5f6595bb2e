import json
import re
from typing import Any

import pytest

from opus_api.upstreams import practice
from opus_api.upstreams.practice import NEVER, PAUSE, SLOW_PAUSE, Reply
from opus_api.wire.messages import fold
from tests import grammar
from tests.golden.pipeline import Exchange, answer

EXCHANGE = Exchange(provider="practice")
WEATHER = {
    "name": "get_weather",
    "input_schema": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "unit": {"enum": ["celsius", "kelvin"]},
            "optional": {"type": "string"},
        },
        "required": ["city", "days", "unit", "missing"],
    },
}
TIME = {"name": "get_time", "input_schema": {"type": "object", "properties": {"zone": {"type": "string"}}}}


def body(prompt: Any = "Hello", **given: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "max_tokens": 2000,
        "stream": True,
        "messages": [{"role": "user", "content": prompt}],
        **given,
    }


def reply(prompt: Any = "Hello", **given: Any) -> Reply:
    return practice.reply(EXCHANGE.request(EXCHANGE.parse(body(prompt, **given))))


def said(prompt: Any = "Hello", **given: Any) -> dict[str, Any]:
    """The message of a whole answer, whose stream obeys the grammar."""
    steps = [step for step in reply(prompt, **given).script if isinstance(step, bytes)]
    got = answer(EXCHANGE, EXCHANGE.parse(body(prompt, **given)), steps)
    return fold(grammar.check(got.body))


def kinds(message: dict[str, Any]) -> list[str]:
    return [block["type"] for block in message["content"]]


def test_it_says_that_it_is_practice_and_repeats_the_prompt() -> None:
    message = said("Good morning")
    assert kinds(message) == ["text"]
    assert "This is practice: no model was asked. You wrote: Good morning" in message["content"][0]["text"]
    assert message["stop_reason"] == "end_turn"
    assert message["usage"]["input_tokens"] == EXCHANGE.estimate
    assert message["usage"]["output_tokens"] > 10


def test_it_streams_word_by_word() -> None:
    steps = list(reply().script)
    assert steps.count(PAUSE) > 10
    assert sum(isinstance(step, bytes) for step in steps) > 10


@pytest.mark.parametrize(
    "thinking, thinks",
    [({"type": "adaptive"}, True), ({"type": "enabled", "budget_tokens": 1024}, True), ({"type": "disabled"}, False)],
)
def test_it_thinks_when_thinking_is_on(thinking: dict[str, Any], thinks: bool) -> None:
    assert ("thinking" in kinds(said(thinking=thinking))) is thinks


TOOLS: dict[str, tuple[str, dict[str, Any], str]] = {
    "named in the prompt": ("Please get_time now", {}, "get_time"),
    "asked for": ('Use a tool for "Paris"', {}, "get_weather"),
    "asked for in Chinese": ("请调用工具", {}, "get_weather"),
    "any": ("Hello", {"tool_choice": {"type": "any"}}, "get_weather"),
    "forced": ("Hello", {"tool_choice": {"type": "tool", "name": "get_time"}}, "get_time"),
    "not asked for": ("Hello", {}, ""),
    "forbidden": ("Use a tool", {"tool_choice": {"type": "none"}}, ""),
    "forced, but not there": ("Hello", {"tool_choice": {"type": "tool", "name": "other"}}, ""),
}


@pytest.mark.parametrize("prompt, given, name", TOOLS.values(), ids=TOOLS)
def test_it_calls_a_tool_when_the_prompt_asks_for_it(prompt: str, given: dict[str, Any], name: str) -> None:
    message = said(prompt, tools=[WEATHER, TIME], **given)
    assert [block["name"] for block in message["content"] if block["type"] == "tool_use"] == ([name] if name else [])
    assert message["stop_reason"] == ("tool_use" if name else "end_turn")


def test_its_input_fits_the_schema_and_quotes_the_prompt() -> None:
    call = said('Use get_weather for "Paris"', tools=[WEATHER])["content"][-1]
    assert call["input"] == {"city": "Paris", "days": 1, "unit": "celsius"}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"properties": {"a": 7, "b": {"enum": []}, "c": {"enum": "x"}, "d": {"type": ["string"]}}},
        {"properties": {"a": {}}, "required": 7},
        {"properties": {"a": {}}, "required": [7, ["a"], "a"]},
        {"properties": {"a": {"type": "object", "properties": 7}, "b": {"type": "array"}, "c": {"type": "boolean"}}},
    ],
)
def test_a_schema_that_makes_no_sense_is_no_crash(schema: dict[str, Any]) -> None:
    assert said("use a tool", tools=[{"name": "f", "input_schema": schema}])["stop_reason"] == "tool_use"


def test_a_schema_without_bottom_ends_somewhere() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(60):
        schema = {"type": "object", "properties": {"a": schema}}
    assert said("use a tool", tools=[{"name": "f", "input_schema": schema}])["stop_reason"] == "tool_use"


def test_it_answers_with_what_the_tool_said() -> None:
    messages = [
        {"role": "user", "content": "Use a tool"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "get_time", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "It is noon."}]},
    ]
    message = said(messages=messages, tools=[TIME])
    assert kinds(message) == ["text"]
    assert "The tool answered: It is noon." in message["content"][0]["text"]


# ---- the named faults


@pytest.mark.parametrize(
    "mark, kind, headers",
    [("429", "rate_limit_error", {"retry-after": "1"}), ("529", "overloaded_error", {})],
)
def test_a_status_can_be_asked_for(mark: str, kind: str, headers: dict[str, str]) -> None:
    fault = reply(f"[[practice:{mark}]] please")
    assert fault.status == int(mark)
    assert fault.headers == {"content-type": "application/json", **headers}
    (data,) = fault.script
    assert json.loads(data)["error"]["type"] == kind  # type: ignore[arg-type]


@pytest.mark.parametrize("thinking", [None, {"type": "adaptive"}])
@pytest.mark.parametrize("mark", ["cut", "stall", "garbage"])
def test_a_fault_comes_after_some_text(mark: str, thinking: Any) -> None:
    given = {"thinking": thinking}
    steps = list(reply(f"[[practice:{mark}]]", **given).script)
    assert (NEVER in steps) is (mark == "stall")
    got = answer(EXCHANGE, EXCHANGE.parse(body(**given)), [step for step in steps if isinstance(step, bytes)])
    events = grammar.check(got.body)
    assert "".join(e["delta"].get("text", "") for e in events if "delta" in e).startswith("This is practice:")
    assert events[-1]["error"]["message"] == {"garbage": "upstream sent invalid JSON"}.get(
        mark, "upstream stream ended early"
    )


def test_slow_is_one_word_a_second() -> None:
    pauses = {step for step in reply("[[practice:slow]]").script if isinstance(step, float)}
    assert pauses == {SLOW_PAUSE} == {1.0}


def test_an_unknown_mark_is_only_text() -> None:
    assert said("[[practice:unheard]] of")["stop_reason"] == "end_turn"


def test_a_mark_in_an_earlier_turn_is_over() -> None:
    turns = [
        {"role": "user", "content": "[[practice:529]]"},
        {"role": "assistant", "content": "Sorry."},
        {"role": "user", "content": "Again"},
    ]
    assert reply(messages=turns).status == 200


def test_claude_code_s_reminders_are_not_the_user_s_words() -> None:
    prompt = "<system-reminder>use a tool [[practice:529]]</system-reminder>Hello<system-reminder>and"
    message = said(prompt, tools=[WEATHER])
    assert kinds(message) == ["text"]
    assert "You wrote: Hello\n" in message["content"][0]["text"]


def test_every_fault_is_documented_with_its_mark() -> None:
    assert set(practice.FAULTS) == {"429", "529", "cut", "stall", "garbage", "slow"}
    assert all(re.fullmatch(r"\w+", mark) for mark in practice.FAULTS)


def test_openai_clients_practise_too() -> None:
    exchange = Exchange(provider="practice", dialect="openai")
    given = {
        "model": "m",
        "stream": True,
        "reasoning_effort": "high",
        "messages": [{"role": "user", "content": "use a tool"}],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    call = exchange.parse(given)
    steps = [step for step in practice.reply(exchange.request(call)).script if isinstance(step, bytes)]
    chunks = grammar.chunks(answer(exchange, exchange.parse(given), steps).body)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if isinstance(chunk, dict) and chunk["choices"]]
    said = {name for delta in deltas for name in delta}
    assert said == {"role", "content", "reasoning_content", "tool_calls"}


def test_the_check_of_practice_always_succeeds() -> None:
    flow = practice.UPSTREAM.probe(EXCHANGE.credentials)
    with pytest.raises(StopIteration) as end:
        next(flow)
    assert end.value.value.ok
