"""All tables on one page."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ForeignKey
from sqlalchemy.dialects.mysql import LONGTEXT
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from opus_api import crypto
from opus_api.extensions import Base, db

# SQLite numbers rows by itself only in INTEGER columns.
BigKey = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)  # one clock for all: tests set it


class Time(TypeDecorator[datetime]):
    """A moment in UTC; SQLite and MySQL forget the zone, so it is put back."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


class Micros(TypeDecorator[datetime]):
    """A moment in UTC as microseconds since 1970: a third of the room that text takes, in a table with many indexes."""

    impl = sa.BigInteger()
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else (value - EPOCH) // MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else EPOCH + value * MICROSECOND


class Secret(TypeDecorator[str]):
    """Text that is encrypted at rest."""

    impl = sa.Text()
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return crypto.current().encrypt(value) if value else None

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        return crypto.current().decrypt(value) if value else None


class LongSecret(Secret):
    """More than the 64 KB that MySQL's TEXT has room for."""

    impl = sa.Text().with_variant(LONGTEXT(), "mysql")
    cache_ok = True


class Table(Base):
    __abstract__ = True
    __table_args__: Any = {"sqlite_autoincrement": True}  # noqa: RUF012 - as SQLAlchemy wants it; an id is never given out again: log rows name it
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(Time, default=now)

    def __repr__(self) -> str:  # never a column's value: some are secrets
        return f"<{type(self).__name__} {self.id}>"


class User(Table):
    """A person who signs in to the console; every user is an administrator."""

    __tablename__ = "users"
    username: Mapped[str] = mapped_column(sa.String(80), unique=True)
    password_hash: Mapped[str] = mapped_column(sa.String(255))
    must_change_password: Mapped[bool] = mapped_column(default=False)


class UserSession(Table):
    """One sign-in, of a page or of the JSON API; deleting the row ends it."""

    __tablename__ = "user_sessions"
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[str] = mapped_column(sa.String(64), unique=True)
    kind: Mapped[str] = mapped_column(sa.String(8))  # page | jwt
    last_seen: Mapped[datetime] = mapped_column(Time, default=now)
    expires_at: Mapped[datetime] = mapped_column(Time, index=True)
    confirmed_at: Mapped[datetime | None] = mapped_column(Time)
    client_ip: Mapped[str | None] = mapped_column(sa.String(45))
    user_agent: Mapped[str | None] = mapped_column(sa.String(255))


# What whoever changes an account's state past the pool adds to its version: more than the pool's own changes, of one
# each, that may still be on their way to the database.
OVERTAKING = 1000


