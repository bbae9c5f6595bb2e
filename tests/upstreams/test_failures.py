import json
import time
from typing import Any

import pytest

from opus_api.upstreams.base import Credentials, Verdict
from opus_api.upstreams.failures import (
    cooldown,
    error_in,
    failure_in,
    judge,
    message_of,
    names_model,
    scrub,
    words_of,
)
from opus_api.wire.http import HttpResponse

CREDENTIALS = Credentials("sk-secret-of-the-account", "https://upstream.test/v1", access_token="token-secret")
NOW = 1_750_000_000.0

STATUSES = {
    400: (Verdict.CLIENT, 400, "invalid_request_error"),
    401: (Verdict.AUTH, 529, "overloaded_error"),
    402: (Verdict.QUOTA, 429, "billing_error"),
    403: (Verdict.AUTH, 529, "overloaded_error"),
    404: (Verdict.NO_MODEL, 404, "not_found_error"),
    408: (Verdict.TRANSIENT, 504, "timeout_error"),
    409: (Verdict.TRANSIENT, 502, "api_error"),
    413: (Verdict.CLIENT, 413, "request_too_large"),
    418: (Verdict.CLIENT, 400, "invalid_request_error"),
    422: (Verdict.CLIENT, 400, "invalid_request_error"),
    429: (Verdict.RATE, 429, "rate_limit_error"),
    500: (Verdict.TRANSIENT, 502, "api_error"),
    502: (Verdict.TRANSIENT, 502, "api_error"),
    503: (Verdict.TRANSIENT, 502, "api_error"),
    504: (Verdict.TRANSIENT, 504, "timeout_error"),
    529: (Verdict.OVERLOADED, 529, "overloaded_error"),
    301: (Verdict.TRANSIENT, 502, "api_error"),
}


@pytest.mark.parametrize("status, expected", STATUSES.items())
def test_a_status_decides_what_happens_and_what_the_client_sees(status: int, expected: tuple[Any, ...]) -> None:
    failure = judge(status, "why", {}, CREDENTIALS)
    assert (failure.verdict, failure.status, failure.type, failure.message) == (*expected, "why")
    assert str(failure) == f"{expected[1]} {expected[2]}: why"
    assert failure.upstream_status == status


@pytest.mark.parametrize(
    "status, message, verdict",
    [
        (429, "You exceeded your current quota, please check your plan", Verdict.QUOTA),
        (429, "insufficient_quota", Verdict.QUOTA),
        (429, "Rate limit reached", Verdict.RATE),
        (400, "Your credit balance is too low to access the API.", Verdict.QUOTA),
        (400, "Tool 'credit balance is too low' is unknown", Verdict.CLIENT),
    ],
)
def test_a_spent_quota_is_told_from_a_rate(status: int, message: str, verdict: Verdict) -> None:
    assert judge(status, message, {}, CREDENTIALS).verdict is verdict


OVERLONG = [
    "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens (8000 in the messages).",
    "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
    "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens (5000 in the messages, "
    "4000 in the completion). Please reduce",
    "This model's maximum context length is 8192 tokens and your request has 9000 input tokens",
    "maximum context length is 8192 tokens. Please reduce; your prompt contains at least 9000 input tokens",
]


@pytest.mark.parametrize("message", OVERLONG)
def test_an_overlong_prompt_is_told_in_the_words_that_clients_act_on(message: str) -> None:
    assert judge(400, message, {}, CREDENTIALS).message == "prompt is too long: 9000 tokens > 8192 maximum"


@pytest.mark.parametrize(
    "message, clean",
    [
        ("Incorrect key sk-secret-of-the-account", "Incorrect key ***"),
        ("Incorrect key sk-proj-ab**********cd", "Incorrect key sk-***"),
        ("no route https://upstream.test/v1/x", "no route upstream/x"),
        ("bearer token-secret", "bearer ***"),
        ("task-force", "task-force"),
        ("x" * 5000, "x" * 2000),
    ],
)
def test_a_message_carries_no_secret_and_no_address(message: str, clean: str) -> None:
    assert scrub(message, CREDENTIALS) == clean


