"""What requests leave behind: log rows, usage of accounts and keys, states of accounts. Written in batches, off the
hot path: recording touches memory only."""

import logging
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import gevent
import sqlalchemy as sa
from gevent.event import Event
from gevent.lock import RLock
from sqlalchemy import Connection, Engine
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DataError, SQLAlchemyError

from opus_api.models import Account, ApiKey, RequestLog

log = logging.getLogger(__name__)

LOGS, ACCOUNTS, KEYS = (cast(sa.Table, model.__table__) for model in (RequestLog, Account, ApiKey))

# What no later attempt would store either.
UNSTORABLE = (DataError, ValueError, OverflowError)

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
    """Collects in memory and writes each ``INTERVAL`` seconds; keeps what the database could not take."""

    INTERVAL = 1.0
    BATCH = 500
    CAPACITY = 100_000  # rows kept while the database is away

    def __init__(self, engine: Engine):
        self._engine = engine
        self._rows: deque[Mapping[str, Any]] = deque()
        self._accounts: dict[int, tuple[int, float]] = {}  # id: uses, last
        self._keys: dict[int, tuple[int, int, int, float]] = {}  # id: requests, input, output tokens, last
        self._states: deque[AccountState] = deque()
        self._lock = RLock()
        self._wake = Event()
        self._writer: gevent.Greenlet[[], None] | None = None
        self._away = self._stopping = False
        self.dropped = 0  # rows that found no room

    def record(self, row: Mapping[str, Any]) -> None:
        """One row of the request log; keys are its columns. Never waits."""
        if len(self._rows) >= self.CAPACITY:
            self.dropped += 1
            return
        self._rows.append(row)

    def account_used(self, account_id: int, when: float) -> None:
        """An upstream call of this account began at ``when`` (Unix seconds)."""
        uses, _ = self._accounts.get(account_id, (0, 0.0))
        self._accounts[account_id] = (uses + 1, when)

    def key_used(self, key_id: int, when: float, input_tokens: int, output_tokens: int) -> None:
        """A request of this key ended at ``when`` (Unix seconds)."""
        requests, tokens_in, tokens_out, _ = self._keys.get(key_id, (0, 0, 0, 0.0))
        self._keys[key_id] = (requests + 1, tokens_in + input_tokens, tokens_out + output_tokens, when)

    def account_state(self, change: AccountState) -> None:
        """Written at once, so that a restart does not forget a cooldown."""
        self._states.append(change)
        self.wake()

    def wake(self) -> None:
        self._wake.set()

    def start(self) -> None:
        self._writer = gevent.spawn(self._run)

    def stop(self) -> None:
        """Write what is left and end."""
        self._stopping = True
        self.wake()
        if self._writer is not None:
            self._writer.join(timeout=10)
        self.flush()

    def flush(self) -> None:
        """Write everything now. What the database does not take stays for the next time."""
        try:
            with self._lock:
                while self._pending():
                    self._write_batch()
                    gevent.sleep(0)  # a long backlog is not written in one go
            self._away = False
        except SQLAlchemyError as error:
            if not self._away:  # one line per outage
                log.warning(
                    "the request log cannot be written (%s); %d rows wait", type(error).__name__, len(self._rows)
                )
            self._away = True

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(self.INTERVAL)
            self._wake.clear()
            self.flush()

    def _pending(self) -> bool:
        return bool(self._rows or self._accounts or self._keys or self._states)

    def _write_batch(self) -> None:
        """One transaction. Takes what it writes, and puts it back when that fails."""
        rows = [self._rows.popleft() for _ in range(min(self.BATCH, len(self._rows)))]
        states = [self._states.popleft() for _ in range(len(self._states))]
        accounts, self._accounts = self._accounts, {}
        keys, self._keys = self._keys, {}
        committed = False
        try:
            with self._engine.begin() as connection:
                _insert_rows(connection, rows)
                _add_uses(connection, accounts, keys)
                _set_states(connection, states)
            committed = True
        except UNSTORABLE as error:  # kept, they would hold up everything after them
            self.dropped += len(rows)
            log.error("%d rows of the request log were dropped (%s)", len(rows), type(error).__name__)
            rows, states = [], []
        finally:
            if not committed:
                self._rows.extendleft(reversed(rows))
                self._states.extendleft(reversed(states))
                self._put_back(accounts, keys)

    def _put_back(
        self, accounts: Mapping[int, tuple[int, float]], keys: Mapping[int, tuple[int, int, int, float]]
    ) -> None:
        for account_id, (uses, last) in accounts.items():
            newer = self._accounts.get(account_id, (0, last))
            self._accounts[account_id] = (uses + newer[0], newer[1])
        for key_id, (requests, tokens_in, tokens_out, last) in keys.items():
            more = self._keys.get(key_id, (0, 0, 0, last))
            self._keys[key_id] = (requests + more[0], tokens_in + more[1], tokens_out + more[2], more[3])


