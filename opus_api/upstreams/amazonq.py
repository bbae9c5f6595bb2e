"""Amazon Q Developer: the service behind the vendor's own command line client, in both of its bindings. Pure.

Bodies are the same in both: AWS-JSON names the operation in a header, REST in the path.
"""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from opus_api.upstreams import amazonq_failures, amazonq_request, bodies
from opus_api.upstreams.amazonq_stream import AnswerReader
from opus_api.upstreams.base import Credentials, Failure, Field, Option, Probe, Relayed, Verdict
from opus_api.upstreams.failures import broken
from opus_api.wire import jsons
from opus_api.wire.eventstream import Decoder, EventStreamError
from opus_api.wire.http import Flow, HttpRequest, HttpResponse
from opus_api.wire.messages import Event, MessageWriter
from opus_api.wire.request import Body, Call

AWS_JSON, REST = "aws-json", "rest"
WIRES = (AWS_JSON, REST)
DEFAULT_REGION = "us-east-1"
REGIONS = ("us-east-1", "eu-central-1")  # where the service is
DEFAULT_BASE_URL = f"https://q.{DEFAULT_REGION}.amazonaws.com"
MOST_PAGES = 10  # of a list of models

PROFILE_ARN = re.compile(r"arn:aws:codewhisperer:(?P<region>[a-z0-9-]+):\d{12}:profile/[A-Za-z0-9]{1,64}")
# claude-sonnet-4-5-20250929, claude-opus-4-20250514
DATED = re.compile(r"(claude-[a-z]+-\d+)(?:-(\d{1,2}))?(?:-20\d{6})?")

# Documented names -> the service's (M9); where it has no such model any more, the next of the same line.
MODEL_NAMES = {
    "claude-4.5-opus-high": "claude-opus-4.5",
    "claude-4.5-opus-low": "claude-opus-4.5",
    "claude-sonnet-4.5": "claude-sonnet-4.5",
    "claude-sonnet-3.5": "claude-sonnet-4",
    "claude-opus-4-20250514": "claude-opus-4.5",
    "claude-sonnet-4-20250514": "claude-sonnet-4",
    "claude-haiku-4-20250514": "claude-haiku-4.5",
    "claude-3-opus-20240229": "claude-opus-4.5",
}


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


