"""What requests leave behind: log rows, the usage of accounts and keys that follows from them, states of accounts.

Recording appends to the spool and never waits; each second what lies there is moved to the database. A row is counted
into the sums of its key and accounts in the transaction that first stores it, so both are exact whatever happens.
"""

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, cast

import gevent
import sqlalchemy as sa
from gevent.event import Event
from gevent.lock import RLock
from sqlalchemy import Connection, Engine
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from opus_api import database
from opus_api.models import Account, AccountEvent, ApiKey, RequestLog
from opus_api.services import metrics, statistics
from opus_api.services.refusals import Counts, Refusals
from opus_api.services.spool import Estate, Row, Spool, estates
from opus_api.services.values import month_of
from opus_api.state.standing import LAG, QUOTA_REASON, RATE_REASON

log = logging.getLogger(__name__)

LOGS, ACCOUNTS, KEYS, EVENTS = (
    cast(sa.Table, model.__table__) for model in (RequestLog, Account, ApiKey, AccountEvent)
)

# What no later attempt would store either.
UNSTORABLE = (DataError, IntegrityError, ValueError, OverflowError)

# Every column, so that all rows of a batch fit one statement.
BLANK: dict[str, Any] = {
    column.name: getattr(column.default, "arg", None) for column in LOGS.columns if column.name != "id"
}


@dataclass(frozen=True, slots=True)
class AccountState:
    """What the machine found out about an account. ``version`` is the state_version it knew; ``until`` in Unix seconds.

    A person's change in between has a newer version and wins.
    """

    account_id: int
    state: str
    reason: str | None
    until: float | None
    error_count: int
    is_valid: bool
    version: int
    was: str  # the state before
    time: float


