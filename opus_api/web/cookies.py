"""Blueprint ``cookies``: accounts over the JSON API. ("Cookie" is what older documents call an account.)"""

from flask import Blueprint, current_app, jsonify
from flask.typing import ResponseReturnValue

from opus_api.services.accounts import Accounts, as_json
from opus_api.web.bodies import json_object, never_stored
from opus_api.web.once import once
from opus_api.web.signed_in import caller, signed_in

bp = Blueprint("cookies", __name__, url_prefix="/api/cookies")
bp.after_request(never_stored)


def accounts() -> Accounts:
    """The service of this app."""
    found: Accounts = current_app.extensions["accounts"]
    return found


@bp.get("")
@signed_in
def index() -> ResponseReturnValue:
    """All accounts."""
    rows = [as_json(account) for account in accounts().all()]
    return jsonify(data=rows, total=len(rows))


@bp.post("")
@signed_in
@once
def create() -> ResponseReturnValue:
    """Add an account. It is saved even when its provider cannot be reached; ``state_reason`` tells what it said."""
    return jsonify(as_json(accounts().create(json_object(), caller().user.id))), 201


@bp.get("/<int:account_id>")
@signed_in
def show(account_id: int) -> ResponseReturnValue:
    """One account; of its secrets only the last four characters."""
    return jsonify(as_json(accounts().get(account_id)))


@bp.put("/<int:account_id>")
@signed_in
def update(account_id: int) -> ResponseReturnValue:
    """Change the fields that are given; a secret that is absent stays."""
    return jsonify(as_json(accounts().update(account_id, json_object())))


@bp.delete("/<int:account_id>")
@signed_in
def delete(account_id: int) -> ResponseReturnValue:
    """Delete an account."""
    accounts().delete(account_id)
    return "", 204


@bp.post("/<int:account_id>/validate")
@signed_in
def validate(account_id: int) -> ResponseReturnValue:
    """Ask the provider about an account, without spending tokens."""
    return jsonify(accounts().validate(account_id))


@bp.post("/validate/all")
@signed_in
def validate_all() -> ResponseReturnValue:
    """Ask the providers about all accounts."""
    return jsonify(accounts().validate_all())


@bp.post("/<int:account_id>/reset")
@signed_in
def reset(account_id: int) -> ResponseReturnValue:
    """Clear what an account rests for, and its counters."""
    return jsonify(as_json(accounts().reset(account_id)))


@bp.get("/stats")
@signed_in
def stats() -> ResponseReturnValue:
    """How many accounts there are, and in which states."""
    return jsonify(accounts().stats())
