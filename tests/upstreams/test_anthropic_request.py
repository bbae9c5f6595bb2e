from typing import Any

import pytest

from opus_api.upstreams import anthropic_request
from opus_api.wire.messages import UNSIGNED
from opus_api.wire.request import Call
from tests.golden.pipeline import Exchange

Body = dict[str, Any]
HELLO = {"role": "user", "content": "Hello"}
TOOLS = [{"name": "f", "input_schema": {"type": "object", "properties": {}}}]
O_TOOLS = [{"type": "function", "function": {"name": "f"}}]

GENERATIONS = {
    "claude-3-opus-20240229": (3, 0),
    "claude-3-5-sonnet-20241022": (3, 5),
    "claude-3.7-sonnet": (3, 7),
    "claude-opus-4-20250514": (4, 0),
    "claude-opus-4-1-20250805": (4, 1),
    "claude-sonnet-4-5": (4, 5),
    "claude-haiku-4-5-20251001": (4, 5),
    "claude-opus-4.6": (4, 6),
    "claude-opus-4-8": (4, 8),
    "claude-sonnet-5": (5, 0),
    "claude-fable-5-1": (5, 1),
    "us.anthropic.claude-mythos-5-1-v1:0": (5, 1),
    "deepseek-chat": None,
    "claude-instant": None,
}


@pytest.mark.parametrize("model, generation", GENERATIONS.items())
def test_a_name_tells_its_generation(model: str, generation: Any) -> None:
    assert anthropic_request.generation(model) == generation


# ---- histories


def fitted(model: str = "claude-sonnet-4-5", **given: Any) -> tuple[Call, Body]:
    call = Exchange().parse({"model": "m", "max_tokens": 100, "messages": [HELLO], **given})
    return call, anthropic_request.fit(call, {**call.body, "model": model})


def assistant(*blocks: Any) -> Body:
    return {"role": "assistant", "content": list(blocks)}


def thinking(signature: Any) -> Body:
    return {"type": "thinking", "thinking": "t", "signature": signature}


TEXT = {"type": "text", "text": "a"}


@pytest.mark.parametrize("signature", [None, "", UNSIGNED])
def test_thinking_that_nobody_signed_is_left_out(signature: Any) -> None:
    messages = [HELLO, assistant(thinking(signature), TEXT), HELLO, assistant(thinking(signature)), HELLO]
    assert fitted(messages=messages)[1]["messages"] == [HELLO, assistant(TEXT), HELLO, HELLO]


@pytest.mark.parametrize("blank", ["", "\n\n", " "])
def test_blank_text_that_another_model_wrote_is_left_out(blank: str) -> None:
    call = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": blank}]}
    blanks = [assistant({"type": "text", "text": blank}), {"role": "assistant", "content": blank}]
    messages = [HELLO, *blanks, assistant({"type": "text", "text": blank}, call), result]
    assert fitted(messages=messages)[1]["messages"] == [HELLO, assistant(call), result]


def test_signed_and_hidden_thinking_stays_byte_for_byte() -> None:
    messages = [HELLO, assistant(thinking("c2ln"), {"type": "redacted_thinking", "data": "x"}, TEXT), HELLO]
    assert fitted(messages=messages)[1]["messages"] == messages


@pytest.mark.parametrize("id", ["functions.get:0", "call_1__thought__ab=", "x y", ""])
def test_tool_ids_outside_anthropic_s_alphabet_are_replaced_in_call_and_result(id: str) -> None:
    use = {"type": "tool_use", "id": id, "name": "f", "input": {}}
    results = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "x"}]}
    messages = fitted(messages=[HELLO, assistant(use, TEXT), results])[1]["messages"]
    sent = messages[1]["content"][0]["id"]
    assert sent.startswith("toolu_")
    assert sent == messages[2]["content"][0]["tool_use_id"]
    assert messages[1]["content"][1] == TEXT


def test_ordinary_ids_stay() -> None:
    use = {"type": "tool_use", "id": "call_openai-style_1", "name": "f", "input": {}}
    assert fitted(messages=[HELLO, assistant(use)])[1]["messages"] == [HELLO, assistant(use)]


USE = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "x"}]}


@pytest.mark.parametrize(
    "kind, first, kept",
    [
        ("enabled", thinking("c2ln"), True),
        ("enabled", thinking(""), False),
        ("enabled", TEXT, False),
        ("adaptive", thinking(""), True),
    ],
)
def test_thinking_by_budget_pauses_when_a_tool_call_lost_its_own(kind: str, first: Body, kept: bool) -> None:
    call, body = fitted(messages=[HELLO, assistant(first, USE), RESULT], thinking={"type": kind})
    assert ("thinking" in body) is kept
    assert call.warnings == ([] if kept else ["thinking"])


def test_what_anthropic_clients_ask_for_is_theirs_to_answer_for() -> None:
    given = {"temperature": 0.5, "thinking": {"type": "adaptive"}, "tools": TOOLS, "tool_choice": {"type": "any"}}
    call, body = fitted("claude-fable-5-1", **given, messages=[HELLO, {"role": "system", "content": "x"}])
    assert body == {**call.body, "model": "claude-fable-5-1"}
    assert call.warnings == []


