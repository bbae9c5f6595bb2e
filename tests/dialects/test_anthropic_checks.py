from typing import Any

import pytest

from opus_api.dialects import anthropic
from opus_api.wire.errors import InvalidRequest

USER = {"role": "user", "content": "Hello"}
BODY: dict[str, Any] = {"model": "m", "max_tokens": 10, "messages": [USER]}
TOOL = {"name": "f", "input_schema": {"type": "object"}}


def block(block: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [block]}]}


def tools(*tools: Any, **more: Any) -> dict[str, Any]:
    return {"tools": list(tools), **more}


RESULT = {"type": "tool_result", "tool_use_id": "a"}


def marked(*texts: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}} for text in texts]


ABSENT = object()
AT = "messages.0.content.0"
NO_FILES = "file ids are not supported yet; send the content itself, as base64 or text"

WRONG: dict[str, list[tuple[dict[str, Any], str]]] = {
    "members": [
        ({"model": ABSENT}, "model: Field required"),
        ({"model": 7}, "model: Input should be a valid string"),
        ({"model": " other"}, "model: String should not begin with a space"),
        ({"model": ""}, "model: String should have at least 1 character"),
        ({"model": "m" * 257}, "model: String should have at most 256 characters"),
        ({"max_tokens": ABSENT}, "max_tokens: Field required"),
        ({"max_tokens": "10"}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": True}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": 1.5}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": 1e30}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": None}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": -1}, "max_tokens: Input should be greater than or equal to 0"),
        ({"max_tokens": 0, "stream": True}, "max_tokens: 0 (cache pre-warming) cannot be streamed"),
        ({"stream": "yes"}, "stream: Input should be a valid boolean"),
        ({"stop_sequences": "END"}, "stop_sequences: Input should be a valid list"),
        ({"stop_sequences": ["a", 7]}, "stop_sequences.1: Input should be a valid string"),
        ({"stop_sequences": ["END", "\n"]}, "stop_sequences: each stop sequence must contain non-whitespace"),
        ({"temperature": "hot"}, "temperature: Input should be a valid number"),
        ({"top_k": 1.5}, "top_k: Input should be a valid integer"),
        ({"metadata": []}, "metadata: Input should be a valid dictionary"),
        (
            {"max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 2000}},
            "`max_tokens` must be greater than `thinking.budget_tokens`",
        ),
        ({"thinking": "on"}, "thinking: Input should be a valid dictionary"),
        ({"thinking": {}}, "thinking.type: Field required"),
        (
            {"thinking": {"type": "enabled", "budget_tokens": "5"}},
            "thinking.budget_tokens: Input should be a valid integer",
        ),
        ({"output_config": {"effort": 7}}, "output_config.effort: Input should be a valid string"),
        ({"output_config": {"format": "json"}}, "output_config.format: Input should be a valid dictionary"),
        (
            {"output_config": {"format": {"schema": 7}}},
            "output_config.format.schema: Input should be a valid dictionary",
        ),
    ],
    "system": [
        ({"system": 7}, "system: Input should be a valid string or list of text blocks"),
        ({"system": ["x"]}, "system.0: Input should be a valid dictionary"),
        ({"system": [{"type": "text"}]}, "system.0.text.text: Field required"),
        ({"system": [{"type": "image", "source": {"type": "x"}}]}, "system.0.type: Input should be 'text'"),
    ],
    "messages": [
        ({"messages": ABSENT}, "messages: Field required"),
        ({"messages": "Hello"}, "messages: Input should be a valid list"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": ["Hello"]}, "messages.0: Input should be a valid dictionary"),
        ({"messages": [{"content": "x"}]}, "messages.0.role: Field required"),
        ({"messages": [{"role": 7, "content": "x"}]}, "messages.0.role: Input should be a valid string"),
        (
            {"messages": [USER, {"role": "tool", "content": "x"}]},
            "messages.1.role: Input should be 'user', 'assistant' or 'system'",
        ),
        ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content: Input should be a valid list"),
        ({"messages": [{"role": "user", "content": {}}]}, "messages.0.content: Input should be a valid list"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages: text content blocks must be non-empty"),
        (block({"type": "text", "text": ""}), "messages: text content blocks must be non-empty"),
        (block({"type": "text", "text": " \n"}), "messages: text content blocks must contain non-whitespace text"),
        ({"system": marked("")}, "cache_control cannot be set for empty text blocks"),
        (
            {
                "system": marked("a"),
                "tools": [{**TOOL, "cache_control": {"type": "ephemeral"}}],
                "messages": [
                    USER,
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]},
                    {
                        "role": "user",
                        "content": [
                            {"type": "tool_result", "tool_use_id": "a", "content": marked("b")},
                            *marked(*"cd"),
                        ],
                    },
                ],
            },
            "A maximum of 4 blocks with cache_control may be provided. Found 5.",
        ),
        (
            {"messages": [{"role": "system", "content": "x"}]},
            "messages: at least one message with role 'user' is required",
        ),
    ],
    "blocks": [
        (block("x"), f"{AT}: Input should be a valid dictionary"),
        (block({}), f"{AT}.type: Field required"),
        (block({"type": 7}), f"{AT}.type: Input should be a valid string"),
        (block({"type": "text"}), f"{AT}.text.text: Field required"),
        (block({"type": "text", "text": None}), f"{AT}.text.text: Input should be a valid string"),
        (block({"type": "image"}), f"{AT}.image.source: Field required"),
        (block({"type": "image", "source": {}}), f"{AT}.image.source.type: Field required"),
        (
            block({"type": "image", "source": {"type": "base64", "media_type": 7, "data": "x"}}),
            f"{AT}.image.source.base64.media_type: Input should be a valid string",
        ),
        (block({"type": "image", "source": {"type": "url"}}), f"{AT}.image.source.url.url: Field required"),
        (
            block({"type": "document", "source": {"type": "text", "data": 7}}),
            f"{AT}.document.source.text.data: Input should be a valid string",
        ),
        (
            block({"type": "document", "source": {"type": "content", "content": [{"type": "text"}]}}),
            f"{AT}.document.source.content.content.0.text.text: Field required",
        ),
        (
            block({"type": "document", "source": {"type": "url", "url": "x"}, "title": 7}),
            f"{AT}.document.title: Input should be a valid string",
        ),
        (
            block({"type": "image", "source": {"type": "file", "file_id": "file_1"}}),
            f"{AT}.image.source.file_id: {NO_FILES}",
        ),
        (
            block({"type": "container_upload", "file_id": "file_1"}),
            f"{AT}.container_upload.file_id: {NO_FILES}",
        ),
        (
            block({"type": "search_result", "source": "s", "title": "t", "content": "x"}),
            f"{AT}.search_result.content: Input should be a valid list",
        ),
        (block({"type": "tool_use", "id": "a", "name": "f"}), f"{AT}.tool_use.input: Field required"),
        (block({"type": "tool_result"}), f"{AT}.tool_result.tool_use_id: Field required"),
        (
            block({"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": None}]}),
            f"{AT}.tool_result.content.0.text.text: Input should be a valid string",
        ),
        (
            block({"type": "tool_result", "tool_use_id": "a", "content": 7}),
            f"{AT}.tool_result.content: Input should be a valid list",
        ),
        (
            block({"type": "tool_result", "tool_use_id": "a", "is_error": "no"}),
            f"{AT}.tool_result.is_error: Input should be a valid boolean",
        ),
        (block({"type": "thinking", "signature": "s"}), f"{AT}.thinking.thinking: Field required"),
    ],
    "tools": [
        ({"tools": {}}, "tools: Input should be a valid list"),
        (tools("f"), "tools.0: Input should be a valid dictionary"),
        (tools({"name": "f"}), "tools.0.custom.input_schema: Field required"),
        (tools({"input_schema": {}}), "tools.0.custom.name: Field required"),
        (tools({"type": 7}), "tools.0.type: Input should be a valid string"),
        (
            tools({"name": "a b", "input_schema": {}}),
            "tools.0.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'",
        ),
        (
            tools({"name": "x" * 129, "input_schema": {}}),
            "tools.0.custom.name: String should match pattern '^[a-zA-Z0-9_-]{1,128}$'",
        ),
        (tools({**TOOL, "description": 7}), "tools.0.custom.description: Input should be a valid string"),
        (
            tools({"name": "f", "input_schema": {"properties": []}}),
            "tools.0.custom.input_schema.properties: Input should be a valid dictionary",
        ),
        (tools(TOOL, TOOL), "tools: Tool names must be unique."),
        (
            tools({"type": "web_search_20250305", "name": "f"}, TOOL),
            "tools: Tool names must be unique.",
        ),
        (tools({"type": "bash_20250124", "name": 7}), "tools.0.name: Input should be a valid string"),
        (tools(TOOL, tool_choice="auto"), "tool_choice: Input should be a valid dictionary"),
        (tools(TOOL, tool_choice={}), "tool_choice.type: Field required"),
        (
            tools(TOOL, tool_choice={"type": "required"}),
            "tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none'",
        ),
        (tools(TOOL, tool_choice={"type": "tool"}), "tool_choice.tool.name: Field required"),
        (
            {"tool_choice": {"type": "any"}},
            "tool_choice: tools must be provided when tool_choice is any or tool",
        ),
    ],
}


