"""Deleting what is old, a few rows at a time: nobody waits for a lock longer than for an ordinary write."""

from datetime import timedelta
from typing import Any, cast

import gevent
import sqlalchemy as sa
from sqlalchemy import Engine, select

from opus_api.models import AccountEvent, IpRule, RequestLog, UserSession, now

LOGS, SESSIONS, IP_RULES, EVENTS = (
    cast(sa.Table, model.__table__) for model in (RequestLog, UserSession, IpRule, AccountEvent)
)

BATCH = 200  # rows of one transaction
PAUSE = 0.01  # seconds between two, in which others get their turn


def purge_logs(engine: Engine, days: int) -> int:
    """Delete rows of the request log older than ``days``; how many. Raises SQLAlchemyError."""
    return delete(engine, LOGS, LOGS.c.time < now() - timedelta(days=days))


def purge_account_events(engine: Engine, days: int) -> int:
    """Delete what happened to accounts longer ago than ``days``; how many. Raises SQLAlchemyError."""
    return delete(engine, EVENTS, EVENTS.c.time < now() - timedelta(days=days))


def purge_sessions(engine: Engine) -> int:
    """Delete sign-ins that have expired; how many. Raises SQLAlchemyError."""
    return delete(engine, SESSIONS, SESSIONS.c.expires_at < now())


def purge_ip_rules(engine: Engine) -> int:
    """Delete blocks that have expired; how many. Raises SQLAlchemyError."""
    return delete(engine, IP_RULES, IP_RULES.c.expires_at < now())


def delete(engine: Engine, table: sa.Table, old: sa.ColumnElement[bool]) -> int:
    """Delete the rows that are ``old``, in batches; how many. Raises SQLAlchemyError."""
    deleted = 0
    while ids := _some(engine, table, old):
        with engine.begin() as connection:
            deleted += connection.execute(sa.delete(table).where(table.c.id.in_(ids))).rowcount
        gevent.sleep(PAUSE)
    return deleted


def _some(engine: Engine, table: sa.Table, old: sa.ColumnElement[bool]) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.scalars(select(table.c.id).where(old).limit(BATCH)))
