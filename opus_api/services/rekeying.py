"""Every stored secret under the newest encryption key, a few rows at a time, while the service runs.

The way: put the new key first in ENCRYPTION_KEYS, restart, run `flask accounts rotate-key`, take the old key out.
"""

from collections.abc import Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import Engine, select

from opus_api import crypto
from opus_api.extensions import db
from opus_api.models import Secret, Setting
from opus_api.services.settings import INSTALLATION

BATCH = 100  # rows of one transaction


def rotate(engine: Engine) -> int:
    """Returns how many secrets were encrypted anew. Raises ConfigError when one cannot be read with any key."""
    done = _rotate_installation(engine)
    for table in db.metadata.sorted_tables:
        secrets = [column for column in table.columns if isinstance(column.type, Secret)]
        if secrets:
            done += _rotate_table(engine, table, secrets)
    return done


def _rotate_table(engine: Engine, table: sa.Table, secrets: Sequence[sa.Column[Any]]) -> int:
    [key] = table.primary_key.columns
    done, last = 0, None
    while rows := _after(engine, table, secrets, last):
        with engine.begin() as connection:
            done += sum(_rotate_row(connection, key, row, secrets) for row in rows)
        last = rows[-1][0]
    return done


def _after(engine: Engine, table: sa.Table, secrets: Sequence[sa.Column[Any]], last: Any) -> Sequence[Any]:
    """The next rows as they are stored, by primary key."""
    [key] = table.primary_key.columns
    stored = [sa.type_coerce(column, sa.Text()).label(column.name) for column in secrets]
    statement = select(key, *stored).order_by(key).limit(BATCH)
    with engine.connect() as connection:
        return connection.execute(statement if last is None else statement.where(key > last)).all()


def _rotate_row(connection: sa.Connection, key: sa.Column[Any], row: Any, secrets: Sequence[sa.Column[Any]]) -> int:
    """A secret that somebody changed since it was read is under the newest key already."""
    done = 0
    for column, stored in zip(secrets, row[1:], strict=True):
        if stored:
            raw = sa.type_coerce(column, sa.Text())
            fresh = sa.type_coerce(crypto.current().rotate(stored), sa.Text())
            found = sa.update(key.table).where(key == row[0], raw == stored).values({column: fresh})
            done += connection.execute(found).rowcount
    return done


def _rotate_installation(engine: Engine) -> int:
    """The secret that other keys are derived from stays the same; only its cover changes."""
    table = cast(sa.Table, Setting.__table__)
    with engine.begin() as connection:
        value = connection.execute(select(table.c.value).where(table.c.key == INSTALLATION)).scalar_one()
        fresh = {**value, "secret": crypto.current().rotate(value["secret"])}
        connection.execute(sa.update(table).where(table.c.key == INSTALLATION).values(value=fresh))
    return 1
