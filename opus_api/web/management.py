"""Blueprint ``management``: the /v2 interface for programs that run a pool of accounts."""

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from opus_api.services import jobs
from opus_api.web import cookies
from opus_api.web.bodies import never_stored
from opus_api.web.signed_in import signed_in

bp = Blueprint("management", __name__, url_prefix="/v2")
bp.after_request(never_stored)

# The same accounts under their other address.
bp.get("/accounts")(cookies.index)
bp.post("/accounts")(cookies.create)
bp.delete("/accounts/<int:account_id>")(cookies.delete)


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
