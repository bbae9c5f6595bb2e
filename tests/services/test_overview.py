"""Today against yesterday until the same time, and periods without a gap."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.dialects import mysql

from opus_api.extensions import db
from opus_api.services import overview
from opus_api.services.overview import Figure
from tests.services.test_statistics import row, write

NOON = datetime(2026, 1, 2, 12, 30, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def figures() -> dict[str, Figure]:
    with db.engine.connect() as connection:
        return overview.figures(connection, NOON)


def series(period: str) -> list[dict[str, Any]]:
    with db.engine.connect() as connection:
        return overview.series(connection, overview.PERIODS[period], NOON)


def test_today_is_compared_with_yesterday_until_the_same_time(app: Flask) -> None:
    today, before, after = NOON - HOUR, NOON - DAY - HOUR, NOON - DAY + HOUR
    write(*(row(n, time=moment) for n, moment in enumerate([today, today, today, before, before, after])))
    assert figures()["requests"] == Figure(3, 2)
    assert figures()["tokens"] == Figure(33, 22)


@pytest.mark.parametrize(
    "today, yesterday, change", [(3, 2, 50), (1, 2, -50), (2, 2, 0), (0, 4, -100), (5, 0, None), (None, 3, None)]
)
def test_a_change_is_in_percent_of_yesterday(today: int | None, yesterday: int | None, change: int | None) -> None:
    assert Figure(today, yesterday).change == change


@pytest.mark.parametrize("period, count, last", [("24h", 24, "2026-01-02T12:00:00Z"), ("30d", 30, "2026-01-02")])
def test_every_period_is_there_up_to_now(app: Flask, period: str, count: int, last: str) -> None:
    write(row(1, time=NOON - timedelta(minutes=1)), row(2, time=NOON - 400 * DAY))
    found = series(period)
    assert (len(found), found[-1]["key"], [entry["requests"] for entry in found]) == (
        count,
        last,
        [0] * (count - 1) + [1],
    )


def test_what_the_front_page_asks_is_understood_by_mysql(app: Flask) -> None:
    asked: list[Any] = []
    sa.event.listen(db.engine, "before_execute", lambda _connection, statement, *_: asked.append(statement))
    with db.engine.connect() as connection:
        overview.first_steps(connection, NOON, anonymous="off")
        overview.figures(connection, NOON)
        overview.series(connection, overview.PERIODS["24h"], NOON)
    assert asked
    assert not [one for one in asked if "FILTER (" in str(one.compile(dialect=mysql.dialect()))]
