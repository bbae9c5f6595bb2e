"""Users and their sign-ins. A sign-in is a row of ``user_sessions``; without the row its token is worth nothing."""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from opus_api import crypto
from opus_api.extensions import db
from opus_api.models import Account, User, UserSession, now
from opus_api.services import audit, passwords, values
from opus_api.services.login_throttle import LoginThrottle
from opus_api.services.values import FieldError, rfc3339
from opus_api.wire.errors import Conflict, NotFound, Phrase, Unauthorized

LIFETIME = {"page": timedelta(days=7), "jwt": timedelta(hours=24)}
IDLE = timedelta(hours=12)  # of a page session
CONFIRMED_FOR = timedelta(minutes=5)
SEEN_EVERY = timedelta(minutes=1)  # last_seen is written at most that often


def every() -> Sequence[User]:
    return db.session.scalars(select(User).order_by(User.id)).all()


def named(username: str) -> User:
    """Raises NotFound."""
    user = _find(username)
    if user is None:
        raise NotFound(Phrase("There is no user named %(name)r.", name=username))
    return user


def create(username: Any, password: Any) -> User:
    """Raises FieldError, and Conflict when the name is taken."""
    return add(username, passwords.check("password", password))


def add(username: Any, password: str, must_change: bool = False) -> User:
    """A user whose password nobody judges: the first administrator's. Raises FieldError, Conflict."""
    username = values.text("username", username, limit=80, required=True)
    user = User(
        username=values.name("username", username),
        password_hash=passwords.hashed(password),
        must_change_password=must_change,
    )
    db.session.add(user)
    try:
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        raise Conflict(Phrase("username: there is a user named %(name)r already.", name=username)) from None
    return user


def authenticate(username: str, password: str, ip: str, throttle: LoginThrottle) -> User:
    """The user, if the password is right. Raises Unauthorized, and RateLimited after too many failures."""
    throttle.admit(username, ip)
    throttle.failed(username, ip)  # until it is known better: guesses side by side must count each other
    user = _find(username)
    password_hash = user.password_hash if user else None
    db.session.rollback()  # hashing takes a while; the connection goes back meanwhile
    if not passwords.fits(password_hash, password) or user is None:
        raise Unauthorized("The user name or the password is wrong.")
    throttle.succeeded(username, ip)
    return user


def set_password(user: User, password: Any, field: str = "password", keep: UserSession | None = None) -> None:
    """For whoever may without the old one (the operator's command line). Ends other sessions. Raises FieldError."""
    password_hash = passwords.hashed(passwords.check(field, password))
    user.password_hash = password_hash
    user.must_change_password = False
    end_sessions(user, keep)
    db.session.commit()


def set_first_password(password_hash: str, keep: UserSession) -> None:
    """Of the first administrator, within the caller's transaction; ends that user's other sessions."""
    user = db.session.scalars(select(User).order_by(User.id).limit(1)).one()
    user.password_hash, user.must_change_password = password_hash, False
    end_sessions(user, keep)


def change_password(
    user: User, old: str, new: Any, ip: str, throttle: LoginThrottle, keep: UserSession | None = None
) -> None:
    """Ends every session of the user but ``keep``; a page begins a new one. Raises FieldError, RateLimited."""
    _check_own(user, "old_password", old, ip, throttle)
    if new == old:
        raise FieldError("new_password", "must be another one than the old.")
    set_password(user, new, "new_password", keep)


def confirm(session: UserSession, user: User, password: str, ip: str, throttle: LoginThrottle) -> None:
    """Asked again before what is delicate; good for 5 minutes of this session. Raises FieldError, RateLimited."""
    _check_own(user, "password", password, ip, throttle)
    session.confirmed_at = now()
    db.session.commit()


def is_confirmed(session: UserSession) -> bool:
    # abs: a clock that was set back must not keep it for longer
    return session.confirmed_at is not None and abs(now() - session.confirmed_at) <= CONFIRMED_FOR


