"""Statistics of the request log, added up by the hour as its rows are written: a question never reads the rows.

Only the two hours at the ends of a span that does not begin and end with an hour are counted from the rows themselves.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import Connection, select
from sqlalchemy.dialects import mysql, postgresql, sqlite

from opus_api.models import LatencyHour, Refusal, RequestLog, UsageHour

LOGS, USAGE, LATENCY, REFUSALS = (
    cast(sa.Table, model.__table__) for model in (RequestLog, UsageHour, LatencyHour, Refusal)
)

HOUR = 3600
HOURS = {"hour": 1, "day": 24}
PERIODS = tuple(HOURS)
DIMENSIONS = {"model": "model", "account": "account_id", "key": "key_id"}  # dimension -> column of the log
BY = (*PERIODS, *DIMENSIONS)
NO_ERROR = ("ok", "client_gone")
Place = tuple[str, int, str]  # dimension, hour since 1970, name
Values = Mapping[str, Any] | sa.RowMapping  # by column of the log
Group = int | str  # a period since 1970, or a name
MOST_MODELS = 200  # told apart in one hour: clients make names up, and what was added up is kept for good
OTHERS = " other"  # a page shows no space; no model's name begins with one (wire/checks.py)
STEPS = 4  # buckets to a doubling of the time: a percentile is at most 9 % off


@dataclass(slots=True)
class Tally:
    """What some requests add up to; ``buckets`` counts how long they took."""

    requests: int = 0
    errors: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    buckets: Counter[int] = field(default_factory=Counter)

    def add(self, row: Values) -> None:
        self.requests += 1
        self.errors += row["outcome"] not in NO_ERROR
        self.input_tokens += row["input_tokens"]
        self.output_tokens += row["output_tokens"]
        self.buckets[bucket(row["duration_ms"])] += 1

    def merge(self, other: "Tally") -> None:
        for name in COUNTERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.buckets.update(other.buckets)

    def percentile(self, share: float) -> int | None:
        """Milliseconds within which ``share`` (0 to 1) of the requests ended."""
        rest = max(1, math.ceil(share * self.buckets.total()))
        for number, count in sorted(self.buckets.items()):
            rest -= count
            if rest <= 0:
                return milliseconds(number)
        return None


COUNTERS = ("requests", "errors", "input_tokens", "output_tokens")


def bucket(ms: int) -> int:
    return round(STEPS * math.log2(max(0, ms) + 1))


def milliseconds(number: int) -> int:
    """What a bucket stands for."""
    return round(2 ** (number / STEPS) - 1)


def tally(rows: Iterable[Values]) -> dict[Place, Tally]:
    """Rows of the request log, added up at every place they count."""
    found: dict[Place, Tally] = {}
    for row in rows:
        hour = int(row["time"].timestamp()) // HOUR
        for dimension, name in _names(row):
            found.setdefault((dimension, hour, name), Tally()).add(row)
    return found


def _names(row: Values) -> Iterator[tuple[str, str]]:
    yield "all", ""
    for dimension, column in DIMENSIONS.items():
        value = row[column]
        yield dimension, "" if value is None else str(value)


# ---- writing


def add(connection: Connection, rows: Sequence[Values]) -> None:
    """Count rows that this transaction inserts. In one order, so that two workers never wait for each other."""
    places = sorted(_bounded(connection, tally(rows), _served(rows)).items(), key=lambda item: item[0])
    usage, latency = [], []
    for (dimension, hour, name), found in places:
        place = {"dimension": dimension, "hour": hour, "name": name}
        usage.append(place | {counter: getattr(found, counter) for counter in COUNTERS})
        latency += [place | {"bucket": number, "requests": n} for number, n in sorted(found.buckets.items())]
    if usage:
        _count(connection, USAGE, usage)
        _count(connection, LATENCY, latency)


def _served(rows: Iterable[Values]) -> set[tuple[int, str]]:
    """Hours and models of rows that were answered or came to an account: no name that was only made up."""
    served = (row for row in rows if row["account_id"] is not None or row["outcome"] == "ok")
    return {(int(row["time"].timestamp()) // HOUR, row["model"] or "") for row in served}


def _bounded(connection: Connection, found: Mapping[Place, Tally], served: set[tuple[int, str]]) -> dict[Place, Tally]:
    """The same, with models as OTHERS that nobody served, or beyond MOST_MODELS of an hour. Two workers at once may let
    in a few more."""
    kept: dict[Place, Tally] = {}
    room: dict[int, set[str]] = {}  # of an hour: names that it has, or gets
    for (dimension, hour, name), counted in found.items():
        if dimension == "model" and name:
            if hour not in room:
                room[hour] = _models_of(connection, hour)
            known = room[hour]
            if (hour, name) in served and len(known) < MOST_MODELS:
                known.add(name)
            name = name if name in known else OTHERS
        kept.setdefault((dimension, hour, name), Tally()).merge(counted)
    return kept


def _models_of(connection: Connection, hour: int) -> set[str]:
    names = select(USAGE.c.name).where(USAGE.c.dimension == "model", USAGE.c.hour == hour)
    return set(connection.scalars(names)) - {"", OTHERS}


def add_refusals(connection: Connection, refused: Mapping[tuple[int, str, int], int]) -> None:
    """(minute, address, status) -> requests that were not let in."""
    rows = [
        {"minute": minute, "client_ip": address, "status": status, "requests": requests}
        for (minute, address, status), requests in sorted(refused.items())
    ]
    if rows:
        _count(connection, REFUSALS, rows)


def _count(connection: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows, or add their counters to those that are there."""
    connection.execute(_adding(table, connection.dialect.name), rows)


