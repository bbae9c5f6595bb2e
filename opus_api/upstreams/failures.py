"""Judging what an upstream refused: from a status, headers and a body to a Failure. Pure."""

import datetime
import email.utils
import re
import time
from collections.abc import Mapping
from typing import Any

from opus_api.upstreams.base import Credentials, Failure, Verdict
from opus_api.wire import jsons
from opus_api.wire.http import HttpResponse

# status -> (verdict, the status and type that a client sees when nobody else can serve it)
BY_STATUS: Mapping[int, tuple[Verdict, int, str]] = {
    400: (Verdict.CLIENT, 400, "invalid_request_error"),
    401: (Verdict.AUTH, 529, "overloaded_error"),
    402: (Verdict.QUOTA, 429, "billing_error"),
    403: (Verdict.AUTH, 529, "overloaded_error"),
    404: (Verdict.NO_MODEL, 404, "not_found_error"),
    408: (Verdict.TRANSIENT, 504, "timeout_error"),
    409: (Verdict.TRANSIENT, 502, "api_error"),
    413: (Verdict.CLIENT, 413, "request_too_large"),
    422: (Verdict.CLIENT, 400, "invalid_request_error"),
    429: (Verdict.RATE, 429, "rate_limit_error"),
    504: (Verdict.TRANSIENT, 504, "timeout_error"),
    529: (Verdict.OVERLOADED, 529, "overloaded_error"),
}

# error types in a body that came with 200 or inside a stream -> the status they stand for
STATUS_OF_TYPE: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "billing_error": 402,
    "insufficient_quota": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}

SPENT = re.compile(
    r"insufficient[_ ]quota|insufficient[_ ]balance|credit balance|out of credits|exceeded your current quota", re.I
)
# Anthropic says so with 400. Only at the start: a 400 may quote what the client sent.
SPENT_400 = re.compile(r"(your )?credit balance is too low", re.I)
# The numbers in what OpenAI, vLLM and others say of a context that is too small.
CONTEXT = re.compile(r"maximum context length is (\d{1,12}) tokens", re.I)
REQUESTED = re.compile(
    r"(?:requested|resulted in|has|contains) (?:about |at least )?(\d{1,12}) (?:input )?tokens", re.I
)
PROMPT = re.compile(r"(\d{1,12}) (?:tokens )?in the (?:messages|input|prompt)|has (\d{1,12}) input tokens", re.I)
ANSWER = re.compile(r"(\d{1,12}) (?:tokens )?(?:in|for) the (?:completion|output)|is too large: (\d{1,12})", re.I)
LONGEST_MESSAGE = 2000
# Verdicts that heal with time, which the upstream may tell.
TIMED = (Verdict.RATE, Verdict.QUOTA, Verdict.OVERLOADED, Verdict.TRANSIENT)


def judge(
    status: int, message: str, headers: Mapping[str, str], credentials: Credentials, now: float | None = None
) -> Failure:
    """The Failure of one refusal; ``message`` is the upstream's, cleaned here of what clients must not see."""
    if (status == 429 and SPENT.search(message)) or (status == 400 and SPENT_400.match(message)):
        status = 402
    verdict, seen, type_ = BY_STATUS.get(status) or _by_range(status)
    text = scrub(message, credentials)
    if verdict is Verdict.CLIENT:
        text = overlong(text)
    retry_after = cooldown(headers, now) if verdict in TIMED else None
    return Failure(
        verdict, seen, type_, text, retry_after, upstream_status=status, upstream_request_id=request_id(headers)
    )


def request_id(headers: Mapping[str, str]) -> str:
    """The upstream's own name for a request, which its support asks for."""
    names = ("request-id", "x-request-id", "x-amzn-requestid")
    return next((headers[name] for name in names if headers.get(name)), "")[:100]


def _by_range(status: int) -> tuple[Verdict, int, str]:
    if 400 <= status < 500:
        return Verdict.CLIENT, 400, "invalid_request_error"
    return Verdict.TRANSIENT, 502, "api_error"


def broken(message: str, status: int = 502, type_: str = "api_error") -> Failure:
    """An answer that is none: cut, stalled, not JSON, not the format."""
    return Failure(Verdict.TRANSIENT, status, type_, message)


