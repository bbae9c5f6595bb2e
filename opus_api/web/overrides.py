"""Whether a request brings a credential of its own for the provider, and which."""

from flask import Request

from opus_api import crypto
from opus_api.gateway.override import Override
from opus_api.services.snapshot import KeyValue, Snapshot, Snapshots
from opus_api.web import guards, languages
from opus_api.web.client import bearer
from opus_api.web.console import THEME
from opus_api.web.sessions import SESSION_COOKIES
from opus_api.wire.errors import Forbidden, Unavailable

OUR_COOKIES = {*SESSION_COOKIES, languages.COOKIE, THEME}


def brought(request: Request, key: KeyValue | None, snapshots: Snapshots) -> Override | None:
    """The override of a caller who may have one: by a key with that right in x-api-key, or anonymously.

    Raises Forbidden for a subscription token; Unavailable when what it brings might be a key of ours that we do not
    know of yet.
    """
    if key is None:
        headers = {"authorization": _authorization(request, snapshots.current())}
    elif key.override and _is_in_x_api_key(request, key, snapshots.current()):
        authorization = _authorization(request, snapshots.current())
        headers = {"authorization": authorization, "cookie": _cookies(request)}
    else:
        return None
    found = {name: value for name, value in headers.items() if value}
    if found and snapshots.is_stale:
        raise Unavailable(guards.AWAY)
    return Override(found) if found else None


def _is_in_x_api_key(request: Request, key: KeyValue, snapshot: Snapshot) -> bool:
    return snapshot.keys.get(crypto.keyed_hash(snapshot.pepper, request.headers.get("x-api-key", ""))) == key


def _authorization(request: Request, snapshot: Snapshot) -> str:
    """The header as it is, "" when it holds no credential for a provider: nothing, or a key of ours, used up or not."""
    token = bearer(request)
    if not token or token == request.headers.get("x-api-key") or token.startswith(crypto.API_KEY_PREFIX):
        return ""
    if crypto.keyed_hash(snapshot.pepper, token) in snapshot.keys:
        return ""
    if token.startswith("sk-ant-oat"):
        raise Forbidden("Subscription tokens (sk-ant-oat…) may not be used here; use an API key.")
    return request.headers["Authorization"]


def _cookies(request: Request) -> str:
    """Without our own."""
    parts = [part.strip() for part in request.headers.get("Cookie", "").split(";")]
    return "; ".join(part for part in parts if part and part.partition("=")[0].strip() not in OUR_COOKIES)
