"""Blueprint ``management``: the /v2 interface for programs that run a pool of accounts."""

from flask import Blueprint, current_app, jsonify, request
from flask.typing import ResponseReturnValue

from opus_api.extensions import db
from opus_api.services import (
    account_events,
    audit,
    deleted_accounts,
    explanations,
    ip_rules,
    jobs,
    saved_settings,
    transfer,
    users,
)
from opus_api.services.accounts import as_json as account_json
from opus_api.services.saved_settings import Person
from opus_api.services.settings import Installation
from opus_api.services.sign_ins import SignIns, started_json, status_json
from opus_api.web import cookies
from opus_api.web.bodies import json_object, never_stored
from opus_api.web.once import once
from opus_api.web.signed_in import caller, signed_in
from opus_api.wire.errors import Forbidden

bp = Blueprint("management", __name__, url_prefix="/v2")
bp.after_request(never_stored)

# The same accounts under their other address.
bp.get("/accounts")(cookies.index)
bp.post("/accounts")(cookies.create)
bp.delete("/accounts/<int:account_id>")(cookies.delete)


def sign_ins() -> SignIns:
    """The service of this app."""
    found: SignIns = current_app.extensions["sign_ins"]
    return found


@bp.post("/accounts/oidc/start")
@signed_in
@once
def start_sign_in() -> ResponseReturnValue:
    """Begin to sign in to Amazon Q: what a person opens and types there."""
    return jsonify(started_json(sign_ins().start(json_object(), caller().user.id)))


@bp.get("/accounts/oidc/<flow_id>")
@signed_in
def show_sign_in(flow_id: str) -> ResponseReturnValue:
    """Whether the person has approved a sign-in; asking again changes nothing."""
    return jsonify(status_json(sign_ins().get(flow_id)))


@bp.post("/accounts/feed")
@signed_in
@once
def feed_accounts() -> ResponseReturnValue:
    """Add many accounts at once: valid rows are saved, bad ones reported."""
    return jsonify(transfer.feed(cookies.accounts(), json_object(), caller().user.id))


@bp.post("/accounts/import")
@signed_in
@once
def import_accounts() -> ResponseReturnValue:
    """Take in what an export with secrets holds; what is here already stays as it is."""
    return jsonify(transfer.import_(cookies.accounts(), json_object(), caller().user.id))


@bp.get("/accounts/export")
@signed_in
def export_accounts() -> ResponseReturnValue:
    """All accounts; with their credentials only for a person who just gave the password again."""
    with_secrets = request.args.get("secrets", "0") not in ("0", "", "false")
    if with_secrets:
        if not users.is_confirmed(caller().session):
            raise Forbidden("Confirm your password first: POST /api/auth/confirm.")
        transfer.note_export(caller().user.username)
    return jsonify(transfer.export(cookies.accounts(), with_secrets))


@bp.get("/accounts/<int:account_id>/events")
@signed_in
def account_events_of(account_id: int) -> ResponseReturnValue:
    """What happened to an account, the newest first."""
    rows = [account_events.as_json(found) for found in account_events.newest(account_id)]
    return jsonify(data=rows, total=len(rows))


@bp.get("/accounts/deleted")
@signed_in
def index_deleted_accounts() -> ResponseReturnValue:
    """Accounts that were deleted and can be restored, the last one first."""
    rows = [deleted_accounts.as_json(found) for found in deleted_accounts.all_()]
    return jsonify(data=rows, total=len(rows))


@bp.post("/accounts/deleted/<int:account_id>/restore")
@signed_in
def restore_account(account_id: int) -> ResponseReturnValue:
    """The account is back as it was, under its id."""
    return jsonify(account_json(deleted_accounts.restore(account_id)))


@bp.delete("/accounts/deleted/<int:account_id>")
@signed_in
def erase_account(account_id: int) -> ResponseReturnValue:
    """Erase a deleted account for good, with its credential."""
    deleted_accounts.erase(account_id)
    return "", 204


@bp.post("/accounts/reset")
@signed_in
def reset_accounts() -> ResponseReturnValue:
    """Every account that no person disabled is active at once."""
    cookies.accounts().reset_all()
    return "", 204


@bp.get("/jobs")
@signed_in
def index_jobs() -> ResponseReturnValue:
    """What runs by itself: when it ran last, what came of it, when it is next."""
    rows = [jobs.as_json(run) for run in jobs.every()]
    return jsonify(data=rows, total=len(rows))


@bp.get("/requests/<request_id>")
@signed_in
def explain_request(request_id: str) -> ResponseReturnValue:
    """What happened to a request, whose fault it was, what was tried, when it heals."""
    return jsonify(explanations.explain(db.session.connection(), request_id).as_json())


# ---- addresses that are kept out


@bp.get("/ips/blocked")
@signed_in
def blocked_ips() -> ResponseReturnValue:
    """Addresses that are kept out, newest first."""
    rows = [ip_rules.as_json(rule) for rule in ip_rules.live()]
    return jsonify(data=rows, total=len(rows))


@bp.post("/ips/block")
@signed_in
@once
def block_ip() -> ResponseReturnValue:
    """Keep an address or a network out."""
    return jsonify(ip_rules.as_json(ip_rules.block(json_object()))), 201


@bp.post("/ips/unblock")
@signed_in
def unblock_ip() -> ResponseReturnValue:
    """Let it in again."""
    ip_rules.unblock(json_object())
    return "", 204


# ---- settings


@bp.get("/settings")
@signed_in
def show_settings() -> ResponseReturnValue:
    """All settings; secrets as null."""
    return jsonify(saved_settings.as_json(current_app.extensions["settings"]))


@bp.put("/settings")
@signed_in
def change_settings() -> ResponseReturnValue:
    """Change some settings: all are saved, or none."""
    owner = current_app.extensions["installation"]
    assert isinstance(owner, Installation)
    saved_settings.change(json_object(), _person(), current_app.extensions["settings"], owner.pepper)
    return show_settings()


@bp.delete("/settings/<name>")
@signed_in
def forget_setting(name: str) -> ResponseReturnValue:
    """Bring a setting back to what the environment says, or the default."""
    saved_settings.forget(name, _person(), current_app.extensions["settings"])
    return "", 204


def _person() -> Person:
    found = caller()
    return Person(found.user.username, found.session, users.is_confirmed(found.session))


@bp.get("/changes")
@signed_in
def index_changes() -> ResponseReturnValue:
    """Who changed what, newest first."""
    rows = [audit.as_json(change) for change in audit.newest()]
    return jsonify(data=rows, total=len(rows))
