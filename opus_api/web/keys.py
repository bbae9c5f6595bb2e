"""Blueprint ``keys``: API keys over the JSON API."""

from flask import Blueprint, current_app, jsonify
from flask.typing import ResponseReturnValue

from opus_api.services import api_keys
from opus_api.services.settings import Installation
from opus_api.web.bodies import json_object, never_stored
from opus_api.web.once import once
from opus_api.web.signed_in import signed_in

bp = Blueprint("keys", __name__, url_prefix="/api/keys")
bp.after_request(never_stored)


@bp.get("")
@signed_in
def index() -> ResponseReturnValue:
    """All API keys, revoked ones too."""
    rows = [api_keys.as_json(key) for key in api_keys.every()]
    return jsonify(data=rows, total=len(rows))


@bp.post("")
@signed_in
@once
def create() -> ResponseReturnValue:
    """Make an API key; ``key`` is shown here and never again."""
    owner: Installation = current_app.extensions["installation"]
    key, value = api_keys.create(owner.pepper, json_object())
    return jsonify({**api_keys.as_json(key), "key": value}), 201


@bp.get("/<int:key_id>")
@signed_in
def show(key_id: int) -> ResponseReturnValue:
    """One API key, without its value."""
    return jsonify(api_keys.as_json(api_keys.get(key_id)))


@bp.put("/<int:key_id>")
@signed_in
def update(key_id: int) -> ResponseReturnValue:
    """Change the fields that are given; limits as a whole."""
    return jsonify(api_keys.as_json(api_keys.update(key_id, json_object())))


@bp.delete("/<int:key_id>")
@signed_in
def revoke(key_id: int) -> ResponseReturnValue:
    """Revoke an API key: it stops working within a second."""
    api_keys.revoke(api_keys.get(key_id))
    return "", 204