@pytest.mark.parametrize("change, message", [pytest.param(*row, id=row[1]) for rows in WRONG.values() for row in rows])
def test_a_wrong_body_is_refused_by_the_name_of_its_field(change: dict[str, Any], message: str) -> None:
    body = {name: value for name, value in {**BODY, **change}.items() if value is not ABSENT}
    with pytest.raises(InvalidRequest) as caught:
        anthropic.parse(body, {})
    assert caught.value.message == message


RIGHT: dict[str, dict[str, Any]] = {
    "least": {},
    "warming the cache": {"max_tokens": 0},
    "null is absent": dict.fromkeys(["stream", "stop_sequences", "tools", "tool_choice", "thinking", "output_config"]),
    "unknown members": {"something_new": {"x": 1}},
    "unknown blocks": block({"type": "new_block", "x": 1}),
    "no content in a result": block({"type": "tool_result", "tool_use_id": "a"}),
    "empty content": {"messages": [{"role": "user", "content": []}]},
    "system blocks": {"system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]},
    "system in the middle": {"messages": [USER, {"role": "system", "content": "x"}]},
    "dated tools": tools({"type": "web_search_20250305", "name": "web_search"}, {"type": "computer_toolset_20260801"}),
    "an int for a float": {"temperature": 1},
    "a thread that goes on": {"messages": [], "thread": {"type": "continue", "previous_message_id": "msg_1"}},
    "four marks, null is none": {"system": [*marked(*"abcd"), {"type": "text", "text": "e", "cache_control": None}]},
    "a line end before a tool call": {
        "messages": [USER, {"role": "assistant", "content": [{"type": "text", "text": "\n\n"}]}]
    },
    "half an emoji": {"messages": [{"role": "user", "content": "\ud83d"}]},
}


@pytest.mark.parametrize("change", RIGHT.values(), ids=RIGHT)
def test_what_the_api_takes_passes_untouched(change: dict[str, Any]) -> None:
    body = {**BODY, **change}
    call = anthropic.parse(body, {})
    assert call.canonical() is body


def test_thinking_between_tools_may_take_more_than_one_answer() -> None:
    body = {**BODY, "thinking": {"type": "enabled", "budget_tokens": 2000}}
    assert anthropic.parse(body, {"anthropic-beta": "a,interleaved-thinking-2025-05-14"}).body is body


CITED = {"type": "text", "text": "x", "citations": [{"type": "char_location"}]}
DOCUMENT = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "D"}}
FOUND = {"type": "search_result", "source": "s", "title": "t", "content": [CITED]}
CITATIONS = "citations: Extra inputs are not permitted"
REMOVED: list[tuple[dict[str, Any], str]] = [
    (
        {"messages": [USER, {"role": "assistant", "content": [DOCUMENT]}]},
        "messages.1.content.0.type: 'document' is not permitted in an assistant message",
    ),
    (block(CITED), f"{AT}.text.{CITATIONS}"),
    (block(FOUND), f"{AT}.search_result.content.0.text.{CITATIONS}"),
    (
        block({"type": "tool_result", "tool_use_id": "a", "content": [FOUND]}),
        f"{AT}.tool_result.content.0.search_result.content.0.text.{CITATIONS}",
    ),
]


@pytest.mark.parametrize("change, message", [pytest.param(*row, id=row[1]) for row in REMOVED])
def test_what_the_newest_version_removed_is_refused_in_it_alone(change: dict[str, Any], message: str) -> None:
    body = {**BODY, **change}
    assert anthropic.parse(body, {"anthropic-version": "2023-06-01"}).body is body
    for parse in (anthropic.parse, anthropic.parse_count):
        with pytest.raises(InvalidRequest) as caught:
            parse(body, {"anthropic-version": "2026-10-21"})
        assert caught.value.message == message


def test_what_a_model_cited_stays_in_both_versions() -> None:
    body = {**BODY, "messages": [USER, {"role": "assistant", "content": [CITED]}, {**USER, "content": [DOCUMENT]}]}
    assert anthropic.parse(body, {"anthropic-version": "2026-10-21"}).body is body


def test_counting_needs_no_max_tokens() -> None:
    body = {"model": "m", "messages": [USER]}
    assert anthropic.parse_count(body, {}).body is body
    with pytest.raises(InvalidRequest, match="messages: Field required"):
        anthropic.parse_count({"model": "m"}, {})
