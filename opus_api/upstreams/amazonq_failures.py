"""What Amazon Q refuses and how: names, reasons and messages of its errors to a Failure. Pure.

The same errors come as an HTTP answer, as a message of type ``exception`` inside a stream, and in JSON with status 200.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from opus_api.upstreams.base import Credentials, Failure, Verdict
from opus_api.upstreams.failures import cooldown, judge, request_id, scrub
from opus_api.wire import jsons
from opus_api.wire.eventstream import StreamMessage
from opus_api.wire.http import HttpResponse

TOO_LONG = "prompt is too long: the conversation exceeds what this upstream accepts"  # Claude Code compacts at it
CAPACITY_WAIT = 45.0  # seconds a model of an account rests that had no capacity
LONGEST_QUOTA = 40 * 86_400.0

# Stem of an error's name -> the HTTP status it stands for, where it came without one.
STATUS_OF_NAME: Mapping[str, int] = {
    "validation": 400,
    "accessdenied": 403,
    "throttling": 429,
    "servicequotaexceeded": 402,
    "conflict": 409,
    "resourcenotfound": 404,
    "serviceunavailable": 503,
    "internalserver": 500,
    "expiredtoken": 401,
    "unrecognizedclient": 401,
}
# What else the service calls an account that is set up in the wrong way.
MISCONFIGURED = re.compile(r"profileArn is required|provided credential is invalid", re.I)
EXPIRED = re.compile(r"bearer token included in the request is (invalid|expired)|token (has|is) expired", re.I)
UNAVAILABLE = re.compile(
    r"not authorized to access this feature|not supported for this operation|\bFEATURE_NOT_SUPPORTED\b|"
    r"\bUNAUTHORIZED_\w+",
    re.I,
)
SUSPENDED = re.compile(r"TEMPORARILY_SUSPENDED|temporarily is suspended|is temporarily suspended", re.I)
BUSY = re.compile(r"unexpectedly high load|MODEL_TEMPORARILY_UNAVAILABLE|temporarily unavailable", re.I)
WRONG_MODEL = ("INVALID_MODEL_ID", "INVALID_CONVERSATION_ID", "INVALID_KMS_GRANT")
MONTHLY = ("MONTHLY_REQUEST_COUNT", "OVERAGE_REQUEST_LIMIT_EXCEEDED", "CONVERSATION_LIMIT_EXCEEDED")


@dataclass(frozen=True, slots=True)
class Said:
    """An error in the service's words. ``name`` is a stem: lower case, without namespace, Exception and Error."""

    status: int
    name: str
    reason: str
    message: str

    def tells(self, pattern: re.Pattern[str]) -> bool:
        return bool(pattern.search(self.reason) or pattern.search(self.message))


def of_response(response: HttpResponse, credentials: Credentials) -> Failure:
    """Judge an HTTP answer that is not a success."""
    body = _object(response.body)
    named = response.headers.get("x-amzn-errortype") or body.get("code") or body.get("__type")
    said = _said(response.status, named, body)
    failure = _judged(said, response.headers, credentials)
    failure.upstream_request_id = request_id(response.headers)
    failure.upstream_status = response.status
    return failure


def of_message(message: StreamMessage, credentials: Credentials) -> Failure:
    """Judge a message of a stream that is an exception or an error."""
    headers = message.headers
    if headers.get(":message-type") == "error":
        body: Mapping[str, Any] = {"message": headers.get(":error-message")}
        return _judged(_said(0, headers.get(":error-code"), body), {}, credentials)
    return _judged(_said(0, headers.get(":exception-type"), _object(message.payload)), {}, credentials)


def of_json(data: bytes, credentials: Credentials) -> Failure:
    """Judge JSON where a stream was to be."""
    body = _object(data)
    return _judged(_said(0, body.get("code") or body.get("__type"), body), {}, credentials)


