"""How we speak to the database: the pool, SQLite's one writer, and psycopg2 that lets other greenlets run.

A transaction here never does other IO between its first write and its commit, so two greenlets of one process cannot
hold each other up; another process (the CLI, a backup) can, and only for the length of its own transaction.
"""

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions
import sqlalchemy as sa
from gevent import monkey
from gevent.socket import wait_read, wait_write
from sqlalchemy.engine import Engine

from opus_api.config import ConfigError, Settings

BUSY_TIMEOUT = 0.05  # seconds SQLite sleeps in C, stopping every greenlet, before it says "locked"
BUSY_LIMIT = 5.0  # seconds in all that a writer waits for its turn
ROUND_TRIP_LIMIT = 5.0  # seconds one wait for PostgreSQL may take, connecting included


def engine_options(url: str) -> dict[str, Any]:
    """What ``create_engine`` needs for this address."""
    options: dict[str, Any] = {"pool_pre_ping": True, "pool_size": 5, "max_overflow": 5, "pool_timeout": 5}
    options["hide_parameters"] = True  # an error's text must not carry what was to be stored
    if url.startswith("sqlite"):
        # The driver begins a transaction at the first write, with this word, so whoever has begun may also commit.
        options["connect_args"] = {"timeout": BUSY_TIMEOUT, "isolation_level": "IMMEDIATE", "check_same_thread": False}
    else:
        options["connect_args"] = {"connect_timeout": 5}
    return options


def prepare(engine: Engine) -> None:
    """Teach an engine our rules. Call once, before its first connection."""
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _sqlite_pragmas)
        # Named arguments: SQLAlchemy reads the signatures of listeners.
        sa.event.listen(engine, "do_execute", _execute_when_free)
        sa.event.listen(engine, "do_executemany", _executemany_when_free)


def _sqlite_pragmas(connection: sqlite3.Connection, record: object) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        _when_free(connection.execute, f"PRAGMA {pragma}")


def _execute_when_free(cursor: sqlite3.Cursor, statement: str, parameters: Any, context: object) -> bool:
    _when_free(cursor.execute, statement, parameters)
    return True  # done; SQLAlchemy need not


def _executemany_when_free(cursor: sqlite3.Cursor, statement: str, parameters: Any, context: object) -> bool:
    _when_free(cursor.executemany, statement, parameters)
    return True


def _when_free(execute: Any, *arguments: Any) -> None:
    """Run a statement, waiting for SQLite's write lock without stopping other greenlets.

    Trying again is sound because "locked" can only come from the BEGIN IMMEDIATE before a transaction's first write:
    nothing of the transaction has happened yet, and once begun it cannot be refused.
    """
    give_up = time.monotonic() + BUSY_LIMIT
    while True:
        try:
            execute(*arguments)
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
        time.sleep(BUSY_TIMEOUT)  # gevent's in a patched process: others run at least half of the time


def make_psycopg2_cooperative() -> None:
    """In a monkey-patched process psycopg2, which waits in C, must wait by gevent instead."""
    if monkey.is_module_patched("socket"):
        psycopg2.extensions.set_wait_callback(_wait)


def _wait(connection: Any) -> None:
    """psycopg2 ignores connect_timeout once it waits by us, so each wait has its own limit."""
    while True:
        state = connection.poll()
        if state == psycopg2.extensions.POLL_OK:
            return
        wait = wait_read if state == psycopg2.extensions.POLL_READ else wait_write
        wait(connection.fileno(), timeout=ROUND_TRIP_LIMIT, timeout_exc=psycopg2.OperationalError("timed out"))


def make_folder(settings: Settings) -> None:
    """DATA_DIR, and the folder of an SQLite file elsewhere. Raises ConfigError."""
    folders = [settings.data_dir]
    if settings.on_sqlite and (name := sa.make_url(settings.database_url).database) and name != ":memory:":
        folders.append(Path(name).parent)
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".write-test-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(f"DATA_DIR {folder} cannot be written ({reason}); name a folder that can be.") from None


def check(engine: Engine) -> None:
    """Raises ConfigError when the database cannot be reached, without telling its password."""
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise ConfigError(_unreachable(engine.url, error)) from None


def _unreachable(url: sa.URL, error: BaseException) -> str:
    reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0].rstrip(". :")
    if url.password:
        reason = reason.replace(str(url.password), "***")
    if url.drivername.startswith("sqlite"):
        return f"The database file {url.database} cannot be opened ({reason}); check DATA_DIR or DATABASE_URL."
    where = f"{url.host or 'localhost'}{f':{url.port}' if url.port else ''}/{url.database or ''}"
    return f"The database at {where} cannot be reached ({reason}); check DATABASE_URL and that the server is running."


def has_tables(engine: Engine) -> bool:
    """Whether the migrations have run."""
    return sa.inspect(engine).has_table("settings")
