"""Calls that are done once, however often they are sent: what ``Idempotency-Key`` promises, over all workers.

A call is noted before it is done, so of two at once one finds the other's row. Its reply is kept, encrypted, for a day.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import IntegrityError

from opus_api.models import DoneCall, now
from opus_api.services.values import FieldError
from opus_api.wire.errors import Conflict

HEADER = "Idempotency-Key"
LONGEST = 255  # characters of a key
LIFE = timedelta(hours=24)
CALLS = cast(sa.Table, DoneCall.__table__)

# It may be under way, or its worker has died: then nobody knows whether it took effect.
UNDER_WAY = (
    "The first call with this Idempotency-Key has not ended; try again. If it stays so, look whether it took effect, "
    "and take another key."
)


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: str


def begin(engine: Engine, name: str, request: str) -> Reply | None:
    """None: it is the caller's to do, who then says ``end`` or ``forget``. Else the reply that it had.

    Raises FieldError when the key was used for another call, Conflict while the first one is under way.
    """
    try:
        with engine.begin() as connection:
            connection.execute(sa.delete(CALLS).where(CALLS.c.name == name, is_over()))
            connection.execute(sa.insert(CALLS).values(name=name, request=request, created_at=now()))
        return None
    except IntegrityError:
        with engine.connect() as connection:
            return _known(connection, name, request)


def _known(connection: Connection, name: str, request: str) -> Reply | None:
    found = connection.execute(select(CALLS).where(CALLS.c.name == name)).one_or_none()
    if found is not None and found.request != request:
        raise FieldError(HEADER, "was used for another call within the last 24 hours.")
    if found is None or found.status is None:
        raise Conflict(UNDER_WAY, {"retry-after": "1"})
    return Reply(found.status, found.reply or "")


def end(engine: Engine, name: str, reply: Reply) -> None:
    """Whoever repeats the call gets this. Raises SQLAlchemyError."""
    with engine.begin() as connection:
        connection.execute(
            sa.update(CALLS).where(CALLS.c.name == name).values(status=reply.status, reply=reply.body or None)
        )


def forget(engine: Engine, name: str) -> None:
    """It was refused, so nothing happened: the next one with this key is the first. Raises SQLAlchemyError."""
    with engine.begin() as connection:
        connection.execute(sa.delete(CALLS).where(CALLS.c.name == name))


def is_over() -> sa.ColumnElement[bool]:
    return CALLS.c.created_at < now() - LIFE
