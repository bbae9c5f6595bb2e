"""Each field of an Anthropic request, and what an OpenAI-compatible server gets of it."""

import hashlib
from typing import Any

import pytest

from opus_api.upstreams import chat_request
from opus_api.upstreams.chat_messages import short_id, short_name
from opus_api.wire.errors import InvalidRequest
from opus_api.wire.request import Call
from tests.golden.pipeline import Exchange

USER = {"role": "user", "content": "Hello"}
BODY: dict[str, Any] = {"model": "m", "max_tokens": 32_000, "messages": [USER]}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
TOOL = {"name": "f", "description": "d", "input_schema": SCHEMA}
O_TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
REASONING = {"reasoning": True}
LONG = "x" * 60 + "_tool_name_of_many_letters"


def converted(given: dict[str, Any], **options: Any) -> tuple[Call, dict[str, Any]]:
    exchange = Exchange(options=options)
    call = exchange.parse({**BODY, **given})
    return call, chat_request.convert(call, "upstream-model", exchange.credentials.options)


def changes(given: dict[str, Any], **options: Any) -> tuple[dict[str, Any], list[str]]:
    """(what differs from the least request, warnings)."""
    least = converted({})[1]
    call, body = converted(given, **options)
    gone = {name: None for name in least if name not in body}
    return gone | {name: value for name, value in body.items() if value != least.get(name)}, call.warnings


