"""What the installation remembers: settings saved in the console, its identity and secret, and a counter of changes."""

import base64
import secrets
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from opus_api import crypto
from opus_api.extensions import db
from opus_api.models import Account, ApiKey, IpRule, ModelRule, Setting

INSTALLATION = "installation"
VERSION = "version"
REAL_ACCOUNT_SEEN = "real_account_seen"
VALIDATION_RUN = "validation_run"
OWN_ROWS = {INSTALLATION, VERSION, REAL_ACCOUNT_SEEN, VALIDATION_RUN}  # not a person's settings


@dataclass(frozen=True, slots=True)
class Installation:
    """Who this installation is. Every key it needs is derived from one secret, which the database holds encrypted."""

    id: str
    secret: bytes = field(repr=False)

    @property
    def pepper(self) -> bytes:
        """For ``crypto.keyed_hash`` of API keys."""
        return crypto.derive(self.secret, "api keys")

    def session_key(self, configured: str) -> bytes:
        """Signs the console's cookie: SECRET_KEY when it is set."""
        return configured.encode() or crypto.derive(self.secret, "sessions")

    def jwt_key(self, configured: str) -> bytes:
        """Signs tokens of the JSON API: JWT_SECRET when it is set."""
        return configured.encode() or crypto.derive(self.secret, "api tokens")


def installation(session: Session) -> Installation:
    """Read it, or make it on the first start. Raises ConfigError when the encryption key is not the right one."""
    row = session.get(Setting, INSTALLATION)
    if row is None:
        _make_installation(session)
        row = session.get_one(Setting, INSTALLATION)
    value = row.value
    # This decryption is the canary: a wrong key ends the start instead of showing up at the first request.
    return Installation(id=value["id"], secret=base64.b64decode(crypto.current().decrypt(value["secret"])))


def _make_installation(session: Session) -> None:
    secret = base64.b64encode(secrets.token_bytes(32)).decode()
    value = {"id": str(uuid.uuid4()), "secret": crypto.current().encrypt(secret)}
    session.add(Setting(key=INSTALLATION, value=value))
    try:
        session.commit()
    except IntegrityError:  # another process was faster; its row stands
        session.rollback()


def get(key: str, default: Any = None) -> Any:
    row = db.session.get(Setting, key)
    return default if row is None else row.value


def put(key: str, value: Any) -> None:
    """Save within the caller's transaction."""
    row = db.session.get(Setting, key)
    if row is None:
        db.session.add(Setting(key=key, value=value))
    else:
        row.value = value


def drop(key: str) -> None:
    """Remove within the caller's transaction."""
    row = db.session.get(Setting, key)
    if row is not None:
        db.session.delete(row)


# Other processes learn of a change by the row "version": it changes in the same transaction as anything a snapshot
# holds, whoever wrote it, so no service has to remember to say so. Its value only has to differ from the one before.


def _watched(changed: Iterable[object]) -> bool:
    return any(isinstance(row, Account | ApiKey | IpRule | ModelRule | Setting) for row in changed)


@event.listens_for(Session, "before_flush")
def _bump_version(session: Session, *_: object) -> None:
    dirty = (row for row in session.dirty if session.is_modified(row))
    if _watched(session.new) or _watched(session.deleted) or _watched(dirty):
        say_changed(session)


def say_changed(session: Session) -> None:
    """What a snapshot holds changes in this transaction; only who writes past the session needs to say so."""
    table, connection, value = cast(sa.Table, Setting.__table__), session.connection(), time.time_ns()
    bumped = connection.execute(sa.update(table).where(table.c.key == VERSION).values(value=value))
    if not bumped.rowcount:
        connection.execute(sa.insert(table).values(key=VERSION, value=value))
    session.info["bumped"] = True


def alone() -> None:
    """Until this transaction ends nobody else changes what a snapshot holds, in any process: what is read from here on
    stays true, what was read before is read anew. Nothing but the database may be waited for meanwhile."""
    say_changed(db.session())
    db.session.expire_all()


class _Changes:
    """Counts commits of this process that changed what a snapshot holds; reading it costs nothing."""

    count = 0


changes = _Changes()


@event.listens_for(Session, "after_commit")
def _count_change(session: Session) -> None:
    if session.info.pop("bumped", False):
        changes.count += 1


@event.listens_for(Session, "after_rollback")
def _forget_change(session: Session) -> None:
    session.info.pop("bumped", None)