@dataclass(eq=False)
class AmazonQ:
    name: str = "amazonq"
    label: str = "Amazon Q Developer"
    native: str = ""  # no client speaks it
    default_base_url: str = DEFAULT_BASE_URL
    fields: tuple[Field, ...] = (
        Field("refresh_token", "Refresh token", secret=True, help="From an earlier sign-in of yours."),
        Field("client_id", "Client id", secret=True, help="The refresh token was issued to it."),
        Field("client_secret", "Client secret", secret=True, help="It belongs to the client id."),
        Field("base_url", "Base URL", help="Empty: the service of the account's region."),
    )
    options: tuple[Option, ...] = (Option("origin", "CLI", "What the service is told the request comes from."),)
    terms: str = (
        "Only accounts that are yours or licensed to you. AWS documents this service for its own clients only and may "
        "refuse or suspend an account; pooling free or personal accounts to get round quotas likely breaks its terms."
    )
    model_names: Mapping[str, str] = field(default_factory=lambda: MODEL_NAMES)

    # ---- asking

    def request(self, call: Call, model: str, credentials: Credentials, verbatim: bool) -> HttpRequest:
        if is_over(credentials):
            raise Failure(Verdict.EXPIRED, 529, "overloaded_error", "the access token has expired")
        body: Body = {"conversationState": amazonq_request.convert(call, model, credentials.options["origin"])}
        headers = {"accept": "application/vnd.amazon.eventstream", "x-amzn-kiro-agent-mode": "vibe"}
        if credentials.oidc.get("wire") != REST:
            del headers["x-amzn-kiro-agent-mode"]
        return _ask(CHAT, body | _profile(credentials), credentials, headers)

    # ---- reading

    def events(self, call: Call, body: Iterator[bytes], credentials: Credentials) -> Iterator[list[Event]]:
        asked = call.canonical()
        writer = MessageWriter(call.model, call.input_estimate, call.thinking_wanted)
        names = amazonq_request.tool_names(call).long
        reader = AnswerReader(writer, names, asked.get("stop_sequences") or (), asked["max_tokens"], credentials)
        first, body = yield from bodies.begin(body)
        if first == b"{":
            raise amazonq_failures.of_json((yield from bodies.whole(body)), credentials)
        decoder = Decoder()
        for data in body:
            try:
                for message in decoder.feed(data):
                    reader.read(message)
            except (Failure, EventStreamError) as error:
                yield writer.take()  # what came before it in the same read
                raise _as_failure(error) from None
            call.usage_estimated = not reader.saw_usage
            yield writer.take()
            if reader.done:  # the client's own limit: the rest is not wanted
                return
        try:
            decoder.close()
        except EventStreamError:
            raise broken(bodies.EARLY) from None
        reader.finish()
        call.usage_estimated = not reader.saw_usage
        yield writer.take()

    def verbatim(self, call: Call, body: Iterator[bytes], credentials: Credentials) -> Iterator[Relayed]:
        """No client speaks this format, so this is never asked for."""
        yield from ()

    # ---- judging

    def failure(self, response: HttpResponse, credentials: Credentials) -> Failure:
        return amazonq_failures.of_response(response, credentials)

    def probe(self, credentials: Credentials) -> Flow[Probe]:
        """The models, then the usage: neither costs anything."""
        if is_over(credentials):
            return _refused(HttpResponse(403), Failure(Verdict.EXPIRED, 529, "overloaded_error", "no access token"))
        listed = yield from _models(credentials)
        if isinstance(listed, HttpResponse):
            return _refused(listed, self.failure(listed, credentials))
        response = yield _asked(USAGE, {"resourceType": "AGENTIC_REQUEST", "isEmailRequired": False}, credentials)
        quota = None
        if response.status == 200:
            quota = read_quota(_parsed(response.body))
        elif (failure := self.failure(response, credentials)).verdict is Verdict.SUSPENDED:
            return _refused(response, failure)
        return Probe(True, _found(len(listed), quota), listed, quota=quota)

    def own_name(self, name: str) -> str:
        found = DATED.fullmatch(name)
        if not found:
            return name
        return f"{found[1]}.{found[2]}" if found[2] else found[1]


def is_over(credentials: Credentials) -> bool:
    """There is no access token, or its time has passed: asking would only be refused."""
    ends = credentials.token_expires_at
    return not credentials.access_token or (ends is not None and ends <= time.time())


def base_url(credentials: Credentials) -> str:
    """The account's own, else that of its region."""
    if credentials.base_url and credentials.base_url != DEFAULT_BASE_URL:
        return credentials.base_url
    return f"https://q.{api_region(credentials.oidc)}.amazonaws.com"


def api_region(oidc: Mapping[str, Any]) -> str:
    """As a person set it, else that of the profile; the service is in two regions only."""
    if chosen := oidc.get("api_region"):
        return str(chosen)
    found = PROFILE_ARN.fullmatch(str(oidc.get("profile_arn") or ""))
    return found["region"] if found and found["region"] in REGIONS else DEFAULT_REGION


def _ask(operation: Operation, body: Body, credentials: Credentials, more: Mapping[str, str]) -> HttpRequest:
    """Our own user agent is added by the transport; nobody else's is imitated."""
    rest = credentials.oidc.get("wire") == REST
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


def _asked(operation: Operation, body: Body, credentials: Credentials) -> HttpRequest:
    """A question beside the chat: in REST its members stand in the query."""
    members = {"origin": credentials.options["origin"], **body, **_profile(credentials)}
    request = _ask(operation, members, credentials, {"accept": "application/json"})
    if credentials.oidc.get("wire") != REST:
        return request
    headers = {name: value for name, value in request.headers.items() if name != "content-type"}
    return HttpRequest(operation.method, f"{request.url}?{_query(members)}", headers)


