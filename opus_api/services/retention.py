"""Deleting what is old, a few rows at a time: nobody waits for a lock longer than for an ordinary write."""

from datetime import timedelta
from typing import Any, cast

import gevent
import sqlalchemy as sa
from sqlalchemy import Engine, select

from opus_api.models import RequestLog, UserSession, now
from opus_api.services import settings

LOGS, SESSIONS = (cast(sa.Table, model.__table__) for model in (RequestLog, UserSession))

BATCH = 200  # rows of one transaction
PAUSE = 0.01  # seconds between two, in which others get their turn
LOG_DAYS = 30


def log_days() -> int:
    """The setting ``logRetentionDays``."""
    days: int = settings.get("logRetentionDays", LOG_DAYS)
    return days


def purge_logs(engine: Engine, days: int) -> int:
    """Delete rows of the request log older than ``days``; how many. Raises SQLAlchemyError."""
    return delete(engine, LOGS, LOGS.c.time < now() - timedelta(days=days))


def purge_sessions(engine: Engine) -> int:
    """Delete sign-ins that have expired; how many. Raises SQLAlchemyError."""
    return delete(engine, SESSIONS, SESSIONS.c.expires_at < now())


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
