"""What every console page shares: blueprints that guard themselves, headers, template helpers, `/` and the theme.

A page blueprint comes from ``page_blueprint``; nothing here hooks into /v1.
"""

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from typing import Any, NamedTuple, ParamSpec
from urllib.parse import urlsplit

from flask import Blueprint, Flask, abort, current_app, g, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import format_decimal, gettext
from flask_babel import lazy_gettext as _l
from flask_login import current_user
from flask_wtf.csrf import validate_csrf
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response
from wtforms import Field, ValidationError

from opus_api.models import now
from opus_api.services.explanations import took
from opus_api.version import __version__
from opus_api.web import assets, brief, languages
from opus_api.web.charts import short, span_of
from opus_api.wire.errors import ApiError

P = ParamSpec("P")

# What may be reached without being signed in, and with a password that must be changed first.
OPEN_PATHS = {
    "/",
    "/index.html",
    "/static/index.html",
    "/static/dashboard.html",
    "/login",
    "/logout",
    "/theme",
    "/language",
    "/my",
}
PATHS_WITH_ANY_PASSWORD = OPEN_PATHS | {"/password"}

THEMES = ("", "light", "dark")
THEME = "theme"  # the cookie
YEAR = 365 * 86_400
KEEPS = "_keeps_what_was_typed"  # mark of a view
OUT_OF_DATE = _l("The page you came from is out of date. Go back, load it again and repeat what you did.")
# What a form is told that was sent after its session had ended.
SIGNED_OUT = _l("Nothing was done. Sign in, then repeat what you did.")
SIGNED_OUT_KEPT = _l(
    "Nothing was saved, and nothing is lost: sign in in the new tab, come back to this one and load it again, so that "
    "your browser sends the form once more. Then look it through and press its button again."
)
LARGEST_FORM = 6 * 2**20  # bytes; the largest is the import of accounts with its file
# Control characters as Unicode shows them; marks that turn the direction of text around as their codes.
PICTURES = {code: chr(0x2400 + code) for code in range(32)} | {127: "\u2421"}
PICTURES |= {
    code: f"<U+{code:04X}>"
    for code in (*range(0x80, 0xA0), 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


class Page(NamedTuple):
    """One entry of the navigation; it stands for the pages of its blueprint and of ``others``."""

    endpoint: str
    label: str
    icon: str
    others: tuple[str, ...] = ()

    @property
    def current(self) -> bool:
        return request.blueprint in (self.endpoint.partition(".")[0], *self.others)


NAVIGATION = (
    Page("dashboard_pages.index", _l("Dashboard"), "dashboard"),
    Page("cookies_pages.index", _l("Accounts"), "accounts", ("sign_in_pages", "deleted_pages", "transfer_pages")),
    Page("keys_pages.index", _l("Keys"), "keys"),
    Page("logs_pages.index", _l("Logs"), "logs"),
    Page("chat_pages.index", _l("Chat"), "chat"),
    Page("connect_pages.index", _l("Connect"), "connect"),
    Page("ips_pages.index", _l("Addresses"), "addresses"),
    Page("settings_pages.index", _l("Settings"), "settings", ("changes_pages",)),
)


def page_blueprint(name: str) -> Blueprint:
    """A blueprint of pages: signed-in people only, safe headers, errors as pages."""
    bp = Blueprint(name, f"opus_api.web.{name}")
    bp.before_request(_refuse_foreign_forms)
    bp.before_request(_lead_to_sign_in)
    bp.before_request(_check_token)
    bp.after_request(page_headers)
    bp.register_error_handler(ApiError, _answer_api_error)
    bp.register_error_handler(HTTPException, _answer_http_error)
    return bp


def _refuse_foreign_forms() -> None:
    """Where a browser says who sent a form, that counts beside its token."""
    if not _is_form():
        return
    request.max_content_length = LARGEST_FORM
    site = request.headers.get("Sec-Fetch-Site", "same-origin")  # absent over plain http
    origin = request.headers.get("Origin", "null")  # our own referrer policy makes our own forms say "null"
    if site not in {"same-origin", "none"} or (origin != "null" and urlsplit(origin).netloc != request.host):
        abort(403, "This form was sent from another site.")


def _lead_to_sign_in() -> Response | None:
    if not current_user.is_authenticated:
        if request.path in OPEN_PATHS:
            return None
        if _is_form():  # the sign-in would take its place, and what was typed with it
            return error_page(401, str(SIGNED_OUT_KEPT if _keeps_typed() else SIGNED_OUT))
        wanted = request.full_path.rstrip("?") if request.method == "GET" else None
        return redirect(url_for("auth_pages.login", next=wanted))
    if current_user.must_change_password and request.path not in PATHS_WITH_ANY_PASSWORD:
        return redirect(url_for("auth_pages.password"))
    return None


def _check_token() -> None:
    """Every form carries our token, which ends with the session."""
    if not _is_form():
        return
    try:
        validate_csrf(request.form.get("csrf_token"))
    except ValidationError:
        if not _keeps_typed():
            abort(400, str(OUT_OF_DATE))
        g.has_stale_token = True


def keeps_typed(view: Callable[P, ResponseReturnValue]) -> Callable[P, ResponseReturnValue]:
    """For a view whose form is large and decides first: without our token the form refuses itself, which shows it
    again as it was typed (secrets are not), for a person to look at and send. Anything else is refused unread."""

    @wraps(view)
    def shown_again(*args: P.args, **kwargs: P.kwargs) -> ResponseReturnValue:
        if not has_stale_token():
            return view(*args, **kwargs)
        with suppress(ApiError):  # of what the form is for, such as an account that is gone
            response = make_response(view(*args, **kwargs))
            if response.status_code == 200:
                response.status_code = 400
                return response
        abort(400, str(OUT_OF_DATE))

    setattr(shown_again, KEEPS, True)
    return shown_again


def has_stale_token() -> bool:
    """Whether this form came without our token, to a view that keeps what was typed."""
    return bool(g.get("has_stale_token"))


def _keeps_typed() -> bool:
    return hasattr(current_app.view_functions.get(request.endpoint or ""), KEEPS)


def _is_form() -> bool:
    return request.method not in {"GET", "HEAD", "OPTIONS"}


# --- Headers --------------------------------------------------------------------------------------------------------


def page_headers(response: Response) -> Response:
    """What a browser may do with a page: run our script and style, talk to us, be framed where allowed."""
    ancestors = _frame_ancestors()
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        f"form-action 'self'; base-uri 'none'; frame-ancestors {' '.join(ancestors) or chr(39) + 'none' + chr(39)}"
    )
    response.headers["Cache-Control"] = "no-store"
    if not ancestors:
        response.headers["X-Frame-Options"] = "DENY"
    return response


def _frame_ancestors() -> tuple[str, ...]:
    settings = current_app.extensions["settings"]
    # A Space is shown inside its page on huggingface.co.
    return tuple(settings.frame_ancestors) or (("https://huggingface.co",) if settings.space_id else ())


def over_plain_http() -> bool:
    """True when what is typed here can be read on the way: no TLS, and not this machine talking to itself."""
    if request.is_secure:
        return False
    host = (urlsplit(f"//{request.host}").hostname or "").lower()
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost" and not host.endswith(".localhost")


# --- Errors as pages ------------------------------------------------------------------------------------------------


def error_page(status: int, message: str) -> Response:
    """A whole page for an error; also for web/errors.py where a browser asked for a page."""
    # Not by the template's _(), which would take a "%" of the address that a message names for a placeholder.
    page = render_template("error.html", status=status, message=message)
    return page_headers(make_response(page, status))


def _answer_api_error(error: ApiError) -> Response:
    response = error_page(error.status, languages.in_words(error.message))
    response.headers.update(error.headers)
    return response


def _answer_http_error(error: HTTPException) -> ResponseReturnValue:
    if error.code is None or error.code < 400:  # a redirect
        return error
    return error_page(error.code, gettext(error.description or error.name))


# --- What templates know --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Distance:
    """How far a moment is from now, in the largest unit that fits; the template finds the words."""

    count: int
    unit: str
    ahead: bool


def distance(moment: datetime) -> Distance:
    """The distance of a moment from now."""
    seconds = (moment - now()).total_seconds()
    size, ahead = abs(seconds), seconds > 0
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        if size >= length * (2 if unit == "d" else 1) and (unit != "s" or size >= 5):
            # What lies ahead is rounded up: "in 0 min" helps nobody.
            return Distance(int(-(-size // length)) if ahead else int(size // length), unit, ahead)
    return Distance(0, "now", ahead)


def rfc3339(moment: datetime) -> str:
    """A moment as machines read it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def grouped(number: int) -> str:
    """A number with thousands apart."""
    return str(format_decimal(number))


def visible(text: str | None) -> str:
    """Text of strangers with its control characters as pictures: none of them turns a line around or hides one."""
    return "".join(PICTURES.get(ord(letter), letter) for letter in text or "")


def takes_focus(field: Field) -> bool:
    """Whether this is the first field of the page with an error."""
    if not field.errors or g.get("has_focus"):
        return False
    g.has_focus = True
    return True


def chosen_theme() -> str:
    """The colours that were chosen by hand: "light", "dark", or "" for what the system says."""
    chosen = request.cookies.get(THEME, "")
    return chosen if chosen in THEMES else ""


def _troubles() -> Iterator[str]:
    """What goes wrong behind the service while it goes on, for whoever is signed in."""
    if not current_user.is_authenticated:
        return
    if current_app.extensions["settings"].anonymous_access == "on":
        yield gettext("Everybody who reaches this gateway may use it without a key (ANONYMOUS_ACCESS=on).")
    shared = current_app.extensions["state"].health()
    if shared.away and shared.decides:
        yield gettext("Redis is away: each worker goes on with what it knew, so limits are approximate.")
    elif shared.away:
        yield gettext("Redis is away for too long: requests are refused until it is back.")
    if dropped := current_app.extensions["recorder"].log_dropped_total:
        yield gettext("%(n)s rows of the request log found no room and were dropped; look at the disk.", n=dropped)


def _template_names() -> dict[str, Any]:
    return {
        "current_user": current_user,
        "navigation": NAVIGATION,
        "plain_http": over_plain_http(),
        "troubles": list(_troubles()),
        "theme": chosen_theme(),
        "language": {**languages.current()._asdict(), "all": languages.LANGUAGES},
        "version": __version__,
        "asset": assets.address,
    }


def local_path(target: str | None) -> str:
    """``target`` when it is a path of this site, else where a signed-in person starts."""
    # Browsers drop tabs and newlines and read "\\" as "/" when they resolve an address.
    plain = (target or "").replace("\\", "/")
    if plain.startswith("/") and not plain.startswith("//") and plain.isprintable():
        return plain
    return url_for("dashboard_pages.index")


# --- Pages ----------------------------------------------------------------------------------------------------------

bp = page_blueprint("console")


@bp.get("/")
@bp.get("/index.html")
def index() -> Response:
    """The front door: the dashboard for who is signed in, else the sign-in."""
    if request.method == "HEAD":  # Claude Code's probe follows redirects and would render the sign-in page
        return make_response("")
    page = "dashboard_pages.index" if current_user.is_authenticated else "auth_pages.login"
    return redirect(url_for(page))


@bp.post("/theme")
def theme() -> Response:
    """Pins light or dark in a cookie of this browser; "" goes back to what the system says."""
    chosen = request.form.get("theme", "")
    if chosen not in THEMES:
        abort(400, "The theme is light, dark or empty.")
    response = redirect(local_path(request.form.get("next")))
    response.set_cookie(THEME, chosen, max_age=YEAR if chosen else 0, samesite="Lax", secure=request.is_secure)
    return response


@bp.post("/language")
def language() -> Response:
    """Pins the language in a cookie of this browser."""
    chosen = request.form.get("language", "")
    if chosen not in {known.tag for known in languages.LANGUAGES}:
        abort(400, "There is no such language.")
    response = redirect(local_path(request.form.get("next")))
    response.set_cookie(languages.COOKIE, chosen, max_age=YEAR, samesite="Lax", secure=request.is_secure)
    return response


def register(app: Flask) -> None:
    """Adds every page blueprint and what their templates use."""
    from opus_api.web import (
        auth_pages,
        changes_pages,
        chat_pages,
        connect_pages,
        cookies_pages,
        dashboard_pages,
        deleted_pages,
        ips_pages,
        keys_pages,
        logs_pages,
        my_pages,
        patterns_pages,
        profile_pages,
        settings_pages,
        sign_in_pages,
        transfer_pages,
    )

    languages.register(app)
    pages_modules = (
        auth_pages,
        changes_pages,
        chat_pages,
        connect_pages,
        cookies_pages,
        dashboard_pages,
        deleted_pages,
        ips_pages,
        keys_pages,
        logs_pages,
        my_pages,
        patterns_pages,
        profile_pages,
        settings_pages,
        sign_in_pages,
        transfer_pages,
    )
    for pages in (assets.bp, bp, *(module.bp for module in pages_modules)):
        app.register_blueprint(pages)
    # For the whole app, so that error_page works where no route matched; costs nothing where no template is rendered.
    app.context_processor(_template_names)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.tests["focused"] = takes_focus
    app.jinja_env.filters |= {
        "brief": brief.brief,
        "distance": distance,
        "rfc3339": rfc3339,
        "grouped": grouped,
        "reason_in_words": languages.reason_in_words,
        "short": short,
        "span_of": span_of,
        "took": took,
        "visible": visible,
    }
