"""The pages for signing in, signing out and changing the password."""

from flask import flash, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from flask_login import current_user
from werkzeug.wrappers import Response

from opus_api.services import users
from opus_api.web import auth
from opus_api.web.console import local_path, page_blueprint
from opus_api.web.forms import LoginForm, PageForm, PasswordForm
from opus_api.wire.errors import ApiError, RateLimited, Unauthorized

bp = page_blueprint("auth_pages")


@bp.get("/login")
def login() -> ResponseReturnValue:
    """The sign-in; who is signed in already goes on."""
    if current_user.is_authenticated:
        return redirect(local_path(request.args.get("next")))
    return render_template("auth/login.html", form=LoginForm(formdata=None, next=request.args.get("next", "")))


@bp.post("/login")
def sign_in() -> ResponseReturnValue:
    """Starts a session under a new id; a wrong password keeps the user name."""
    form = LoginForm()
    if not form.validate_on_submit():
        if form.username.data:
            form.ask_password_again()
        return render_template("auth/login.html", form=form)
    try:
        user = users.authenticate(form.username.data or "", form.password.data or "", auth.caller_ip(), auth.throttle())
    except (Unauthorized, RateLimited) as error:
        form.ask_password_again()
        return _refused("auth/login.html", form, error)
    auth.end_page_session()
    auth.start_page_session(user)
    return redirect(url_for(".password") if user.must_change_password else local_path(form.next.data))


@bp.post("/logout")
def logout() -> Response:
    """Ends the session at once."""
    auth.end_page_session()
    flash(gettext("You are signed out."), "success")
    return redirect(url_for(".login"))


@bp.get("/password")
def password() -> str:
    """A new password, by choice or because the present one is known to everybody."""
    return _password_page(PasswordForm(formdata=None))


@bp.post("/password")
def change_password() -> ResponseReturnValue:
    """Ends all sessions of the person and starts a new one here."""
    form = PasswordForm()
    if not form.validate_on_submit():
        return _password_page(form)
    try:
        auth.change_own_password(form.old_password.data or "", form.new_password.data or "")
    except ApiError as error:
        return _refused("auth/password.html", form, error)
    flash(gettext("Your password is changed. Your other sessions are signed out."), "success")
    return redirect(local_path(None))


def _password_page(form: PasswordForm) -> str:
    return render_template("auth/password.html", form=form, forced=current_user.must_change_password)


def _refused(template: str, form: PageForm, error: ApiError) -> Response:
    """The form again with what was wrong. A page that could be shown is 200, but a program may read a 429."""
    form.refuse(error)
    page = render_template(template, form=form, forced=getattr(current_user, "must_change_password", False))
    status = error.status if isinstance(error, RateLimited) else 200
    return make_response(page, status, dict(error.headers))
