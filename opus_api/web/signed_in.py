"""Who may use the JSON API: a Bearer token of ours, or the console's session with its CSRF token. API keys never."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

import jwt
from flask import current_app, g, request
from flask_login import current_user
from flask_wtf.csrf import validate_csrf
from wtforms import ValidationError

from opus_api.models import User, UserSession
from opus_api.services import users
from opus_api.wire.errors import ApiError, Forbidden, Unauthorized

P = ParamSpec("P")
R = TypeVar("R")

ISSUER, AUDIENCE, ALGORITHM = "opus-api", "opus-api/json", "HS256"
LEEWAY = 60  # seconds that two clocks may differ
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


@dataclass(frozen=True, slots=True)
class Caller:
    """The person behind a request, and the sign-in it came with."""

    user: User
    session: UserSession


def signed_in(view: Callable[P, R]) -> Callable[P, R]:
    """Only for people who are signed in and have a password of their own."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        if _identify().user.must_change_password:
            raise Forbidden("This password must be changed first: POST /api/auth/password.")
        return view(*args, **kwargs)

    return guarded


def signed_in_with_any_password(view: Callable[P, R]) -> Callable[P, R]:
    """Also for people who have yet to change a known password."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        _identify()
        return view(*args, **kwargs)

    return guarded


def is_signed_in() -> bool:
    """For guards that treat people who are signed in otherwise."""
    try:
        _identify()
    except ApiError:
        return False
    return True


def check_signed_in() -> None:
    """For views that know other ways in, too. Raises Unauthorized, Forbidden."""
    _identify()


def caller() -> Caller:
    """Whom a guard let in."""
    found: Caller = g.caller
    return found


def issue_token(session: UserSession, token: str) -> str:
    """The JWT of a sign-in: its ``jti`` is the session's token, so that ending the session ends the JWT."""
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": str(session.user_id),
        "iat": session.created_at,
        "exp": session.expires_at,
        "jti": token,
    }
    return jwt.encode(claims, current_app.extensions["jwt_key"], ALGORITHM)


def _identify() -> Caller:
    """Raises Unauthorized, and Forbidden when a page of another site may have sent this."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    found = _by_token(value.strip()) if scheme.lower() == "bearer" else _by_cookie()
    if found is None:
        raise Unauthorized("Sign in: POST /api/auth/login gives a token for Authorization: Bearer.")
    g.caller = found
    return found


def _by_token(token: str) -> Caller | None:
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            current_app.extensions["jwt_key"],
            algorithms=[ALGORITHM],
            issuer=ISSUER,
            audience=AUDIENCE,
            leeway=LEEWAY,
            # The session says when it began: a clock that was set back must not end it.
            options={"require": ["exp", "jti", "sub"], "verify_iat": False},
        )
    except jwt.InvalidTokenError:
        return None
    found = users.find_session(str(claims["jti"]), "jwt")
    return Caller(*found) if found else None


def _by_cookie() -> Caller | None:
    if not current_user.is_authenticated:
        return None
    if request.method not in SAFE_METHODS:
        _refuse_foreign()
    return Caller(current_user.user, current_user.session)


def _refuse_foreign() -> None:
    """Browsers send cookies whoever made them ask: the CSRF token says that a page of ours did."""
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    origin = request.headers.get("Origin", "null")  # our own referrer policy makes our own forms say "null"
    if site not in ("same-origin", "none") or (origin != "null" and urlsplit(origin).netloc != request.host):
        raise Forbidden("This request was sent from another site.")
    try:
        validate_csrf(request.headers.get("X-CSRF-Token") or request.form.get("csrf_token"))
    except ValidationError:
        raise Forbidden("The CSRF token is missing or wrong; send it as X-CSRF-Token.") from None