def test_an_account_without_a_key_hides_nothing() -> None:
    assert scrub("plain", Credentials()) == "plain"


TOGETHER = {
    "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens (1000 in the messages, "
    "8000 in the completion). Please reduce": (1000, 8000),
    "'max_tokens' is too large: 64000. This model's maximum context length is 8192 tokens and your request has 1000 "
    "input tokens (64000 > 8192 - 1000).": (1000, 64000),
}


@pytest.mark.parametrize("message, tokens", TOGETHER.items())
def test_a_prompt_that_fits_alone_asks_for_a_smaller_answer(message: str, tokens: tuple[int, int]) -> None:
    assert judge(400, message, {}, CREDENTIALS).message == (
        f"input length and `max_tokens` exceed context limit: {tokens[0]} + {tokens[1]} > 8192, decrease input length "
        "or `max_tokens` and try again"
    )


# ---- finding the message


BODIES = {
    "OpenAI": (b'{"error":{"message":"m","type":"t","code":null}}', "m"),
    "Anthropic": (b'{"type":"error","error":{"type":"api_error","message":"m"}}', "m"),
    "text": (b'{"error":"m"}', "m"),
    "vLLM": (b'{"object":"error","message":"m"}', "m"),
    "FastAPI": (b'{"detail":"m"}', "m"),
    "plain message": (b'{"message":"m"}', "m"),
    "plain text": (b" m\n", "m"),
    "a page": (b"<html>m</html>", "upstream answered 500"),
    "nothing": (b"", "upstream answered 500"),
    "a list": (b"[1]", "upstream answered 500"),
    "details as a list": (b'{"detail":[{"loc":["body"]}]}', '[{"loc":["body"]}]'),
    "FastAPI's fields": (b'{"detail":[{"loc":["body","a",0],"msg":"m"},{"msg":"n"}]}', "a.0: m; n"),
    "Mistral's fields": (b'{"object":"error","message":{"detail":[{"loc":["body","a"],"msg":"m"}]}}', "a: m"),
    "Gemini's list": (b'[{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT"}}]', "m"),
    "JSON's null": (b"null", "upstream answered 500"),
    "text that begins like it": (b"nullified", "nullified"),
    "no text at all": (b"\xff\xfe", "��"),
    "an error without words": (b'{"error":{}}', "upstream answered 500"),
    "a page of 3 MB": (b"x" * 3_000_000, "x" * 2000),
}


@pytest.mark.parametrize("body, message", BODIES.values(), ids=BODIES)
def test_the_message_is_found_in_every_shape(body: bytes, message: str) -> None:
    assert message_of(HttpResponse(500, {}, body)) == message


WORDS = {
    "all": (
        b'{"error":{"message":"m","param":"top_k","code":"bad"}}',
        {"message": "m", "param": "top_k", "code": "bad"},
    ),
    "none": (b'{"error":{"message":"m","param":null,"code":400}}', {"message": "m"}),
    "too long to be one": (b'{"error":{"message":"m","code":"%b"}}' % (b"x" * 101), {"message": "m"}),
    "a secret": (b'{"error":{"message":"key %b"}}' % CREDENTIALS.api_key.encode(), {"message": "key ***"}),
    "no object": (b'{"error":"m"}', {}),
    "no JSON": (b"x", {}),
}


@pytest.mark.parametrize("body, words", WORDS.values(), ids=WORDS)
def test_the_words_of_openais_errors_are_found(body: bytes, words: dict[str, str]) -> None:
    assert words_of(HttpResponse(400, {}, body), CREDENTIALS) == words


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


