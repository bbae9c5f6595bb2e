"""Runs migrations on the app's own engine; called by Alembic through Flask-Migrate."""

import sqlalchemy as sa
from alembic import context
from flask import current_app

from opus_api import database, models
from opus_api.extensions import db


def include(item: object, name: str | None, kind: str, reflected: bool, compared: object) -> bool:
    return not (kind == "table" and name == "alembic_version")


def run() -> None:
    options = {"target_metadata": models.db.metadata, "include_object": include, "compare_type": True}
    options |= current_app.extensions["migrate"].configure_args
    if context.is_offline_mode():
        context.configure(url=db.engine.url, literal_binds=True, **options)
        with context.begin_transaction():
            context.run_migrations()
        return
    with database.migrating(db.engine), db.engine.connect() as connection:
        _begin(connection)
        try:
            context.configure(connection=connection, **options)
            with context.begin_transaction():
                context.run_migrations()
            _commit(connection)
        finally:
            _end(connection)


def _begin(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SET lock_timeout = '3s'"))  # rather fail than hold up the running service
        connection.commit()
    elif connection.dialect.name == "sqlite":
        # A table that is made anew is dropped for a moment, which must not delete the rows that refer to it. One
        # transaction for all: whoever looks sees the old schema or the new one, and a failure leaves the old one.
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _commit(connection: sa.Connection) -> None:
    if connection.dialect.name == "sqlite":
        if broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first():
            raise RuntimeError(f"table {broken[0]} refers to rows that are gone")
        connection.commit()


def _end(connection: sa.Connection) -> None:
    connection.rollback()
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("RESET lock_timeout"))
        connection.commit()
    elif connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA foreign_keys = ON")


run()