def _moment(unix: float | None) -> datetime | None:
    return None if unix is None else datetime.fromtimestamp(unix, UTC)


def _storable(value: Any) -> Any:
    """Text that every database takes: names of models come from clients, reasons from upstreams."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "replace").decode().replace("\0", "?")


def _insert_rows(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """A row that was written before the connection broke is not written again."""
    complete = [{**BLANK, **{name: _storable(value) for name, value in row.items()}} for row in rows]
    if complete:
        connection.execute(_insert_new(connection.dialect.name), complete)


def _insert_new(dialect: str) -> sa.Insert:
    if dialect == "postgresql":
        return postgresql.insert(LOGS).on_conflict_do_nothing(index_elements=["request_id"])
    if dialect == "sqlite":
        return sqlite.insert(LOGS).on_conflict_do_nothing(index_elements=["request_id"])
    return mysql.insert(LOGS).prefix_with("IGNORE")


def _add_uses(
    connection: Connection,
    accounts: Mapping[int, tuple[int, float]],
    keys: Mapping[int, tuple[int, int, int, float]],
) -> None:
    # Sorted, so that two workers take the rows' locks in the same order.
    if accounts:
        values = [{"row": i, "uses": uses, "last": _moment(last)} for i, (uses, last) in sorted(accounts.items())]
        connection.execute(ADD_ACCOUNT_USES, values)
    if keys:
        connection.execute(
            ADD_KEY_USES,
            [
                {"row": i, "uses": uses, "tokens_in": tokens_in, "tokens_out": tokens_out, "last": _moment(last)}
                for i, (uses, tokens_in, tokens_out, last) in sorted(keys.items())
            ],
        )


ADD_ACCOUNT_USES = (
    sa.update(ACCOUNTS)
    .where(ACCOUNTS.c.id == sa.bindparam("row"))
    .values(
        usage_count=ACCOUNTS.c.usage_count + sa.bindparam("uses", type_=sa.BigInteger),
        last_used=sa.bindparam("last"),
        updated_at=ACCOUNTS.c.updated_at,  # being used is no edit
    )
)
ADD_KEY_USES = (
    sa.update(KEYS)
    .where(KEYS.c.id == sa.bindparam("row"))
    .values(
        requests=KEYS.c.requests + sa.bindparam("uses", type_=sa.BigInteger),
        input_tokens=KEYS.c.input_tokens + sa.bindparam("tokens_in", type_=sa.BigInteger),
        output_tokens=KEYS.c.output_tokens + sa.bindparam("tokens_out", type_=sa.BigInteger),
        last_used=sa.bindparam("last"),
    )
)
SET_STATE = (
    sa.update(ACCOUNTS)
    .where(
        ACCOUNTS.c.id == sa.bindparam("row"),
        ACCOUNTS.c.state_version == sa.bindparam("known"),
        ACCOUNTS.c.state != "disabled",
    )
    .values(
        state=sa.bindparam("new_state"),
        state_reason=sa.bindparam("reason"),
        state_until=sa.bindparam("until"),
        error_count=sa.bindparam("errors"),
        is_valid=sa.bindparam("valid"),
        state_version=ACCOUNTS.c.state_version + 1,
        updated_at=ACCOUNTS.c.updated_at,
    )
)


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
        }
        connection.execute(SET_STATE, values)