class Account(Table):
    """One upstream credential with its state ("cookie" in older documents and in URLs)."""

    __tablename__ = "accounts"
    __table_args__ = (sa.UniqueConstraint("provider", "name"), Table.__table_args__)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    updated_at: Mapped[datetime] = mapped_column(Time, default=now, onupdate=now)
    provider: Mapped[str] = mapped_column(sa.String(20))
    name: Mapped[str] = mapped_column(sa.String(100))
    api_key: Mapped[str | None] = mapped_column(Secret)
    session_key: Mapped[str | None] = mapped_column(Secret)  # stored and never sent, kept for import
    base_url: Mapped[str | None] = mapped_column(sa.String(500))
    proxy: Mapped[str | None] = mapped_column(Secret)  # may hold a password
    models: Mapped[list[str] | None] = mapped_column(sa.JSON(none_as_null=True))  # globs; null: what the provider lists
    listed_models: Mapped[list[str] | None] = mapped_column(
        sa.JSON(none_as_null=True)
    )  # what it listed when last asked
    listed_at: Mapped[datetime | None] = mapped_column(Time)
    model_map: Mapped[dict[str, str]] = mapped_column(sa.JSON, default=dict)  # glob -> the provider's model
    options: Mapped[dict[str, Any]] = mapped_column(sa.JSON, default=dict)  # set by a person
    learned_options: Mapped[dict[str, Any]] = mapped_column(sa.JSON, default=dict)  # read from a 400 of the provider
    priority: Mapped[int] = mapped_column(default=0)
    max_concurrency: Mapped[int] = mapped_column(default=0)  # 0: no cap
    is_valid: Mapped[bool] = mapped_column(default=True)
    state: Mapped[str] = mapped_column(sa.String(10), default="active")  # active | cooling | invalid | disabled
    state_reason: Mapped[str | None] = mapped_column(sa.String(255))
    state_until: Mapped[datetime | None] = mapped_column(Time)
    state_version: Mapped[int] = mapped_column(default=0)  # counts changes of state, whoever made them
    error_count: Mapped[int] = mapped_column(default=0)
    usage_count: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    last_used: Mapped[datetime | None] = mapped_column(Time)
    last_validated: Mapped[datetime | None] = mapped_column(Time)
    # Sign-in by OIDC (Amazon Q)
    client_id: Mapped[str | None] = mapped_column(sa.Text)
    client_secret: Mapped[str | None] = mapped_column(Secret)
    refresh_token: Mapped[str | None] = mapped_column(Secret)
    access_token: Mapped[str | None] = mapped_column(Secret)
    token_expires_at: Mapped[datetime | None] = mapped_column(Time)
    token_version: Mapped[int] = mapped_column(default=0)
    token_refresh_at: Mapped[datetime | None] = mapped_column(Time)  # in the background, before it expires
    lease_owner: Mapped[str | None] = mapped_column(sa.String(40))  # who is renewing the tokens
    lease_until: Mapped[datetime | None] = mapped_column(Time)  # without an owner: not to be tried before
    oidc: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON(none_as_null=True))  # start_url, region …
    quota: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON(none_as_null=True))  # used, limit, unit, resets_at
    credits: Mapped[float] = mapped_column(sa.Float, default=0.0, server_default="0")  # metered for requests of ours


class DeletedAccount(Base):
    """An account that was deleted, kept for a while under its id; services/deleted_accounts.py."""

    __tablename__ = "deleted_accounts"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=False)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    provider: Mapped[str] = mapped_column(sa.String(20))
    name: Mapped[str] = mapped_column(sa.String(100))
    deleted_at: Mapped[datetime] = mapped_column(Time, default=now, index=True)
    deleted_by: Mapped[str] = mapped_column(sa.String(80))  # machine, or a person's name, which outlives its user
    kept: Mapped[str] = mapped_column(Secret)  # all its columns as JSON


