"""The pages of API keys: list with use and limits, make, show once, edit, revoke. A view is parse, call, render."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from flask import current_app, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from werkzeug.wrappers import Response

from opus_api.extensions import db
from opus_api.gateway.limits import Limits
from opus_api.models import ApiKey, now
from opus_api.services import api_keys, overview, statistics
from opus_api.services.overview import Period
from opus_api.services.settings import Installation
from opus_api.state import StateUnavailable
from opus_api.web import brief
from opus_api.web.console import keeps_typed, page_blueprint, visible
from opus_api.web.key_forms import LIMIT_LABELS, KeyForm
from opus_api.wire.errors import ApiError

bp = page_blueprint("keys_pages")

# A page stays under 60 KB with its sheet and script.
PER_PAGE, WORDS = 20, 3000  # bytes of names and models
USUAL_PERIOD = "30d"
UNUSED = {"requests": 0, "input_tokens": 0, "output_tokens": 0}


class Meter(NamedTuple):
    """One limit of a key and how much of it is taken; None: nobody knows at the moment."""

    label: str
    used: int | None
    limit: int


@dataclass(frozen=True, slots=True)
class Row:
    """One key as the pages show it."""

    id: int
    name: str
    hint: str
    state: str  # active | expired | revoked
    models: Sequence[str]
    override: bool
    meters: Sequence[Meter]
    requests: int
    input_tokens: int
    output_tokens: int
    last_used: datetime | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now() else "active"


def row_of(key: ApiKey, usage: Mapping[str, Any]) -> Row:
    return Row(
        id=key.id,
        name=visible(key.name),
        hint=key.hint,
        state=_state(key),
        models=key.models or [],
        override=key.override,
        meters=_meters(key),
        requests=usage["requests"],
        input_tokens=usage["input_tokens"],
        output_tokens=usage["output_tokens"],
        last_used=key.last_used,
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
    )


def _meters(key: ApiKey) -> list[Meter]:
    used, limits = _used(key), key.limits
    return [Meter(label, used.get(name), limits[name]) for name, label in LIMIT_LABELS.items() if name in limits]


def _used(key: ApiKey) -> Mapping[str, int]:
    """What the gateway has counted against each limit; nothing of a key that is revoked."""
    limits: Limits = current_app.extensions["gateway"].limits
    known = current_app.extensions["snapshots"].current().keys.get(key.key_hash)
    try:
        return limits.used(known) if known else {}
    except StateUnavailable:
        return {}


# --- The list -------------------------------------------------------------------------------------------------------


@bp.get("/keys")
def index() -> str:
    """Keys that work; those that are revoked when asked for. One period for all figures."""
    period = overview.PERIODS.get(request.args.get("period", ""), overview.PERIODS[USUAL_PERIOD])
    with_revoked = request.args.get("revoked") == "1"
    found = api_keys.every()
    chosen = sorted((key for key in found if with_revoked or key.revoked_at is None), key=_order)
    pages = max(1, -(-len(chosen) // PER_PAGE))
    page = min(max(1, request.args.get("page", 1, type=int)), pages)
    usage = _usage(period)
    rows = [row_of(key, usage.get(key.id, UNUSED)) for key in chosen[(page - 1) * PER_PAGE : page * PER_PAGE]]
    return render_template(
        "keys/index.html",
        rows=rows,
        longest=brief.share((text for row in rows for text in (row.name, *row.models[:2])), WORDS),
        period=period.name,
        periods=list(overview.PERIODS),
        with_revoked=with_revoked,
        revoked_count=sum(key.revoked_at is not None for key in found),
        page=page,
        pages=pages,
    )


def _order(key: ApiKey) -> tuple[bool, str]:
    return key.revoked_at is not None, key.name.lower()


def _usage(period: Period) -> dict[int, dict[str, Any]]:
    """By the key's id."""
    start = now() - period.length * period.count
    return {row["key"]: row for row in statistics.answer(db.session.connection(), "key", start)}


# --- Make -----------------------------------------------------------------------------------------------------------


@bp.get("/keys/new")
def new() -> str:
    return render_template("keys/new.html", form=KeyForm(formdata=None))


@bp.post("/keys/new")
@keeps_typed
def create() -> ResponseReturnValue:
    """Makes the key and shows it in this answer only. Sent again by a reload it is refused: the name is taken."""
    form = KeyForm()
    if form.validate_on_submit():
        owner: Installation = current_app.extensions["installation"]
        try:
            key, value = api_keys.create(owner.pepper, form.body())
            shown = {"row": row_of(key, UNUSED), "value": value, "model": _example(key.models)}
            return render_template("keys/made.html", shown_once=True, **shown)
        except ApiError as error:
            form.refuse(error)
    return render_template("keys/new.html", form=form)


def _example(models: Sequence[str] | None) -> str:
    """A model to try a key with: one that it names, else one that Claude's clients ask for."""
    return next((name for name in models or [] if not any(mark in name for mark in "*?[")), "claude-sonnet-4.5")


# --- Edit -----------------------------------------------------------------------------------------------------------


@bp.get("/keys/<int:key_id>/edit")
def edit(key_id: int) -> str:
    """The form of a key; of one that is revoked what there was."""
    key = api_keys.get(key_id)
    return _edit_page(key, KeyForm.showing(_editable(key)))


@bp.post("/keys/<int:key_id>/edit")
@keeps_typed
def update(key_id: int) -> ResponseReturnValue:
    form, present = KeyForm(), KeyForm.showing(_editable(api_keys.get(key_id)))
    if form.validate_on_submit() and not form.is_overtaken(present):
        try:
            key = api_keys.update(key_id, form.body())
            flash(gettext("Saved. %(name)s follows it from the next request on.", name=visible(key.name)), "success")
            return redirect(url_for(".index"))
        except ApiError as error:
            form.refuse(error)
    key = api_keys.get(key_id)
    return _edit_page(key, form) if key.revoked_at is None else _gone_page(form)


def _editable(key: ApiKey) -> dict[str, Any]:
    """A key's values as its form takes them."""
    return {**api_keys.as_json(key), "expires_at": key.expires_at}


def _edit_page(key: ApiKey, form: KeyForm) -> str:
    usage = {"requests": key.requests, "input_tokens": key.input_tokens, "output_tokens": key.output_tokens}
    return render_template("keys/edit.html", row=row_of(key, usage), form=form)


def _gone_page(form: KeyForm) -> str:
    """What was typed for a key that somebody revoked meanwhile, as the form of a new one."""
    said = gettext(
        "This key was revoked meanwhile. Nothing was saved; here is what you typed, to make a new key of it."
    )
    form.form_errors = [said]
    return render_template("keys/new.html", form=form, shown_once=True)


# --- Revoke ---------------------------------------------------------------------------------------------------------


@bp.get("/keys/<int:key_id>/revoke")
def revoke(key_id: int) -> ResponseReturnValue:
    """Asks first; of a key that is revoked its page says so."""
    key = api_keys.get(key_id)
    if key.revoked_at is not None:
        return redirect(url_for(".edit", key_id=key_id))
    return render_template("keys/revoke.html", row=row_of(key, UNUSED))


@bp.post("/keys/<int:key_id>/revoke")
def end(key_id: int) -> Response:
    key = api_keys.get(key_id)
    api_keys.revoke(key)
    flash(gettext("%(name)s is revoked.", name=visible(key.name)), "success")
    return redirect(url_for(".index"))
