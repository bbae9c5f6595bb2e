"""Requests that were not let in: counted by address, minute and status, so that an attack is one row a minute and no
flood of them."""

import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import Connection, select

from opus_api.models import Refusal
from opus_api.services import logs
from opus_api.services.ip_rules import parsed
from opus_api.services.values import FieldError, moment, rfc3339
from opus_api.wire.errors import Phrase

REFUSALS = cast(sa.Table, Refusal.__table__)

MINUTE = 60
MOST = 10_000  # addresses and minutes that wait to be stored; more come from nowhere in particular
OTHERS = "other"
BY = ("minute", "address")
Counts = Mapping[tuple[int, str, int], int]  # (minute since 1970, address, status) -> requests


class Refusals:
    """Of one process, until they are stored."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[int, str, int]] = Counter()

    def note(self, address: str, status: int) -> None:
        minute = int(time.time()) // MINUTE
        place = (minute, str(parsed(address) or address)[:45], status)
        if place not in self._counts and len(self._counts) >= MOST:
            place = (minute, OTHERS, status)
        self._counts[place] += 1

    def take(self) -> Counts:
        """What is to be stored now. Whoever fails to store it gives it back."""
        taken, self._counts = self._counts, Counter()
        return taken

    def give_back(self, taken: Counts) -> None:
        self._counts.update(taken)


# ---- reading


def answer(connection: Connection, arguments: Mapping[str, str]) -> list[dict[str, Any]]:
    """``GET /v2/logs/refused?by=minute|address&from&to&ip&limit``: the newest minutes, or the addresses with most.

    Raises FieldError.
    """
    by, limit = arguments.get("by", "minute"), logs.limit_of(arguments)
    if by not in BY:
        raise FieldError("by", Phrase("must be one of %(names)s.", names=", ".join(BY)))
    wanted = _wanted(arguments)
    return by_minute(connection, wanted, limit) if by == "minute" else by_address(connection, wanted, limit)


def _wanted(arguments: Mapping[str, str]) -> list[sa.ColumnElement[bool]]:
    start, end = moment("from", arguments.get("from")), moment("to", arguments.get("to"))
    found = [REFUSALS.c.minute >= start.timestamp() // MINUTE] if start else []
    found += [REFUSALS.c.minute < end.timestamp() / MINUTE] if end else []
    if ip := arguments.get("ip"):
        address = parsed(ip)
        if address is None:
            raise FieldError("ip", "must be an address such as 192.0.2.1 or 2001:db8::1.")
        found.append(REFUSALS.c.client_ip == str(address))
    return found


def by_minute(
    connection: Connection, wanted: list[sa.ColumnElement[bool]], limit: int = logs.USUAL
) -> list[dict[str, Any]]:
    columns = REFUSALS.c
    statement = select(REFUSALS).where(*wanted).order_by(columns.minute.desc(), columns.requests.desc()).limit(limit)
    return [
        {"minute": _time(row.minute), "client_ip": row.client_ip, "status": row.status, "requests": row.requests}
        for row in connection.execute(statement)
    ]


def by_address(
    connection: Connection, wanted: list[sa.ColumnElement[bool]], limit: int = logs.USUAL
) -> list[dict[str, Any]]:
    total, last = sa.func.sum(REFUSALS.c.requests), sa.func.max(REFUSALS.c.minute)
    statement = select(REFUSALS.c.client_ip, total.label("requests"), last.label("last")).where(*wanted)
    statement = statement.group_by(REFUSALS.c.client_ip).order_by(total.desc(), REFUSALS.c.client_ip).limit(limit)
    return [
        {"client_ip": row.client_ip, "requests": int(row.requests), "last": _time(row.last)}
        for row in connection.execute(statement)
    ]


def _time(minute: int) -> str | None:
    return rfc3339(datetime.fromtimestamp(minute * MINUTE, UTC))
