"""Blueprint ``health``: whether this process answers, in the two shapes that people ask for, and whether it should be
sent requests."""

from collections import Counter

import gevent
import sqlalchemy as sa
from flask import Blueprint, Response, current_app, jsonify, request
from flask.typing import ResponseReturnValue
from prometheus_client import CONTENT_TYPE_LATEST

from opus_api.extensions import db
from opus_api.models import now
from opus_api.services import metrics
from opus_api.services.snapshot import AccountValue
from opus_api.services.values import rfc3339
from opus_api.state.standing import Standing
from opus_api.version import __version__
from opus_api.web import guards
from opus_api.web.signed_in import check_signed_in

bp = Blueprint("health", __name__)


@bp.get("/health")
def health() -> ResponseReturnValue:
    """Whether this process answers, and its version."""
    return jsonify(status="healthy", timestamp=rfc3339(now()), version=__version__)


@bp.get("/healthz")
def healthz() -> ResponseReturnValue:
    """Whether this process answers."""
    return jsonify(status="ok")


DATABASE_LIMIT = 2.0  # seconds


@bp.get("/ready")
def ready() -> ResponseReturnValue:
    """Whether to send requests here: 503 while the database is away or this worker stops."""
    _check_monitor()
    worker = request.environ.get("opus.worker")
    checks = {"database": _database(), "worker": "ok" if worker is None or worker.alive else "stopping"}
    shared = current_app.extensions["state"].health()
    is_ready = set(checks.values()) == {"ok"} and shared.decides
    if shared.engine == "redis":
        checks["redis"] = f"away for {shared.away:.0f} s, limits are approximate" if shared.away else "ok"
    return jsonify(status="ready" if is_ready else "not ready", checks=checks), 200 if is_ready else 503


@bp.get("/metrics")
def show_metrics() -> ResponseReturnValue:
    """For Prometheus: requests, tokens, times, accounts, over all workers."""
    _check_monitor()
    snapshot, state = current_app.extensions["snapshots"].current(), current_app.extensions["state"]
    standings = state.fleet().standings
    accounts = Counter((one.provider, _state(one, standings.get(one.id))) for one in snapshot.accounts)
    return Response(metrics.text(dict(accounts), state.health().away), content_type=CONTENT_TYPE_LATEST)


def _state(account: AccountValue, standing: Standing | None) -> str:
    """A person's word is in the snapshot; of the rest the machine knows more than the database."""
    return account.state if standing is None or account.state == "disabled" else standing.state


def _check_monitor() -> None:
    """This machine, a person, or who shows metricsToken. Raises Unauthorized."""
    if not guards.is_local(request) and not guards.shows_metrics_token(request, current_app.extensions["snapshots"]):
        check_signed_in()


def _database() -> str:
    try:
        with gevent.Timeout(DATABASE_LIMIT), db.engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
    except (sa.exc.SQLAlchemyError, gevent.Timeout):
        return "unreachable"
    return "ok"
