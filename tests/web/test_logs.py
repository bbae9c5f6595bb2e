"""The request log over the JSON API, exactly as its interface is written down."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from opus_api.extensions import db
from opus_api.services import statistics
from opus_api.services.request_log import BLANK, LOGS

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROW = {
    *("request_id", "time", "key", "account", "provider", "dialect", "model", "upstream_model", "stream", "status"),
    *("outcome", "error_type", "attempts", "input_tokens", "output_tokens", "cache_read_input_tokens"),
    *("cache_creation_input_tokens", "first_token_ms", "duration_ms", "client_ip"),
}


def write(count: int, **more: Any) -> None:
    named = {"dialect": "openai", "model": "m", "stream": True, "status": 200, "outcome": "ok"}
    first = db.session.scalar(sa.select(sa.func.count()).select_from(LOGS)) or 0
    rows = [
        {**BLANK, "request_id": f"req_{n}", "time": START + timedelta(minutes=n // 2), **named, **more}
        for n in range(first, first + count)
    ]
    with db.engine.begin() as connection:
        connection.execute(sa.insert(LOGS), rows)
        statistics.add(connection, rows)


def ask(api: FlaskClient, query: str = "") -> Any:
    response = api.get(f"/v2/logs{query}")
    assert response.status_code == 200, response.text
    return response.json


def names(answer: Any) -> list[str]:
    return [row["request_id"] for row in answer["data"]]


def pages(api: FlaskClient, query: str) -> Iterator[list[str]]:
    before = ""
    while True:
        answer = ask(api, f"?{query}{before}")
        yield names(answer)
        if answer["next"] is None:
            return
        before = f"&before={answer['next']}"


def test_a_row_has_the_documented_fields(api: FlaskClient) -> None:
    write(1, key_id=1, account_id=2)
    [row] = ask(api)["data"]
    assert set(row) == ROW
    assert (row["key"], row["account"], row["time"]) == (1, 2, "2026-01-02T03:04:05Z")


def test_the_newest_come_first_and_every_row_once_over_all_pages(api: FlaskClient) -> None:
    write(25)  # two and two at the same time
    for limit in (1, 2, 3, 7, 25, 1000):
        found = list(pages(api, f"limit={limit}"))
        assert [name for page in found for name in page] == [f"req_{n}" for n in reversed(range(25))], limit


def test_rows_that_come_while_one_reads_move_no_page(api: FlaskClient) -> None:
    write(10)
    first = ask(api, "?limit=4")
    write(5)
    assert names(ask(api, f"?limit=4&before={first['next']}")) == ["req_5", "req_4", "req_3", "req_2"]


@pytest.mark.parametrize(
    "query, count",
    [
        ("?key=1", 2),
        ("?account=4", 3),
        ("?model=n", 3),
        ("?status=502", 3),
        ("?outcome=upstream_error", 3),
        ("?key=1&model=n", 0),
        ("?key=99", 0),
        ("?from=2026-01-02T03:05:05Z", 3),
        ("?to=2026-01-02T03:05:05Z", 2),
        ("?from=2026-01-02T03:05:05Z&to=2026-01-02T03:06:05Z", 2),
    ],
)
def test_filters(api: FlaskClient, query: str, count: int) -> None:
    write(2, key_id=1)
    write(3, account_id=4, model="n", status=502, outcome="upstream_error")
    assert len(ask(api, query)["data"]) == count


@pytest.mark.parametrize(
    "path, field",
    [
        ("?limit=0", "limit"),
        ("?limit=1001", "limit"),
        ("?limit=x", "limit"),
        ("?before=x", "before"),
        ("?before=999999999999999999-1", "before"),
        ("?key=x", "key"),
        ("?account=-1", "account"),
        ("?status=5xx", "status"),
        ("?from=yesterday", "from"),
        ("?to=2026-01-02", "to"),
        ("/stats?by=colour", "by"),
        ("/stats?from=x", "from"),
    ],
)
def test_a_bad_value_is_a_422_that_names_it(api: FlaskClient, path: str, field: str) -> None:
    response = api.get(f"/v2/logs{path}")
    assert (response.status_code, response.json and response.json["error"]["message"].split(":")[0]) == (422, field)


def test_statistics(api: FlaskClient) -> None:
    write(3, model="m", duration_ms=100, input_tokens=10, output_tokens=2)
    write(1, model="n", account_id=1, outcome="upstream_error", duration_ms=100)
    assert ask(api, "/stats?by=model")["data"] == [
        {"key": "m", "requests": 3, "errors": 0, "input_tokens": 30, "output_tokens": 6, "p50_ms": 107, "p95_ms": 107},
        {"key": "n", "requests": 1, "errors": 1, "input_tokens": 0, "output_tokens": 0, "p50_ms": 107, "p95_ms": 107},
    ]


def test_cleanup_deletes_old_rows_and_keeps_their_statistics(api: FlaskClient) -> None:
    write(3)
    assert api.post("/v2/logs/cleanup", json={"days": 1}).json == {"deleted": 3}
    assert ask(api)["data"] == []
    assert ask(api, "/stats?by=day")["data"][0]["requests"] == 3


@pytest.mark.parametrize("body", [{}, {"days": -1}, {"days": "1"}, {"days": 1.5}])
def test_cleanup_wants_days(api: FlaskClient, body: dict[str, Any]) -> None:
    assert api.post("/v2/logs/cleanup", json=body).status_code == 422


@pytest.mark.parametrize("path", ["", "/stats"])
def test_strangers_see_nothing(client: FlaskClient, path: str) -> None:
    assert client.get(f"/v2/logs{path}").status_code == 401
