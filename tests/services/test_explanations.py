"""What is said of one request: its summary, whose fault it was, what was tried."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from opus_api.extensions import db
from opus_api.models import Account, RequestLog
from opus_api.services import explanations
from opus_api.services.explanations import BUSY, DOWN, LIMITED, PERSON, Explanation, Try, trace
from opus_api.services.request_log import BLANK

NAMES = {1: "first", 2: "second"}
RATE = Try("openai", 1, 429, "rate", 12, "slow down")
AUTH = Try("openai", 1, 401, "auth", 30, "no such key")
CUT = Try("anthropic", 2, None, "transient", 400, "upstream stream ended early")
WRONG = Try("openai", 2, 400, "client", 9, "messages: too many images")
HEALS = int(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp())


def row(outcome: str, status: int, kept: Any = None, **fields: Any) -> dict[str, Any]:
    told = {
        "request_id": "req_1",
        "outcome": outcome,
        "status": status,
        "duration_ms": 700,
        "stream": True,
        "trace": kept,
    }
    return {**BLANK, **told, "time": datetime(2026, 1, 2, tzinfo=UTC), "dialect": "openai", "model": "m"} | fields


def explained(*args: Any, **fields: Any) -> Explanation:
    return explanations.explained(row(*args, **fields), NAMES)


BY_SECOND = {"provider": "anthropic", "account_id": 2}


@pytest.mark.parametrize(
    "outcome, status, tries, said, why, fault, summary",
    [
        ("ok", 200, (), "", "", "none", "second answered within 700 ms."),
        ("ok", 200, (RATE, CUT), "", "", "none", "second answered within 700 ms. 2 tries before it failed."),
        ("client_gone", 200, (), "", "", "client", "The client hung up after 700 ms, while its answer was on the way."),
        ("client_gone", 499, (), "", "", "client", "The client hung up before its answer began."),
        (
            *("client_error", 400, (WRONG,), WRONG.message, "", "client"),
            "The upstream refused the request as wrong: messages: too many images. "
            "The same request would be refused again.",
        ),
        (
            *("upstream_error", 502, (RATE, CUT), CUT.message, "", "upstream"),
            "No account could answer: upstream stream ended early. 2 tries failed.",
        ),
        (
            *("upstream_error", 529, (AUTH,), "no upstream account available", PERSON, "gateway"),
            "No account could answer: no upstream account available. A person has to look after the accounts first.",
        ),
        (
            *("upstream_cut", 200, (CUT,), CUT.message, "", "upstream"),
            "The upstream broke off within its answer, and the client was told: upstream stream ended early.",
        ),
        ("gateway_error", 500, (), "Internal error", "", "gateway", "The gateway itself failed: Internal error."),
        (
            *("aborted", 0, (), "", "", "gateway"),
            "The service was killed while it worked on this request; how far it came is not known.",
        ),
        (
            *("aborted", 529, (), "restarting", "", "gateway"),
            "The service was stopped or restarted before the answer was complete, and the client was told.",
        ),
    ],
)
def test_what_happened_and_whose_fault_it_was(
    app: Flask, outcome: str, status: int, tries: Sequence[Try], said: str, why: str, fault: str, summary: str
) -> None:
    found = explained(outcome, status, trace(tries, said, why=why), **BY_SECOND)
    assert (found.summary, found.fault) == (summary, fault)


@pytest.mark.parametrize(
    "why, fault, summary",
    [
        (BUSY, "gateway", "Every account with this model had as many requests at once as it may."),
        (LIMITED, "upstream", "Every account with this model had reached its limit."),
        (DOWN, "upstream", "The providers of all accounts with this model did not answer."),
        (PERSON, "gateway", "No account with this model could be used: each is invalid or disabled."),
    ],
)
def test_why_nobody_was_asked(app: Flask, why: str, fault: str, summary: str) -> None:
    found = explained("upstream_error", 529, trace((), "no upstream account available", why=why))
    assert found.summary.startswith(summary)
    assert (found.fault, found.attempts) == (fault, ())


@pytest.mark.parametrize(
    "status, said, summary",
    [
        (400, "x: required", "The request was refused as wrong, and no upstream was asked: x: required"),
        (404, "model: x", "Nobody has what was asked for: model: x"),
        (429, "5 requests per minute", "The API key had reached one of its limits: 5 requests per minute"),
    ],
)  # fmt: skip
def test_what_was_refused_before_anybody_was_asked(app: Flask, status: int, said: str, summary: str) -> None:
    found = explained("client_error", status, trace((), said))
    assert found.summary.startswith(summary)
    assert (found.fault, found.attempts) == ("client", ())


def test_when_it_heals(app: Flask) -> None:
    found = explained("client_error", 429, trace((), "too fast", HEALS))
    assert found.heals_at == datetime.fromtimestamp(HEALS, UTC)
    assert found.summary.endswith("It may be asked again from 2026-01-02T03:04:05Z on.")


def test_what_was_tried_one_after_the_other(app: Flask) -> None:
    found = explained("ok", 200, trace((RATE, CUT, Try("anthropic", 3, 200, "ok", 250)), ""), **BY_SECOND)
    assert [(one.provider, one.account, one.account_name, one.status, one.ms) for one in found.attempts] == [
        ("openai", 1, "first", 429, 12),
        ("anthropic", 2, "second", None, 400),
        ("anthropic", 3, None, 200, 250),
    ]
    assert [one.reason for one in found.attempts] == [
        "has reached its rate limit: slow down",
        "failed, broke off or took too long: upstream stream ended early",
        "answered",
    ]


def test_of_a_plain_answer_nothing_is_kept_and_all_is_told(app: Flask) -> None:
    assert trace((), "") is None
    [attempt] = explained("ok", 200, **BY_SECOND).attempts
    assert (attempt.account_name, attempt.status, attempt.reason, attempt.ms) == ("second", 200, "answered", 700)


def test_in_the_language_of_who_asks(app: Flask) -> None:
    with app.test_request_context(headers={"accept-language": "zh-CN"}):
        found = explained("ok", 200, trace((RATE, Try("anthropic", 2, 200, "ok", 250)), ""), **BY_SECOND)
    assert "second" in found.summary
    assert "。" in found.summary[:-1]  # two sentences
    assert "。 " not in found.summary
    assert any("\u4e00" <= letter <= "\u9fff" for letter in found.summary + found.attempts[0].reason)


def test_what_is_kept_is_short_and_holds_no_secret() -> None:
    leak = Try("openai", 1, 401, "auth", 1, "Incorrect API key: sk-proj-0123456789abcdef")
    kept = trace((leak,) * 100, leak.message * 50)
    assert kept is not None
    assert "0123456789" not in str(kept)
    assert (len(kept["tries"]), len(kept["words"])) == (explanations.MOST_TRIES, 2)
    assert len(str(kept)) < 1200


def test_over_the_api(api: FlaskClient) -> None:
    db.session.add(Account(id=1, provider="openai", name="first"))
    kept = trace((RATE,), "all upstream accounts have reached their limits", HEALS)
    db.session.add(RequestLog(**row("upstream_error", 429, kept, provider="openai", account_id=1)))
    db.session.commit()
    assert api.get("/v2/requests/req_1").json == {
        "request_id": "req_1",
        "summary": "No account could answer: all upstream accounts have reached their limits. "
        "It may be asked again from 2026-01-02T03:04:05Z on.",
        "fault": "upstream",
        "heals_at": "2026-01-02T03:04:05Z",
        "attempts": [
            {
                "provider": "openai",
                "account": 1,
                "account_name": "first",
                "status": 429,
                "reason": "has reached its rate limit: slow down",
                "ms": 12,
            }
        ],
    }


def test_a_request_that_nobody_knows_is_a_404(api: FlaskClient, client: FlaskClient) -> None:
    assert api.get("/v2/requests/req_none").status_code == 404
    assert client.get("/v2/requests/req_none").status_code == 401
