"""Who is not let in: counted by address, minute and status."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.exc import OperationalError

from opus_api.services import refusals
from opus_api.services.refusals import OTHERS, Refusals

WRONG = {"x-api-key": "sk-wrong"}


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    return {**environment, "TRUSTED_PROXIES": "127.0.0.1/32"}


@pytest.fixture
def knock(app: Flask, client: FlaskClient) -> Callable[..., None]:
    def knock(address: str, times: int = 1, path: str = "/v1/messages") -> None:
        for _ in range(times):
            client.post(path, json={}, headers={**WRONG, "X-Forwarded-For": address})
        app.extensions["recorder"].flush()

    return knock


def counted(api: FlaskClient, query: str = "") -> list[tuple[Any, ...]]:
    rows = api.get(f"/v2/logs/refused{query}").json["data"]  # type: ignore[index]
    return [(row["client_ip"], row.get("status"), row["requests"]) for row in rows]


def test_who_is_not_let_in_is_counted_by_address_minute_and_status(
    api: FlaskClient, knock: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time() // 60 * 60
    monkeypatch.setattr(refusals.time, "time", lambda: now - 60)
    knock("192.0.2.1", 2)
    knock("192.0.2.1")
    monkeypatch.setattr(refusals.time, "time", lambda: now)
    knock("192.0.2.1")
    knock("::ffff:192.0.2.2", 2, "/v1/messages/count_tokens")
    api.post("/v2/ips/block", json={"ip": "2001:db8::1"})
    knock("2001:db8::2")
    assert sorted(counted(api, "?limit=3")) == [("192.0.2.1", 401, 1), ("192.0.2.2", 401, 2), ("2001:db8::2", 403, 1)]
    assert counted(api)[3:] == [("192.0.2.1", 401, 3)]
    assert counted(api, "?ip=192.0.2.1") == [("192.0.2.1", 401, 1), ("192.0.2.1", 401, 3)]
    assert counted(api, "?by=address")[0] == ("192.0.2.1", None, 4)
    start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    assert counted(api, f"?by=address&from={start}")[-1][2] == 1
    assert counted(api, f"?to={start}") == [("192.0.2.1", 401, 3)]


def test_the_limit_per_address_is_counted_too(api: FlaskClient, knock: Callable[..., None]) -> None:
    api.put("/v2/settings", json={"enableIPRateLimit": True, "ipRateLimitMax": 1})
    knock("192.0.2.9", 3)
    assert sorted(counted(api, "?ip=192.0.2.9")) == [("192.0.2.9", 401, 1), ("192.0.2.9", 429, 2)]


def test_who_is_let_in_is_not_counted(api: FlaskClient) -> None:
    api.get("/v2/accounts")
    api.get("/v1/nothing-here")
    assert counted(api) == []


@pytest.mark.parametrize(
    "query, field", [("?by=colour", "by"), ("?ip=x", "ip"), ("?limit=0", "limit"), ("?from=x", "from")]
)
def test_a_bad_value_is_a_422_that_names_it(api: FlaskClient, query: str, field: str) -> None:
    response = api.get(f"/v2/logs/refused{query}")
    assert (response.status_code, response.json and response.json["error"]["message"].split(":")[0]) == (422, field)


def test_a_flood_from_everywhere_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "MOST", 10)
    monkeypatch.setattr(refusals.time, "time", lambda: 60.0)
    found = Refusals()
    for number in range(100):
        found.note(f"192.0.2.{number}", 401)
    found.note("192.0.2.1", 401)
    counts = found.take()
    assert (len(counts), counts[1, "192.0.2.1", 401], counts[1, OTHERS, 401]) == (11, 2, 90)
    assert found.take() == {}


def test_what_could_not_be_stored_is_stored_later(
    app: Flask, api: FlaskClient, knock: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OperationalError("INSERT", {}, OSError("away"))

    with monkeypatch.context() as patched:
        patched.setattr(refusals, "MOST", 10)
        patched.setattr("opus_api.services.statistics.add_refusals", away)
        knock("192.0.2.1", 2)
    assert counted(api) == []
    knock("192.0.2.1")
    assert counted(api) == [("192.0.2.1", 401, 3)]