# ---- requests that were OpenAI's


def converted(model: str, **given: Any) -> tuple[Call, Body]:
    call = Exchange(dialect="openai").parse({"model": "m", "messages": [HELLO], **given})
    return call, anthropic_request.fit(call, {**call.canonical(), "model": model})


def changes(model: str, **given: Any) -> tuple[Body, list[str]]:
    least = converted(model)[1]
    call, body = converted(model, **given)
    return {name: value for name, value in body.items() if value != least.get(name)}, call.warnings


ADAPTIVE = {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}
O_FORCED = {"tools": O_TOOLS, "tool_choice": "required"}
FORCED = {"tools": TOOLS, "tool_choice": {"type": "any"}}
O_CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
O_ANSWERED = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": None, "tool_calls": [O_CALL]},
    {"role": "tool", "tool_call_id": "a", "content": "r"},
]
ANSWERED = [
    {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "r"}]},
]

MODELS: dict[str, tuple[str, Body, Body, list[str]]] = {
    "thinks by budget": (
        "claude-haiku-4-5",
        {"reasoning_effort": "high"},
        {"thinking": {"type": "enabled", "budget_tokens": 24_576}, "max_tokens": 25_600},
        [],
    ),
    "thinks by budget within the limit": (
        "claude-haiku-4-5",
        {"reasoning_effort": "low", "max_tokens": 30_000, "temperature": 0.5},
        {"thinking": {"type": "enabled", "budget_tokens": 2048}, "max_tokens": 30_000},
        [],
    ),
    "thinks by budget, unless a tool is forced": (
        "claude-haiku-4-5",
        {**O_FORCED, "reasoning_effort": "high", "temperature": 0.5, "max_tokens": 60},
        {**FORCED, "temperature": 0.5, "max_tokens": 60},
        ["thinking"],
    ),
    "thinks by budget, unless the thinking of its tool call is lost": (
        "claude-haiku-4-5",
        {"messages": O_ANSWERED, "reasoning_effort": "high", "temperature": 0.5, "max_tokens": 60},
        {"messages": ANSWERED, "temperature": 0.5, "max_tokens": 60},
        ["thinking"],
    ),
    "does not think": ("claude-3-5-sonnet-20241022", {"reasoning_effort": "high"}, {}, ["thinking"]),
    "thinks as it sees fit": ("claude-opus-4-6", {"reasoning_effort": "high"}, ADAPTIVE, []),
    "of an unknown name": (
        "deepseek-chat",
        {"reasoning_effort": "high", "temperature": 0.5},
        {**ADAPTIVE, "temperature": 0.5},
        [],
    ),
    "need not think": ("claude-opus-4-6", {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}, []),
    "always thinks": ("claude-fable-5", {"reasoning_effort": "none"}, {}, []),
    "takes sampling": ("claude-opus-4-6", {"temperature": 0.5, "top_p": 1}, {"temperature": 0.5, "top_p": 1}, []),
    "takes no sampling": ("claude-opus-4-7", {"temperature": 0.5, "top_p": 1}, {}, ["sampling"]),
    "has a tool forced": ("claude-opus-5", O_FORCED, FORCED, []),
    "thinks, unless a tool is forced": (
        "claude-opus-5",
        {**O_FORCED, "reasoning_effort": "high"},
        {**FORCED, "output_config": {"effort": "high"}},
        ["thinking"],
    ),
    "refuses to have a tool forced": (
        "claude-mythos-5-1",
        {
            "tools": O_TOOLS,
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "parallel_tool_calls": False,
        },
        {"tools": TOOLS, "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        ["tool_choice"],
    ),
}


@pytest.mark.parametrize("model, given, expected, warnings", MODELS.values(), ids=MODELS)
def test_a_converted_request_fits_its_model(model: str, given: Body, expected: Body, warnings: list[str]) -> None:
    assert changes(model, **given) == (expected, warnings)


@pytest.mark.parametrize(
    "model, asked, sent",
    [
        ("claude-sonnet-5", {}, 8192),
        ("claude-3-opus-20240229", {}, 4096),
        ("claude-3-opus-20240229", {"max_tokens": 9000}, 9000),
    ],
)
def test_the_default_limit_is_within_the_model_s(model: str, asked: Body, sent: int) -> None:
    assert converted(model, **asked)[1]["max_tokens"] == sent


def test_a_schema_stays_when_effort_becomes_a_budget() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "r", "schema": {"type": "object"}}}
    body = converted("claude-haiku-4-5", reasoning_effort="low", response_format=wanted)[1]
    assert body["output_config"].keys() == {"format"}


@pytest.mark.parametrize(
    "model, stays",
    [("claude-opus-4-8", True), ("claude-sonnet-5", True), ("claude-haiku-4-5", False), ("other", False)],
)
def test_a_later_system_message_stays_where_the_model_takes_it(model: str, stays: bool) -> None:
    body = converted(
        model, messages=[{"role": "system", "content": "Top."}, HELLO, {"role": "system", "content": "x"}]
    )[1]
    assert body["system"] == ("Top." if stays else "Top.\n\nx")
    assert [message["role"] for message in body["messages"]] == (["user", "system"] if stays else ["user"])