def test_the_least_request() -> None:
    assert converted({})[1] == {
        "model": "upstream-model",
        "messages": [USER],
        "max_tokens": 32_000,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


MAPPED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "sampling": ({"temperature": 0.5, "top_p": 0.9}, {}, {"temperature": 0.5, "top_p": 0.9}),
    "top_k by option": ({"top_k": 5}, {"top_k": True}, {"top_k": 5}),
    "stop sequences": ({"stop_sequences": ["a", "b", "c", "d"]}, {}, {"stop": ["a", "b", "c", "d"]}),
    "no stop sequences": ({"stop_sequences": []}, {}, {}),
    "the newer limit": ({}, {"max_completion_tokens": True}, {"max_tokens": None, "max_completion_tokens": 32_000}),
    "a limit within reach": ({"max_tokens": 99}, {"max_tokens": 99}, {"max_tokens": 99}),
    "usage not asked for": ({}, {"stream_options": False}, {"stream_options": None}),
    "thinking disabled": ({"thinking": {"type": "disabled"}}, REASONING, {"reasoning_effort": "none"}),
    "thinking disabled, none unknown": (
        {"thinking": {"type": "disabled"}},
        {**REASONING, "reasoning_none": False},
        {},
    ),
    "thinking disabled where there is none": ({"thinking": {"type": "disabled"}}, {}, {}),
    "thinking low": (
        {"thinking": {"type": "enabled", "budget_tokens": 4095}},
        REASONING,
        {"reasoning_effort": "low"},
    ),
    "thinking medium": (
        {"thinking": {"type": "enabled", "budget_tokens": 16_383}},
        REASONING,
        {"reasoning_effort": "medium"},
    ),
    "thinking high": (
        {"thinking": {"type": "enabled", "budget_tokens": 31_999}},
        REASONING,
        {"reasoning_effort": "high"},
    ),
    "thinking adaptive": ({"thinking": {"type": "adaptive"}}, REASONING, {"reasoning_effort": "medium"}),
    "thinking with effort": (
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
        REASONING,
        {"reasoning_effort": "low"},
    ),
    "effort alone": ({"output_config": {"effort": "max"}}, REASONING, {"reasoning_effort": "high"}),
    "effort where there is none": ({"output_config": {"effort": "max"}}, {}, {}),
    "who asks": (
        {"metadata": {"user_id": "device-1"}},
        {"safety_identifier": True},
        {"safety_identifier": hashlib.sha256(b"device-1").hexdigest()},
    ),
    "nobody asks": ({"metadata": {"user_id": None}}, {"safety_identifier": True}, {}),
    "a schema": (
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "response", "schema": SCHEMA, "strict": True},
            }
        },
    ),
    "tools": ({"tools": [TOOL]}, {}, {"tools": [O_TOOL]}),
    "no tools": ({"tools": []}, {}, {}),
    "members only Anthropic knows": (
        {
            "tools": [
                {
                    **TOOL,
                    "type": "custom",
                    "cache_control": {"type": "ephemeral"},
                    "defer_loading": True,
                    "allowed_callers": ["direct"],
                    "input_examples": [{}],
                    "eager_input_streaming": True,
                    "strict": True,
                }
            ]
        },
        {},
        {"tools": [{"type": "function", "function": {**O_TOOL["function"], "strict": True}}]},  # type: ignore[dict-item]
    ),
    "a schema without properties": (
        {"tools": [{"name": "f", "input_schema": {"type": "object", "properties": None, "required": []}}]},
        {},
        {
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "f", "parameters": {"type": "object", "properties": {}, "required": []}},
                }
            ]
        },
    ),
    "choice auto": (
        {"tools": [TOOL], "tool_choice": {"type": "auto"}},
        {},
        {"tools": [O_TOOL], "tool_choice": "auto"},
    ),
    "choice any": (
        {"tools": [TOOL], "tool_choice": {"type": "any"}},
        {},
        {"tools": [O_TOOL], "tool_choice": "required"},
    ),
    "choice none": (
        {"tools": [TOOL], "tool_choice": {"type": "none"}},
        {},
        {"tools": [O_TOOL], "tool_choice": "none"},
    ),
    "choice of one": (
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "f"}},
        {},
        {"tools": [O_TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
    ),
    "one call at a time": (
        {"tools": [TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        {},
        {"tools": [O_TOOL], "tool_choice": "auto", "parallel_tool_calls": False},
    ),
    "one call at a time where that is refused": (
        {"tools": [TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        {"parallel_tool_calls": False},
        {"tools": [O_TOOL], "tool_choice": "auto"},
    ),
    "long names": (
        {"tools": [{**TOOL, "name": LONG}], "tool_choice": {"type": "tool", "name": LONG}},
        {},
        {
            "tools": [{"type": "function", "function": {**O_TOOL["function"], "name": short_name(LONG)}}],  # type: ignore[dict-item]
            "tool_choice": {"type": "function", "function": {"name": short_name(LONG)}},
        },
    ),
    "silence about cost, caching and telemetry": (
        {
            "service_tier": "auto",
            "speed": "fast",
            "inference_geo": "us",
            "cache_control": {"type": "ephemeral"},
            "context_management": {"edits": []},
            "diagnostics": {},
            "metadata": {"user_id": "device-1"},
            "container": None,
        },
        {},
        {},
    ),
}


@pytest.mark.parametrize("given, options, expected", MAPPED.values(), ids=MAPPED)
def test_a_field_becomes_its_counterpart(
    given: dict[str, Any], options: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert changes(given, **options) == (expected, [])


WARNED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
    "a limit beyond reach": ({}, {"max_tokens": 50}, {"max_tokens": 50}, "max_tokens_clamped"),
    "top_k": ({"top_k": 5}, {}, {}, "top_k"),
    "thinking": ({"thinking": {"type": "adaptive"}}, {}, {}, "thinking"),
    "server tools beside others": ({"tools": [SEARCH, TOOL]}, {}, {"tools": [O_TOOL]}, "server_tools"),
    "unknown fields": ({"something_new": 1, "other": 2}, {}, {}, "unknown_fields"),
}


@pytest.mark.parametrize("given, options, expected, code", WARNED.values(), ids=WARNED)
def test_what_can_be_done_without_is_dropped_with_a_warning(
    given: dict[str, Any], options: dict[str, Any], expected: dict[str, Any], code: str
) -> None:
    assert changes(given, **options) == (expected, [code])


NO_SEARCH = "tools.0: web_search_20250305 is not supported by this upstream"
NO_SCHEMA = "output_config.format: structured outputs are not supported by this upstream"
REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"max_tokens": 0}, {}, "max_tokens: 0 (cache pre-warming) is not supported by this upstream"),
    ({"stop_sequences": list("abcde")}, {}, "stop_sequences: at most 4 are supported by this upstream"),
    ({"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}, {"structured_output": False}, NO_SCHEMA),
    ({"output_config": {"format": {"type": "grammar"}}}, {}, NO_SCHEMA),
    ({"tools": [SEARCH]}, {}, NO_SEARCH),
    ({"tools": [SEARCH, TOOL], "tool_choice": {"type": "any"}}, {}, NO_SEARCH),
    ({"tools": [SEARCH, TOOL], "tool_choice": {"type": "tool", "name": "web_search"}}, {}, NO_SEARCH),
    (
        {"tools": [TOOL, {"type": "bash_20250124", "name": "bash"}]},
        {},
        "tools.1: bash_20250124 is not supported by this upstream",
    ),
    (
        {"tools": [TOOL, {"type": "computer_toolset_20260801"}]},
        {},
        "tools.1: computer_toolset_20260801 is not supported by this upstream",
    ),
    *(
        ({name: value}, {}, f"{name}: needs an Anthropic upstream")
        for name, value in {
            "mcp_servers": [{"type": "url"}],
            "container": "c",
            "thread": {"type": "create"},
            "fallbacks": "default",
            "compaction": {"type": "summarize"},
        }.items()
    ),
    (
        {"messages": [USER, {"role": "assistant", "content": "Well,"}]},
        {"prefill": False},
        "This model does not support assistant message prefill. The conversation must end with a user message.",
    ),
    ({"messages": [{"role": "user", "content": ""}]}, {}, "messages: text content blocks must be non-empty"),
]


@pytest.mark.parametrize("given, options, text", [pytest.param(*row, id=row[2]) for row in REFUSED])
def test_what_would_change_the_answer_is_refused(given: dict[str, Any], options: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        converted(given, **options)
    assert caught.value.message == text


def test_a_thread_is_refused_so_that_sdks_send_the_whole_conversation() -> None:
    with pytest.raises(InvalidRequest) as caught:
        converted({"thread": {"type": "continue", "previous_message_id": "m"}, "messages": []})
    assert caught.value.details == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}


def test_long_tool_names_find_their_way_back() -> None:
    call, body = converted({"tools": [{**TOOL, "name": LONG}, {**TOOL, "name": LONG + "2"}, SEARCH]})
    sent = [tool["function"]["name"] for tool in body["tools"]]
    assert [len(name) for name in sent] == [64, 64]
    assert chat_request.long_names(call) == dict(zip(sent, [LONG, LONG + "2"], strict=True))


@pytest.mark.parametrize(
    "id, longest, sent_length", [("call_1", 40, 6), ("x" * 41, 40, 40), ("x" * 41, 0, 41), ("x" * 41, 64, 41)]
)
def test_a_long_tool_id_is_shortened_the_same_way_each_time(id: str, longest: int, sent_length: int) -> None:
    assert len(short_id(id, longest)) == sent_length
    assert short_id(id, longest) == short_id(id, longest)
