"""What the log adds up to, whichever way the rows came in and whatever span is asked for."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from opus_api.extensions import db
from opus_api.services import logs, statistics
from opus_api.services.request_log import BLANK, LOGS

START = datetime(2026, 1, 2, 22, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def row(number: int, **more: Any) -> dict[str, Any]:
    named = {"dialect": "openai", "model": "m", "stream": True, "status": 200, "outcome": "ok", "duration_ms": 100}
    tokens = {"input_tokens": 10, "output_tokens": 1}
    return {**BLANK, "request_id": f"req_{number}", "time": START, **named, **tokens, **more}


def write(*rows: dict[str, Any]) -> None:
    """As the recorder does: rows and counters in one transaction."""
    with db.engine.begin() as connection:
        connection.execute(sa.insert(LOGS), list(rows))
        statistics.add(connection, rows)


def ask(by: str, start: datetime | None = None, end: datetime | None = None) -> list[dict[str, Any]]:
    with db.engine.connect() as connection:
        return statistics.answer(connection, by, start, end)


def counted(by: str, start: datetime | None = None, end: datetime | None = None) -> dict[Any, int]:
    return {found["key"]: found["requests"] for found in ask(by, start, end)}


def test_nothing_adds_up_to_nothing(app: Flask) -> None:
    assert [ask(by) for by in statistics.BY] == [[]] * 5


@pytest.mark.parametrize(
    "by, expected",
    [
        ("hour", {"2026-01-02T22:00:00Z": 2, "2026-01-02T23:00:00Z": 1, "2026-01-03T00:00:00Z": 1}),
        ("day", {"2026-01-02": 3, "2026-01-03": 1}),
        ("model", {"m": 3, "n": 1}),
        ("account", {1: 1, 2: 2, None: 1}),
        ("key", {7: 3, None: 1}),
    ],
)
def test_requests_are_counted_by(app: Flask, by: str, expected: dict[Any, int]) -> None:
    write(row(1, account_id=1, key_id=7), row(2, account_id=2, key_id=7, time=START + HOUR))
    write(row(3, account_id=2, key_id=7, model="n"), row(4, time=START + 2 * HOUR))
    assert counted(by) == expected


@pytest.mark.parametrize(
    "outcome, errors",
    [
        ("ok", 0),
        ("client_gone", 0),
        ("client_error", 1),
        ("upstream_error", 1),
        ("upstream_cut", 1),
        ("gateway_error", 1),
        ("aborted", 1),
    ],
)
def test_who_left_is_no_error(app: Flask, outcome: str, errors: int) -> None:
    write(row(1, outcome=outcome))
    assert [found["errors"] for found in ask("day")] == [errors]


def test_tokens_add_up(app: Flask) -> None:
    write(row(1, input_tokens=3, output_tokens=4))
    write(row(2, input_tokens=2**40, output_tokens=5))
    found = ask("model")[0]
    assert (found["input_tokens"], found["output_tokens"]) == (2**40 + 3, 9)


@pytest.mark.parametrize("share", [0.5, 0.95])
@pytest.mark.parametrize("times", [[0], [1], [250] * 10, list(range(1, 2000)), [5, 60_000, 3_600_000]])
def test_a_percentile_is_at_most_nine_percent_off(times: list[int], share: float) -> None:
    tally = statistics.Tally(requests=len(times))
    tally.buckets.update(map(statistics.bucket, times))
    exact = sorted(times)[max(0, -(-len(times) * int(share * 100) // 100) - 1)]
    assert tally.percentile(share) == pytest.approx(exact, rel=0.092, abs=0.5)


def test_any_span_counts_exactly_its_rows(app: Flask) -> None:
    moments = [START + timedelta(minutes=random.Random(number).randint(0, 600)) for number in range(200)]
    write(*(row(number, time=moment) for number, moment in enumerate(moments)))
    for first, last in [(0, 600), (17, 443), (60, 120), (61, 119), (59, 61), (30, 40), (0, 1), (120, 120), (599, 900)]:
        start, end = START + timedelta(minutes=first), START + timedelta(minutes=last)
        expected = sum(start <= moment < end for moment in moments)
        assert [sum(counted(by, start, end).values()) for by in statistics.BY] == [expected] * 5, (first, last)


def test_an_end_that_stays_open_takes_all(app: Flask) -> None:
    write(row(1), row(2, time=START + 90 * timedelta(minutes=1)))
    assert (counted("day", start=START), counted("day", end=START + HOUR)) == ({"2026-01-02": 2}, {"2026-01-02": 1})


def test_refusals_are_counted_by_minute_address_and_status(app: Flask) -> None:
    for _ in range(2):
        with db.engine.begin() as connection:
            statistics.add_refusals(connection, {(1, "::1", 401): 2, (1, "::1", 403): 1})
    with db.engine.connect() as connection:
        rows = connection.execute(sa.select(statistics.REFUSALS)).all()
    assert sorted(map(tuple, rows)) == [(1, "::1", 401, 4), (1, "::1", 403, 2)]


def test_of_made_up_models_two_hundred_an_hour_are_told_apart_and_none_is_lost(app: Flask) -> None:
    known = statistics.MOST_MODELS
    write(*(row(n, model=f"m{n:04}") for n in range(known - 1)))
    write(*(row(1000 + n, model=f"n{n:04}") for n in range(300)), row(2000, model="m0000"))
    found = counted("model")
    assert len(found) == known + 1
    assert (found["m0000"], found[statistics.OTHERS]) == (2, 299)
    assert sum(found.values()) == known + 300
    write(row(3000, model="of the next hour", time=START + HOUR))
    assert counted("model")["of the next hour"] == 1


def test_made_up_models_take_no_places_of_those_that_are_served(app: Flask) -> None:
    made_up = [row(n, model=f"m{n}", status=404, outcome="client_error") for n in range(300)]
    write(*made_up)
    write(row(400, model="real", account_id=1), row(401, model="real", status=529, outcome="overloaded"))
    write(row(402, model="other"))
    assert counted("model") == {statistics.OTHERS: 300, "real": 2, "other": 1}


def test_what_is_not_told_apart_is_no_choice_of_a_filter(app: Flask) -> None:
    write(row(1, model="made up", status=404, outcome="client_error"), row(2, model="real"))
    with db.engine.connect() as connection:
        assert statistics.busiest(connection, "model", None, None, 9) == [("real", 1)]


@pytest.mark.parametrize("deleted", [False, True])
def test_the_summary_of_a_model_counts_also_what_was_not_told_apart(app: Flask, deleted: bool) -> None:
    write(*(row(n, status=503, outcome="overloaded") for n in range(3)))
    write(row(3), row(4), row(5, model="n"))
    with db.engine.begin() as connection:
        if deleted:
            connection.execute(sa.delete(LOGS))
        found = logs.summary(connection, logs.Filter(model="m"))
    assert found.figures["requests"] == (2 if deleted else 5)
