"""Runs migrations on the app's own engine; called by Alembic through Flask-Migrate."""

import sqlalchemy as sa
from alembic import context
from flask import current_app

from opus_api import models
from opus_api.extensions import db

# Two processes that start at once must not migrate at once. Any number that nobody else takes.
LOCK = 7_860_001


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
    with db.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
            connection.execute(sa.text("SET lock_timeout = '3s'"))  # rather fail than hold up the running service
            connection.commit()
        try:
            context.configure(connection=connection, **options)
            with context.begin_transaction():
                context.run_migrations()
        finally:
            if connection.dialect.name == "postgresql":
                connection.rollback()
                connection.execute(sa.text("SELECT pg_advisory_unlock(:lock)"), {"lock": LOCK})
                connection.execute(sa.text("RESET lock_timeout"))
                connection.commit()


run()