class SignIn(Table):
    """A sign-in by device code that a person has begun; any worker can go on with it."""

    __tablename__ = "sign_ins"
    flow_id: Mapped[str] = mapped_column(sa.String(40), unique=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    account_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"))
    status: Mapped[str] = mapped_column(sa.String(10), default="pending")  # pending | complete | expired | denied
    message: Mapped[str | None] = mapped_column(sa.String(255))  # why it ended, where its status does not say that
    name: Mapped[str] = mapped_column(sa.String(100))  # of the account that it makes
    oidc: Mapped[dict[str, Any]] = mapped_column(sa.JSON)  # of the account, too
    proxy: Mapped[str | None] = mapped_column(Secret)
    client_id: Mapped[str] = mapped_column(sa.Text)
    client_secret: Mapped[str] = mapped_column(Secret)
    device_code: Mapped[str] = mapped_column(Secret)
    user_code: Mapped[str] = mapped_column(sa.String(40))
    verification_uri: Mapped[str] = mapped_column(sa.String(500))
    verification_uri_complete: Mapped[str] = mapped_column(sa.String(500))
    interval: Mapped[float] = mapped_column(sa.Float)  # seconds between two polls
    expires_at: Mapped[datetime] = mapped_column(Time)
    poll_at: Mapped[datetime] = mapped_column(Time)  # not before


class AccountEvent(Base):
    """One change of an account's state. No foreign key: it may be written when the account is gone."""

    __tablename__ = "account_events"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    time: Mapped[datetime] = mapped_column(Time, default=now, index=True)
    account_id: Mapped[int] = mapped_column(sa.BigInteger, index=True)
    who: Mapped[str] = mapped_column(sa.String(80))  # machine, or a person's name, which outlives its user
    before: Mapped[str] = mapped_column(sa.String(10))
    after: Mapped[str] = mapped_column(sa.String(10))
    reason: Mapped[str | None] = mapped_column(sa.String(255))


class ApiKey(Table):
    """What a client presents to us; stored as a keyed hash."""

    __tablename__ = "api_keys"
    name: Mapped[str] = mapped_column(sa.String(100), index=True)
    key_hash: Mapped[str] = mapped_column(sa.String(64), unique=True)
    hint: Mapped[str] = mapped_column(sa.String(4))
    expires_at: Mapped[datetime | None] = mapped_column(Time)
    revoked_at: Mapped[datetime | None] = mapped_column(Time)
    last_used: Mapped[datetime | None] = mapped_column(Time)
    override: Mapped[bool] = mapped_column(default=False)  # may bring its own upstream credential
    models: Mapped[list[str] | None] = mapped_column(sa.JSON(none_as_null=True))
    limits: Mapped[dict[str, int]] = mapped_column(sa.JSON, default=dict)
    requests: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    input_tokens: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    output_tokens: Mapped[int] = mapped_column(sa.BigInteger, default=0)
    month: Mapped[str | None] = mapped_column(sa.String(7))  # the last one in which it was used, as 2026-01
    month_tokens: Mapped[int] = mapped_column(sa.BigInteger, default=0)  # of both kinds, in that month


class ModelRule(Table):
    """The model map: a name or glob that clients say, and what it stands for (``provider/model`` or a model)."""

    __tablename__ = "model_rules"
    pattern: Mapped[str] = mapped_column(sa.String(200), unique=True)
    target: Mapped[str] = mapped_column(sa.String(200))


class RequestLog(Base):
    """One row per request that was let in."""

    __tablename__ = "request_logs"
    # What the log is filtered by, newest first.
    __table_args__ = tuple(
        sa.Index(f"ix_request_logs_{column}_time", column, "time")
        for column in ("key_id", "account_id", "model", "status", "outcome")
    )
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    request_id: Mapped[str] = mapped_column(sa.String(40), unique=True)
    time: Mapped[datetime] = mapped_column(Micros, index=True)
    # No foreign keys: a row outlives the key and the account it names.
    key_id: Mapped[int | None] = mapped_column(sa.BigInteger)
    account_id: Mapped[int | None] = mapped_column(sa.BigInteger)
    provider: Mapped[str | None] = mapped_column(sa.String(20))
    dialect: Mapped[str] = mapped_column(sa.String(12))
    model: Mapped[str] = mapped_column(sa.String(200))
    upstream_model: Mapped[str | None] = mapped_column(sa.String(200))
    upstream_request_id: Mapped[str | None] = mapped_column(sa.String(100))
    stream: Mapped[bool] = mapped_column()
    status: Mapped[int] = mapped_column()
    outcome: Mapped[str] = mapped_column(sa.String(16))
    error_type: Mapped[str | None] = mapped_column(sa.String(40))
    attempts: Mapped[int] = mapped_column(default=0)
    input_tokens: Mapped[int] = mapped_column(default=0)
    output_tokens: Mapped[int] = mapped_column(default=0)
    cache_read_input_tokens: Mapped[int] = mapped_column(default=0)
    cache_creation_input_tokens: Mapped[int] = mapped_column(default=0)
    estimated: Mapped[bool] = mapped_column(default=False)  # the upstream sent no usage
    first_token_ms: Mapped[int | None] = mapped_column()
    duration_ms: Mapped[int] = mapped_column(default=0)
    client_ip: Mapped[str | None] = mapped_column(sa.String(45))
    trace: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON(none_as_null=True))  # services/explanations.py


class IpRule(Table):
    """Addresses that are kept out."""

    __tablename__ = "ip_rules"
    cidr: Mapped[str] = mapped_column(sa.String(43), unique=True)
    reason: Mapped[str] = mapped_column(sa.String(255), default="")
    expires_at: Mapped[datetime | None] = mapped_column(Time)


