"""What the hot path knows: keys, accounts, model rules and settings as plain values, without a query per request."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import gevent
from gevent.lock import RLock
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from opus_api import database, logs
from opus_api.config import ConfigError
from opus_api.models import Account, ApiKey, IpRule, ModelRule, Setting
from opus_api.services.account_fields import SECRETS
from opus_api.services.ip_rules import Blocked
from opus_api.services.settings import OWN_ROWS, REAL_ACCOUNT_SEEN, VERSION, changes, installation
from opus_api.upstreams import UPSTREAMS
from opus_api.upstreams.base import Credentials

log = logging.getLogger(__name__)

FEW = 50  # accounts read at one go


@dataclass(frozen=True, slots=True)
class AccountValue:
    """One account as it was in the database when the snapshot was taken. Times are Unix seconds."""

    id: int
    provider: str
    name: str
    credentials: Credentials
    models: tuple[str, ...] | None  # globs set by a person; None: what the provider lists
    listed_models: tuple[str, ...] | None  # what the provider listed; None: never asked successfully
    model_map: Mapping[str, str]
    priority: int
    max_concurrency: int
    proxy: str = field(repr=False)
    state: str
    state_reason: str | None
    state_until: float | None
    state_version: int
    error_count: int
    usage_count: int
    created_at: float
    last_used: float | None


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One API key that is not revoked. ``expires_at`` in Unix seconds."""

    id: int
    name: str
    override: bool
    models: tuple[str, ...] | None
    limits: Mapping[str, int]
    expires_at: float | None
    month: str | None  # 2026-01, with the tokens used in it when the snapshot was taken
    month_tokens: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    version: int
    keys: Mapping[str, KeyValue]  # by keyed hash
    accounts: tuple[AccountValue, ...]
    rules: Mapping[str, str]  # pattern -> target, the model map
    blocked: Blocked  # addresses that are kept out
    settings: Mapping[str, Any]  # saved in the console, see saved_settings.py
    real_account_seen: bool  # an account of a real provider has existed at some time (P7)
    installation_id: str  # anthropic-organization-id
    secrets: frozenset[str] = field(repr=False)  # of all accounts: what no log line may show
    pepper: bytes = field(repr=False)  # for crypto.keyed_hash


def credentials(account: Account) -> Credentials:
    """What the account's upstream needs: options complete, base URL never empty unless the provider has none."""
    upstream = UPSTREAMS[account.provider]
    defaults = {option.name: option.default for option in upstream.options}
    return Credentials(
        api_key=account.api_key or "",
        base_url=account.base_url or upstream.default_base_url,
        options={**defaults, **(account.learned_options or {}), **(account.options or {})},
        access_token=account.access_token or "",
        token_version=account.token_version or 0,
        token_expires_at=_unix(account.token_expires_at),
        oidc={**(account.oidc or {}), "quota_resets_at": (account.quota or {}).get("resets_at")},
    )


def load(session: Session) -> Snapshot:
    """Read everything. Raises SQLAlchemyError when the database is away, ConfigError when a secret cannot be read."""
    rows = {row.key: row.value for row in session.scalars(select(Setting))}
    owner = installation(session)
    secrets: set[str] = set()
    return Snapshot(
        version=rows.get(VERSION, 0),  # read first: what changes while we read the rest is noticed at the next look
        keys={key.key_hash: _key(key) for key in session.scalars(select(ApiKey).where(ApiKey.revoked_at.is_(None)))},
        accounts=tuple(_accounts(session, secrets)),
        rules={rule.pattern: rule.target for rule in session.scalars(select(ModelRule).order_by(ModelRule.id))},
        blocked=Blocked((rule.cidr, _unix(rule.expires_at)) for rule in session.scalars(select(IpRule))),
        settings={key: value for key, value in rows.items() if key not in OWN_ROWS},
        real_account_seen=bool(rows.get(REAL_ACCOUNT_SEEN, False)),
        installation_id=owner.id,
        secrets=frozenset(secrets),
        pepper=owner.pepper,
    )


