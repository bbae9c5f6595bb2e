"""Who may come in: addresses that are blocked, the API key of a request; from the snapshot, without a query."""

import hmac
import ipaddress
import time

from flask import Request, current_app, request
from sqlalchemy.exc import SQLAlchemyError

from opus_api import crypto
from opus_api.config import Settings
from opus_api.services import metrics
from opus_api.services.request_log import Recorder
from opus_api.services.snapshot import KeyValue, Snapshot, Snapshots
from opus_api.web.client import bearer, client_ip, presented_keys
from opus_api.web.signed_in import is_signed_in
from opus_api.wire.errors import ApiError, Forbidden, Unauthorized, Unavailable

AWAY = "The database cannot be reached; try again."
FOREIGN = ("X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "X-Real-Ip", "Via", "Origin")
LOCAL_HOSTS = {"localhost", "127.0.0.1", "[::1]"}

OPEN_TO_ALL = ("/health", "/healthz", "/static/")  # platforms ask for them, pages need them


def keep_out() -> None:
    """Before anything of a request's body is read. A person who is signed in still gets in, to unblock. Raises
    Forbidden."""
    try:
        blocked = current_app.extensions["snapshots"].current().blocked
    except SQLAlchemyError:
        return  # nobody gets far without a database
    if client_ip(request, current_app.extensions["settings"]) not in blocked or request.path.startswith(OPEN_TO_ALL):
        return
    if not is_signed_in():
        raise refused(Forbidden("Your address is blocked."))


def refused(error: ApiError) -> ApiError:
    """The error, once it is counted against the address of the present request."""
    recorder: Recorder = current_app.extensions["recorder"]
    recorder.refusals.note(client_ip(request, current_app.extensions["settings"]), error.status)
    metrics.REFUSED.labels(str(error.status)).inc()
    return error


def api_key(request: Request, snapshots: Snapshots, settings: Settings) -> KeyValue | None:
    """The key of the caller, None for one who needs none. The first valid one of x-api-key and Authorization counts.

    Raises Unauthorized; Unavailable when the database is away and might know the key.
    """
    try:
        snapshot = snapshots.current()
    except SQLAlchemyError:
        raise Unavailable(AWAY) from None
    presented = presented_keys(request)
    for key in presented:
        if found := known_key(snapshot, key):
            return found
    if may_be_anonymous(request, settings):
        return None
    if presented and snapshots.is_stale:
        raise refused(Unavailable(AWAY))
    raise refused(Unauthorized("invalid x-api-key" if presented else "x-api-key header is required"))


def known_key(snapshot: Snapshot, key: str) -> KeyValue | None:
    """By its value; None for one that opens nothing."""
    found = snapshot.keys.get(crypto.keyed_hash(snapshot.pepper, key))
    if found and found.expires_at is not None and found.expires_at <= time.time():
        return None
    return found


def may_be_anonymous(request: Request, settings: Settings) -> bool:
    """ANONYMOUS_ACCESS."""
    if settings.anonymous_access != "loopback":
        return settings.anonymous_access == "on"
    return is_local(request)


def shows_metrics_token(request: Request, snapshots: Snapshots) -> bool:
    """The setting ``metricsToken``, as a Bearer token: what a monitor is given."""
    try:
        expected = snapshots.current().settings.get("metricsToken")
    except SQLAlchemyError:
        return False
    shown = crypto.token_hash(bearer(request))  # as it is stored
    return bool(expected) and hmac.compare_digest(shown.encode(), str(expected).encode())


def is_local(request: Request) -> bool:
    """Whether it comes from this machine, without a sign of a proxy or of another site's page."""
    headers = request.headers
    if any(name in headers for name in FOREIGN):
        return False
    host = request.host.rpartition(":")[0] if request.host.rpartition(":")[2].isdigit() else request.host
    return _is_loopback(request.environ.get("REMOTE_ADDR") or "") and host in LOCAL_HOSTS


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
