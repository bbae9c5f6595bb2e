"""A person's own page: the password, and where this person is signed in."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from flask import flash, make_response, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from flask_login import current_user
from werkzeug.wrappers import Response

from opus_api.models import UserSession
from opus_api.services import users
from opus_api.web import auth
from opus_api.web.console import page_blueprint
from opus_api.web.forms import PasswordForm
from opus_api.wire.errors import ApiError, NotFound, RateLimited

bp = page_blueprint("profile_pages")

MOST = 30  # sign-ins on the page, which stays under 60 KB with its sheet and script

# What tells browsers and systems apart, the first that fits: nearly every browser also claims to be another one.
BROWSERS = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("CriOS/", "Chrome"),
    ("Safari/", "Safari"),
)
SYSTEMS = (
    ("Windows", "Windows"),
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One sign-in as the page shows it."""

    id: int
    kind: str  # page | jwt
    device: tuple[str, str]
    ip: str | None
    began: datetime
    last_seen: datetime
    ends: datetime
    is_this: bool


@bp.get("/profile")
def index() -> str:
    return _page(PasswordForm(formdata=None))


@bp.post("/profile")
def change_password() -> ResponseReturnValue:
    """Ends all other sign-ins; this one goes on."""
    form = PasswordForm()
    if not form.validate_on_submit():
        return _page(form)
    try:
        auth.change_own_password(form.old_password.data or "", form.new_password.data or "")
    except ApiError as error:
        form.refuse(error)
        return make_response(_page(form), error.status if isinstance(error, RateLimited) else 200, dict(error.headers))
    flash(gettext("Your password is changed. Your other sessions are signed out."), "success")
    return redirect(url_for(".index"))


@bp.post("/profile/sign-ins/<int:session_id>/end")
def end(session_id: int) -> Response:
    """Ends one of one's own; this one as signing out does."""
    try:
        session = users.sign_in(current_user.user, session_id)
    except NotFound:
        flash(gettext("This sign-in has ended already."))
        return redirect(url_for(".index"))
    if session.id == current_user.session.id:
        auth.end_page_session()
        flash(gettext("You are signed out."), "success")
        return redirect(url_for("console.index"))
    users.end_session(session)
    flash(gettext("This sign-in is ended."), "success")
    return redirect(url_for(".index"))


@bp.post("/profile/sign-ins/end")
def end_all() -> Response:
    """Signs out everywhere, here too."""
    users.end_all(current_user.user)
    auth.forget_page_session()
    flash(gettext("You are signed out everywhere."), "success")
    return redirect(url_for("console.index"))


def _page(form: PasswordForm) -> str:
    rows = [_row(session) for session in users.sign_ins(current_user.user)]
    more = max(0, len(rows) - MOST)
    return render_template("profile.html", form=form, rows=rows[:MOST], more=more, user=current_user.user)


def _row(session: UserSession) -> Row:
    return Row(
        id=session.id,
        kind=session.kind,
        device=device(session.user_agent or ""),
        ip=session.client_ip,
        began=session.created_at,
        last_seen=session.last_seen,
        ends=session.expires_at,
        is_this=session.id == current_user.session.id,
    )


def device(user_agent: str) -> tuple[str, str]:
    """The program and its system as people call them, "" where that is not said: ("Firefox", "Linux")."""
    program = _first(user_agent, BROWSERS)
    if not program and (named := re.match(r"[\w.-]{1,40}", user_agent)):
        program = named[0]
    return program, _first(user_agent, SYSTEMS)


def _first(user_agent: str, known: Iterable[tuple[str, str]]) -> str:
    return next((name for mark, name in known if mark in user_agent), "")
