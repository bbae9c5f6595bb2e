"""The pages of accounts: list, add by provider, edit, validate, switch, delete. A view is parse, call, render."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from flask import abort, current_app, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from flask_babel import lazy_gettext as _l
from flask_login import current_user
from sqlalchemy.orm.exc import StaleDataError
from werkzeug.wrappers import Response

from opus_api.extensions import db
from opus_api.models import Account, now
from opus_api.services import account_events, account_fields, deleted_accounts, saved_settings, settings
from opus_api.services import accounts as service
from opus_api.services.values import moment_of
from opus_api.upstreams import ACCOUNT_PROVIDERS, UPSTREAMS
from opus_api.upstreams.base import Upstream
from opus_api.web import brief, checks, priorities
from opus_api.web.auth import person
from opus_api.web.console import error_page, keeps_typed, page_blueprint, visible
from opus_api.web.cookies import accounts
from opus_api.web.forms import AccountForm, RotationForm, RuleForm, account_form
from opus_api.web.languages import in_words, reason_in_words
from opus_api.web.priorities import Words
from opus_api.wire.errors import ApiError, NotFound

bp = page_blueprint("cookies_pages")


@bp.errorhandler(NotFound)
def _say_gone(error: NotFound) -> ResponseReturnValue:
    """What a page still shows may be deleted by somebody else: the list tells, and has the others."""
    if request.method == "GET":
        return error_page(error.status, in_words(error.message))
    flash(gettext("This account was deleted meanwhile. Nothing was changed."), "error")
    return redirect(url_for(".index"))


# A page stays under 60 KB with its sheet and script.
PER_PAGE, WORDS = 20, 2150  # bytes of names, reasons and models
SUGGESTED = 6000  # bytes of models
MOST_EVENTS = 10  # of an account's history
FILTERS = ("name", "provider", "state")
STATES = ("active", "cooling", "invalid", "disabled")
CLAUDE_NAMES = "claude-*"
DELETED_MEANWHILE = _l(
    "This account was deleted meanwhile. Nothing was saved; here is what you typed, to save as a new account. Or "
    "restore the deleted one in another tab, under Recently deleted, and load this page again."
)


@dataclass(frozen=True, slots=True)
class Row:
    """One account as the pages show it."""

    id: int
    provider: str
    label: str
    name: str
    hint: str | None
    state: str
    reason: str | None
    until: datetime | None
    models: list[str]
    priority: int
    usage_count: int
    error_count: int
    last_used: datetime | None
    last_validated: datetime | None
    created_at: datetime
    quota: dict[str, Any] | None
    quota_ends: datetime | None  # a new one begins
    credits: float  # used by requests of this gateway
    sign_in_ends: datetime | None


def _state(account: Account) -> str:
    """A pause that is over is over, although the row says so only when the account is used again."""
    over = account.state == "cooling" and account.state_until is not None and account.state_until <= now()
    return "active" if over else account.state


def row_of(account: Account) -> Row:
    upstream = UPSTREAMS.get(account.provider)
    state = _state(account)
    return Row(
        id=account.id,
        provider=account.provider,
        label=upstream.label if upstream else account.provider,
        name=visible(account.name),
        hint=service.hint(account.api_key),
        state=state,
        reason=visible(reason_in_words(account.state_reason)) if state == account.state else None,
        until=account.state_until if state == account.state else None,
        models=[*account.model_map, *(account.models or account.listed_models or [])],
        priority=account.priority,
        usage_count=account.usage_count,
        error_count=account.error_count,
        last_used=account.last_used,
        last_validated=account.last_validated,
        created_at=account.created_at,
        quota=account.quota,
        quota_ends=moment_of((account.quota or {}).get("resets_at")),
        credits=account.credits,
        sign_in_ends=moment_of((account.oidc or {}).get("client_expires_at")),
    )


def _back(account_id: int) -> Response:
    """To the page the button was pressed on."""
    if request.args.get("back") == "edit":
        return redirect(url_for(".edit", account_id=account_id))
    return redirect(_list_address())


# --- The list -------------------------------------------------------------------------------------------------------


@bp.get("/cookies")
def index() -> str:
    """All accounts with their state and use."""
    return _list_page(request.args.getlist("account", type=int))


def _list_page(ticked: Collection[int], typed: Words | None = None, refused: Words | None = None) -> str:
    """``typed`` are priorities that are not saved, ``refused`` is why, both by account."""
    # The larger priority is used first, so it stands first.
    everyone = sorted(accounts().all(), key=lambda account: (-account.priority, account.id))
    wanted = {name: request.args.get(name, "") for name in FILTERS}
    found = [account for account in everyone if _fits(account, wanted)]
    pages = max(1, -(-len(found) // PER_PAGE))
    page = min(max(1, request.args.get("page", 1, type=int)), pages)
    rows = [row_of(account) for account in found[(page - 1) * PER_PAGE : page * PER_PAGE]]
    run = checks.to_show()
    return render_template(
        "cookies/index.html",
        rows=rows,
        longest=brief.share((text for row in rows for text in (row.name, row.reason, *row.models[:2])), WORDS),
        wanted={name: value for name, value in wanted.items() if value},
        providers={one.provider: row_of(one).label for one in everyone},
        states=STATES,
        summary=summary_of([row_of(account) for account in everyone]),
        rotation=RotationForm(rotation_strategy=_rotation_strategy()),
        page=page,
        pages=pages,
        run=run,
        ended=checks.ended(run) if run and not run.is_running else None,
        ticked=ticked,
        typed=typed or {},
        refused=refused or {},
        deleted=deleted_accounts.count(),
    )


def _fits(account: Account, wanted: Mapping[str, str]) -> bool:
    is_kind = wanted["provider"] in ("", account.provider) and wanted["state"] in ("", _state(account))
    return is_kind and wanted["name"].strip().casefold() in account.name.casefold()


def _list_address(ticked: Collection[int] = ()) -> str:
    """The list as it was filtered."""
    given: dict[str, Any] = {name: request.args.get(name) for name in ("page", *FILTERS)}
    return url_for(".index", account=[*ticked], **given)


def summary_of(rows: Sequence[Row]) -> dict[str, Any]:
    """The figures above the list, and the shares of its bar in percent."""
    counts = Counter(row.state for row in rows)
    shares, start = [], 0.0
    for state in STATES:
        width = 100 * counts[state] / max(1, len(rows))
        shares.append({"state": state, "start": round(start, 2), "width": round(width, 2)})
        start += width
    return {state: counts[state] for state in STATES} | {
        "total": len(rows),
        "usage_count": sum(row.usage_count for row in rows),
        "error_count": sum(row.error_count for row in rows),
        "shares": [share for share in shares if share["width"]],
    }


def _rotation_strategy() -> str:
    chosen: str = settings.get("rotationStrategy", current_app.extensions["settings"].rotation_strategy)
    return chosen


@bp.post("/cookies/rotation")
def rotation() -> Response:
    """Saves which account is next."""
    form = RotationForm()
    if not form.validate_on_submit():
        abort(400, "There is no such rotation strategy.")
    chosen = {"rotationStrategy": form.rotation_strategy.data}
    configured, owner = current_app.extensions["settings"], current_app.extensions["installation"]
    saved_settings.change(chosen, person(), configured, owner.pepper)
    flash(gettext("Saved. The next request follows it."), "success")
    return redirect(url_for(".index"))


# --- Add ------------------------------------------------------------------------------------------------------------


@bp.get("/cookies/new")
def new() -> str:
    """Which provider; then the form built from what that provider asks for."""
    if "provider" not in request.args:
        return render_template("cookies/choose.html", upstreams=[UPSTREAMS[name] for name in ACCOUNT_PROVIDERS])
    upstream = _upstream(request.args["provider"])
    return render_template("cookies/new.html", upstream=upstream, form=account_form(upstream)(formdata=None))


def _upstream(name: str) -> Upstream:
    if name not in ACCOUNT_PROVIDERS:
        built_in = name in UPSTREAMS
        built_in_words = gettext("The practice provider is built in and needs no account.")
        abort(404, built_in_words if built_in else gettext("There is no such provider."))
    return UPSTREAMS[name]


@bp.post("/cookies/new")
@keeps_typed
def create() -> ResponseReturnValue:
    """Saves the account whatever its provider says now, then shows what that was."""
    upstream = _upstream(request.values.get("provider", "morph"))
    form = account_form(upstream)()
    if form.validate_on_submit():
        try:
            body = {"provider": upstream.name, **form.body()}
            account = accounts().create(body, user_id=current_user.id)
            return redirect(url_for(".saved", account_id=account.id))
        except ApiError as error:
            form.refuse(error)
    return render_template("cookies/new.html", upstream=upstream, form=form)


@bp.get("/cookies/<int:account_id>/saved")
def saved(account_id: int) -> str:
    """What validation found, and the offer of a rule where Claude names would find nobody."""
    account = accounts().get(account_id)
    rule = _rule_form(account) if _offers_rule(account) else None
    return _saved_page(account, rule)


def _saved_page(account: Account, rule: RuleForm | None) -> str:
    return render_template(
        "cookies/saved.html",
        row=row_of(account),
        upstream=UPSTREAMS[account.provider],
        rule=rule,
        suggested=brief.light(rule.listed, SUGGESTED) if rule else [],
    )


def _offers_rule(account: Account) -> bool:
    """The first account of a provider that has no models under Claude's names (M9)."""
    others = [other for other in accounts().all() if other.provider == account.provider and other.id != account.id]
    return bool(
        account.listed_models
        and not UPSTREAMS[account.provider].model_names
        and CLAUDE_NAMES not in account.model_map
        and not any(name.startswith("claude-") for name in account.listed_models)
        and not others
    )


