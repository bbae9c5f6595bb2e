"""The Anthropic Messages dialect: what Claude Code, the anthropic SDKs and curl speak. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from opus_api.dialects.anthropic_checks import OLDEST_VERSION, check_body, check_budget
from opus_api.wire import jsons
from opus_api.wire.checks import required
from opus_api.wire.errors import ApiError, InvalidRequest
from opus_api.wire.messages import Event, Message
from opus_api.wire.request import Body, Call

NAME = "anthropic"
STREAM_TYPE = "text/event-stream; charset=utf-8"


def parse(body: Body, headers: Mapping[str, str]) -> Call:
    """A checked ``POST /v1/messages`` body. ``headers``: lower-case names. Raises InvalidRequest naming the field."""
    check_body(body, version(headers))
    if required(body, "max_tokens", int) < 0:
        raise InvalidRequest("max_tokens: Input should be greater than or equal to 0")
    if body["max_tokens"] == 0 and body.get("stream"):
        raise InvalidRequest("max_tokens: 0 (cache pre-warming) cannot be streamed")
    check_budget(body, headers.get("anthropic-beta", ""))
    return _call(body, headers, bool(body.get("stream")))


def parse_count(body: Body, headers: Mapping[str, str]) -> Call:
    """A checked ``POST /v1/messages/count_tokens`` body. Raises InvalidRequest."""
    check_body(body, version(headers))
    return _call(body, headers, False)


def _call(body: Body, headers: Mapping[str, str], stream: bool) -> Call:
    kept = {name: value for name, value in headers.items() if name.startswith("anthropic-")}
    return Call(NAME, body["model"], stream, body, lambda call: call.body, kept)


def version(headers: Mapping[str, str]) -> str:
    """``anthropic-version``; a missing one is the oldest. Raises InvalidRequest when it is no date."""
    value = headers.get("anthropic-version", OLDEST_VERSION).strip()
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value, re.ASCII):
        raise InvalidRequest("anthropic-version: Input should be a date such as 2023-06-01")
    return value


def encode(event: Event) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), jsons.dumps(event))


PING = encode({"type": "ping"})


class Encoder:
    """Lists of events to bytes, one piece per list."""

    def __init__(self, call: Call) -> None:
        pass

    def encode(self, events: Iterable[Event]) -> bytes:
        return b"".join([encode(event) for event in events])


def render(call: Call, message: Message) -> bytes:
    return jsons.dumps(message)


def error_body(error: ApiError, request_id: str) -> bytes:
    return jsons.dumps(_error(error, request_id))


def error_event(error: ApiError, request_id: str) -> bytes:
    """The last event of a stream that failed after its first byte."""
    return encode(_error(error, request_id))


def _error(error: ApiError, request_id: str) -> dict[str, Any]:
    kind = "rate_limit_error" if error.status == 429 else error.type  # also of spent credit: only OpenAI tells the two
    detail: dict[str, Any] = {"type": kind, "message": error.message}
    if error.details:
        detail["details"] = error.details
    return {"type": "error", "error": detail, "request_id": request_id}


def status(error: ApiError) -> int:
    return error.status