INSIDE: dict[str, tuple[Any, tuple[str, int | None] | None]] = {
    "none": ({"id": "x", "choices": []}, None),
    "null": ({"error": None}, None),
    "no object": ([1], None),
    "by type": ({"error": {"type": "rate_limit_error", "message": "m"}}, ("m", 429)),
    "by code": ({"error": {"code": "insufficient_quota", "message": "m"}}, ("m", 402)),
    "by number": ({"error": {"code": 429, "message": "m"}}, ("m", 429)),
    "by number as text": ({"error": {"code": "503", "message": "m"}}, ("m", 503)),
    "by Groq's status_code": ({"error": {"status_code": 400, "type": "x", "message": "m"}}, ("m", 400)),
    "by nothing": ({"error": {"message": "m"}}, ("m", None)),
    "odd codes": ({"error": {"code": True, "type": ["x"], "status": 7, "message": {"a": 1}}}, ('{"a":1}', None)),
    "nested too deeply": ({"error": {"message": [nested(300)]}}, ("unknown error", None)),
    "odd error": ({"error": 7}, ("unknown error", None)),
    "text": ({"error": "m"}, ("m", None)),
    "vLLM": ({"object": "error", "message": "m", "code": 404}, ("m", 404)),
}


@pytest.mark.parametrize("body, found", INSIDE.values(), ids=INSIDE)
def test_an_error_inside_a_success_is_found(body: Any, found: Any) -> None:
    assert error_in(body) == found
    assert (failure_in(body, CREDENTIALS) is None) == (found is None)


