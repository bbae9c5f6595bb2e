"""Reading the request log: newest first, a page at a time, by filters that an index answers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import Connection, select

from opus_api.models import EPOCH, MICROSECOND, RequestLog
from opus_api.services import statistics
from opus_api.services.values import FieldError, moment, rfc3339
from opus_api.wire.errors import Phrase

LOGS = cast(sa.Table, RequestLog.__table__)

MOST, USUAL = 1000, 100
MOST_COUNTED = 5000  # rows that are read to count what no statistics are kept of
CURSOR = re.compile(r"(\d{1,17})-(\d{1,18})")
SHOWN = (
    *("request_id", "time", "key_id", "account_id", "provider", "dialect", "model", "upstream_model", "stream"),
    *("status", "outcome", "error_type", "attempts", "input_tokens", "output_tokens", "cache_read_input_tokens"),
    *("cache_creation_input_tokens", "first_token_ms", "duration_ms", "client_ip"),
)
NAMES = {"key_id": "key", "account_id": "account"}


@dataclass(frozen=True, slots=True)
class Filter:
    """What is asked for; None asks for all."""

    key: int | None = None
    account: int | None = None
    model: str | None = None
    status: int | None = None
    start: datetime | None = None  # ``from``
    end: datetime | None = None  # ``to``, not included
    outcome: str | None = None

    @property
    def kept(self) -> tuple[str, str] | None:
        """The dimension and the name under which the statistics count exactly what this asks for, if they do."""
        named = {by: str(value) for by in statistics.DIMENSIONS if (value := getattr(self, by)) is not None}
        if self.status is not None or self.outcome is not None or len(named) > 1:
            return None
        return next(iter(named.items()), ("all", ""))

    def clauses(self) -> list[sa.ColumnElement[bool]]:
        columns = {"key": LOGS.c.key_id, "account": LOGS.c.account_id}
        found = [
            columns.get(item.name, LOGS.c.get(item.name)) == value
            for item in fields(self)
            if item.name not in ("start", "end") and (value := getattr(self, item.name)) is not None
        ]
        found += [LOGS.c.time >= self.start] if self.start else []
        return found + ([LOGS.c.time < self.end] if self.end else [])


@dataclass(frozen=True, slots=True)
class Page:
    rows: list[dict[str, Any]]
    next: str | None  # for ``before``; None when this is the last page


def page(connection: Connection, wanted: Filter, limit: int = USUAL, before: str | None = None) -> Page:
    """``/v2/logs``. Raises FieldError for a cursor that is not ours."""
    statement = select(*(LOGS.c[name] for name in ("id", *SHOWN))).where(*wanted.clauses())
    if before is not None:
        time, row_id = _position(before)
        statement = statement.where(
            LOGS.c.time <= time, sa.or_(LOGS.c.time < time, LOGS.c.id < row_id)
        )  # the first clause is what an index understands
    rows = connection.execute(statement.order_by(LOGS.c.time.desc(), LOGS.c.id.desc()).limit(limit + 1)).all()
    last = rows[limit - 1] if len(rows) > limit else None
    return Page([as_json(row._mapping) for row in rows[:limit]], None if last is None else _cursor(last.time, last.id))


@dataclass(frozen=True, slots=True)
class Summary:
    """What the requests of a filter add up to. ``newest``: it is of the newest so many, because there are more."""

    figures: dict[str, Any]  # requests, errors, input_tokens, output_tokens, p50_ms, p95_ms
    newest: int | None = None


def summary(connection: Connection, wanted: Filter) -> Summary:
    """From the kept statistics where they can tell; else counted from the rows, as far as nobody has to wait."""
    if wanted.kept is None:
        return _counted(connection, wanted)
    by, name = wanted.kept
    if by == "all":
        return Summary(statistics.total(connection, wanted.start, wanted.end))
    kept = Summary(statistics.of_one(connection, by, name, wanted.start, wanted.end))
    if by != "model" or not statistics.has_others(connection, wanted.start, wanted.end):
        return kept
    # Some of its requests may count among the others, and some of its rows are deleted: neither way counts too many.
    return max(kept, _counted(connection, wanted), key=lambda found: found.figures["requests"])


def _counted(connection: Connection, wanted: Filter) -> Summary:
    columns = ("outcome", "input_tokens", "output_tokens", "duration_ms")
    statement = select(*(LOGS.c[name] for name in columns)).where(*wanted.clauses())
    newest = statement.order_by(LOGS.c.time.desc(), LOGS.c.id.desc()).limit(MOST_COUNTED + 1)
    rows = connection.execute(newest).mappings().all()
    counted = statistics.Tally()
    for row in rows[:MOST_COUNTED]:
        counted.add(row)
    return Summary(statistics.shown(counted), MOST_COUNTED if len(rows) > MOST_COUNTED else None)


def one(connection: Connection, request_id: str) -> sa.RowMapping | None:
    """The whole row of a request."""
    if not request_id.isascii() or "\0" in request_id:
        return None
    return connection.execute(select(LOGS).where(LOGS.c.request_id == request_id)).mappings().one_or_none()


def as_json(row: sa.RowMapping) -> dict[str, Any]:
    """``Row`` of the interface."""
    shown = {NAMES.get(name, name): row[name] for name in SHOWN}
    return shown | {"time": rfc3339(row["time"])}


def _cursor(time: datetime, row_id: int) -> str:
    return f"{(time - EPOCH) // MICROSECOND}-{row_id}"


def _position(cursor: str) -> tuple[datetime, int]:
    found = CURSOR.fullmatch(cursor)
    if found is None:
        raise FieldError("before", "must be the value of next of another page.")
    return EPOCH + int(found[1]) * MICROSECOND, int(found[2])


# ---- what a query string says


def filter_of(arguments: Mapping[str, str]) -> Filter:
    """Raises FieldError."""
    return Filter(
        key=_number("key", arguments.get("key")),
        account=_number("account", arguments.get("account")),
        model=_text("model", arguments.get("model")),
        status=_number("status", arguments.get("status")),
        start=moment("from", arguments.get("from")),
        end=moment("to", arguments.get("to")),
        outcome=_text("outcome", arguments.get("outcome")),
    )


def limit_of(arguments: Mapping[str, str]) -> int:
    """Raises FieldError."""
    limit = _number("limit", arguments.get("limit"))
    if limit is not None and not 1 <= limit <= MOST:
        raise FieldError("limit", Phrase("must be a whole number between %(low)s and %(high)s.", low=1, high=MOST))
    return limit or USUAL


def _text(field: str, said: str | None) -> str | None:
    """As it is, but for what no database could have stored."""
    if said is not None and "\0" in said:
        raise FieldError(field, "must not contain a NUL character.")
    return said


def _number(field: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise FieldError(field, "must be a whole number.")
    return int(text)
