"""Renewing access tokens: once for each version of an account's tokens, whoever asks and in how many processes.

The account's row is the lock. Who sets its lease asks the sign-in service; the others look at the row until its version
grows. Refresh tokens rotate, so an answer is committed before it is used, under the condition that the version is still
the one that was renewed; while the database takes nothing, the answer is kept here and written later, and nobody asks
again with the old token.
"""

import logging
import os
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import gevent
import sqlalchemy as sa
from gevent.pool import Pool
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from opus_api.models import OVERTAKING, Account, now
from opus_api.services.account_events import noted
from opus_api.services.settings import say_changed
from opus_api.services.snapshot import credentials
from opus_api.state import clock
from opus_api.transport import Transport
from opus_api.upstreams import amazonq_login
from opus_api.upstreams.amazonq_login import Client, Granted, Refused
from opus_api.upstreams.base import Credentials, Failure, Verdict

log = logging.getLogger(__name__)

DEADLINE = 15.0  # seconds the sign-in service may take
LEASE = timedelta(seconds=30)  # longer than that, so that a lease ends only with its holder's process
FURTHEST = 2 * LEASE  # an end further away than any lease is long was written by a clock that was wrong
REST = timedelta(seconds=5)  # after the sign-in service could not answer
LOOK_AGAIN = (0.05, 0.1)  # seconds between two looks at somebody else's lease
WRITE_AGAIN = 0.5  # seconds until a commit that failed is tried again
LONGEST_WAIT = 45.0  # seconds; longer than a dead holder's lease
REFRESH_AT = (0.72, 0.88)  # of a token's life, so that accounts made together do not renew together
SIGN_IN_AGAIN = "sign in again"  # begins the reason of an account whose refresh token is dead
AT_ONCE = 5  # background renewals side by side

Renewed = Credentials | Failure
# A renewal under way: it goes on when nobody waits for it any more, because its answer must not be lost.
Renewal: TypeAlias = "gevent.Greenlet[..., Renewed]"
# What a request may ask for: other credentials for this account, those it has being over.
Renew = Callable[[int, Credentials], Renewal]


@dataclass(frozen=True, slots=True)
class _Known:
    """What one look at an account's row shows."""

    credentials: Credentials
    refresh_token: str
    client: Client
    region: str
    proxy: str
    lease_owner: str | None
    lease_until: datetime | None

    @property
    def version(self) -> int:
        return self.credentials.token_version

    def why_over(self) -> str:
        """Why nothing can be renewed any more, "" where it can."""
        if not self.refresh_token:
            return "there is no refresh token"
        ends = self.client.expires_at
        return "the registration of this installation has ended" if ends and ends <= time.time() else ""

    def is_leased(self) -> bool:
        return self.lease_owner is not None and self._is_barred()

    def must_rest(self) -> bool:
        return self.lease_owner is None and self._is_barred()

    def _is_barred(self) -> bool:
        moment = _steady()
        return self.lease_until is not None and moment < self.lease_until <= moment + FURTHEST