def _rule_form(account: Account) -> RuleForm:
    form = RuleForm()
    form.listed = account.listed_models or []
    if not form.is_submitted():
        form.model.data = next(iter(form.listed), "")
    return form


@bp.post("/cookies/<int:account_id>/saved")
def rule(account_id: int) -> ResponseReturnValue:
    """Saves ``claude-*`` -> the chosen model into the account's model map."""
    account = accounts().get(account_id)
    form = _rule_form(account)
    if not form.validate_on_submit():
        return _saved_page(account, form)
    model_map = {**account.model_map, CLAUDE_NAMES: form.model.data}
    accounts().update(account_id, {"model_map": model_map})
    said = gettext("Saved. %(model)s answers every %(names)s name.", model=form.model.data, names=CLAUDE_NAMES)
    flash(said, "success")
    return redirect(url_for(".index"))


# --- Edit -----------------------------------------------------------------------------------------------------------


@bp.get("/cookies/<int:account_id>/edit")
def edit(account_id: int) -> str:
    """The form of an account; secrets show their last characters at most."""
    account = accounts().get(account_id)
    return _edit_page(account, _edit_form(account).showing(_editable(account)))


@bp.post("/cookies/<int:account_id>/edit")
@keeps_typed
def update(account_id: int) -> ResponseReturnValue:
    """Changes what differs; a secret left empty stays."""
    try:
        return _update(account_id)
    except (NotFound, StaleDataError):
        provider = request.form.get("provider")
        if provider not in ACCOUNT_PROVIDERS:  # sent by no page
            raise
        db.session.rollback()
        return _gone_page(UPSTREAMS[provider])