class Recorder:
    """One per process. Moves what lies in the spool to the database each ``INTERVAL`` seconds."""

    INTERVAL = 1.0
    BATCH = 50  # lines of the spool, some 25 rows: SQLite stores them in 2 ms, in which every stream waits
    LIMIT = 5.0  # seconds one transaction may take, after which it is tried again
    ADOPT_EVERY = 5.0  # seconds between looks for what dead workers left
    CHECKPOINT_EVERY = 5.0  # the same between takings of SQLite's write-ahead log into its file

    def __init__(self, engine: Engine, folder: Path):
        self._engine = engine
        self._folder = folder
        self._spool = Spool(folder)
        self._states: deque[AccountState] = deque()
        self.refusals = Refusals()
        self._lock = RLock()
        self._wake = Event()
        self._writer: gevent.Greenlet[[], None] | None = None
        self._away = self._full = self._stopping = False
        self.log_dropped_total = 0  # rows that found no room, or that no database takes

    def began(self, row: Row) -> None:
        """A request is let in; what is known of it already. Should this process be killed, it is logged as aborted."""
        self._spooled(self._spool.began, row)

    def record(self, row: Row) -> None:
        """One row of the request log; keys are its columns, and ``uses``: [account id, Unix seconds] for each use of
        an account, ``credits``: what the account's provider metered, and ``logged``: false for a row that is only
        counted. Never waits."""
        if self._spooled(self._spool.ended, row):
            self._full = False
        else:
            self.log_dropped_total += 1
            metrics.DROPPED.inc()

    def account_state(self, change: AccountState) -> None:
        """Written at once, so that a restart does not forget a cooldown."""
        self._states.append(change)
        self.wake()

    def wake(self) -> None:
        self._wake.set()

    def start(self) -> None:
        self._writer = gevent.spawn(self._run)
        gevent.spawn(self._sync)
        if self._engine.dialect.name == "sqlite":
            gevent.spawn(self._checkpoint)

    def stop(self) -> None:
        """Write what is left and end. What the database does not take now, the next start finds in the spool."""
        self._stopping = True
        self.wake()
        if self._writer is not None:
            self._writer.join(timeout=10)
            self._writer = None
        self.flush()
        with suppress(OSError):
            self._spool.close()

    def flush(self) -> None:
        """Write everything now. What the database does not take stays for the next time."""
        with self._lock:
            self._guarded(self._flush)

    def adopt(self) -> None:
        """Write what dead workers left."""
        with self._lock:
            self._guarded(self._adopt)

    # ---- the writer

    def _run(self) -> None:
        adopted = -self.ADOPT_EVERY
        while not self._stopping:
            if time.monotonic() >= adopted + self.ADOPT_EVERY:
                self.adopt()
                adopted = time.monotonic()
            self._wake.wait(self.INTERVAL)
            self._wake.clear()
            self.flush()

    def _sync(self) -> None:
        """Apart from the writer, which may have to wait for the database."""
        while not self._stopping:
            with suppress(OSError):  # appending will say what is wrong with the disk
                self._spool.sync(database.off_hub)
            gevent.sleep(self.INTERVAL)

    def _checkpoint(self) -> None:
        """Apart from the writer, too: states of accounts are written at once, however long a disk takes."""
        while not self._stopping:
            gevent.sleep(self.CHECKPOINT_EVERY)
            with suppress(SQLAlchemyError):
                database.checkpoint(self._engine)

    def _spooled(self, append: Callable[[Row], None], row: Row) -> bool:
        try:
            append(row)
        except OSError as error:
            if not self._full:  # one line per outage
                log.error("the request log has no room (%s); rows are dropped", error.strerror or error)
            self._full = True
            return False
        return True

    def _guarded(self, write: Callable[[], None]) -> None:
        try:
            write()
            self._away = False
        except (SQLAlchemyError, OSError) as error:
            if not self._away:  # one line per outage
                log.warning("the request log cannot be written (%s); rows wait in the spool", type(error).__name__)
            self._away = True

    def _flush(self) -> None:
        if self._states:
            self._write_states()
        if refused := self.refusals.take():
            self._write_refusals(refused)
        if self._spool.waiting:
            self._drain(self._spool)

    def _adopt(self) -> None:
        for estate in estates(self._folder):
            with closing(estate):
                self._drain(estate)

    def _drain(self, source: Spool | Estate) -> None:
        for rows in source.batches(self.BATCH):
            self._write(rows)
            gevent.sleep(database.LET_OTHERS)  # a long backlog is not written in one go

    def _write(self, rows: list[Row]) -> None:
        """Store them for good, but for those that no database takes."""
        try:
            self._commit(lambda connection: _store(connection, rows))
        except UNSTORABLE as error:  # kept, they would hold up everything after them
            if len(rows) > 1:
                for row in rows:
                    self._write([row])
                return
            self.log_dropped_total += 1
            metrics.DROPPED.inc()
            log.error("a row of the request log was dropped (%s)", type(error).__name__)

    def _write_states(self) -> None:
        """In parts: an outage leaves more than one transaction has time for. What cannot be written stays."""
        self._states = deque(_needed(self._states))
        for _ in range(0, len(self._states), self.BATCH):
            self._write_some_states()
            gevent.sleep(database.LET_OTHERS)

    def _write_some_states(self) -> None:
        """Takes what it writes, and puts it back when that fails."""
        states = [self._states.popleft() for _ in range(min(self.BATCH, len(self._states)))]
        try:
            self._commit(lambda connection: _set_states(connection, states))
        except UNSTORABLE as error:
            log.error("%d states of accounts were dropped (%s)", len(states), type(error).__name__)
        except BaseException:
            self._states.extendleft(reversed(states))
            raise

    def _write_refusals(self, refused: Counts) -> None:
        try:
            self._commit(lambda connection: statistics.add_refusals(connection, refused))
        except BaseException:
            self.refusals.give_back(refused)
            raise

    def _commit(self, write: Callable[[Connection], None]) -> None:
        with database.within(self.LIMIT), self._engine.begin() as connection:
            write(connection)


def _moment(unix: float | None) -> datetime | None:
    return None if unix is None else datetime.fromtimestamp(unix, UTC)


