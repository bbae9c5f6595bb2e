"""How we speak to the database: the pool, SQLite's one writer, and psycopg2 that lets other greenlets run.

A transaction here never does other IO between its first write and its commit, so two greenlets of one process cannot
hold each other up; another process (the CLI, a backup) can, and only for the length of its own transaction.
"""

import errno
import fcntl
import logging
import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import gevent
import psycopg2
import psycopg2.extensions
import sqlalchemy as sa
from gevent import Timeout, monkey
from gevent.socket import wait_read, wait_write
from gevent.threadpool import ThreadPool
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from opus_api.config import ConfigError, Settings

log = logging.getLogger(__name__)

BUSY_PAUSE = 0.01  # seconds between two looks whether SQLite's write lock is free
BUSY_LIMIT = 5.0  # seconds in all that a writer waits for its turn
ROUND_TRIP_LIMIT = 5.0  # seconds one wait for PostgreSQL may take, connecting included
LET_OTHERS = (
    0.001  # seconds between two parts of long work; after a sleep(0) gevent need not look at sockets and timers
)
# Of SQLite's write-ahead log. A commit that finds it long would move it into the file itself, with every greenlet
# waiting behind it: workers call ``checkpoint`` instead, and whoever closes the file last does, too.
LOG = {"wal_autocheckpoint": 0, "journal_size_limit": 64 * 2**20}
SILENT_LIMIT = 1.0  # the same after such a wait was in vain, until the server answers again


class TimedOut(SQLAlchemyError):
    """The database did not answer within the time that the caller has."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises TimedOut. Whether a commit that was under way has happened, nobody knows then."""
    timer = Timeout(seconds)  # while it passes it is no Exception: SQLAlchemy throws the connection away
    timer.start()
    try:
        yield
    except Timeout as passed:
        if passed is not timer:
            raise
        raise TimedOut(f"the database did not answer within {seconds:g} s") from None
    finally:
        timer.close()


def engine_options(url: str) -> dict[str, Any]:
    """What ``create_engine`` needs for this address."""
    options: dict[str, Any] = {"pool_pre_ping": True, "pool_size": 5, "max_overflow": 5, "pool_timeout": 5}
    options["hide_parameters"] = True  # an error's text must not carry what was to be stored
    if url.startswith("sqlite"):
        # The driver begins a transaction at the first write, with this word, so whoever has begun may also commit.
        # It would wait for a lock in C, which stops every greenlet, so it does not wait at all: _when_free does.
        options["connect_args"] = {"timeout": 0, "isolation_level": "IMMEDIATE", "check_same_thread": False}
        options["connect_args"]["factory"] = Durable
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
    limits = (f"{name} = {value}" for name, value in LOG.items())
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON", *limits):
        _when_free(connection.execute, f"PRAGMA {pragma}")


class Durable(sqlite3.Connection):
    """A connection whose commits are on the disk when ``commit`` returns (as a context manager it does not call that).

    With ``synchronous = NORMAL`` SQLite itself takes them there only at the next checkpoint; with FULL it would do so
    at once, but wait in C, which stops every greenlet.
    """

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._log = _log_of(self.execute(WHERE).fetchone()[2])

    def commit(self) -> None:
        """What has happened is never told as a failure, or somebody would do it again: neither a disk that refuses nor
        one that takes longer than the caller has time for."""
        wrote = self.in_transaction
        super().commit()
        if wrote:
            with suppress(Timeout):
                off_hub(partial(_sync, self._log))


WHERE = "PRAGMA database_list"  # its third column: the absolute path


def _log_of(file: str) -> str:
    return f"{file}-wal"


_unsynced: set[str] = set()  # logs of which it was said that no disk takes them


def _sync(path: str) -> None:
    try:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        _unsynced.discard(path)
    except FileNotFoundError:  # who closed the database last has moved it there
        pass
    except OSError as error:
        if path not in _unsynced:
            log.error("%s cannot be taken to the disk (%s)", path, error.strerror)
        _unsynced.add(path)


def checkpoint(engine: Engine) -> None:
    """Move what SQLite's write-ahead log holds into the database's file, as far as nobody reads it. What cannot be
    moved now, the next call may move. Raises SQLAlchemyError when there is no connection."""
    with engine.connect() as connection:
        file = connection.exec_driver_sql(WHERE).one()[2]
    off_hub(partial(_checkpoint, file))


