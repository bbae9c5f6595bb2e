"""The schema goes up, down and up again, and is what the models say, on SQLite and on PostgreSQL."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from flask_migrate import downgrade, upgrade
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateTable

from opus_api import config, create_app
from opus_api.extensions import db
from opus_api.models import RequestLog, Time

TABLES = {
    "account_events",
    "deleted_accounts",
    "done_calls",
    *("users", "user_sessions", "accounts", "api_keys", "model_rules", "request_logs", "settings"),
    *("ip_rules", "changes", "job_runs", "leases", "probe_series"),
    *("sign_ins", "usage_hours", "latency_hours", "refusals"),
}


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> config.Settings:
    environment = {"DATA_DIR": str(tmp_path), "SECRET_KEY": "any"}
    if request.param == "postgresql":
        environment["DATABASE_URL"] = request.getfixturevalue("postgresql")
    return config.load(tmp_path, environment)


def tables() -> set[str]:
    return set(sa.inspect(db.engine).get_table_names()) - {"alembic_version"}


def test_up_down_and_up_again(empty_database: config.Settings) -> None:
    with create_app(empty_database).app_context():
        upgrade()
        assert tables() == TABLES
        downgrade(revision="base")
        assert tables() == set()
        upgrade()
        assert tables() == TABLES
        db.engine.dispose()


def test_the_migrated_schema_is_what_the_models_say(empty_database: config.Settings) -> None:
    with create_app(empty_database).app_context():
        upgrade()
        with db.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, db.metadata) == []
        db.engine.dispose()


def test_the_app_starts_on_a_database_that_was_just_migrated(empty_database: config.Settings) -> None:
    with create_app(empty_database).app_context():
        upgrade()
        db.engine.dispose()
    app = create_app(empty_database)
    with app.app_context():
        assert app.extensions["snapshots"].current().accounts == ()
        db.engine.dispose()


def test_mysql_has_room_for_a_long_reply() -> None:
    table = str(CreateTable(db.metadata.tables["done_calls"]).compile(dialect=mysql.dialect()))
    assert "reply LONGTEXT" in table


def test_rows_of_the_log_keep_their_time(empty_database: config.Settings) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    with create_app(empty_database).app_context():
        upgrade(revision="0005")
        old = sa.table("request_logs", *(sa.column(name) for name in OLD_ROW), sa.column("time", Time()))
        with db.engine.begin() as connection:
            connection.execute(sa.insert(old), {**OLD_ROW, "time": moment})
        upgrade()
        assert db.session.scalars(sa.select(RequestLog)).one().time == moment
        db.session.remove()
        db.engine.dispose()


OLD_ROW = {
    "request_id": "req_1",
    "dialect": "openai",
    "model": "m",
    "stream": True,
    "status": 200,
    "outcome": "ok",
    "attempts": 1,
    "input_tokens": 1,
    "output_tokens": 1,
    "cache_read_input_tokens": 0,
    "cache_creation_input_tokens": 0,
    "estimated": False,
    "duration_ms": 5,
}
