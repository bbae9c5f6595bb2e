import json
from typing import Any

import pytest

from opus_api.dialects import openai
from opus_api.wire.errors import ApiError, InvalidRequest
from tests import grammar

USER = {"role": "user", "content": "Hello"}
BODY: dict[str, Any] = {"model": "m", "messages": [USER]}
ABSENT = object()


def message(**message: Any) -> dict[str, Any]:
    return {"messages": [USER, message]}


PARTS = "messages.1.content: Input should be a valid string or list of content parts"

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": ABSENT}, "model: Field required"),
    ({"model": " other"}, "model: String should not begin with a space"),
    ({"model": ""}, "model: String should have at least 1 character"),
    ({"model": "m" * 257}, "model: String should have at most 256 characters"),
    ({"messages": ABSENT}, "messages: Field required"),
    ({"messages": ABSENT, "input": "x"}, "input: this is a Responses API body; /chat/completions takes 'messages'"),
    ({"messages": []}, "messages: at least one message is required"),
    ({"messages": {}}, "messages: Input should be a valid list"),
    ({"messages": ["x"]}, "messages.0: Input should be a valid dictionary"),
    ({"messages": [{"content": "x"}]}, "messages.0.role: Field required"),
    (
        message(role="robot", content="x"),
        "messages.1.role: Input should be 'system', 'developer', 'user', 'assistant', 'tool' or 'function'",
    ),
    (message(role="user"), "messages.1.content: Field required"),
    (message(role="user", content=7), PARTS),
    (
        message(role="assistant", content=7),
        PARTS,
    ),
    (message(role="user", content=["x"]), "messages.1.content.0: Input should be a valid dictionary"),
    (message(role="user", content=[{}]), "messages.1.content.0.type: Field required"),
    (message(role="assistant", tool_calls={}), "messages.1.tool_calls: Input should be a valid list"),
    (message(role="tool", content="x"), "messages.1.tool_call_id: Field required"),
    ({"stream": 1}, "stream: Input should be a valid boolean"),
    ({"stream_options": []}, "stream_options: Input should be a valid dictionary"),
    ({"max_tokens": "7"}, "max_tokens: Input should be a valid integer"),
    ({"max_completion_tokens": 0}, "max_completion_tokens: Input should be greater than or equal to 1"),
    ({"temperature": "hot"}, "temperature: Input should be a valid number"),
    ({"tools": {}}, "tools: Input should be a valid list"),
    ({"functions": {}}, "functions: Input should be a valid list"),
    ({"response_format": "json"}, "response_format: Input should be a valid dictionary"),
    ({"parallel_tool_calls": "no"}, "parallel_tool_calls: Input should be a valid boolean"),
    ({"modalities": "audio"}, "modalities: Input should be a valid list"),
]


@pytest.mark.parametrize("change, text", [pytest.param(*row, id=row[1]) for row in WRONG])
def test_a_wrong_body_is_refused_by_the_name_of_its_field(change: dict[str, Any], text: str) -> None:
    body = {name: value for name, value in {**BODY, **change}.items() if value is not ABSENT}
    with pytest.raises(InvalidRequest) as caught:
        openai.parse(body, {})
    assert caught.value.message == text


@pytest.mark.parametrize(
    "options, wanted",
    [({}, False), ({"include_usage": True}, True), ({"include_usage": False}, False), (None, False)],
)
def test_the_usage_chunk_is_for_those_who_ask(options: Any, wanted: bool) -> None:
    assert openai.parse({**BODY, "stream": True, "stream_options": options}, {}).include_usage is wanted


def test_of_the_headers_only_betas_mean_anything() -> None:
    headers = {"anthropic-beta": "a", "anthropic-version": "2023-06-01", "authorization": "secret"}
    assert openai.parse(BODY, headers).headers == {"anthropic-beta": "a"}


ERRORS = [
    (400, "invalid_request_error", "n: no", 400, "invalid_request_error", None),
    (401, "authentication_error", "invalid x-api-key", 401, "invalid_request_error", "invalid_api_key"),
    (403, "permission_error", "no", 403, "invalid_request_error", "permission_denied"),
    (404, "not_found_error", "model: x", 404, "invalid_request_error", "model_not_found"),
    (404, "not_found_error", "no such route", 404, "invalid_request_error", "not_found"),
    (413, "request_too_large", "big", 413, "invalid_request_error", "request_too_large"),
    (429, "rate_limit_error", "slow", 429, "rate_limit_error", "rate_limit_exceeded"),
    (429, "billing_error", "spent", 429, "insufficient_quota", "insufficient_quota"),
    (502, "api_error", "broken", 502, "server_error", None),
    (504, "timeout_error", "late", 504, "server_error", "timeout"),
    (529, "overloaded_error", "full", 503, "server_error", "overloaded"),
]


@pytest.mark.parametrize("status, type_, text, seen, kind, code", ERRORS)
def test_an_error_says_the_same_in_openai_s_words(
    status: int, type_: str, text: str, seen: int, kind: str, code: str | None
) -> None:
    error = ApiError(status, type_, text)
    expected = {"error": {"message": text, "type": kind, "param": "n" if status == 400 else None, "code": code}}
    assert openai.status(error) == seen
    assert json.loads(openai.error_body(error, "req_1")) == expected
    assert grammar.chunks(openai.error_event(error, "req_1")) == [expected]  # and no [DONE]


def test_what_an_openai_upstream_said_reaches_openais_clients_as_it_was() -> None:
    words = {"message": "maximum context length is 8 tokens", "param": "messages", "code": "context_length_exceeded"}
    error = InvalidRequest("prompt is too long: 9 tokens > 8 maximum", words=words)
    expected = {"error": {**words, "type": "invalid_request_error"}}
    assert json.loads(openai.error_body(error, "req_1")) == expected


@pytest.mark.parametrize(
    "text",
    [
        "prompt is too long: 9 tokens > 8 maximum",
        "input length and `max_tokens` exceed context limit: 5 + 4 > 8, decrease input length",
    ],
)
def test_a_context_that_is_too_small_at_anthropic_has_openais_code(text: str) -> None:
    assert json.loads(openai.error_body(InvalidRequest(text), "req_1"))["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    "text, param",
    [
        ("temperature: Input should be a valid number", "temperature"),
        ("messages.1.tool_calls.0.id: Field required", "messages.1.tool_calls.0.id"),
        ("response_format.json_schema.schema: nested too deeply", "response_format.json_schema.schema"),
        ("The request body is not valid JSON.", None),
        ("prompt is too long: 9 tokens > 8 maximum", None),
        ("error: of an upstream that says it so", None),
    ],
)
def test_a_400_names_the_field_it_is_about(text: str, param: str | None) -> None:
    assert json.loads(openai.error_body(InvalidRequest(text), "req_1"))["error"]["param"] == param