def _checkpoint(file: str) -> None:
    # A log that never was without a writer during a checkpoint grows on; then the writers wait, for once.
    with suppress(sqlite3.Error, OSError), closing(sqlite3.connect(file, timeout=0)) as connection:
        is_long = os.path.getsize(_log_of(file)) > LOG["journal_size_limit"]
        connection.execute("PRAGMA wal_checkpoint(RESTART)" if is_long else "PRAGMA wal_checkpoint(PASSIVE)")


def off_hub(wait: Callable[[], None]) -> None:
    """Do what may wait long for a disk, in a thread where other greenlets would have to wait for it: not in the main
    one, which runs commands and the end of a process. Raises OSError."""
    if gevent.getcurrent().parent is None:
        wait()
        return
    failure = _threads(gevent.get_hub()).apply(_tried, (wait,))
    if failure is not None:
        raise failure


@cache
def _threads(hub: Any) -> ThreadPool:
    """Not the hub's own, where look-ups of names and passwords wait for their turn, too."""
    return ThreadPool(4, hub=hub)


def _tried(wait: Callable[[], None]) -> OSError | None:
    """An error that leaves a thread is printed."""
    try:
        wait()
    except OSError as error:
        return error
    return None


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
        time.sleep(BUSY_PAUSE * random.uniform(0.5, 1.5))  # gevent's in a patched process; uneven, so nobody starves


def make_psycopg2_cooperative() -> None:
    """In a monkey-patched process psycopg2, which waits in C, must wait by gevent instead."""
    if monkey.is_module_patched("socket"):
        psycopg2.extensions.set_wait_callback(_wait)


class _Server:
    """Whether the last wait for PostgreSQL was in vain: then the next ones need not take as long to find out."""

    silent = False


def _wait(connection: Any) -> None:
    """psycopg2 ignores connect_timeout once it waits by us, so each wait has its own limit."""
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        wait = wait_read if state == psycopg2.extensions.POLL_READ else wait_write
        limit = SILENT_LIMIT if _Server.silent else ROUND_TRIP_LIMIT
        try:
            wait(connection.fileno(), timeout=limit, timeout_exc=psycopg2.OperationalError("timed out"))
        except (psycopg2.OperationalError, Timeout):  # ours, or the caller's
            _Server.silent = True
            raise
    _Server.silent = False


class _Migrating:
    depth = 0  # how often this process holds the lock


@contextmanager
def migrating(engine: Engine) -> Iterator[None]:
    """Only one process at a time is in here, however many start at once; the others wait. A server may take its time
    with a statement in here."""
    global ROUND_TRIP_LIMIT  # noqa: PLW0603 - a migration is all that its process does
    limit, lock = ROUND_TRIP_LIMIT, None
    if not _Migrating.depth:
        lock = _lock_folder(engine) if engine.dialect.name == "sqlite" else _lock_server(engine)
        ROUND_TRIP_LIMIT = 3600.0
    _Migrating.depth += 1
    try:
        yield
    finally:
        _Migrating.depth -= 1
        ROUND_TRIP_LIMIT = limit
        if lock is not None:
            lock()


def _lock_folder(engine: Engine) -> Callable[[], None]:
    """Returns what unlocks it."""
    file = os.open(Path(engine.url.database or "").absolute().parent, os.O_RDONLY | os.O_DIRECTORY)

    def locked() -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        return True  # also where the file system knows no locks: SQLite's own is left

    _wait_for(locked)
    return lambda: os.close(file)


def _lock_server(engine: Engine) -> Callable[[], None]:
    """The lock ends with its connection, so also with its process. Returns what unlocks it."""
    connection = engine.connect()
    postgresql = "SELECT CASE WHEN pg_try_advisory_lock(7860001) THEN 1 ELSE 0 END"  # a number nobody else takes
    question = postgresql if engine.dialect.name == "postgresql" else "SELECT GET_LOCK('opus_api_migration', 0)"

    def locked() -> bool:
        taken = connection.execute(sa.text(question)).scalar()
        connection.commit()
        return bool(taken)

    def unlock() -> None:
        connection.invalidate()  # closed, not given back to the pool
        connection.close()

    _wait_for(locked)
    return unlock


def _wait_for(locked: Callable[[], bool]) -> None:
    say = time.monotonic() + 5
    while not locked():
        if say and time.monotonic() > say:
            log.warning("another process is migrating the database; waiting for it")
            say = 0.0
        time.sleep(0.1)


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
    if len(folders) > 1:
        with suppress(OSError):  # for its owner alone; the files that SQLite puts beside it are made alike
            os.close(os.open(str(name), os.O_RDWR | os.O_CREAT, 0o600))


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
