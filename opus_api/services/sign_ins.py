"""Signing in to Amazon Q by device code. A sign-in is a row, so any worker may answer who asks how far it is.

Nothing waits in the background: whoever asks polls the sign-in service, as often as it allows and one at a time.
"""

import logging
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import gevent
import sqlalchemy as sa
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from opus_api.config import Settings
from opus_api.extensions import db
from opus_api.models import OVERTAKING, Account, Setting, SignIn, now
from opus_api.services import account_fields, settings
from opus_api.services.accounts import Accounts, as_json
from opus_api.services.oidc import granted_columns
from opus_api.services.values import FieldError, name, rfc3339
from opus_api.transport import Transport
from opus_api.upstreams import amazonq_login
from opus_api.upstreams.amazonq import UPSTREAM as AMAZON_Q
from opus_api.upstreams.amazonq_login import Client, Granted, Refused
from opus_api.upstreams.base import Failure
from opus_api.wire.errors import ApiError, Conflict, NotFound, Phrase

log = logging.getLogger(__name__)

DEADLINE = 10.0  # seconds the sign-in service may take
POLLING = timedelta(seconds=15)  # nobody else polls while one does
SLOWER = 5.0  # seconds more between polls after "slow_down" (RFC 8628)
WRITE_AGAIN = 0.5  # seconds until a commit that failed is tried again
KEPT = timedelta(days=1)  # rows of sign-ins that are over

ENDS = {"access_denied": "denied", "expired_token": "expired"}


