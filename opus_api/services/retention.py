"""Deleting what is old, a few rows at a time: nobody waits for a lock longer than for an ordinary write."""

from datetime import timedelta
from typing import Any, cast

import gevent
import sqlalchemy as sa
from sqlalchemy import Engine, select

from opus_api.models import AccountEvent, DeletedAccount, IpRule, Refusal, RequestLog, UserSession, now
from opus_api.services.done_calls import CALLS, is_over

LOGS, SESSIONS, IP_RULES, EVENTS, REFUSALS, DELETED = (
    cast(sa.Table, model.__table__)
    for model in (RequestLog, UserSession, IpRule, AccountEvent, Refusal, DeletedAccount)
)

ROW_SIZE = 600  # bytes that a row of the request log and its indexes take at most on average

BATCH = 200  # rows of one transaction
PAUSE = 0.01  # seconds between two, in which others get their turn


def purge_logs(engine: Engine, days: int) -> int:
    """Delete rows of the request log older than ``days``; how many. Raises SQLAlchemyError."""
    return delete(engine, LOGS, LOGS.c.time < now() - timedelta(days=days))


def shrink_logs(engine: Engine, mib: int) -> int:
    """Delete the oldest rows of the request log beyond ``mib`` MiB; how many. Raises SQLAlchemyError."""
    with engine.connect() as connection:
        rows = connection.scalar(select(sa.func.count()).select_from(LOGS)) or 0
        excess = rows - mib * 2**20 // ROW_SIZE
        if excess <= 0:
            return 0
        newest = connection.scalar(select(LOGS.c.time).order_by(LOGS.c.time).offset(excess - 1).limit(1))
    return delete(engine, LOGS, LOGS.c.time <= newest)


def purge_refusals(engine: Engine, days: int) -> int:
    """Delete counts of refused requests older than ``days``; how many. Raises SQLAlchemyError."""
    oldest = int((now() - timedelta(days=days)).timestamp()) // 60
    return delete(engine, REFUSALS, REFUSALS.c.minute < oldest)


def purge_account_events(engine: Engine, days: int) -> int:
    """Delete what happened to accounts longer ago than ``days``; how many. Raises SQLAlchemyError."""
    return delete(engine, EVENTS, EVENTS.c.time < now() - timedelta(days=days))


def purge_deleted_accounts(engine: Engine, days: int) -> int:
    """Erase accounts that were deleted longer ago than ``days``; how many. Raises SQLAlchemyError."""
    return delete(engine, DELETED, DELETED.c.deleted_at < now() - timedelta(days=days))


def purge_sessions(engine: Engine) -> int:
    """Delete sign-ins that have expired; how many. Raises SQLAlchemyError."""
    return delete(engine, SESSIONS, SESSIONS.c.expires_at < now())


def purge_done_calls(engine: Engine) -> int:
    """Delete kept replies of calls that nobody may repeat any more; how many. Raises SQLAlchemyError."""
    return delete(engine, CALLS, is_over())


def purge_ip_rules(engine: Engine) -> int:
    """Delete blocks that have expired; how many. Raises SQLAlchemyError."""
    return delete(engine, IP_RULES, IP_RULES.c.expires_at < now())


def delete(engine: Engine, table: sa.Table, old: sa.ColumnElement[bool]) -> int:
    """Delete the rows that are ``old``, in batches; how many. Raises SQLAlchemyError."""
    deleted = 0
    while keys := _some(engine, table, old):
        with engine.begin() as connection:
            deleted += connection.execute(sa.delete(table).where(_is_one_of(table, keys))).rowcount
        gevent.sleep(PAUSE)
    return deleted


def _some(engine: Engine, table: sa.Table, old: sa.ColumnElement[bool]) -> list[Any]:
    """Primary keys."""
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(select(*table.primary_key).where(old).limit(BATCH))]


def _is_one_of(table: sa.Table, keys: list[Any]) -> sa.ColumnElement[bool]:
    columns = list(table.primary_key)
    return columns[0].in_([key for (key,) in keys]) if len(columns) == 1 else sa.tuple_(*columns).in_(keys)