def _update(account_id: int) -> ResponseReturnValue:
    account = accounts().get(account_id)
    form, present = _edit_form(account)(), _edit_form(account).showing(_editable(account))
    if form.validate_on_submit() and not form.is_overtaken(present):
        try:
            account = accounts().update(account_id, form.body())
            flash(gettext("Saved. %(name)s uses it from the next request on.", name=account.name), "success")
            return redirect(url_for(".index"))
        except ApiError as error:
            form.refuse(error)
    return _edit_page(accounts().get(account_id), form)


def _edit_form(account: Account) -> type[AccountForm]:
    hints = {name: hint for name in account_fields.SECRETS if (hint := service.hint(getattr(account, name)))}
    return account_form(UPSTREAMS[account.provider], hints, account.learned_options)


def _editable(account: Account) -> dict[str, Any]:
    """An account's values as its form takes them."""
    shown = service.as_json(account)
    return {**shown, **dict.fromkeys(account_fields.SECRETS)}


def _edit_page(account: Account, form: AccountForm) -> str:
    row, events = row_of(account), account_events.newest(account.id, MOST_EVENTS)
    upstream = UPSTREAMS[account.provider]
    return render_template("cookies/edit.html", row=row, upstream=upstream, form=form, events=events)


def _gone_page(upstream: Upstream) -> str:
    """What was typed for an account that somebody deleted meanwhile, as the form of a new one."""
    form = account_form(upstream)()
    form.form_errors.append(str(DELETED_MEANWHILE))
    form.ask_again()
    return render_template("cookies/new.html", upstream=upstream, form=form, shown_once=True)


# --- One account's buttons ------------------------------------------------------------------------------------------


@bp.post("/cookies/<int:account_id>/validate")
def validate(account_id: int) -> Response:
    """Asks the provider now whether it takes the credential."""
    account = accounts().get(account_id)
    name, before = account.name, account.last_validated
    found = accounts().validate(account_id)
    kind = _kind(found["is_valid"], before != accounts().get(account_id).last_validated)
    flash(f"{name}: {in_words(found['message'])}", kind)
    return _back(account_id)


def _kind(is_valid: bool, answered: bool) -> str:
    """Good, bad, or nothing learned because the provider gave no clear answer."""
    if not is_valid:
        return "error"
    return "success" if answered else "warning"


@bp.post("/cookies/validate")
def validate_all() -> Response:
    """Asks about every account and leads to the page that shows how far it is."""
    checks.begin(accounts().all())
    return redirect(url_for(".index"))


