import json
from typing import Any

import pytest

from opus_api.upstreams import UPSTREAMS
from opus_api.upstreams.anthropic import EFFORT, EventReader
from opus_api.upstreams.base import Failure, Verdict
from opus_api.wire.http import HttpRequest, HttpResponse
from tests.golden.pipeline import BASE_URL, Exchange

ANTHROPIC = UPSTREAMS["anthropic"]
BODY: dict[str, Any] = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}
EXCHANGE = Exchange(provider="anthropic")


def sent(exchange: Exchange = EXCHANGE, **given: Any) -> tuple[HttpRequest, dict[str, Any]]:
    request = exchange.request(exchange.parse({**BODY, **given}))
    return request, json.loads(request.body or b"")


def test_the_request_goes_to_v1_messages_with_the_account_s_key() -> None:
    request, body = sent()
    assert (request.method, request.url) == ("POST", f"{BASE_URL}/v1/messages")
    assert body == {**BODY, "model": "upstream-model"}
    assert request.headers == {
        "content-type": "application/json",
        "anthropic-version": "2023-06-01",
        "x-api-key": "sk-of-the-account",
        "accept": "application/json",
    }


def test_the_client_s_own_headers_and_fields_pass() -> None:
    headers = {
        "anthropic-version": "2026-10-21",
        "anthropic-beta": "a,b",
        "anthropic-workspace-id": "w",
        "x-app": "cli",
    }
    request, body = sent(Exchange(provider="anthropic", headers=headers), something_new={"x": [1]}, stream=True)
    assert body["something_new"] == {"x": [1]}
    assert request.headers["accept"] == "text/event-stream"
    assert {name: value for name, value in request.headers.items() if name.startswith("anthropic-")} == {
        "anthropic-version": "2026-10-21",
        "anthropic-beta": "a,b",
        "anthropic-workspace-id": "w",
    }


def test_converted_requests_always_stream() -> None:
    exchange = Exchange(provider="anthropic", dialect="openai")
    request, body = sent(exchange)
    assert body["stream"] is True
    assert request.headers["accept"] == "text/event-stream"


@pytest.mark.parametrize("name", EFFORT)
def test_documented_names_carry_their_effort(name: str) -> None:
    assert sent(model=name)[1]["output_config"] == {"effort": EFFORT[name]}
    assert sent(model=name, output_config={"effort": "max"})[1]["output_config"] == {"effort": "max"}


def test_a_body_too_deep_to_write_is_the_client_s_fault() -> None:
    deep: Any = {}
    for _ in range(300):
        deep = {"a": deep}
    with pytest.raises(Exception, match="nested too deeply"):
        sent(something_new=deep)


def test_a_rate_limit_without_a_time_is_the_monthly_cap() -> None:
    error = json.dumps({"type": "error", "error": {"type": "rate_limit_error", "message": "cap"}}).encode()
    failure = ANTHROPIC.failure(HttpResponse(429, {}, error), EXCHANGE.credentials)
    assert (failure.verdict, failure.retry_after) == (Verdict.QUOTA, None)
    failure = ANTHROPIC.failure(HttpResponse(429, {"retry-after": "7"}, error), EXCHANGE.credentials)
    assert (failure.verdict, failure.retry_after) == (Verdict.RATE, 7)


def test_a_spent_credit_comes_as_a_400() -> None:
    message = "Your credit balance is too low to access the Anthropic API."
    error = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": message}}).encode()
    failure = ANTHROPIC.failure(HttpResponse(400, {}, error), EXCHANGE.credentials)
    assert (failure.verdict, failure.status, failure.type) == (Verdict.QUOTA, 429, "billing_error")


# ---- reading along


@pytest.mark.parametrize(
    "data, problem",
    [
        (b"{", "upstream sent invalid JSON"),
        (b"[]", "upstream sent a malformed event"),
        (b"{}", "upstream sent a malformed event"),
        (b'{"type":"content_block_delta"}', "upstream sent a malformed event"),
        (b'{"type":"message_stop"}', "upstream sent message_stop before message_start"),
        (b'{"type":"error"}', "error"),
        (b'{"type":"error","error":7}', "unknown error"),
        (b'{"error":{"message":"boom"}}', "boom"),
        (b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', "Overloaded"),
    ],
)
def test_an_event_that_is_none_is_a_failure(data: bytes, problem: str) -> None:
    with pytest.raises(Failure) as caught:
        EventReader(EXCHANGE.credentials).event(data)
    assert caught.value.message == problem


def test_after_the_first_content_only_bytes_of_note_are_read() -> None:
    reader = EventReader(EXCHANGE.credentials)
    assert reader.wants(b"anything")
    reader.event(b'{"type":"message_start","message":{}}')
    reader.event(b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}')
    assert not reader.wants(b'data: {"text":"\\"usage\\" \\"error\\""}')
    for note in (b'"usage":{', b'"error"', b"event: message_delta", b"event: message_stop"):
        assert reader.wants(note)


# ---- the credential's check


def probed(response: HttpResponse) -> tuple[HttpRequest, Any]:
    flow = ANTHROPIC.probe(EXCHANGE.credentials)
    request = next(flow)
    with pytest.raises(StopIteration) as end:
        flow.send(response)
    return request, end.value.value


def test_a_key_is_checked_with_the_list_of_models() -> None:
    models = json.dumps({"data": [{"id": "claude-a"}, {"id": "claude-b"}], "has_more": False}).encode()
    request, probe = probed(HttpResponse(200, {}, models))
    assert (request.method, request.url) == ("GET", f"{BASE_URL}/v1/models?limit=1000")
    assert request.headers["x-api-key"] == "sk-of-the-account"
    assert (probe.ok, probe.models) == (True, ["claude-a", "claude-b"])


@pytest.mark.parametrize(
    "status, body, ok, words",
    [
        (401, b'{"error":{"message":"invalid x-api-key"}}', False, "The key was refused (401): invalid x-api-key"),
        (403, b"", False, "The key was refused (403)"),
        (429, b"", True, "The key works, but its rate or quota is used up."),
        (402, b"", True, "The key works, but its rate or quota is used up."),
        (404, b"<html>", False, "is the base URL right?"),
        (500, b"oops", False, "answered 500: oops"),
        (200, b"<html>", False, "did not answer with a list of models"),
        (200, b'{"data":{}}', False, "did not answer with a list of models"),
        (200, b'[{"id":"a"},{"x":1},7]', True, "The key works; 1 models."),
    ],
)
def test_what_a_check_says_is_a_sentence(status: int, body: bytes, ok: bool, words: str) -> None:
    _, probe = probed(HttpResponse(status, {}, body))
    assert probe.ok is ok
    assert words in probe.message