def failure_in(body: Any, credentials: Credentials) -> Failure | None:
    """The failure that came with 200, as a JSON answer or inside a stream; None when ``body`` tells of none."""
    found = error_in(body)
    if found is None:
        return None
    failure = judge(found[1] or 502, found[0], {}, credentials)
    failure.details = details_in(body, credentials)
    return failure


def details_in(body: Any, credentials: Credentials) -> Mapping[str, Any] | None:
    """``error.details`` of an Anthropic error, scrubbed; None when there are none or more than a message may hold."""
    error = body.get("error") if isinstance(body, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    if not isinstance(details, dict):
        return None
    try:
        return dict(jsons.loads(scrub(jsons.compact(details), credentials)))
    except jsons.JsonError:
        return None


def details_of(response: HttpResponse, credentials: Credentials) -> Mapping[str, Any] | None:
    """The same of a whole refusal."""
    return details_in(_json_of(response), credentials)


def _json_of(response: HttpResponse) -> Any:
    """The body, None when it is no JSON. Gemini's OpenAI endpoint wraps its error in a list."""
    try:
        body = jsons.loads(response.body)
    except jsons.JsonError:
        return None
    return body[0] if isinstance(body, list) and body else body


def error_in(body: Any) -> tuple[str, int | None] | None:
    """(message, status) of an error in JSON, None when there is none.

    Shapes seen: ``{"error": {…}}`` (OpenAI, Anthropic, Groq with status_code, OpenRouter with a numeric code),
    ``{"error": "text"}`` (Ollama), ``{"object": "error", "message": …}`` (vLLM).
    """
    if not isinstance(body, dict):
        return None
    is_error = body.get("object") == "error" or body.get("type") == "error"
    error = body.get("error") or (body if is_error else None)
    if isinstance(error, str):
        return error, None
    if not isinstance(error, dict):
        return ("unknown error", None) if error is not None else None
    message = error.get("message") or body.get("message") or error.get("type") or "unknown error"
    return _said(message), _status_in(error)


def _said(message: Any) -> str:
    """As text: FastAPI's servers (vLLM, Mistral) list what is wrong with which field."""
    if isinstance(message, str):
        return message
    if isinstance(message, dict) and "detail" in message:
        message = message["detail"]
    if isinstance(message, list) and message and all(isinstance(item, dict) and "msg" in item for item in message):
        return "; ".join(map(_said_of_field, message))
    try:
        return jsons.compact(message)
    except jsons.JsonError:
        return "unknown error"


def _said_of_field(item: Mapping[str, Any]) -> str:
    at = item.get("loc")
    path = ".".join(str(step) for step in at if step != "body") if isinstance(at, list) else ""
    return f"{path}: {item['msg']}" if path else str(item["msg"])


def _status_in(error: Mapping[str, Any]) -> int | None:
    for name in ("status_code", "code", "status"):
        if _is_status(error.get(name)):
            return int(error[name])
    # OpenAI's code says more than its type: an unknown key is an invalid_request_error of the code invalid_api_key.
    words = (word for word in (error.get("code"), error.get("type")) if isinstance(word, str))
    return next((STATUS_OF_TYPE[word] for word in words if word in STATUS_OF_TYPE), None)


def _is_status(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600) or (
        isinstance(value, str) and bool(re.fullmatch(r"[45]\d\d", value))
    )


def message_of(response: HttpResponse) -> str:
    """What a refusal says, from any of the shapes seen: nested error, detail, message, plain text; never HTML."""
    body = _json_of(response)
    if body is None:
        text = response.body.decode("utf-8", "replace").strip()
        return text[:LONGEST_MESSAGE] if text and text != "null" and not text.startswith("<") else _wordless(response)
    if found := error_in(body):
        return found[0]
    told = (body.get("detail") or body.get("message")) if isinstance(body, dict) else None
    return _said(told) if told else _wordless(response)


def _wordless(response: HttpResponse) -> str:
    return f"upstream answered {response.status}"


LONGEST_WORD = 100  # of what names a field or a kind of error


def words_of(response: HttpResponse, credentials: Credentials) -> dict[str, str]:
    """``message``, ``param`` and ``code`` of OpenAI's error, those that are text, scrubbed."""
    body = _json_of(response)
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return {}
    words = {"message": message_of(response)} | {name: error.get(name) for name in ("param", "code")}
    found = {name: scrub(word, credentials) for name, word in words.items() if isinstance(word, str) and word}
    return {name: word for name, word in found.items() if name == "message" or len(word) <= LONGEST_WORD}


def scrub(message: str, credentials: Credentials) -> str:
    """Without the credential and the address of the account."""
    for secret, stand_in in (
        (credentials.api_key, "***"),
        (credentials.access_token, "***"),
        (credentials.base_url, "upstream"),
    ):
        if secret:
            message = message.replace(secret, stand_in)
    message = re.sub(r"\bsk-[A-Za-z0-9_*.-]{6,}", "sk-***", message)
    return message[:LONGEST_MESSAGE]


def overlong(message: str) -> str:
    """Context overflow in Anthropic's words: at the first of them Claude Code compacts the conversation, at the second
    it asks again with a smaller max_tokens. Compacting is no cure where the conversation fills less than half."""
    limit, prompt, answer = (_first_number(pattern, message) for pattern in (CONTEXT, PROMPT, ANSWER))
    requested = _first_number(REQUESTED, message)
    if limit and requested and requested > limit and not (prompt and prompt * 2 < limit):
        return f"prompt is too long: {requested} tokens > {limit} maximum"
    if limit and prompt and answer:
        return (
            f"input length and `max_tokens` exceed context limit: {prompt} + {answer} > {limit}, decrease input length "
            "or `max_tokens` and try again"
        )
    return message


def _first_number(pattern: re.Pattern[str], message: str) -> int | None:
    found = pattern.search(message)
    return int(next(group for group in found.groups() if group)) if found else None


def cooldown(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds until the upstream wants to be asked again, from 1 s to 24 h; None when it does not say."""
    now = time.time() if now is None else now
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None and milliseconds >= 0:
        return _clamped(milliseconds / 1000)
    if (seconds := _moment(headers.get("retry-after", ""), now)) is not None:
        return _clamped(seconds)
    waits = [
        seconds
        for name, value in headers.items()
        if name.startswith(("x-ratelimit-reset", "anthropic-ratelimit-"))
        and "reset" in name
        and _is_exhausted(name, headers)
        if (seconds := _moment(value, now)) is not None
    ]
    return _clamped(max(waits)) if waits else None


def _is_exhausted(name: str, headers: Mapping[str, str]) -> bool:
    """A reset counts only for the bucket that is empty, where the upstream says which one is."""
    remaining = headers.get(name.replace("reset", "remaining"), "0")
    return any(number.strip() in ("0", "0.0") for number in remaining.split(","))


def _clamped(seconds: float) -> float:
    return min(max(seconds, 1.0), 86_400.0)


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\s*\d+(\.\d+)?\s*", text) else None


# As Go prints a duration, the micro sign in both of its code points, and days.
UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
DURATION = re.compile(rf"(\d+(?:\.\d+)?)({'|'.join(UNITS)})")


def _moment(text: str, now: float) -> float | None:
    """Seconds from now. Of a header that came several times, a proxy's beside the server's, the longest; a date has a
    comma, too, before which there is only the name of a day."""
    found = [seconds for part in text.split(",") if (seconds := _seconds(part, now)) is not None]
    return max(found) if found else None


def _seconds(text: str, now: float) -> float | None:
    """Of a number (by size: seconds, epoch, epoch in ms), a duration (6m0s, 120ms) or a date."""
    number = _number(text)
    if number is not None:
        return number / 1000 - now if number > 1e12 else number - now if number > 1e9 else number
    parts = DURATION.findall(text)
    if parts and "".join(a + b for a, b in parts) == text.strip():
        return sum(float(amount) * UNITS[unit] for amount, unit in parts)
    return _date(text, now)


def _date(text: str, now: float) -> float | None:
    for read in (datetime.datetime.fromisoformat, email.utils.parsedate_to_datetime):
        try:
            moment = read(text.strip())
            return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp() - now
        except (ValueError, TypeError, OverflowError, OSError):
            continue
    return None


SNAPSHOT = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})$")


def names_model(message: str, model: str) -> bool:
    """A refusal speaks of this model, not of all the account may use: "Rate limit reached for gpt-4o in …".

    Vendors name an alias where a dated snapshot was asked for, and the other way round.
    """
    name = re.escape(SNAPSHOT.sub("", model))
    dated = r"(-\d{8}|-\d{4}-\d{2}-\d{2})?"
    return bool(model) and bool(re.search(rf"(?<![\w./-]){name}{dated}(?![\w/-]|\.\w)", message, re.I))
