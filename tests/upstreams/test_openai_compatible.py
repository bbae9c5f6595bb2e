import json
from typing import Any

import pytest

from opus_api.upstreams import ACCOUNT_PROVIDERS, UPSTREAMS
from opus_api.upstreams.base import Credentials, Verdict
from opus_api.upstreams.openai_compatible import lesson
from opus_api.wire.http import HttpRequest, HttpResponse
from tests.golden.pipeline import BASE_URL, Exchange

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
VERBATIM = Exchange(dialect="openai")
DEFAULTS = Exchange().credentials.options


def sent(exchange: Exchange, **given: Any) -> tuple[HttpRequest, dict[str, Any]]:
    request = exchange.request(exchange.parse({**BODY, **given}))
    return request, json.loads(request.body or b"")


def test_what_an_openai_client_says_passes_untouched_but_for_the_model() -> None:
    given = {"seed": 7, "logprobs": True, "tools": [{"type": "new"}], "something_new": {"x": [1]}}
    request, body = sent(VERBATIM, **given)
    assert body == {**BODY, **given, "model": "upstream-model"}
    assert (request.method, request.url) == ("POST", f"{BASE_URL}/chat/completions")
    assert request.headers == {
        "content-type": "application/json",
        "accept": "application/json",
        "authorization": "Bearer sk-of-the-account",
    }


@pytest.mark.parametrize(
    "given, allowed, expected",
    [
        ({"stream": True}, True, {"include_usage": True}),
        (
            {"stream": True, "stream_options": {"include_obfuscation": False}},
            True,
            {"include_obfuscation": False, "include_usage": True},
        ),
        ({"stream": True, "stream_options": {"include_usage": True}}, False, None),
        ({}, True, None),
    ],
)
def test_usage_is_always_asked_for_where_the_server_knows_it(given: Any, allowed: bool, expected: Any) -> None:
    exchange = Exchange(dialect="openai", options={"stream_options": allowed})
    assert sent(exchange, **given)[1].get("stream_options") == expected


def test_a_server_without_keys_gets_none() -> None:
    call = VERBATIM.parse(BODY)
    request = UPSTREAMS["openai"].request(call, "m", Credentials("", BASE_URL, DEFAULTS), True)
    assert "authorization" not in request.headers


def test_converted_requests_always_stream() -> None:
    request, body = sent(Exchange(), max_tokens=9)
    assert body["stream"] is True
    assert request.headers["accept"] == "text/event-stream"


# ---- what a 400 teaches

LESSONS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("Unrecognized request argument supplied: stream_options", {}, {"stream_options": False}),
    ("extra fields not permitted: include_usage", {}, {"stream_options": False}),
    (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        {},
        {"max_completion_tokens": True},
    ),
    ("unknown field max_completion_tokens unknown", {"max_completion_tokens": True}, {"max_completion_tokens": False}),
    ("parallel_tool_calls is not supported", {}, {"parallel_tool_calls": False}),
    (
        "Unsupported value: 'none' is not supported with the 'x' model. reasoning_effort",
        {"reasoning": True},
        {"reasoning_none": False},
    ),
    ("Unknown parameter: reasoning_effort", {"reasoning": True}, {"reasoning": False}),
    ("Unknown name top_k", {"top_k": True}, {"top_k": False}),
    ("'messages[0].role' does not support 'system' with this model.", {}, {"system_role": "developer"}),
    (
        "'messages[0].role' does not support 'developer' with this model.",
        {"system_role": "developer"},
        {"system_role": "user"},
    ),
    ("System message must be at the beginning.", {}, {"single_system": True}),
    ("messages[0].content must be a string", {}, {"string_content": True}),
    ("messages.0.content: Input should be a valid string", {}, {"string_content": True}),
    ("max_tokens is too large: 64000. This model supports at most 16384 completion tokens", {}, {"max_tokens": 16384}),
    ("max_tokens must be less than or equal to 8192", {}, {"max_tokens": 8192}),
    ("max_tokens must be less than or equal to 8192", {"max_tokens": 20_000}, {"max_tokens": 8192}),
    (
        "Invalid 'messages[2].tool_calls[0].id': string too long. Expected a string with maximum length 40, but got 43",
        {},
        {"tool_id_length": 40},
    ),
    ("max_tokens must be less than or equal to 8192", {"max_tokens": 4096}, {}),
    ("stream_options is not supported", {"stream_options": False}, {}),
    ("'max_tokens' is too large: 64000. This model's maximum context length is 8192 tokens", {}, {}),
    ("model not found", {}, {}),
]


@pytest.mark.parametrize("message, known, learned", LESSONS)
def test_a_refusal_that_names_an_option_teaches_it_once(
    message: str, known: dict[str, Any], learned: dict[str, Any]
) -> None:
    options = {**DEFAULTS, **known}
    assert lesson(message, options) == learned
    assert not learned or lesson(message, {**options, **learned}) != learned


def test_a_lesson_is_a_failure_to_be_sent_again() -> None:
    error = {"error": {"message": "Unsupported value: 'none'", "param": "reasoning_effort"}}
    credentials = Exchange(options={"reasoning": True}).credentials
    failure = UPSTREAMS["openai"].failure(HttpResponse(400, {}, json.dumps(error).encode()), credentials)
    assert (failure.verdict, failure.learned) == (Verdict.LEARN, {"reasoning_none": False})
    failure = UPSTREAMS["openai"].failure(HttpResponse(500, {}, json.dumps(error).encode()), credentials)
    assert failure.verdict is Verdict.TRANSIENT


def test_every_lesson_is_about_an_option_and_of_its_type() -> None:
    for _, _, learned in LESSONS:
        for name, value in learned.items():
            assert type(value) is type(DEFAULTS[name])


# ---- the table of providers


def test_every_provider_names_itself_and_explains_its_options() -> None:
    assert {name: upstream.name for name, upstream in UPSTREAMS.items()} == {name: name for name in UPSTREAMS}
    for upstream in UPSTREAMS.values():
        assert upstream.label
        assert upstream.terms
        assert all(option.help.endswith(".") for option in upstream.options)
    assert ACCOUNT_PROVIDERS == ("anthropic", "amazonq", "openai", "morph")


def test_morph_gets_text_as_one_string_and_no_files() -> None:
    morph = Exchange(provider="morph").credentials.options
    assert {name: value for name, value in morph.items() if value != DEFAULTS[name]} == {
        "string_content": True,
        "files": False,
    }


def test_a_key_is_checked_with_the_list_of_models() -> None:
    flow = UPSTREAMS["openai"].probe(Exchange().credentials)
    request = next(flow)
    assert (request.method, request.url) == ("GET", f"{BASE_URL}/models")
    with pytest.raises(StopIteration) as end:
        flow.send(HttpResponse(200, {}, b'{"data":[{"id":"gpt-5"}]}'))
    assert end.value.value.models == ["gpt-5"]
