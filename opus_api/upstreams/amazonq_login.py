"""Signing in to Amazon Q: AWS's OIDC service with device authorization, as flows. Pure.

Requests and answers are JSON with camel case names and carry no signature; a person approves in a browser of theirs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from opus_api.upstreams.amazonq_service import DEFAULT_REGION
from opus_api.upstreams.base import Credentials
from opus_api.upstreams.failures import scrub
from opus_api.wire import jsons
from opus_api.wire.http import Flow, HttpRequest, HttpResponse

BUILDER_ID = "https://view.awsapps.com/start"
CLIENT_NAME = "Opus API"  # of this program; nobody else's is used
SCOPES = ["codewhisperer:completions", "codewhisperer:analysis", "codewhisperer:conversations"]
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
REFRESH_TOKEN = "refresh_token"

REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d{1,2}")
LATEST = 1e11  # Unix seconds that a moment can be
DEFAULT_LIFE = 3600.0  # seconds, of a token whose answer does not say

# Errors after which the same refresh token or device code will never work again.
DEAD = (
    "invalid_grant",
    "expired_token",
    "access_denied",
    "invalid_client",
    "unauthorized_client",
    "unsupported_grant_type",
)


@dataclass(frozen=True, slots=True)
class Client:
    """What this installation is to the sign-in service; tokens live and die with the client they were issued to."""

    id: str
    secret: str = field(repr=False)
    expires_at: float | None = None  # Unix seconds; None: not told


@dataclass(frozen=True, slots=True)
class Device:
    """A sign-in that waits for a person. Addresses are shown, never built or taken apart. Times in seconds."""

    code: str = field(repr=False)
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: float
    interval: float


@dataclass(frozen=True, slots=True)
class Granted:
    """``refresh_token`` is "" when the one that was presented stays good. ``expires_in`` in seconds."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: float


@dataclass(frozen=True, slots=True)
class Refused:
    """``error`` is OAuth's word; ``message`` is one sentence for a person, free of secrets."""

    error: str
    message: str

    @property
    def is_final(self) -> bool:
        return self.error in DEAD


def register(region: str) -> Flow[Client | Refused]:
    body = {
        "clientName": CLIENT_NAME,
        "clientType": "public",
        "scopes": SCOPES,
        "grantTypes": [DEVICE_CODE, REFRESH_TOKEN],
    }
    response = yield _post(region, "/client/register", body)
    members = _members(response)
    if response.status != 200 or not (members.get("clientId") and members.get("clientSecret")):
        return _refused(response)
    ends: Any = members.get("clientSecretExpiresAt")
    expires_at = float(ends) if type(ends) in (int, float) and 0 < ends < LATEST else None
    return Client(str(members["clientId"]), str(members["clientSecret"]), expires_at)


def _link(value: Any) -> str:
    """What a person may click on; "" for any other thing that an address can be, such as a script."""
    return value if isinstance(value, str) and value.startswith(("https://", "http://")) else ""


def start(region: str, client: Client, start_url: str) -> Flow[Device | Refused]:
    body = {"clientId": client.id, "clientSecret": client.secret, "startUrl": start_url}
    response = yield _post(region, "/device_authorization", body)
    members = _members(response)
    if response.status != 200 or not (members.get("deviceCode") and members.get("userCode")):
        return _refused(response, client.secret)
    uri = _link(members.get("verificationUri"))
    return Device(
        code=str(members["deviceCode"]),
        user_code=str(members["userCode"]),
        verification_uri=uri,
        verification_uri_complete=_link(members.get("verificationUriComplete")) or uri,
        expires_in=_seconds(members.get("expiresIn"), 600.0),
        interval=_seconds(members.get("interval"), 5.0),
    )


def begin(region: str, start_url: str) -> Flow[tuple[Client, Device] | Refused]:
    """Register, then ask for a device code."""
    client = yield from register(region)
    if isinstance(client, Refused):
        return client
    device = yield from start(region, client, start_url)
    return device if isinstance(device, Refused) else (client, device)


def poll(region: str, client: Client, device_code: str) -> Flow[Granted | Refused]:
    """Refused with ``authorization_pending`` or ``slow_down`` while the person has not decided."""
    return (yield from _token(region, client, {"grantType": DEVICE_CODE, "deviceCode": device_code}))


def refresh(region: str, client: Client, refresh_token: str) -> Flow[Granted | Refused]:
    return (yield from _token(region, client, {"grantType": REFRESH_TOKEN, "refreshToken": refresh_token}))


def _token(region: str, client: Client, members: Mapping[str, str]) -> Flow[Granted | Refused]:
    body = {"clientId": client.id, "clientSecret": client.secret, **members}
    response = yield _post(region, "/token", body)
    answer = _members(response)
    token = answer.get("accessToken")
    if response.status != 200 or not isinstance(token, str) or not token:
        return _refused(response, client.secret, *members.values())
    renewed = answer.get("refreshToken")
    return Granted(token, renewed if isinstance(renewed, str) else "", _seconds(answer.get("expiresIn"), DEFAULT_LIFE))


def _post(region: str, path: str, body: Mapping[str, Any]) -> HttpRequest:
    """``region`` becomes a part of the host name, so one that is none never gets there."""
    name = region if REGION.fullmatch(region) else DEFAULT_REGION
    headers = {"content-type": "application/json", "accept": "application/json"}
    return HttpRequest("POST", f"https://oidc.{name}.amazonaws.com{path}", headers, jsons.dumps(body))


def _members(response: HttpResponse) -> Mapping[str, Any]:
    try:
        body = jsons.loads(response.body)
    except jsons.JsonError:
        return {}
    return body if isinstance(body, dict) else {}


def _refused(response: HttpResponse, *secrets: str) -> Refused:
    members = _members(response)
    error = members["error"] if isinstance(members.get("error"), str) else _named(response)
    said = members.get("error_description")
    message = f"The sign-in service answered {response.status}: {error}" + (f" ({said})" if said else "")
    for secret in secrets:
        message = scrub(message, Credentials(api_key=secret))
    return Refused(error, message[:200])


def _named(response: HttpResponse) -> str:
    """OAuth's word for the exception in the header (InvalidGrantException -> invalid_grant), for a body without one."""
    name = response.headers.get("x-amzn-errortype", "").partition(":")[0].removesuffix("Exception")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower() or f"status {response.status}"


def _seconds(value: Any, default: float) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 10**9
    return float(value) if is_number else default
