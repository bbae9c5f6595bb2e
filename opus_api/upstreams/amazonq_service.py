"""Amazon Q's service: where it is, its operations, and how they are called in both of its bindings. Pure.

Bodies are the same in both: AWS-JSON names the operation in a header, REST in the path.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from opus_api.upstreams import bodies
from opus_api.upstreams.base import Credentials
from opus_api.wire.http import HttpRequest
from opus_api.wire.request import Body

AWS_JSON, REST = "aws-json", "rest"
WIRES = (AWS_JSON, REST)
DEFAULT_REGION = "us-east-1"
REGIONS = ("us-east-1", "eu-central-1")  # where the service is
DEFAULT_BASE_URL = f"https://q.{DEFAULT_REGION}.amazonaws.com"

PROFILE_ARN = re.compile(r"arn:aws:codewhisperer:(?P<region>[a-z0-9-]+):\d{12}:profile/[A-Za-z0-9]{1,64}")


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of the service in its two bindings."""

    target: str  # x-amz-target of AWS-JSON
    method: str  # of REST
    path: str


CHAT = Operation("AmazonCodeWhispererStreamingService.GenerateAssistantResponse", "POST", "/generateAssistantResponse")
MODELS = Operation("AmazonCodeWhispererService.ListAvailableModels", "GET", "/ListAvailableModels")
PROFILES = Operation("AmazonCodeWhispererService.ListAvailableProfiles", "POST", "/ListAvailableProfiles")
USAGE = Operation("AmazonCodeWhispererService.GetUsageLimits", "GET", "/getUsageLimits")


def has_own_address(credentials: Credentials) -> bool:
    return bool(credentials.base_url) and credentials.base_url != DEFAULT_BASE_URL


def base_url(credentials: Credentials) -> str:
    """The account's own, else that of its region."""
    if has_own_address(credentials):
        return credentials.base_url
    return f"https://q.{api_region(credentials.oidc)}.amazonaws.com"


def api_region(oidc: Mapping[str, Any]) -> str:
    """As a person set it, else that of the profile; the service is in two regions only."""
    if chosen := oidc.get("api_region"):
        return str(chosen)
    found = PROFILE_ARN.fullmatch(str(oidc.get("profile_arn") or ""))
    return found["region"] if found and found["region"] in REGIONS else DEFAULT_REGION


def chat(state: Body, credentials: Credentials) -> HttpRequest:
    """Ask for an answer to a ``conversationState``."""
    headers = {"accept": "application/vnd.amazon.eventstream"}
    if _is_rest(credentials):
        headers["x-amzn-kiro-agent-mode"] = "vibe"
    return _call(CHAT, {"conversationState": state, **_profile(credentials)}, credentials, headers)


def question(operation: Operation, members: Body, credentials: Credentials) -> HttpRequest:
    """A question beside the chat. What REST asks by GET has its members in the query."""
    request = _call(operation, members, credentials, {"accept": "application/json"})
    if not _is_rest(credentials) or operation.method != "GET":
        return request
    headers = {name: value for name, value in request.headers.items() if name != "content-type"}
    return HttpRequest("GET", f"{request.url}?{_query(members)}", headers)


def about_account(credentials: Credentials) -> Body:
    """The members that questions about the account's models and usage begin with."""
    return {"origin": credentials.options["origin"], **_profile(credentials)}


def _is_rest(credentials: Credentials) -> bool:
    return credentials.oidc.get("wire") == REST


def _call(operation: Operation, body: Body, credentials: Credentials, more: Mapping[str, str]) -> HttpRequest:
    """Our own user agent is added by the transport; nobody else's is imitated."""
    rest = _is_rest(credentials)
    headers = {
        "authorization": f"Bearer {credentials.access_token}",
        "content-type": "application/json" if rest else "application/x-amz-json-1.0",
        "x-amzn-codewhisperer-optout": "true",  # what is said is not for training
        **more,
    }
    if not rest:
        headers["x-amz-target"] = operation.target
    url = base_url(credentials) + (operation.path if rest else "/")
    return HttpRequest("POST", url, headers, bodies.encoded(body))


def _query(members: Body) -> str:
    words = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in members.items()}
    return urlencode(words)


def _profile(credentials: Credentials) -> Body:
    arn = credentials.oidc.get("profile_arn")
    return {"profileArn": arn} if arn else {}