class Tokens:
    """One per process."""

    def __init__(self, engine: Engine, transport: Transport):
        self._engine = engine
        self._transport = transport
        self._owner = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._running: dict[int, Renewal] = {}

    def renew(self, account_id: int, seen: Credentials) -> Renewal:
        """Newer tokens than ``seen``; the greenlet's value is the credentials or why there are none."""
        running = self._running.get(account_id)
        if running is None:
            running = self._running[account_id] = gevent.spawn(self._renew, account_id, seen.token_version)
            running.rawlink(lambda _: self._running.pop(account_id, None))
        return running

    def renewed(self, account_id: int, seen: Credentials) -> Credentials:
        """The same for who has nothing else to do meanwhile. Raises Failure."""
        renewal = self.renew(account_id, seen)
        renewal.join(LONGEST_WAIT)
        found = renewal.value if renewal.ready() else None
        if isinstance(found, Credentials):
            return found
        raise found or _away("the sign-in could not be renewed in time")

    def renew_due(self) -> int:
        """Renew what comes near its end; how many accounts that were. Raises SQLAlchemyError."""
        with Session(self._engine) as session:
            due = sa.select(Account).where(
                Account.token_refresh_at <= now(), Account.state.in_(("active", "cooling")), _may_be_leased()
            )
            found = [(account.id, credentials(account)) for account in session.scalars(due)]
        Pool(AT_ONCE).map(lambda pair: self.renew(*pair).join(LONGEST_WAIT), found)
        return len(found)

    # ---- one renewal

    def _renew(self, account_id: int, version: int) -> Renewed:
        try:
            known = self._turn(account_id, version)
        except SQLAlchemyError as error:
            return _away(f"the database is away ({type(error).__name__})")
        except Failure as failure:
            return failure
        return known if isinstance(known, Credentials) else self._ask(account_id, known)

    def _turn(self, account_id: int, version: int) -> Credentials | _Known:
        """Wait until somebody has newer tokens, or until it is our turn to get some. Raises Failure."""
        give_up = time.monotonic() + LONGEST_WAIT
        while time.monotonic() < give_up:
            known = self._look(account_id)
            if known is None:
                raise _needs_sign_in("the account is gone")
            if known.version != version and known.credentials.access_token:
                return known.credentials
            if reason := known.why_over():
                self._refuse(account_id, known.version, reason)
                raise _needs_sign_in(reason)
            if known.must_rest():
                raise _away("the sign-in service could not be asked a moment ago")
            if not known.is_leased() and self._take(account_id, known.version):
                return known
            gevent.sleep(random.uniform(*LOOK_AGAIN))
        raise _away("the sign-in could not be renewed in time")

    def _ask(self, account_id: int, known: _Known) -> Renewed:
        flow = amazonq_login.refresh(known.region, known.client, known.refresh_token)
        try:
            answer = self._transport.run(flow, proxy=known.proxy, deadline=DEADLINE)
        except Failure as failure:
            answer = Refused("unreachable", failure.message)
        if isinstance(answer, Granted):
            self._until_written(account_id, lambda: self._keep(account_id, known.version, answer))
        elif answer.is_final:
            self._until_written(account_id, lambda: self._refuse(account_id, known.version, answer.message))
        else:
            self._until_written(account_id, lambda: self._rest(account_id, known.version))
        return self._outcome(account_id, known, answer)

    def _outcome(self, account_id: int, known: _Known, answer: Granted | Refused) -> Renewed:
        """What the row says now: a person may have changed it meanwhile."""
        try:
            after = self._look(account_id)
        except SQLAlchemyError as error:
            return _away(f"the database is away ({type(error).__name__})")
        if after is not None and after.version != known.version:
            return after.credentials
        if isinstance(answer, Refused) and not answer.is_final:
            return _away(answer.message)
        return _needs_sign_in("the sign-in has ended")

    def _until_written(self, account_id: int, write: Callable[[], None]) -> None:
        """However long the database is away: what was granted exists only here."""
        told = False
        while True:
            try:
                write()
                return
            except SQLAlchemyError as error:
                if not told:
                    log.warning("tokens of account %d wait for the database (%s)", account_id, type(error).__name__)
                told = True
                gevent.sleep(WRITE_AGAIN)

    # ---- the row

    def _look(self, account_id: int) -> _Known | None:
        with Session(self._engine) as session:
            account = session.get(Account, account_id)
            if account is None:
                return None
            places = account.oidc or {}
            return _Known(
                credentials=credentials(account),
                refresh_token=account.refresh_token or "",
                client=Client(account.client_id or "", account.client_secret or "", places.get("client_expires_at")),
                region=str(places.get("region") or ""),
                proxy=account.proxy or "",
                lease_owner=account.lease_owner,
                lease_until=account.lease_until,
            )

    def _take(self, account_id: int, version: int) -> bool:
        """Whether it is us who may ask. One statement, so exactly one of all who try."""
        return self._change(
            account_id, version, _may_be_leased(), lease_owner=self._owner, lease_until=_steady() + LEASE
        )

    def _keep(self, account_id: int, version: int, granted: Granted) -> None:
        columns = granted_columns(granted)
        if self._change(account_id, version, token_version=version + 1, **columns):
            self._heal(account_id)

    def _rest(self, account_id: int, version: int) -> None:
        mine = Account.lease_owner == self._owner
        self._change(account_id, version, mine, lease_owner=None, lease_until=_steady() + REST)

    def _refuse(self, account_id: int, version: int, reason: str) -> None:
        """Only a new sign-in helps; a person's switch stays."""
        self._change(
            account_id,
            version,
            Account.state != "disabled",
            state="invalid",
            is_valid=False,
            state_reason=f"{SIGN_IN_AGAIN}: {reason}"[:255],
            state_until=None,
            state_version=Account.state_version + OVERTAKING,
            token_refresh_at=None,
            lease_owner=None,
            lease_until=None,
        )

    def _heal(self, account_id: int) -> None:
        """Who took over the lease of a holder that could not write was refused; the holder's tokens are good."""
        with Session(self._engine) as session, session.begin():
            account = session.get(Account, account_id)
            if account is None or account.state != "invalid":
                return
            if (account.state_reason or "").startswith(SIGN_IN_AGAIN):
                account.state, account.state_reason, account.is_valid = "active", None, True
                account.state_version += OVERTAKING

    def _change(self, account_id: int, version: int, *conditions: Any, **columns: Any) -> bool:
        """Write, if the tokens are still of this version; whether they were. Raises SQLAlchemyError."""
        table = sa.update(Account).where(Account.id == account_id, Account.token_version == version, *conditions)
        with Session(self._engine) as session, session.begin():
            was = session.scalar(sa.select(Account.state).where(Account.id == account_id))
            result: Any = session.execute(table.values(**columns), execution_options={"synchronize_session": False})
            if result.rowcount and columns.keys() - {"lease_owner", "lease_until"}:
                say_changed(session)
            if result.rowcount and columns.get("state", was) != was:
                session.add(noted(session, account_id, str(was), columns["state"], columns["state_reason"]))
            return bool(result.rowcount)


def granted_columns(granted: Granted) -> dict[str, Any]:
    """The columns of an account that hold what was granted; its times count from now."""
    columns: dict[str, Any] = {
        "access_token": granted.access_token,
        "token_expires_at": now() + timedelta(seconds=granted.expires_in),
        "token_refresh_at": now() + timedelta(seconds=granted.expires_in * random.uniform(*REFRESH_AT)),
        "lease_owner": None,
        "lease_until": None,
    }
    return columns | ({"refresh_token": granted.refresh_token} if granted.refresh_token else {})


def _may_be_leased() -> Any:
    moment, until = _steady(), Account.lease_until
    return sa.or_(until.is_(None), until <= moment, until > moment + FURTHEST)


def _steady() -> datetime:
    """Ends of leases are in time that does not jump: a corrected clock must neither end nor stretch them."""
    return datetime.fromtimestamp(clock.now(), UTC)


def _away(message: str) -> Failure:
    return Failure(Verdict.UNREACHABLE, 502, "api_error", message)


def _needs_sign_in(message: str) -> Failure:
    return Failure(Verdict.AUTH, 529, "overloaded_error", message)
