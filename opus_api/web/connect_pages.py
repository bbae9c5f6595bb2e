"""How to set up a client, word for word, with a key made here and now; and whether its first request has come."""

import secrets
import time
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from flask import current_app, flash, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from flask_login import current_user

from opus_api import crypto
from opus_api.extensions import db
from opus_api.gateway.gateway import Gateway
from opus_api.models import ApiKey, now
from opus_api.services import api_keys, done_calls, first_requests
from opus_api.services.first_requests import Finding, Wanted
from opus_api.web import brief, contacts, snippets
from opus_api.web.auth import caller_ip
from opus_api.web.console import page_blueprint
from opus_api.wire.errors import Conflict

bp = page_blueprint("connect_pages")

CLIENTS = ("claude-code", "cursor", "cherry-studio", "anthropic", "openai", "curl")
SAID = ("client", "model")
LOOK_BACK = 600  # seconds, while no key was made: what is wrong now was so a moment ago
LONGEST_LOOK = 3600
LOOK_AGAIN = 3  # seconds between two looks of the page that waits without a script
MOST_NAMES = 3000  # bytes of suggested models


@bp.get("/connect")
def index() -> ResponseReturnValue:
    """Snippets with a placeholder for the key."""
    if request.args.keys() - SAID:  # the form that makes keys also leads here, with its tokens
        said: dict[str, Any] = {name: request.args.get(name) for name in SAID}
        return redirect(url_for(".index", **said))
    return _page(None, snippets.PLACEHOLDER, time.time() - LOOK_BACK)


@bp.post("/connect")
def fresh_key() -> ResponseReturnValue:
    """The same page with a key that was made for it. It is shown here and never again, also not when this is loaded
    again: each form makes one key."""
    if not _is_first(request.form.get("once", "")):
        flash(
            gettext("This key was made already and is not shown again. Make another one if you have no copy."),
            "warning",
        )
        return redirect(url_for(".index", model=request.form.get("model"), client=request.values.get("client")))
    began = time.time()
    name = gettext("Connect %(moment)s", moment=now().strftime("%Y-%m-%d %H:%M:%S"))
    key, value = api_keys.create(current_app.extensions["installation"].pepper, {"name": name})
    return _page(key, value, began)


def _is_first(form: str) -> bool:
    """Whether this form was not sent before, to any worker."""
    name = crypto.keyed_hash(current_app.extensions["installation"].pepper, f"connect {current_user.id} {form}")
    db.session.rollback()  # its connection goes back first, as for every done call
    try:
        return done_calls.begin(db.engine, name, "") is None
    except Conflict:  # nobody says what it gave: that was the key
        return False


def _page(key: ApiKey | None, value: str, since: float) -> str:
    names = [name for name in _gateway().catalog().names() if brief.size(name) <= brief.LONGEST]
    model = request.values.get("model", "").strip() or snippets.usual_model(names)
    address = request.host_url.rstrip("/")
    chosen = request.values.get("client", "")
    return render_template(
        "connect/index.html",
        code=snippets.snippets(address, value, model),
        key=key,
        shown_once=key is not None,
        once=secrets.token_urlsafe(12),
        value=value,
        model=model,
        models=brief.light(names, MOST_NAMES),
        alias=snippets.alias_for_cursor([model, *names]),
        chosen=chosen if chosen in CLIENTS else CLIENTS[0],
        is_public=_is_public(),
        **_state(key, since),
    )


@bp.get("/connect/status")
def status() -> ResponseReturnValue:
    """Only whether a request has come; looks again by itself."""
    moment = time.time()
    since = min(max(request.args.get("since", 0, type=int), moment - LONGEST_LOOK), moment)
    key_id = request.args.get("key", type=int)
    key = api_keys.get(key_id) if key_id is not None else None
    shown = _state(key, since)
    response = make_response(render_template("connect/status.html", key=key, **shown))
    if shown["finding"].what != "connected":
        response.headers["Refresh"] = str(LOOK_AGAIN)
    return response


def _state(key: ApiKey | None, since: float) -> dict[str, Any]:
    return {
        "finding": _finding(key, since),
        "watch": url_for(".status", key=key.id if key else None, since=int(since)),
        "address": request.host_url.rstrip("/"),
    }


def _finding(key: ApiKey | None, since: float) -> Finding:
    anonymous = current_app.extensions["settings"].anonymous_access != "off"
    wanted = Wanted(key.id if key else None, caller_ip(), since, anonymous)
    return first_requests.look(db.session.connection(), wanted, contacts.service().since(since))


def _is_public() -> bool:
    """Whether servers elsewhere may reach this address, as far as it tells."""
    host = urlsplit(request.host_url).hostname or ""
    try:
        return request.is_secure and ip_address(host).is_global
    except ValueError:
        return request.is_secure and "." in host and not host.endswith((".localhost", ".local", ".lan", ".internal"))


def _gateway() -> Gateway:
    gateway: Gateway = current_app.extensions["gateway"]
    return gateway
