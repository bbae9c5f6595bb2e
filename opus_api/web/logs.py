"""Blueprint ``logs``: the request log and its statistics over the JSON API."""

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

from opus_api.extensions import db
from opus_api.services import logs, refusals, retention, statistics
from opus_api.services.values import FieldError, moment, whole
from opus_api.web.bodies import json_object, never_stored
from opus_api.web.signed_in import signed_in

bp = Blueprint("logs", __name__, url_prefix="/v2/logs")
bp.after_request(never_stored)

MOST_DAYS = 36_500


@bp.get("")
@signed_in
def index() -> ResponseReturnValue:
    """Rows of the request log, newest first, a page at a time."""
    wanted, limit = logs.filter_of(request.args), logs.limit_of(request.args)
    page = logs.page(db.session.connection(), wanted, limit, request.args.get("before"))
    return jsonify(data=page.rows, next=page.next)


@bp.get("/stats")
@signed_in
def stats() -> ResponseReturnValue:
    """Statistics of the request log."""
    by = request.args.get("by", "day")
    if by not in statistics.BY:
        raise FieldError("by", f"must be one of {', '.join(statistics.BY)}.")
    start, end = moment("from", request.args.get("from")), moment("to", request.args.get("to"))
    return jsonify(data=statistics.answer(db.session.connection(), by, start, end))


@bp.get("/refused")
@signed_in
def refused() -> ResponseReturnValue:
    """Requests that were not let in, counted by address and minute, or the addresses with most of them."""
    return jsonify(data=refusals.answer(db.session.connection(), request.args))


@bp.post("/cleanup")
@signed_in
def cleanup() -> ResponseReturnValue:
    """Deletes rows older than so many days; the statistics keep counting them."""
    days = whole("days", json_object().get("days"), 0, MOST_DAYS)
    return jsonify(deleted=retention.purge_logs(db.engine, days))