@cache  # building it takes longer than running it
def _adding(table: sa.Table, dialect: str) -> Any:
    keys = [column.name for column in table.primary_key]
    counters = [column.name for column in table.columns if column.name not in keys]
    if dialect == "mysql":
        statement = mysql.insert(table)
        return statement.on_duplicate_key_update({name: table.c[name] + statement.inserted[name] for name in counters})
    insert = (postgresql if dialect == "postgresql" else sqlite).insert(table)
    sums = {name: table.c[name] + insert.excluded[name] for name in counters}
    return insert.on_conflict_do_update(index_elements=keys, set_=sums)


# ---- reading


def answer(
    connection: Connection, by: str, start: datetime | None = None, end: datetime | None = None
) -> list[dict[str, Any]]:
    """``/v2/logs/stats``: requests of ``[start, end)`` by ``BY``: periods in order, else the busiest first."""
    rows = [{"key": _key(by, group)} | shown(counted) for group, counted in _span(connection, by, start, end).items()]
    if by in PERIODS:
        return sorted(rows, key=lambda row: str(row["key"]))
    return sorted(rows, key=lambda row: (-row["requests"], str(row["key"])))


def total(connection: Connection, start: datetime | None, end: datetime | None) -> dict[str, Any]:
    """All requests of ``[start, end)`` as one."""
    counted = Tally()
    for part in _span(connection, "day", start, end).values():
        counted.merge(part)
    return shown(counted)


def has_any(connection: Connection, answered: bool = False) -> bool:
    """Whether there ever was a request, or one that did not fail. What was added up outlives the rows of the log."""
    query = select(USAGE.c.hour).where(USAGE.c.dimension == "all").limit(1)
    return connection.scalar(query.where(USAGE.c.requests > USAGE.c.errors) if answered else query) is not None


def of_one(connection: Connection, by: str, name: str, start: datetime | None, end: datetime | None) -> dict[str, Any]:
    """All requests of ``[start, end)`` of one model, account or key; an id is told as text."""
    return shown(_span(connection, by, start, end).get(name) or Tally())


def has_others(connection: Connection, start: datetime | None, end: datetime | None) -> bool:
    """Whether requests of a model may have been counted as OTHERS in the hours of a span."""
    query = _grouped(USAGE, "model", *_hours_around(start, end), [])
    return connection.execute(query.where(USAGE.c.name == OTHERS)).first() is not None


def busiest(
    connection: Connection, by: str, start: datetime | None, end: datetime | None, most: int
) -> list[tuple[str, int]]:
    """Names of one of ``DIMENSIONS`` ("" for none) with their requests in the hours of a span; less than ``answer``.
    OTHERS is left out: no row has that name."""
    requests = sa.func.sum(USAGE.c.requests)
    query = _grouped(USAGE, by, *_hours_around(start, end), [requests.label("requests")])
    busy = query.where(USAGE.c.name != OTHERS).order_by(requests.desc(), USAGE.c.name).limit(most)
    return [(row.group, int(row.requests)) for row in connection.execute(busy)]