def _query(members: Body) -> str:
    words = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in members.items()}
    return urlencode(words)


def _profile(credentials: Credentials) -> Body:
    arn = credentials.oidc.get("profile_arn")
    return {"profileArn": arn} if arn else {}


# ---- what validating finds


def _models(credentials: Credentials) -> Flow[list[str] | HttpResponse]:
    """The ids of the models, or the answer that is no list."""
    names: list[str] = []
    page: Body = {"maxResults": 50}
    for _ in range(MOST_PAGES):
        response = yield _asked(MODELS, page, credentials)
        body = _parsed(response.body)
        if response.status != 200 or not isinstance(body.get("models"), list):
            return response
        entries = [entry for entry in body["models"] if isinstance(entry, dict)]
        names += [entry["modelId"] for entry in entries if isinstance(entry.get("modelId"), str)]
        if not (isinstance(body.get("nextToken"), str) and body["nextToken"]):
            break
        page = {"maxResults": 50, "nextToken": body["nextToken"]}
    return list(dict.fromkeys(names))


def list_profiles(credentials: Credentials) -> Flow[list[str]]:
    """The ARNs of an organisation's profiles; none where a person's own account has none, too."""
    response = yield _ask(PROFILES, {"maxResults": 10}, credentials, {"accept": "application/json"})
    entries = _objects(_parsed(response.body).get("profiles"))
    return [entry["arn"] for entry in entries if isinstance(entry.get("arn"), str)]


def _refused(response: HttpResponse, failure: Failure) -> Probe:
    if response.status == 200:
        return Probe(False, "The service did not answer with a list of models; is the base URL right?", failure=failure)
    if failure.verdict in (Verdict.RATE, Verdict.QUOTA):
        return Probe(True, "The account works, but its rate or quota is used up.", failure=failure)
    if failure.verdict is Verdict.SUSPENDED:
        return Probe(False, "suspended", failure=failure)
    if failure.verdict is Verdict.EXPIRED:
        return Probe(False, "The access token was refused; sign in again.", failure=failure)
    return Probe(False, f"The service answered {response.status}: {failure.message}", failure=failure)


def read_quota(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """{"used", "limit", "unit", "resets_at"} of GetUsageLimits, None when it tells of no limit."""
    resets = _number(body.get("nextDateReset"))
    for entry in _objects(body.get("usageBreakdownList")):
        used = _number(entry.get("currentUsageWithPrecision"), entry.get("currentUsage"))
        limit = _number(entry.get("usageLimitWithPrecision"), entry.get("usageLimit"))
        if used is not None and limit is not None:
            unit = str(entry.get("displayName") or entry.get("resourceType") or "requests")
            resets = _number(entry.get("nextDateReset"), resets)
            return {"used": used, "limit": limit, "unit": unit.lower(), "resets_at": resets}
    for entry in _objects(body.get("limits")):
        used, limit = _number(entry.get("currentUsage")), _number(entry.get("totalUsageLimit"))
        if used is not None and limit is not None:
            return {"used": used, "limit": limit, "unit": "requests", "resets_at": resets}
    return None


def _found(models: int, quota: Mapping[str, Any] | None) -> str:
    used = f" {quota['used']:g} of {quota['limit']:g} {quota['unit']} used." if quota else ""
    return f"The account works; {models} models.{used}"


def _parsed(data: bytes) -> Mapping[str, Any]:
    try:
        body = jsons.loads(data)
    except jsons.JsonError:
        return {}
    return body if isinstance(body, dict) else {}


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _number(*values: Any) -> float | None:
    """The first of them that is a number."""
    return next((float(v) for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)), None)


def _as_failure(error: Exception) -> Failure:
    return error if isinstance(error, Failure) else broken(f"upstream sent a broken event stream: {error}")


UPSTREAM = AmazonQ()
