import hashlib
from typing import Any

import pytest

from opus_api.dialects import openai
from opus_api.wire.errors import InvalidRequest
from opus_api.wire.request import Call

USER = {"role": "user", "content": "Hello"}
BODY: dict[str, Any] = {"model": "m", "messages": [USER]}
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
TOOL = {"type": "function", "function": FUNCTION}
OTHER = {"type": "function", "function": {"name": "g"}}
A_TOOL = {"name": "f", "input_schema": FUNCTION["parameters"], "description": "d"}
A_OTHER = {"name": "g", "input_schema": {"type": "object", "properties": {}}}
FREE_TEXT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


def converted(**members: Any) -> tuple[Call, dict[str, Any]]:
    call = openai.parse({**BODY, **members}, {})
    return call, call.canonical()


def members(**given: Any) -> dict[str, Any]:
    """What the given members add to the least request."""
    least = converted()[1]
    return {name: value for name, value in converted(**given)[1].items() if value != least.get(name)}


MAPPED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "max_tokens": ({"max_tokens": 5}, {"max_tokens": 5}),
    "max_completion_tokens wins": ({"max_tokens": 5, "max_completion_tokens": 7}, {"max_tokens": 7}),
    "neither": ({}, {}),
    "temperature": ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
    "temperature above 1": ({"temperature": 1.7}, {"temperature": 1}),
    "stop": ({"stop": "END"}, {"stop_sequences": ["END"]}),
    "stops without blank ones": ({"stop": ["a", " \n", "b"]}, {"stop_sequences": ["a", "b"]}),
    "no stop": ({"stop": None}, {}),
    "stream": ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
    "one answer": ({"n": 1}, {}),
    "text only": ({"modalities": ["text"], "response_format": {"type": "text"}}, {}),
    "user": ({"user": "alice"}, {"metadata": {"user_id": hashlib.sha256(b"alice").hexdigest()}}),
    "safety_identifier wins": (
        {"user": "alice", "safety_identifier": "bob"},
        {"metadata": {"user_id": hashlib.sha256(b"bob").hexdigest()}},
    ),
    "reasoning off": ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
    "reasoning minimal": (
        {"reasoning_effort": "minimal"},
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
    ),
    "reasoning xhigh": (
        {"reasoning_effort": "xhigh"},
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}},
    ),
    "a schema, closed on every level": (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": "r",
                    "strict": True,
                    "schema": {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "object"}}}},
                },
            }
        },
        {
            "output_config": {
                "format": {
                    "type": "json_schema",
                    "schema": {
                        "type": "object",
                        "properties": {
                            "a": {"type": "array", "items": {"type": "object", "additionalProperties": False}}
                        },
                        "additionalProperties": False,
                    },
                }
            }
        },
    ),
    "tools": ({"tools": [TOOL, OTHER]}, {"tools": [A_TOOL, A_OTHER]}),
    "flat tools": ({"tools": [{"type": "function", **FUNCTION}]}, {"tools": [A_TOOL]}),
    "Anthropic's tools": ({"tools": [A_TOOL, {**A_OTHER, "type": "custom"}]}, {"tools": [A_TOOL, A_OTHER]}),
    "strict tools": (
        {"tools": [{"type": "function", "function": {"name": "g", "strict": True, "parameters": None}}]},
        {"tools": [{**A_OTHER, "strict": True}]},
    ),
    "properties that are null": (
        {"tools": [{"type": "function", "function": {"name": "g", "parameters": {"properties": None}}}]},
        {"tools": [A_OTHER]},
    ),
    "custom tools": (
        {"tools": [{"type": "custom", "custom": {"name": "p", "description": "d", "format": {"type": "text"}}}]},
        {"tools": [{"name": "p", "description": "d", "input_schema": FREE_TEXT}]},
    ),
    "functions": ({"functions": [FUNCTION]}, {"tools": [A_TOOL]}),
    "choice auto": ({"tools": [TOOL], "tool_choice": "auto"}, {"tools": [A_TOOL], "tool_choice": {"type": "auto"}}),
    "choice none": ({"tools": [TOOL], "tool_choice": "none"}, {"tools": [A_TOOL], "tool_choice": {"type": "none"}}),
    "choice required": (
        {"tools": [TOOL], "tool_choice": "required"},
        {"tools": [A_TOOL], "tool_choice": {"type": "any"}},
    ),
    "choice of one": (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"tools": [A_TOOL], "tool_choice": {"type": "tool", "name": "f"}},
    ),
    "choice in Anthropic's shape": (
        {"tools": [TOOL], "tool_choice": {"type": "any"}},
        {"tools": [A_TOOL], "tool_choice": {"type": "any"}},
    ),
    "old choice": (
        {"functions": [FUNCTION], "function_call": {"name": "f"}},
        {"tools": [A_TOOL], "tool_choice": {"type": "tool", "name": "f"}},
    ),
    "allowed tools": (
        {
            "tools": [TOOL, OTHER],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]},
            },
        },
        {"tools": [A_OTHER], "tool_choice": {"type": "any"}},
    ),
    "one call at a time": (
        {"tools": [TOOL], "parallel_tool_calls": False},
        {"tools": [A_TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
    ),
    "one call at a time of none": (
        {"tools": [TOOL], "parallel_tool_calls": False, "tool_choice": "none"},
        {"tools": [A_TOOL], "tool_choice": {"type": "none"}},
    ),
    "a choice without tools": ({"tool_choice": "auto", "parallel_tool_calls": False}, {}),
}


@pytest.mark.parametrize("given, expected", MAPPED.values(), ids=MAPPED)
def test_a_field_becomes_its_counterpart(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert members(**given) == expected
    assert converted(**given)[0].warnings == []


def test_without_a_limit_the_default_holds() -> None:
    assert converted()[1]["max_tokens"] == 8192


DROPPED: dict[str, Any] = {
    "logprobs": True,
    "top_logprobs": 3,
    "seed": 0,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "logit_bias": {"1": 2},
    "store": True,
    "metadata": {"a": "b"},
    "prediction": {"type": "content", "content": "x"},
    "verbosity": "low",
    "service_tier": "auto",
    "prompt_cache_key": "k",
    "prompt_cache_options": {},
    "prompt_cache_retention": "24h",
    "web_search_options": {},
    "moderation": {},
}


@pytest.mark.parametrize("name", DROPPED)
def test_what_has_no_counterpart_is_dropped_with_a_warning(name: str) -> None:
    call, body = converted(**{name: DROPPED[name]})
    assert (call.warnings, body) == ([name], converted()[1])


@pytest.mark.parametrize("value", [None, False])
def test_what_is_off_needs_no_warning(value: Any) -> None:
    assert converted(logprobs=value, seed=None)[0].warnings == []


def test_unknown_fields_are_dropped_with_one_warning() -> None:
    assert converted(foo=1, bar=2)[0].warnings == ["unknown_fields"]


def test_a_wish_for_json_becomes_words() -> None:
    call, body = converted(
        messages=[{"role": "system", "content": "Be brief."}, USER], response_format={"type": "json_object"}
    )
    assert body["system"] == "Be brief.\n\nReply with a single JSON object."
    assert call.warnings == ["json_object"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": ["function"]}]}, "tools.0.type: Input should be a valid string"),
    ({"n": 2}, "n: only 1 is supported"),
    ({"modalities": ["text", "audio"]}, "modalities: audio output is not supported"),
    ({"audio": {"voice": "x"}}, "modalities: audio output is not supported"),
    ({"stop": 7}, "stop: Input should be a valid string or list of strings"),
    ({"stop": ["a", 7]}, "stop: Input should be a valid string or list of strings"),
    (
        {"reasoning_effort": "huge"},
        "reasoning_effort: Input should be 'none', 'minimal', 'low', 'medium', 'high', 'xhigh' or 'max'",
    ),
    (
        {"response_format": {"type": "xml"}},
        "response_format.type: Input should be 'text', 'json_object' or 'json_schema'",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": []}},
        "response_format.json_schema: Input should be a valid dictionary",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": "x"}}},
        "response_format.json_schema.schema: Input should be a valid dictionary",
    ),
    ({"tools": ["f"]}, "tools.0: Input should be a valid dictionary"),
    ({"tools": [{"type": "web_search"}]}, "tools.0.type: 'web_search' is not supported"),
    ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name: Field required"),
    ({"tools": [{"type": "function", "function": "f"}]}, "tools.0.function.name: Field required"),
    ({"tools": [{"type": "custom", "custom": "f"}]}, "tools.0.custom.name: Field required"),
    (
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        "tools.0.function.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
        "tools.0.function.parameters: Input should be a valid dictionary",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": []}}}]},
        "tools.0.function.parameters.properties: Input should be a valid dictionary",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "strict": "yes"}}]},
        "tools.0.function.strict: Input should be a valid boolean",
    ),
    ({"functions": [{}]}, "functions.0.name: Field required"),
    ({"tools": [TOOL], "functions": [FUNCTION]}, "tools: Tool names must be unique."),
    (
        {"tools": [TOOL], "tool_choice": "maybe"},
        "tool_choice: Input should be 'none', 'auto', 'required' or 'any'",
    ),
    ({"tools": [TOOL], "tool_choice": 7}, "tool_choice: Input should be a valid string or dictionary"),
    ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice.function.name: Field required"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": [7]}}},
        "tool_choice.allowed_tools.tools.0.function.name: Field required",
    ),
    (
        {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}},
        "tool_choice.allowed_tools.tools: names none of the tools",
    ),
]


@pytest.mark.parametrize("given, text", [pytest.param(*row, id=row[1]) for row in REFUSED])
def test_what_can_not_be_said_is_refused(given: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        converted(**given)
    assert caught.value.message == text


def test_a_bottomless_schema_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(300):
        schema = {"type": "object", "properties": {"a": schema}}
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        converted(response_format={"type": "json_schema", "json_schema": {"schema": schema}})
