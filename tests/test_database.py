"""The database never stops other greenlets for long, and an SQLite writer waits for its turn."""

import errno
import os
import shutil
import sqlite3
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import gevent
import pytest
import sqlalchemy as sa
from flask import Flask

from opus_api import database
from opus_api.config import ConfigError, Settings
from opus_api.extensions import db
from opus_api.models import Account, ModelRule, User, UserSession, now
from tests.processes import run


@pytest.mark.parametrize(
    "pragma, value",
    [
        *(("journal_mode", "wal"), ("synchronous", 1), ("foreign_keys", 1), ("busy_timeout", 0)),
        *database.LOG.items(),
    ],
)
def test_sqlite_is_set_up_on_each_connection(app: Flask, pragma: str, value: object) -> None:
    with db.engine.connect() as one, db.engine.connect() as other:
        for connection in (one, other):
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() == value


def _in_the_file_itself(path: Path) -> bool:
    """Read without its write-ahead log."""
    alone = path.with_name("alone.db")
    shutil.copy(path, alone)
    with closing(sqlite3.connect(alone)) as connection:
        return bool(connection.execute("SELECT 1 FROM model_rules WHERE pattern = 'kept'").fetchall())


@pytest.mark.parametrize("limit", [database.LOG["journal_size_limit"], 0], ids=["short log", "long log"])
def test_a_checkpoint_moves_the_log_into_the_file_while_others_write(
    app: Flask, settings: Settings, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setitem(database.LOG, "journal_size_limit", limit)
    db.session.add(ModelRule(pattern="kept", target="b"))
    db.session.commit()
    path = settings.data_dir / "opus.db"
    assert not _in_the_file_itself(path)
    lock = Lock(settings)
    database.checkpoint(db.engine)
    lock.release()
    assert _in_the_file_itself(path)


def test_a_checkpoint_that_cannot_be_is_left_for_the_next(tmp_path: Path) -> None:
    file = tmp_path / "no database"
    file.write_bytes(b"x" * 4096)
    with pytest.raises(sqlite3.DatabaseError), closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    database._checkpoint(str(file))


def _saved(name: str) -> None:
    """One rule, by a greenlet that has a tenth of a second for it."""

    engine = db.engine

    def save() -> None:
        with database.within(0.1), engine.begin() as connection:
            connection.execute(sa.insert(ModelRule).values(pattern=name, target="b"))

    gevent.spawn(save).get()


def test_a_commit_that_the_disk_does_not_take_is_no_failure_and_one_line_for_each_outage(
    app: Flask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for refused in (True, False, True):
        with monkeypatch.context() as patch, caplog.at_level("ERROR"):
            if refused:
                patch.setattr(os, "fsync", refuse)
            for n in range(3):
                _saved(f"{db.session.query(ModelRule).count()} {n}")
    assert db.session.query(ModelRule).count() == 9
    assert caplog.text.count("cannot be taken to the disk") == 2


def test_a_commit_is_none_the_less_one_when_the_disk_takes_longer_than_there_is_time(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: time.sleep(0.3))
    _saved("one")
    assert db.session.query(ModelRule).count() == 1


def test_a_commit_does_not_stand_in_line_with_passwords_and_names_of_servers(app: Flask) -> None:
    others = [gevent.get_hub().threadpool.spawn(time.sleep, 0.6) for _ in range(20)]
    began = time.monotonic()
    _saved("one")
    assert time.monotonic() - began < 0.6
    gevent.joinall(others)


def test_a_users_rows_go_with_the_user(app: Flask, admin: User) -> None:
    db.session.add(Account(provider="openai", name="one", user_id=admin.id))
    db.session.add(UserSession(user_id=admin.id, token_hash="x", kind="page", expires_at=now()))
    db.session.commit()
    with db.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM users"))
    assert db.session.query(Account).count() + db.session.query(UserSession).count() == 0


class Lock:
    """Another process's write transaction."""

    def __init__(self, settings: Settings):
        self._connection = sqlite3.connect(settings.data_dir / "opus.db", check_same_thread=False, isolation_level=None)
        self._connection.execute("BEGIN IMMEDIATE")

    def release(self) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


def test_a_writer_waits_until_another_process_has_written(app: Flask, settings: Settings) -> None:
    lock = Lock(settings)
    threading.Timer(0.4, lock.release).start()
    begun = time.monotonic()
    db.session.add(ModelRule(pattern="a", target="b"))
    db.session.commit()
    assert 0.3 < time.monotonic() - begun < 2


def test_a_writer_does_not_wait_for_ever(app: Flask, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_LIMIT", 0.2)
    lock = Lock(settings)
    db.session.add(ModelRule(pattern="a", target="b"))
    with pytest.raises(sa.exc.OperationalError, match="database is locked"):
        db.session.commit()
    db.session.rollback()
    lock.release()


def test_readers_do_not_wait_for_a_writer(app: Flask, settings: Settings) -> None:
    lock = Lock(settings)
    assert db.session.query(ModelRule).count() == 0
    lock.release()


def test_who_has_read_may_write_although_somebody_wrote_in_between(app: Flask, settings: Settings) -> None:
    assert db.session.query(ModelRule).count() == 0
    other = sqlite3.connect(settings.data_dir / "opus.db")
    with other:
        other.execute("INSERT INTO model_rules (pattern, target, created_at) VALUES ('a', 'b', '2026-01-01')")
    other.close()
    db.session.add(ModelRule(pattern="c", target="d"))
    db.session.commit()
    assert db.session.query(ModelRule).count() == 2


def test_errors_do_not_carry_what_was_to_be_stored(app: Flask) -> None:
    for _ in range(2):
        db.session.add(ModelRule(pattern="same", target="a-secret"))
    with pytest.raises(sa.exc.IntegrityError) as refusal:
        db.session.commit()
    db.session.rollback()
    assert "a-secret" not in str(refusal.value)


@pytest.mark.parametrize(
    "url, sentence",
    [
        (
            "postgresql+psycopg2://opus:hunter22@127.0.0.1:9/opus",
            "The database at 127.0.0.1:9/opus cannot be reached (",
        ),
        ("mysql+pymysql://opus:hunter22@127.0.0.1:9/opus", "The database at 127.0.0.1:9/opus cannot be reached ("),
        ("sqlite:////proc/none/opus.db", "The database file /proc/none/opus.db cannot be opened ("),
    ],
)
def test_a_database_that_cannot_be_reached_is_one_sentence_without_its_password(url: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        database.check(sa.create_engine(url))
    said = str(refusal.value)
    assert said.startswith(sentence)
    assert "hunter22" not in said
    assert "\n" not in said


def test_a_file_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "opus.db").write_text("this is no database " * 100)
    engine = sa.create_engine(f"sqlite:///{tmp_path}/opus.db")
    database.prepare(engine)
    with pytest.raises(ConfigError, match="cannot be opened"):
        database.check(engine)


COOPERATIVE = """
from gevent import monkey; monkey.patch_all()
import sys, time, gevent, sqlalchemy as sa
from opus_api import database

database.ROUND_TRIP_LIMIT = 1.0
database.make_psycopg2_cooperative()
engine = sa.create_engine(sys.argv[1], **database.engine_options(sys.argv[1]))
ticks = []

def tick():
    while True:
        ticks.append(time.monotonic())
        gevent.sleep(0.01)

def ask(seconds):
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT pg_sleep(:s)"), {"s": seconds})

gevent.spawn(tick)
begun = time.monotonic()
gevent.joinall([gevent.spawn(ask, 0.5) for _ in range(3)], raise_error=True)
print("together", time.monotonic() - begun < 1.2)
try:
    ask(5)
except sa.exc.OperationalError:
    print("limited", 0.9 < time.monotonic() - begun < 4)
ask(0)
print("usable again", True)
print("worst pause", max(b - a for a, b in zip(ticks, ticks[1:])) < 0.25)
"""


def test_waiting_for_postgresql_stops_nobody_and_has_a_limit(postgresql: str) -> None:
    url = "postgresql+psycopg2://" + postgresql.removeprefix("postgresql://")
    result = run([sys.executable, "-c", COOPERATIVE, url], {})
    assert result.stdout.splitlines() == ["together True", "limited True", "usable again True", "worst pause True"], (
        result
    )