@bp.post("/cookies/<int:account_id>/state")
def switch(account_id: int) -> Response:
    """A person's switch: active or disabled."""
    return _switch(account_id, request.form.get("state"))


def _switch(account_id: int, state: str | None) -> Response:
    account = accounts().update(account_id, {"state": state})
    if account.state == "disabled":
        flash(gettext("%(name)s is disabled.", name=account.name), "success")
    else:
        flash(gettext("%(name)s is enabled.", name=account.name), "success")
    return _back(account_id)


@bp.post("/cookies/<int:account_id>/reset")
def reset(account_id: int) -> Response:
    """Clears cooling, counters and what made it invalid."""
    account = accounts().reset(account_id)
    flash(gettext("%(name)s may be used again at once.", name=account.name), "success")
    return _back(account_id)


@bp.post("/cookies")
def act() -> ResponseReturnValue:
    """The list as one form: saves the priorities that were changed, and does what its button says with the accounts
    that are ticked. The script saves a priority at once and wants to know only what came of it."""
    ticked, typed = request.form.getlist("account", type=int), priorities.typed(request.form)
    refused, gone = priorities.save(typed)
    if request.accept_mimetypes.best == "application/json":
        return {"refused": refused | gone, "said": gettext("Saved. The next request follows it.")}
    if refused:
        flash(gettext("Nothing was saved. %(why)s", why=priorities.in_a_line(refused)), "error")
        return _list_page(ticked, typed, refused)
    if request.form.get("do") == "save":
        if gone and len(gone) == len(typed):
            flash(gettext("This account was deleted meanwhile. Nothing was changed."), "error")
        else:
            flash(*_with_gone(gettext("Saved. The next request follows it."), len(gone)))
        return redirect(_list_address(ticked))
    return _act(ticked, request.form.get("do", ""))


def _act(ticked: Collection[int], what: str) -> Response:
    chosen = [account for account in accounts().all() if account.id in ticked]
    if not ticked or what not in ("validate", *ONE):
        flash(gettext("Tick the accounts first."), "warning")
    elif not chosen:
        flash(gettext("What was ticked was deleted meanwhile."), "warning")
    elif what == "validate":
        return redirect(_list_address(() if checks.begin(chosen) else ticked))
    elif len(chosen) == 1:
        return ONE[what](chosen[0].id)
    else:
        flash(*SEVERAL[what](chosen))
    return redirect(_list_address())


def _switched(chosen: Sequence[Account], state: str) -> tuple[str, str]:
    done = _each(chosen, lambda account_id: accounts().update(account_id, {"state": state}))
    if state == "disabled":
        return _with_gone(gettext("%(n)s accounts are disabled.", n=done), len(chosen) - done)
    return _with_gone(gettext("%(n)s accounts are enabled.", n=done), len(chosen) - done)


def _were_reset(chosen: Sequence[Account]) -> tuple[str, str]:
    done = _each(chosen, accounts().reset)
    return _with_gone(gettext("%(n)s accounts may be used again at once.", n=done), len(chosen) - done)


def _each(chosen: Sequence[Account], change: Callable[[int], Account]) -> int:
    """How many were changed: one that was deleted meanwhile, or is refused, is no reason to leave out the others."""
    done = 0
    for account_id in [account.id for account in chosen]:
        try:
            change(account_id)
            done += 1
        except (ApiError, StaleDataError):  # gone before it was read, or before it was written; or refused
            db.session.rollback()
    return done


def _with_gone(sentence: str, gone: int) -> tuple[str, str]:
    if not gone:
        return sentence, "success"
    return gettext("%(said)s Deleted meanwhile or refused: %(n)s.", said=sentence, n=gone), "warning"


ONE: dict[str, Callable[[int], Response]] = {
    "disabled": partial(_switch, state="disabled"),
    "active": partial(_switch, state="active"),
    "reset": reset,
}
SEVERAL: dict[str, Callable[[Sequence[Account]], tuple[str, str]]] = {
    "disabled": partial(_switched, state="disabled"),
    "active": partial(_switched, state="active"),
    "reset": _were_reset,
}


@bp.get("/cookies/<int:account_id>/delete")
def delete(account_id: int) -> str:
    """Asks first."""
    return render_template("cookies/delete.html", row=row_of(accounts().get(account_id)))


@bp.post("/cookies/<int:account_id>/delete")
def erase(account_id: int) -> Response:
    """Deletes the account; for a while it can be restored."""
    name = accounts().get(account_id).name
    accounts().delete(account_id)
    flash(gettext("%(name)s was deleted.", name=name), "success")
    return redirect(url_for(".index"))