class SignIns:
    """One per app; works in the session of the current app context."""

    def __init__(self, settings: Settings, transport: Transport, engine: Engine, accounts: Accounts):
        self._settings = settings
        self._transport = transport
        self._engine = engine
        self._accounts = accounts

    def start(self, data: Mapping[str, Any], user_id: int | None = None) -> SignIn:
        """Begin one: ``name``, ``start_url``, ``region`` and what else an account's ``oidc`` and ``proxy`` may hold;
        ``account_id`` signs an account in again. Raises FieldError, Conflict, NotFound, ApiError (502)."""
        account = self._accounts.get(_id(data["account_id"])) if data.get("account_id") is not None else None
        row = self._row(data, account)
        row.user_id = user_id
        db.session.rollback()  # the connection goes back while we wait
        flow = amazonq_login.begin(row.oidc["region"], row.oidc["start_url"])
        try:
            begun = self._transport.run(flow, proxy=row.proxy or "", deadline=DEADLINE)
        except Failure as failure:
            raise ApiError(502, "api_error", Phrase("The sign-in service: %(said)s.", said=failure.message)) from None
        if isinstance(begun, Refused):
            raise ApiError(502, "api_error", begun.message)
        client, device = begun
        row.flow_id, row.status = secrets.token_urlsafe(24), "pending"
        row.client_id, row.client_secret, row.device_code = client.id, client.secret, device.code
        row.oidc = {**row.oidc, "client_expires_at": client.expires_at}
        row.user_code, row.interval = device.user_code[:40], device.interval
        row.verification_uri = device.verification_uri[:500]
        row.verification_uri_complete = device.verification_uri_complete[:500]
        row.expires_at = now() + timedelta(seconds=device.expires_in)
        row.poll_at = now() + timedelta(seconds=device.interval)
        db.session.execute(sa.delete(SignIn).where(SignIn.expires_at < now() - KEPT))
        db.session.add(row)
        db.session.commit()
        return row

    def get(self, flow_id: str) -> SignIn:
        """How far it is, asked of the sign-in service when that is due. Raises NotFound."""
        row = self._found(flow_id)
        if row.status == "pending" and row.poll_at <= now() and self._take(row):
            self._poll(row)
            db.session.expire_all()
            row = self._found(flow_id)
        return row

    def _found(self, flow_id: str) -> SignIn:
        row = db.session.scalar(sa.select(SignIn).where(SignIn.flow_id == flow_id))
        if row is None:
            raise NotFound("There is no such sign-in.")
        return row

    def _row(self, data: Mapping[str, Any], account: Account | None) -> SignIn:
        known = {"name", "account_id", "proxy", *account_fields.OIDC}
        for field in data:
            if field not in known:
                raise FieldError(field, "is not a field of a sign-in.")
        given = {field: data[field] for field in account_fields.OIDC if field in data}
        before = (account.oidc or {}) if account else {}
        asked = account_fields.oidc(given, AMAZON_Q)
        if asked.get("start_url", before.get("start_url")) != before.get("start_url"):
            before = {**before, "profile_arn": None}  # it belongs to the organisation before
        oidc = {**account_fields.oidc_defaults(), **before, **asked}
        proxy = account_fields.checked("amazonq", {"proxy": data.get("proxy")}, self._settings)["proxy"]
        if account is None:
            chosen = name("name", data.get("name"))
            if any(other.provider == "amazonq" and other.name == chosen for other in self._accounts.all()):
                raise Conflict(
                    Phrase("name: %(provider)s has an account named %(name)r already.", provider="amazonq", name=chosen)
                )
            return SignIn(name=chosen, oidc=oidc, proxy=proxy)
        if account.provider != "amazonq":
            raise FieldError("account_id", "is no account that can be signed in to.")
        return SignIn(name=account.name, oidc=oidc, proxy=proxy or account.proxy, account_id=account.id)

    # ---- polling

    def _take(self, row: SignIn) -> bool:
        """Whether it is us who polls now: one statement, so exactly one of all who ask."""
        due = sa.update(SignIn).where(SignIn.id == row.id, SignIn.status == "pending", SignIn.poll_at <= now())
        taken: Any = db.session.execute(due.values(poll_at=now() + POLLING), execution_options=_AS_IT_IS)
        db.session.commit()
        return bool(taken.rowcount)

    def _poll(self, row: SignIn) -> None:
        client = Client(row.client_id, row.client_secret)
        flow = amazonq_login.poll(row.oidc["region"], client, row.device_code)
        row_id, proxy, interval, ends = row.id, row.proxy or "", row.interval, row.expires_at
        db.session.rollback()
        try:
            answer = self._transport.run(flow, proxy=proxy, deadline=DEADLINE)
        except Failure as failure:
            answer = Refused("unreachable", failure.message)
        if isinstance(answer, Granted):
            self._complete(row_id, answer)
        elif answer.is_final:
            why = None if answer.error in ENDS else answer.message
            self._set(row_id, status=ENDS.get(answer.error, "expired"), message=why)
        elif ends <= now():
            self._set(row_id, status="expired")
        else:
            interval += SLOWER * (answer.error == "slow_down")
            self._set(row_id, interval=interval, poll_at=now() + timedelta(seconds=interval))

    def _set(self, row_id: int, **columns: Any) -> None:
        pending = sa.update(SignIn).where(SignIn.id == row_id, SignIn.status == "pending")
        db.session.execute(pending.values(**columns), execution_options=_AS_IT_IS)
        db.session.commit()

    def _complete(self, row_id: int, granted: Granted) -> None:
        """The account and the end of the sign-in in one transaction. A code is good once: what it brought is written
        however long the database is away, also when nobody waits for it any more."""
        writing = gevent.spawn(self._until_written, row_id, granted)
        writing.join(DEADLINE)
        account_id = writing.value if writing.ready() else None
        if account_id:
            self._accounts.validate(account_id)

    def _until_written(self, row_id: int, granted: Granted) -> int | None:
        told = False
        while True:
            try:
                return self._write(row_id, granted)
            except SQLAlchemyError as error:
                if not told:
                    log.warning("a sign-in waits for the database (%s)", type(error).__name__)
                told = True
                gevent.sleep(WRITE_AGAIN)

    def _write(self, row_id: int, granted: Granted) -> int | None:
        with Session(self._engine) as session, session.begin():
            row = session.get_one(SignIn, row_id)
            if row.status != "pending":
                return None
            account = session.get(Account, row.account_id) if row.account_id else None
            if account is None:
                account = _new_account(session, row)
            account.oidc, account.client_id, account.client_secret = row.oidc, row.client_id, row.client_secret
            for column, value in granted_columns(granted).items():
                setattr(account, column, value)
            account.token_version = (account.token_version or 0) + 1
            account.is_valid, account.error_count = True, 0
            if account.state != "disabled":
                account.state, account.state_reason, account.state_until = "active", None, None
            account.state_version = (account.state_version or 0) + OVERTAKING
            session.flush()
            row.status, row.account_id = "complete", account.id
            return account.id


_AS_IT_IS: Any = {"synchronize_session": False}


def _id(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise FieldError("account_id", "must be the id of an account.")
    return value


def _new_account(session: Session, row: SignIn) -> Account:
    """Under a free name: while the person was signing in, somebody may have taken theirs."""
    taken = set(session.scalars(sa.select(Account.name).where(Account.provider == "amazonq")))
    chosen = row.name if row.name not in taken else f"{row.name[:80]}-{row.flow_id[:8]}"
    account = Account(provider="amazonq", name=chosen, user_id=row.user_id, proxy=row.proxy, state="active")
    session.add(account)
    seen = session.get(Setting, settings.REAL_ACCOUNT_SEEN)
    if seen is None:
        session.add(Setting(key=settings.REAL_ACCOUNT_SEEN, value=True))
    return account


def started_json(row: SignIn) -> dict[str, Any]:
    """What a person needs to go on."""
    return {
        "flow_id": row.flow_id,
        "verification_uri": row.verification_uri,
        "verification_uri_complete": row.verification_uri_complete,
        "user_code": row.user_code,
        "expires_at": rfc3339(row.expires_at),
        "interval": row.interval,
    }


def status_json(row: SignIn) -> dict[str, Any]:
    """``account`` only once it is there."""
    account = db.session.get(Account, row.account_id) if row.status == "complete" and row.account_id else None
    return {"status": row.status, **({"account": as_json(account)} if account else {})}
