import json
from typing import Any

import pytest

from opus_api.dialects import anthropic
from opus_api.wire.errors import ApiError, InvalidRequest, NotFound
from tests import grammar

BODY: dict[str, Any] = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.parametrize(
    "header, version",
    [(None, "2023-06-01"), ("2023-06-01", "2023-06-01"), (" 2026-10-21 ", "2026-10-21"), ("2999-01-01", "2999-01-01")],
)
def test_a_version_is_any_date_and_a_missing_one_is_the_oldest(header: str | None, version: str) -> None:
    headers = {} if header is None else {"anthropic-version": header}
    assert anthropic.version(headers) == version
    assert anthropic.parse(BODY, headers).headers == headers  # passed on as it came


@pytest.mark.parametrize("header", ["", "v1", "2023-6-1", "2023-06-01-beta", "２０２３-06-01"])
def test_a_version_that_is_no_date_is_refused(header: str) -> None:
    with pytest.raises(InvalidRequest, match="anthropic-version: Input should be a date"):
        anthropic.parse(BODY, {"anthropic-version": header})


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_sampling_is_gone_from_the_new_version_only(name: str) -> None:
    body = {**BODY, name: 1}
    assert anthropic.parse(body, {"anthropic-version": "2023-06-01"}).body[name] == 1
    for version in ("2026-10-21", "2027-01-01", "2025-01-01"):  # unknown ones count as the newest
        with pytest.raises(InvalidRequest) as caught:
            anthropic.parse(body, {"anthropic-version": version})
        assert caught.value.message == f"{name}: Extra inputs are not permitted"


def test_only_anthropic_headers_are_kept() -> None:
    headers = {"anthropic-beta": "a,b", "anthropic-new": "x", "authorization": "secret", "cookie": "secret"}
    assert anthropic.parse(BODY, headers).headers == {"anthropic-beta": "a,b", "anthropic-new": "x"}


def test_an_event_is_a_name_a_line_of_data_and_a_blank_line() -> None:
    assert anthropic.PING == b'event: ping\ndata: {"type":"ping"}\n\n'
    assert grammar.events(anthropic.Encoder(anthropic.parse(BODY, {})).encode([{"type": "ping"}] * 2)) == [
        {"type": "ping"},
        {"type": "ping"},
    ]


@pytest.mark.parametrize("error", [NotFound("model: x"), ApiError(529, "overloaded_error", "Overloaded")])
def test_an_error_looks_the_same_as_a_body_and_as_an_event(error: ApiError) -> None:
    expected = {
        "type": "error",
        "error": {"type": error.type, "message": error.message},
        "request_id": "req_1",
    }
    assert json.loads(anthropic.error_body(error, "req_1")) == expected
    assert grammar.events(anthropic.error_event(error, "req_1")) == [expected]
    assert anthropic.status(error) == error.status


def test_spent_credit_of_an_upstream_is_a_limit() -> None:
    error = json.loads(anthropic.error_body(ApiError(429, "billing_error", "spent"), "req_1"))["error"]
    assert error == {"type": "rate_limit_error", "message": "spent"}


def test_a_message_is_rendered_as_it_is() -> None:
    message = {"id": "m", "content": [], "something_new": 1}
    assert json.loads(anthropic.render(anthropic.parse(BODY, {}), message)) == message