def stem(name: Any) -> str:
    """``com.amazon.aws.codewhisperer#ThrottlingException`` or ``ThrottlingException:http://…`` -> ``throttling``."""
    text = name if isinstance(name, str) else ""
    return re.sub(r"(exception|error)$", "", text.partition(":")[0].rpartition("#")[2].strip().lower())


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        body = jsons.loads(data)
    except jsons.JsonError:
        return {}
    return body if isinstance(body, dict) else {}


def _said(status: int, name: Any, body: Mapping[str, Any]) -> Said:
    texts = (body.get(key) for key in ("message", "Message", "errorMessage"))
    message = next((text for text in texts if isinstance(text, str) and text), f"upstream answered {status}")
    reason = body["reason"] if isinstance(body.get("reason"), str) else ""
    found = stem(name)
    return Said(status or STATUS_OF_NAME.get(found, 500), found, reason, message)


def _judged(said: Said, headers: Mapping[str, str], credentials: Credentials) -> Failure:
    found = _by_reason(said, credentials)
    if found is None:
        return judge(said.status if said.status in (413, 429) else _status(said), said.message, headers, credentials)
    found.message = scrub(found.message, credentials)
    if found.retry_after is None and found.verdict in (Verdict.RATE, Verdict.TRANSIENT):
        found.retry_after = cooldown(headers)
    return found


def _status(said: Said) -> int:
    """For errors that no rule of ours knows: what is wrong with the account counts as a refused credential."""
    if said.name in ("conflict", "resourcenotfound"):
        return 403
    return said.status


def _by_reason(said: Said, credentials: Credentials) -> Failure | None:
    """The rules, in the order in which they win; None when none fits."""
    message = said.message
    if said.reason == "CONTENT_LENGTH_EXCEEDS_THRESHOLD" or message == "Input is too long.":
        return Failure(Verdict.CLIENT, 400, "invalid_request_error", TOO_LONG)
    if said.reason in WRONG_MODEL:
        return Failure(Verdict.NO_MODEL, 404, "not_found_error", message)
    if said.reason == "INSUFFICIENT_MODEL_CAPACITY":
        return Failure(Verdict.RATE, 429, "rate_limit_error", message, CAPACITY_WAIT, model_only=True)
    if said.reason == "DAILY_REQUEST_COUNT":
        return _spent(message, _seconds_until(_midnight(_now() + timedelta(days=1))))
    if said.reason in MONTHLY or said.name == "servicequotaexceeded":
        return _spent(message, _until_reset(credentials))
    if said.tells(SUSPENDED):
        return Failure(Verdict.SUSPENDED, 529, "overloaded_error", "suspended")
    if said.status in (401, 403) and (said.tells(EXPIRED) or said.name in ("expiredtoken", "unrecognizedclient")):
        return Failure(Verdict.EXPIRED, 529, "overloaded_error", message)
    if said.status == 403 and said.tells(UNAVAILABLE):
        return Failure(Verdict.NO_MODEL, 403, "permission_error", message)
    if said.tells(MISCONFIGURED):
        return Failure(Verdict.AUTH, 529, "overloaded_error", message)
    if said.tells(BUSY) or said.name == "serviceunavailable":
        return Failure(Verdict.TRANSIENT, 502, "api_error", message)
    return None


# ---- when a quota comes back


def _spent(message: str, seconds: float) -> Failure:
    return Failure(Verdict.QUOTA, 429, "rate_limit_error", message, min(max(seconds, 60.0), LONGEST_QUOTA))


def _until_reset(credentials: Credentials) -> float:
    """As GetUsageLimits said when it was last asked, else the first of the next month."""
    known = credentials.oidc.get("quota_resets_at")
    if isinstance(known, (int, float)) and known > time.time():
        return known - time.time()
    return _seconds_until(_midnight((_now().replace(day=1) + timedelta(days=32)).replace(day=1)))


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _seconds_until(moment: datetime) -> float:
    return moment.timestamp() - time.time()