def _storable(value: Any) -> Any:
    """Text that every database takes: names of models come from clients, reasons from upstreams."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "replace").decode().replace("\0", "?")


def _store(connection: Connection, rows: Iterable[Row]) -> None:
    """A row that is there already, by a transaction whose end we never heard of, is neither stored nor counted."""
    known = {row["request_id"]: row for row in rows}
    logged = {name: row for name, row in known.items() if row.get("logged", True)}
    new = _insert_rows(connection, logged)
    counted = [row for name, row in known.items() if name in new or name not in logged]
    _add_uses(connection, counted)
    statistics.add(connection, [_complete(row) for row in counted])


# SQLite keeps each statement it has prepared, and one of 500 rows takes a megabyte: of a few lengths only, please.
A_FEW_AT_ONCE = {"insertmanyvalues_page_size": 20}


def _insert_rows(connection: Connection, rows: Mapping[str, Row]) -> set[str]:
    """The request ids of those that were not there yet."""
    if not rows:
        return set()
    if connection.dialect.insert_executemany_returning:
        statement = _insert_new(connection.dialect.name)
        complete = [_complete(row) for row in rows.values()]
        return set(connection.execute(statement, complete, execution_options=A_FEW_AT_ONCE).scalars())
    there = set(connection.scalars(sa.select(LOGS.c.request_id).where(LOGS.c.request_id.in_(rows))))
    new = rows.keys() - there
    if new:
        connection.execute(_insert_new(connection.dialect.name), [_complete(rows[name]) for name in new])
    return new


def _complete(row: Row) -> dict[str, Any]:
    return {**BLANK, **{name: _storable(value) for name, value in row.items() if name in BLANK}}


@cache
def _insert_new(dialect: str) -> Any:
    if dialect == "postgresql":
        return (
            postgresql.insert(LOGS).on_conflict_do_nothing(index_elements=["request_id"]).returning(LOGS.c.request_id)
        )
    if dialect == "sqlite":
        return sqlite.insert(LOGS).on_conflict_do_nothing(index_elements=["request_id"]).returning(LOGS.c.request_id)
    return mysql.insert(LOGS).prefix_with("IGNORE")


def _add_uses(connection: Connection, rows: Iterable[Row]) -> None:
    accounts: dict[int, tuple[int, float]] = {}
    costs: defaultdict[int, float] = defaultdict(float)
    keys: dict[int, tuple[int, int, int, float]] = {}
    for row in rows:
        for account_id, when in row.get("uses") or ():
            uses, last = accounts.get(account_id, (0, 0.0))
            accounts[account_id] = (uses + 1, max(last, when))
        if row.get("credits"):
            costs[row["account_id"]] += row["credits"]
        if key_id := row.get("key_id"):
            requests, tokens_in, tokens_out, last = keys.get(key_id, (0, 0, 0, 0.0))
            tokens_in += sum(row.get(name) or 0 for name in PROMPT)
            tokens_out += row.get("output_tokens") or 0
            keys[key_id] = (requests + 1, tokens_in, tokens_out, max(last, row["time"].timestamp()))
    # Sorted, so that two workers take the rows' locks in the same order.
    if accounts:
        values = [{"row": i, "uses": uses, "last": _moment(last)} for i, (uses, last) in sorted(accounts.items())]
        connection.execute(ADD_ACCOUNT_USES, values)
    if costs:
        connection.execute(ADD_CREDITS, [{"row": i, "cost": cost} for i, cost in sorted(costs.items())])
    if keys:
        connection.execute(ADD_KEY_USES, [_key_uses(i, *values) for i, values in sorted(keys.items())])


PROMPT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def _key_uses(key_id: int, uses: int, tokens_in: int, tokens_out: int, last: float) -> dict[str, Any]:
    sums = {"uses": uses, "tokens_in": tokens_in, "tokens_out": tokens_out, "tokens": tokens_in + tokens_out}
    return {"row": key_id, **sums, "this_month": month_of(last), "last": _moment(last)}


def _month_tokens(month: sa.ColumnElement[str]) -> sa.Case[Any]:
    """A new month begins at nothing; what comes late from an old one does not count in the present."""
    tokens = sa.bindparam("tokens", type_=sa.BigInteger)
    return sa.case(
        (KEYS.c.month == month, KEYS.c.month_tokens + tokens), (KEYS.c.month > month, KEYS.c.month_tokens), else_=tokens
    )


def _later(column: sa.Column[Any]) -> sa.Case[Any]:
    """The column or what is bound as ``last``: rows do not come in the order of their times."""
    last = sa.bindparam("last", type_=column.type)
    return sa.case((column > last, column), else_=last)


THIS_MONTH = sa.bindparam("this_month", type_=sa.String(7))
ADD_ACCOUNT_USES = (
    sa.update(ACCOUNTS)
    .where(ACCOUNTS.c.id == sa.bindparam("row"))
    .values(
        usage_count=ACCOUNTS.c.usage_count + sa.bindparam("uses", type_=sa.BigInteger),
        last_used=_later(ACCOUNTS.c.last_used),
        updated_at=ACCOUNTS.c.updated_at,  # being used is no edit
    )
)
ADD_CREDITS = (
    sa.update(ACCOUNTS)
    .where(ACCOUNTS.c.id == sa.bindparam("row"))
    .values(
        credits=ACCOUNTS.c.credits + sa.bindparam("cost", type_=sa.Float),
        updated_at=ACCOUNTS.c.updated_at,
    )
)
ADD_KEY_USES = (
    sa.update(KEYS)
    .where(KEYS.c.id == sa.bindparam("row"))
    .values(
        requests=KEYS.c.requests + sa.bindparam("uses", type_=sa.BigInteger),
        input_tokens=KEYS.c.input_tokens + sa.bindparam("tokens_in", type_=sa.BigInteger),
        output_tokens=KEYS.c.output_tokens + sa.bindparam("tokens_out", type_=sa.BigInteger),
        last_used=_later(KEYS.c.last_used),
        month=sa.case((KEYS.c.month > THIS_MONTH, KEYS.c.month), else_=THIS_MONTH),
        month_tokens=_month_tokens(THIS_MONTH),
    )
)
KNOWN, NEW_STATE = sa.bindparam("known", type_=sa.Integer), sa.bindparam("new_state", type_=sa.String)
UNTIL, TIME = (sa.bindparam(name, type_=ACCOUNTS.c.state_until.type) for name in ("until", "time"))
REASON = sa.bindparam("reason", type_=sa.String)
# A cooldown that comes late may have been taken back by a worker that knew of it: with its site's outage, which lifts
# none that was for a limit.
LIFTED = sa.and_(
    REASON.not_in((RATE_REASON, QUOTA_REASON)),
    sa.exists()
    .where(
        EVENTS.c.account_id == ACCOUNTS.c.id,
        EVENTS.c.before == "cooling",
        EVENTS.c.after == "active",
        EVENTS.c.time > TIME,
    )
    .correlate(ACCOUNTS),
)
# While one worker replaces another, or both have no Redis, neither knows what the other counts: nothing that keeps
# requests from an account is lost to that, whoever writes first. A person's change is further ahead.
OUTLASTS = sa.and_(
    ACCOUNTS.c.state_version < KNOWN + LAG,
    sa.or_(
        sa.and_(NEW_STATE == "invalid", ACCOUNTS.c.state.in_(("active", "cooling"))),
        sa.and_(
            NEW_STATE == "cooling",
            ACCOUNTS.c.state.in_(("active", "cooling")),
            sa.or_(ACCOUNTS.c.state_until.is_(None), ACCOUNTS.c.state_until < UNTIL),
            sa.not_(LIFTED),
        ),
    ),
)
OUTLASTED = sa.or_(
    sa.and_(ACCOUNTS.c.state == "invalid", NEW_STATE != "invalid"),  # the machine itself never takes that back
    sa.and_(
        ACCOUNTS.c.state == "cooling",
        ACCOUNTS.c.state_until > TIME,
        sa.or_(
            sa.and_(NEW_STATE == "active", sa.bindparam("was", type_=sa.String) == "active"),
            sa.and_(NEW_STATE == "cooling", ACCOUNTS.c.state_until > UNTIL),
        ),
    ),
)


def _unless_outlasted(column: sa.Column[Any], value: sa.ColumnElement[Any]) -> sa.Case[Any]:
    return sa.case((OUTLASTED, column), else_=value)


SET_STATE = (
    sa.update(ACCOUNTS)
    .where(
        ACCOUNTS.c.id == sa.bindparam("row"),
        # Workers write side by side: what is older than the row comes too late, what is newer need not wait for it.
        sa.or_(ACCOUNTS.c.state_version <= KNOWN, OUTLASTS),
        ACCOUNTS.c.state != "disabled",
    )
    .values(
        state=_unless_outlasted(ACCOUNTS.c.state, NEW_STATE),
        state_reason=_unless_outlasted(ACCOUNTS.c.state_reason, REASON),
        state_until=_unless_outlasted(ACCOUNTS.c.state_until, UNTIL),
        error_count=sa.bindparam("errors"),
        is_valid=_unless_outlasted(ACCOUNTS.c.is_valid, sa.bindparam("valid", type_=sa.Boolean)),
        state_version=sa.case(
            (ACCOUNTS.c.state_version > KNOWN, ACCOUNTS.c.state_version + 1),
            (OUTLASTED, KNOWN + 2),  # newer than what the writer knows: it learns of this
            else_=KNOWN + 1,
        ),
        updated_at=ACCOUNTS.c.updated_at,
    )
)


def _needed(states: Collection[AccountState]) -> list[AccountState]:
    """The newest of each account, and those that leave an event: whatever else they say is overtaken."""
    newest: dict[int, int] = {}
    for change in states:
        newest[change.account_id] = max(change.version, newest.get(change.account_id, change.version))
    return [one for one in states if one.was != one.state or one.version == newest[one.account_id]]


def _set_states(connection: Connection, states: Iterable[AccountState]) -> None:
    for change in states:
        values = {
            "row": change.account_id,
            "known": change.version,
            "new_state": change.state,
            "reason": _storable(change.reason),
            "until": _moment(change.until),
            "errors": change.error_count,
            "valid": change.is_valid,
            "was": change.was,
            "time": _moment(change.time),
        }
        connection.execute(SET_STATE, values)
        if change.was != change.state:
            connection.execute(sa.insert(EVENTS), _event(change))


def _event(change: AccountState) -> dict[str, Any]:
    """It happened, also when a person's newer change has overtaken it on its way."""
    return {
        "time": _moment(change.time),
        "account_id": change.account_id,
        "who": "machine",
        "before": change.was,
        "after": change.state,
        "reason": _storable(change.reason),
    }
