"""Blueprint ``auth``: signing in and out, by the JSON API; and the helpers with which pages do the same."""

from flask import Blueprint, current_app, jsonify, request, session
from flask.typing import ResponseReturnValue
from flask_login import UserMixin, current_user, login_user, logout_user

from opus_api.extensions import login_manager
from opus_api.models import User, UserSession
from opus_api.services import users
from opus_api.services.login_throttle import LoginThrottle
from opus_api.services.saved_settings import Person
from opus_api.services.values import FieldError, rfc3339
from opus_api.web.bodies import SMALL, json_object, never_stored, required_text
from opus_api.web.client import client_ip
from opus_api.web.signed_in import caller, issue_token, signed_in, signed_in_with_any_password

bp = Blueprint("auth", __name__, url_prefix="/api/auth")
bp.after_request(never_stored)


class SignedIn(UserMixin):
    """Flask-Login's user: a person with the session row that the cookie names."""

    def __init__(self, user: User, session: UserSession, token: str):
        self.user = user
        self.session = session
        self._token = token

    def get_id(self) -> str:
        """What the cookie carries: the opaque token, not the user's id."""
        return self._token

    @property
    def id(self) -> int:
        return self.user.id

    @property
    def username(self) -> str:
        return self.user.username

    @property
    def must_change_password(self) -> bool:
        return self.user.must_change_password


@login_manager.user_loader
def _load(token: str) -> SignedIn | None:
    found = users.find_session(token, "page")
    return SignedIn(*found, token) if found else None


def throttle() -> LoginThrottle:
    """The app's one memory of failed sign-ins."""
    found: LoginThrottle = current_app.extensions["login_throttle"]
    return found


def caller_ip() -> str:
    return client_ip(request, current_app.extensions["settings"])


def confirm_again(password: str | None, missing: str) -> None:
    """The password of who is signed in to a page, unless it was given in the last minutes. ``missing``: what is said of
    an empty one. Raises FieldError, RateLimited."""
    if users.is_confirmed(current_user.session):
        return
    if not password:
        raise FieldError("password", missing)
    users.confirm(current_user.session, current_user.user, password, caller_ip(), throttle())


def person() -> Person:
    """Who is signed in to the console, as settings are changed by."""
    return Person(current_user.username, current_user.session, users.is_confirmed(current_user.session))


def start_page_session(user: User) -> None:
    """Begin a page session with a new id; whatever the browser had before is void."""
    row, token = users.start_session(user, "page", caller_ip(), request.user_agent.string)
    session.clear()
    session.permanent = True
    login_user(SignedIn(user, row, token))


def change_own_password(old: str, new: str) -> None:
    """Ends every sign-in of who is signed in to the console and begins a new one here. Raises FieldError,
    RateLimited."""
    user = current_user.user
    users.change_password(user, old, new, caller_ip(), throttle(), keep=current_user.session)
    end_page_session()
    start_page_session(user)


def end_page_session() -> None:
    """End the page session, in the database too."""
    if current_user.is_authenticated:
        users.end_session(current_user.session)
    forget_page_session()


def forget_page_session() -> None:
    """What the browser has of a page session that the database no longer knows."""
    logout_user()
    session.clear()


@bp.post("/login")
def login() -> ResponseReturnValue:
    """Sign in: a token of the JSON API, good for 24 hours."""
    body = json_object(SMALL)
    username, password = required_text(body, "username"), required_text(body, "password")
    user = users.authenticate(username, password, caller_ip(), throttle())
    row, token = users.start_session(user, "jwt", caller_ip(), request.user_agent.string)
    person = {"id": user.id, "username": user.username}
    return jsonify(token=issue_token(row, token), expires_at=rfc3339(row.expires_at), user=person)


@bp.post("/logout")
@signed_in_with_any_password
def logout() -> ResponseReturnValue:
    """Sign out: ends the sign-in that this request came with."""
    if caller().session.kind == "page":
        end_page_session()
    else:
        users.end_session(caller().session)
    return "", 204


@bp.get("/me")
@signed_in_with_any_password
def me() -> ResponseReturnValue:
    """The person who asks."""
    return jsonify(users.as_json(caller().user))


@bp.post("/password")
@signed_in_with_any_password
def password() -> ResponseReturnValue:
    """Change the password. Ends every other sign-in of the user; this one goes on, a page's under a new id."""
    body = json_object()
    old, new = required_text(body, "old_password"), required_text(body, "new_password")
    found = caller()
    users.change_password(found.user, old, new, caller_ip(), throttle(), keep=found.session)
    if found.session.kind == "page":
        end_page_session()
        start_page_session(found.user)
    return "", 204


@bp.post("/confirm")
@signed_in
def confirm() -> ResponseReturnValue:
    """Give the password again, before what is delicate; good for 5 minutes of this sign-in."""
    found = caller()
    users.confirm(found.session, found.user, required_text(json_object(), "password"), caller_ip(), throttle())
    return "", 204