def _unix(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None


def _key(key: ApiKey) -> KeyValue:
    return KeyValue(
        id=key.id,
        name=key.name,
        override=key.override,
        models=None if key.models is None else tuple(key.models),
        limits=key.limits or {},
        expires_at=_unix(key.expires_at),
        month=key.month,
        month_tokens=key.month_tokens,
    )


def _accounts(session: Session, secrets: set[str]) -> Iterator[AccountValue]:
    """Adds to ``secrets`` what each has."""
    # Each costs some decryptions: between a few of them others run.
    for some in session.scalars(select(Account).order_by(Account.id)).yield_per(FEW).partitions():
        for account in some:
            secrets.update(_secrets(account))
            if account.provider in UPSTREAMS:
                yield _account(account)
            else:
                log.warning("account %d is left out: this version has no provider %r", account.id, account.provider)
        gevent.sleep(database.LET_OTHERS)


def _secrets(account: Account) -> Iterator[str]:
    for name in SECRETS:
        yield getattr(account, name) or ""
    yield logs.password_in(account.proxy or "")


def _account(account: Account) -> AccountValue:
    return AccountValue(
        id=account.id,
        provider=account.provider,
        name=account.name,
        credentials=credentials(account),
        models=None if account.models is None else tuple(account.models),
        listed_models=None if account.listed_models is None else tuple(account.listed_models),
        model_map=account.model_map or {},
        priority=account.priority,
        max_concurrency=account.max_concurrency,
        proxy=account.proxy or "",
        state=account.state,
        state_reason=account.state_reason,
        state_until=_unix(account.state_until),
        state_version=account.state_version,
        error_count=account.error_count,
        usage_count=account.usage_count,
        created_at=account.created_at.timestamp(),
        last_used=_unix(account.last_used),
    )


class Snapshots:
    """The newest snapshot, at most ``INTERVAL`` seconds behind other processes and never behind this one."""

    INTERVAL = 1.0
    CLOSE_INTERVAL = 0.25  # while another generation of workers is there
    LIMIT = 2.0  # seconds the database has for a look
    LOAD_LIMIT = 5.0  # and for everything
    PROMPT = 0.5  # seconds after which a look that has no answer yet counts as none
    LONGEST_OUTAGE = 86_400.0  # seconds for which the last snapshot is served

    def __init__(self, engine: Engine):
        self._engine = engine
        self.on_look: Callable[[], object] = lambda: None  # each time that the database has been looked at
        self._snapshot: Snapshot | None = None
        self._news = 0  # how often somebody said that others have changed something
        self._seen = (-1, 0)  # commits of this process and news that the snapshot knows
        self._lock = RLock()
        self._refresher: gevent.Greenlet[[], None] | None = None
        self._fresh = time.monotonic()  # when the database was last heard of
        self._asked: float | None = None  # since when a look has been waiting
        self._away = False
        self._closely_until = 0.0  # monotonic seconds
        self._states: int | None = None  # sum of the versions of all accounts' states, when last looked at closely

    def current(self) -> Snapshot:
        """Without a query, unless this process changed something since. While the database is away, the last one.

        Raises SQLAlchemyError when the database is away and there is no last one, or only one of yesterday.
        """
        if self._snapshot is None or self._seen != self._latest:
            return self._reload()
        if self._away and time.monotonic() - self._fresh > self.LONGEST_OUTAGE:
            raise database.TimedOut("the database has been away for a day")
        return self._snapshot

    @property
    def _latest(self) -> tuple[int, int]:
        return changes.count, self._news

    @property
    def is_stale(self) -> bool:
        """The database is away: there may be keys and changes that we do not know of."""
        waiting = self._asked is not None and time.monotonic() - self._asked > self.PROMPT
        return self._away or waiting

    def start(self) -> None:
        """Load now, and look for changes of other processes from now on."""
        self.current()
        self._refresher = gevent.spawn(self._watch)

    def renew(self) -> None:
        """Whoever asks next gets what the database says then, also of what changes no version; nobody waits for one
        that is away."""
        if not self.is_stale:
            self._news += 1

    def watch_closely(self, seconds: float) -> None:
        """For so long, look at the accounts' states as well: a worker that another replaces, or that replaces another,
        shares no memory with it, and what either learns of accounts changes no version."""
        self._closely_until = time.monotonic() + seconds

    def stop(self) -> None:
        if self._refresher is not None:
            self._refresher.kill()

    def refresh(self) -> None:
        """Load anew if any process changed something. Raises SQLAlchemyError."""
        states = self._states
        with self._asking(self.LIMIT), Session(self._engine) as session:
            version = session.scalar(select(Setting.value).where(Setting.key == VERSION))
            if self._is_close:  # each change of a state makes its version larger
                states = session.scalar(select(func.sum(Account.state_version)))
        if self._snapshot is None or version != self._snapshot.version or states != self._states:
            self._states = states
            self._news += 1
            self.current()

    @property
    def _is_close(self) -> bool:
        return time.monotonic() < self._closely_until

    def _reload(self) -> Snapshot:
        """Who is not the one to load waits for that one, but no longer than a database that answers takes."""
        in_time = self._lock.acquire(timeout=self._patience)
        if not in_time and self._snapshot is not None:
            return self._snapshot
        try:
            return self._loaded()
        finally:
            self._lock.release()

    @property
    def _patience(self) -> float | None:
        if self._snapshot is None:
            return None
        waited = 0.0 if self._asked is None else time.monotonic() - self._asked
        return max(self.PROMPT - waited, 0.0)

    def _loaded(self) -> Snapshot:
        latest = self._latest  # what comes while it is being read, it may lack
        if self._snapshot is not None and self._seen == latest:
            return self._snapshot  # another greenlet loaded it while we waited
        try:
            with self._asking(self.LOAD_LIMIT), Session(self._engine) as session:
                loaded = load(session)
            if loaded != self._snapshot:  # what is derived from it stays when nothing changed
                self._snapshot = loaded
                logs.hide("accounts", loaded.secrets)
        except SQLAlchemyError as error:
            if self._snapshot is None:
                raise
            self._states = None  # the next close look finds them changed once more
            log.warning("settings, keys and accounts could not be read again (%s)", type(error).__name__)
        self._seen = latest
        return self._snapshot

    @contextmanager
    def _asking(self, seconds: float) -> Iterator[None]:
        """A question to the database, and what it tells about the database."""
        self._asked = self._asked or time.monotonic()
        try:
            with database.within(seconds):
                yield
        except SQLAlchemyError:
            self._away = True
            raise
        finally:
            self._asked = None
        self._away, self._fresh = False, time.monotonic()

    def _watch(self) -> None:
        away = False
        while True:  # first as soon as the worker serves: it has taken a second or two since it loaded
            try:
                self.refresh()
                gevent.spawn(self.on_look)  # apart: it may have to wait for Redis
                away = False
            except (SQLAlchemyError, ConfigError) as error:
                if not away:  # one line per outage
                    log.warning("the database is away (%s); serving what was known", type(error).__name__)
                away = True
            gevent.sleep(self.CLOSE_INTERVAL if self._is_close else self.INTERVAL)