@pytest.mark.parametrize("word", ["x", "sk-", "requested ", "9", "{", "maximum context length is 1 tokens "])
def test_an_error_of_3_mb_is_judged_in_a_moment(word: str) -> None:
    error = {"error": {"message": word * (3_000_000 // len(word)), "type": "server_error"}}
    began = time.perf_counter()
    for status in (400, 429, 500):
        response = HttpResponse(status, {}, json.dumps(error).encode())
        failure = judge(status, message_of(response), {}, CREDENTIALS)
        assert len(failure.message) <= 2000
    inside = failure_in(error, CREDENTIALS)
    assert inside is not None
    assert len(inside.message) <= 2000
    assert time.perf_counter() - began < 10


def test_an_error_without_a_status_is_a_bad_gateway() -> None:
    failure = failure_in({"error": {"message": "boom"}}, CREDENTIALS)
    assert failure is not None
    assert (failure.verdict, failure.status) == (Verdict.TRANSIENT, 502)


# ---- when to ask again


WAITS: dict[str, tuple[dict[str, str], float | None]] = {
    "nothing": ({}, None),
    "milliseconds first": ({"retry-after-ms": "1500", "retry-after": "60"}, 1.5),
    "seconds": ({"retry-after": "12"}, 12),
    "a fraction": ({"retry-after": "1.5"}, 1.5),
    "at least a second": ({"retry-after": "0"}, 1),
    "at most a day": ({"retry-after": "99999999"}, 86_400),
    "a date": ({"retry-after": "Sun, 15 Jun 2025 15:07:40 GMT"}, 60),
    "a date in the past": ({"retry-after": "Sun, 15 Jun 2025 15:00:00 GMT"}, 1),
    "several": ({"retry-after": "30, 120"}, 120),
    "several dates": ({"retry-after": "Sun, 15 Jun 2025 15:07:40 GMT, Sun, 15 Jun 2025 15:08:40 GMT"}, 120),
    "an old form of date": ({"retry-after": "Sunday, 15-Jun-25 15:07:40 GMT"}, 60),
    "a bucket told twice": ({"x-ratelimit-reset": "7s, 9s", "x-ratelimit-remaining": "0, 0"}, 9),
    "rubbish": ({"retry-after": "soon"}, None),
    "negative": ({"retry-after": "-5"}, None),
    "OpenAI's durations": ({"x-ratelimit-reset-requests": "6m0s"}, 360),
    "small durations": ({"x-ratelimit-reset-tokens": "1s120ms"}, 1.12),
    "the larger of two": ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-reset-tokens": "1s"}, 360),
    "minutes and seconds as Go prints them": ({"x-ratelimit-reset-requests": "1m30s"}, 90),
    "milliseconds as Go prints them": ({"x-ratelimit-reset-tokens": "2500ms"}, 2.5),
    "less than a second": ({"x-ratelimit-reset-tokens": "250ms"}, 1),
    "microseconds": ({"x-ratelimit-reset-tokens": "800µs"}, 1),
    "hours with a fraction": ({"x-ratelimit-reset-tokens": "1h0m0.5s"}, 3600.5),
    "plain seconds": ({"x-ratelimit-reset-requests": "42"}, 42),
    "half a duration": ({"x-ratelimit-reset-requests": "1m and a bit"}, None),
    "no bucket is empty": ({"x-ratelimit-reset-requests": "24h", "x-ratelimit-remaining-requests": "9000"}, None),
    "retry-after before any bucket": ({"retry-after": "2", "x-ratelimit-reset-requests": "6m0s"}, 2),
    "a date without a zone is UTC": ({"x-ratelimit-reset-requests": "2025-06-15T15:07:10"}, 30),
    "an offset": ({"x-ratelimit-reset-requests": "2025-06-15T17:07:10+02:00"}, 30),
    "only of the bucket that is empty": (
        {
            "x-ratelimit-reset-requests": "6m0s",
            "x-ratelimit-remaining-requests": "5",
            "x-ratelimit-reset-tokens": "7s",
            "x-ratelimit-remaining-tokens": "0",
        },
        7,
    ),
    "OpenRouter's milliseconds": ({"x-ratelimit-reset": str(int((NOW + 30) * 1000))}, 30),
    "an epoch": ({"x-ratelimit-reset": str(int(NOW + 30))}, 30),
    "Anthropic's time": (
        {
            "anthropic-ratelimit-tokens-remaining": "0",
            "anthropic-ratelimit-tokens-reset": "2025-06-15T15:07:10Z",
            "anthropic-ratelimit-requests-remaining": "10",
            "anthropic-ratelimit-requests-reset": "2025-06-15T16:00:00Z",
        },
        30,
    ),
    "the last of Anthropic's empty buckets": (
        {
            "anthropic-ratelimit-input-tokens-remaining": "0",
            "anthropic-ratelimit-input-tokens-reset": "2025-06-15T15:07:10Z",
            "anthropic-ratelimit-output-tokens-remaining": "0",
            "anthropic-ratelimit-output-tokens-reset": "2025-06-15T15:07:40Z",
        },
        60,
    ),
    "none of Anthropic's buckets is empty": (
        {
            "anthropic-ratelimit-requests-remaining": "10",
            "anthropic-ratelimit-requests-reset": "2025-06-15T16:00:00Z",
        },
        None,
    ),
    "no number at all": ({"retry-after": "9" * 400}, 86_400),
}


@pytest.mark.parametrize("headers, seconds", WAITS.values(), ids=WAITS)
def test_the_time_to_ask_again_is_read_from_the_headers(headers: dict[str, str], seconds: float | None) -> None:
    assert cooldown(headers, NOW) == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    "message, model, named",
    [
        ("Rate limit reached for gpt-4o in organization org-x on tokens per min", "gpt-4o", True),
        ("Rate limit reached for gpt-4o in organization org-x", "gpt-4o-2024-08-06", True),
        ("Rate limit reached for gpt-4o-2024-08-06 in organization org-x", "gpt-4o", True),
        ("Rate limit reached for model `llama-3.3-70b-versatile`.", "llama-3.3-70b-versatile", True),
        ("limit of 30,000 input tokens (model: claude-sonnet-4-5-20250929)", "claude-sonnet-4-5", True),
        ("Rate limit reached for gpt-4o-mini in organization org-x", "gpt-4o", False),
        ("Rate limit reached for gpt-4.1 in organization org-x", "gpt-4", False),
        ("Rate limit reached for my/gpt-4o", "gpt-4o", False),
        ("Number of requests has exceeded your rate limit", "claude-sonnet-4-5", False),
        ("Rate limit reached", "", False),
    ],
)
def test_a_refusal_that_names_the_model_is_told_from_one_of_the_account(message: str, model: str, named: bool) -> None:
    assert names_model(message, model) is named


def test_only_failures_that_heal_have_a_time() -> None:
    assert judge(429, "m", {"retry-after": "7"}, CREDENTIALS).retry_after == 7
    assert judge(400, "m", {"retry-after": "7"}, CREDENTIALS).retry_after is None


@pytest.mark.parametrize("name", ["request-id", "x-request-id"])
def test_the_upstream_s_request_id_is_kept_for_the_log(name: str) -> None:
    assert judge(500, "m", {name: "req_up"}, CREDENTIALS).upstream_request_id == "req_up"