def delete(user: User) -> None:
    """Raises Conflict while accounts are the user's, and when nobody could sign in any more."""
    owned = db.session.scalar(select(sa.func.count()).where(Account.user_id == user.id)) or 0
    if owned:
        raise Conflict(
            Phrase("%(name)r owns %(n)s accounts; hand them over or delete them first.", name=user.username, n=owned)
        )
    if db.session.scalar(select(sa.func.count()).select_from(User)) == 1:
        raise Conflict(Phrase("%(name)r is the last user; create another one first.", name=user.username))
    db.session.delete(user)
    db.session.commit()


def start_session(user: User, kind: str, ip: str | None, user_agent: str | None) -> tuple[UserSession, str]:
    """A sign-in of kind ``page`` or ``jwt``, and its token: 256 random bits that are nowhere else."""
    token = secrets.token_urlsafe(32)
    session = UserSession(
        user_id=user.id,
        token_hash=crypto.token_hash(token),
        kind=kind,
        expires_at=now() + LIFETIME[kind],
        client_ip=ip,
        user_agent=(user_agent or "")[:255] or None,
    )
    db.session.execute(sa.delete(UserSession).where(UserSession.expires_at < now()))
    db.session.add(session)
    db.session.commit()
    return session, token


def find_session(token: str, kind: str) -> tuple[User, UserSession] | None:
    """Whose token it is, unless the session has ended, expired or been idle for too long."""
    query = select(User, UserSession).join(UserSession, UserSession.user_id == User.id)
    found = db.session.execute(
        query.where(UserSession.token_hash == crypto.token_hash(token), UserSession.kind == kind)
    ).first()
    if found is None:
        return None
    user, session = found
    moment = now()
    if not _is_alive(session, moment):
        return None
    _seen(session, moment)
    audit.acts(user.username)
    return user, session


def sign_ins(user: User) -> Sequence[UserSession]:
    """Those that still let somebody in, the last used first."""
    moment = now()
    found = db.session.scalars(
        select(UserSession)
        .where(UserSession.user_id == user.id, UserSession.expires_at > moment)
        .order_by(UserSession.last_seen.desc(), UserSession.id.desc())
    )
    return [session for session in found if _is_alive(session, moment)]


def sign_in(user: User, session_id: int) -> UserSession:
    """One of this user's. Raises NotFound."""
    session = db.session.get(UserSession, session_id)
    if session is None or session.user_id != user.id:
        raise NotFound("This sign-in has ended already.")
    return session


def end_session(session: UserSession) -> None:
    db.session.delete(session)
    db.session.commit()


def end_all(user: User) -> None:
    """Every sign-in of this user, also the one that asks for it."""
    end_sessions(user)
    db.session.commit()


def end_sessions(user: User, keep: UserSession | None = None) -> None:
    """All of them but ``keep``, within the caller's transaction."""
    ended = sa.delete(UserSession).where(UserSession.user_id == user.id)
    db.session.execute(ended if keep is None else ended.where(UserSession.id != keep.id))


def as_json(user: User) -> dict[str, Any]:
    return {"id": user.id, "username": user.username, "created_at": rfc3339(user.created_at)}


def _find(username: str) -> User | None:
    if "\x00" in username:  # PostgreSQL refuses to look for it
        return None
    return db.session.scalar(select(User).where(User.username == username))


def _check_own(user: User, field: str, password: str, ip: str, throttle: LoginThrottle) -> None:
    throttle.admit(user.username, ip)
    if not passwords.fits(user.password_hash, password):
        throttle.failed(user.username, ip)
        raise FieldError(field, "is wrong.")
    throttle.succeeded(user.username, ip)


def _is_alive(session: UserSession, moment: datetime) -> bool:
    """Neither expired nor, of a page, idle for too long."""
    return moment < session.expires_at and (session.kind != "page" or moment - session.last_seen < IDLE)


def _seen(session: UserSession, moment: datetime) -> None:
    if moment - session.last_seen >= SEEN_EVERY:
        session.last_seen = moment
        db.session.commit()