def _hours_around(start: datetime | None, end: datetime | None) -> tuple[float | None, float | None]:
    """The hours that a span touches, the last not included."""
    first = None if start is None else start.timestamp() // HOUR
    return first, None if end is None else -(-end.timestamp() // HOUR)


def period_name(by: str, start: datetime) -> str:
    """How a period is called: by its first hour, or its day."""
    return start.strftime("%Y-%m-%dT%H:00:00Z" if by == "hour" else "%Y-%m-%d")


def shown(counted: Tally) -> dict[str, Any]:
    counters = {counter: getattr(counted, counter) for counter in COUNTERS}
    return counters | {"p50_ms": counted.percentile(0.5), "p95_ms": counted.percentile(0.95)}


def _key(by: str, group: Group) -> str | int | None:
    if isinstance(group, int):
        return period_name(by, datetime.fromtimestamp(group * HOUR * HOURS[by], UTC))
    if not group:
        return None
    return group if by == "model" else int(group)


def _span(connection: Connection, by: str, start: datetime | None, end: datetime | None) -> dict[Group, Tally]:
    first = None if start is None else -(-start.timestamp() // HOUR)
    last = None if end is None else end.timestamp() // HOUR
    if first is not None and last is not None and first > last:  # both within one hour
        return _counted_now(connection, by, start, end)
    found = _kept(connection, by, first, last)
    if start is not None and first is not None and start.timestamp() < first * HOUR:
        _merge(found, _counted_now(connection, by, start, datetime.fromtimestamp(first * HOUR, UTC)))
    if end is not None and last is not None and end.timestamp() > last * HOUR:
        _merge(found, _counted_now(connection, by, datetime.fromtimestamp(last * HOUR, UTC), end))
    return found


def _merge(found: dict[Group, Tally], more: Mapping[Group, Tally]) -> None:
    for group, counted in more.items():
        found.setdefault(group, Tally()).merge(counted)


def _kept(connection: Connection, by: str, first: float | None, last: float | None) -> dict[Group, Tally]:
    """Added up by the database: there may be hundreds of thousands of counters."""
    found: dict[Group, Tally] = {}
    sums = [sa.func.sum(USAGE.c[counter]).label(counter) for counter in COUNTERS]
    for row in connection.execute(_grouped(USAGE, by, first, last, sums)):
        found[row.group] = Tally(int(row.requests), int(row.errors), int(row.input_tokens), int(row.output_tokens))
    buckets = [LATENCY.c.bucket, sa.func.sum(LATENCY.c.requests).label("requests")]
    for row in connection.execute(_grouped(LATENCY, by, first, last, buckets).group_by(LATENCY.c.bucket)):
        if row.group in found:
            found[row.group].buckets[row.bucket] = int(row.requests)
    return found


def _grouped(
    table: sa.Table, by: str, first: float | None, last: float | None, columns: Sequence[Any]
) -> sa.Select[Any]:
    group: Any = table.c.hour // HOURS[by] if by in PERIODS else table.c.name
    within = [table.c.dimension == ("all" if by in PERIODS else by)]
    within += [] if first is None else [table.c.hour >= int(first)]
    within += [] if last is None else [table.c.hour < int(last)]
    return select(group.label("group"), *columns).where(*within).group_by(group)


def _counted_now(connection: Connection, by: str, start: datetime | None, end: datetime | None) -> dict[Group, Tally]:
    columns = ("time", "outcome", "input_tokens", "output_tokens", "duration_ms", *DIMENSIONS.values())
    statement = select(*(LOGS.c[name] for name in columns)).where(LOGS.c.time >= start, LOGS.c.time < end)
    found: dict[Group, Tally] = {}
    dimension = "all" if by in PERIODS else by
    for (counted_by, hour, name), counted in tally(connection.execute(statement).mappings()).items():
        if counted_by == dimension:
            _merge(found, {hour // HOURS[by] if by in PERIODS else name: counted})
    return found
