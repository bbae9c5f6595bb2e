"""What the front page shows: how this day compares with yesterday, and what happened hour by hour or day by day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import Connection, func

from opus_api.models import Account, ApiKey
from opus_api.services import statistics

ACCOUNTS, KEYS = cast(sa.Table, Account.__table__), cast(sa.Table, ApiKey.__table__)

STEPS = ("account", "key", "client", "answer")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Period:
    """``count`` periods of ``by`` up to now."""

    name: str
    by: str
    count: int

    @property
    def length(self) -> timedelta:
        return HOUR if self.by == "hour" else DAY


PERIODS = {
    period.name: period for period in (Period("24h", "hour", 24), Period("7d", "day", 7), Period("30d", "day", 30))
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of today so far and the same of yesterday until this time; None where nothing was measured."""

    today: int | None
    yesterday: int | None

    @property
    def change(self) -> int | None:
        """Percent more or less than yesterday."""
        if not self.yesterday or self.today is None:
            return None
        return round(100 * (self.today - self.yesterday) / self.yesterday)


EMPTY = {"requests": 0, "errors": 0, "input_tokens": 0, "output_tokens": 0, "p50_ms": None, "p95_ms": None}


def figures(connection: Connection, moment: datetime) -> dict[str, Figure]:
    """requests, errors, tokens, p50_ms: today against yesterday until the same time of the day (UTC)."""
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    today = statistics.total(connection, midnight, moment + HOUR)
    yesterday = statistics.total(connection, midnight - DAY, moment - DAY)
    names = ("requests", "errors", "input_tokens", "output_tokens", "p50_ms")
    found = {name: Figure(today[name], yesterday[name]) for name in names}
    found["tokens"] = Figure(
        today["input_tokens"] + today["output_tokens"], yesterday["input_tokens"] + yesterday["output_tokens"]
    )
    return found


def first_steps(connection: Connection, moment: datetime, anonymous: str) -> dict[str, bool]:
    """What a new installation needs, in order, and whether it is there; with the first answer all of it is done.

    Whoever answered that, an account, the practice provider or an override; and a key that is revoked later on makes
    no new installation. ``anonymous`` is ANONYMOUS_ACCESS: with "loopback" clients elsewhere need a key all the same.
    """
    if statistics.has_any(connection, answered=True):
        return dict.fromkeys(STEPS, True)
    has_account = connection.scalar(sa.select(ACCOUNTS.c.id).limit(1)) is not None
    is_live = KEYS.c.revoked_at.is_(None) & (KEYS.c.expires_at.is_(None) | (KEYS.c.expires_at > moment))
    live_keys = func.count(sa.case((is_live, 1)))  # MySQL has no FILTER
    live, came = connection.execute(sa.select(live_keys, func.count(KEYS.c.last_used))).one()
    came_without = anonymous != "off" and statistics.has_any(connection)
    return dict(zip(STEPS, (has_account, anonymous == "on" or live > 0, came > 0 or came_without, False), strict=True))


def series(connection: Connection, period: Period, moment: datetime) -> list[dict[str, Any]]:
    """One entry for each period, the oldest first, also for those in which nothing happened."""
    starts = _starts(period, moment)
    found = {row["key"]: row for row in statistics.answer(connection, period.by, starts[0], starts[-1] + period.length)}
    keys = [statistics.period_name(period.by, start) for start in starts]
    return [{**EMPTY, "key": key, **found.get(key, {})} for key in keys]


def _starts(period: Period, moment: datetime) -> Sequence[datetime]:
    last = moment.replace(minute=0, second=0, microsecond=0)
    if period.by == "day":
        last = last.replace(hour=0)
    return [last - period.length * back for back in range(period.count - 1, -1, -1)]