class Change(Table):
    """Who changed what, when, from what to what; of a secret neither. Rows are never changed."""

    __tablename__ = "changes"
    who: Mapped[str] = mapped_column(sa.String(80))  # a name, which outlives its user
    what: Mapped[str] = mapped_column(sa.String(120))
    before: Mapped[Any] = mapped_column(sa.JSON(none_as_null=True), nullable=True)
    after: Mapped[Any] = mapped_column(sa.JSON(none_as_null=True), nullable=True)


class DoneCall(Table):
    """A call with an Idempotency-Key, for a day; services/done_calls.py."""

    __tablename__ = "done_calls"
    __table_args__ = (sa.Index("ix_done_calls_created_at", "created_at"), Table.__table_args__)
    name: Mapped[str] = mapped_column(sa.String(64), unique=True)  # a keyed hash of whose it is and the key
    request: Mapped[str] = mapped_column(sa.String(64))  # a keyed hash of method, path and body
    status: Mapped[int | None] = mapped_column()  # null: it has not ended
    reply: Mapped[str | None] = mapped_column(LongSecret)  # it may hold an API key that is shown once


class JobRun(Base):
    """A job's last run and when it is next."""

    __tablename__ = "job_runs"
    name: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    last_run: Mapped[datetime | None] = mapped_column(Time)  # when it began
    last_outcome: Mapped[str | None] = mapped_column(sa.String(255))
    next_run: Mapped[datetime] = mapped_column(Time)


class Lease(Base):
    """What only one process at a time may do, and which one may until when."""

    __tablename__ = "leases"
    name: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(100))
    until: Mapped[datetime] = mapped_column(Time)


class ProbeSeries(Base):
    """How often an account was asked by itself whether its refused credential works again."""

    __tablename__ = "probe_series"
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True)
    state_version: Mapped[int] = mapped_column()  # of the account; another one begins a new series
    since: Mapped[datetime] = mapped_column(Time)
    made: Mapped[int] = mapped_column(default=0)


class UsageHour(Base):
    """Requests of one hour, added up: all of them, and those of one model, account or key."""

    __tablename__ = "usage_hours"
    dimension: Mapped[str] = mapped_column(sa.String(8), primary_key=True)  # all | model | account | key
    hour: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # since 1970
    name: Mapped[str] = mapped_column(sa.String(200), primary_key=True)  # of the model, or an id; "" for none
    requests: Mapped[int] = mapped_column(sa.BigInteger)
    errors: Mapped[int] = mapped_column(sa.BigInteger)
    input_tokens: Mapped[int] = mapped_column(sa.BigInteger)
    output_tokens: Mapped[int] = mapped_column(sa.BigInteger)


class LatencyHour(Base):
    """How many of them took about how long; ``bucket`` as services/statistics.py counts."""

    __tablename__ = "latency_hours"
    dimension: Mapped[str] = mapped_column(sa.String(8), primary_key=True)
    hour: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    bucket: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    requests: Mapped[int] = mapped_column(sa.BigInteger)


class Refusal(Base):
    """Requests of one minute that were not let in, by address and status."""

    __tablename__ = "refusals"
    minute: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # since 1970
    client_ip: Mapped[str] = mapped_column(sa.String(45), primary_key=True)
    status: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    requests: Mapped[int] = mapped_column(sa.BigInteger)


class Setting(Base):
    """What was set in the console, and what the installation remembers about itself."""

    __tablename__ = "settings"
    key: Mapped[str] = mapped_column(sa.String(60), primary_key=True)
    value: Mapped[Any] = mapped_column(sa.JSON)
    updated_at: Mapped[datetime] = mapped_column(Time, default=now, onupdate=now)


__all__ = [
    "OVERTAKING",
    "Account",
    "AccountEvent",
    "ApiKey",
    "Change",
    "DeletedAccount",
    "DoneCall",
    "IpRule",
    "JobRun",
    "LatencyHour",
    "Lease",
    "ModelRule",
    "ProbeSeries",
    "Refusal",
    "RequestLog",
    "Setting",
    "SignIn",
    "UsageHour",
    "User",
    "UserSession",
    "db",
    "now",
]
