"""Anthropic's own API, and servers that speak it. upstreams.md 4.2. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from opus_api.upstreams import bodies
from opus_api.upstreams.base import Credentials, Failure, Field, Option, Probe, Relayed, Verdict
from opus_api.upstreams.chat_request import without_unsigned_thinking
from opus_api.upstreams.failures import broken, error_in, judge, message_of
from opus_api.upstreams.openai_compatible import read_models
from opus_api.wire import sse
from opus_api.wire.http import Flow, HttpRequest, HttpResponse
from opus_api.wire.messages import Event
from opus_api.wire.request import Body, Call

VERSION = "2023-06-01"
# A 429 without retry-after is the monthly spend cap: asking again soon is useless (upstreams.md 4.2).
SPEND_CAP_WAIT = 3600.0

# Documented names -> Anthropic's (M9)
MODEL_NAMES = {
    "claude-4.5-opus-high": "claude-opus-4-5",
    "claude-4.5-opus-low": "claude-opus-4-5",
    "claude-sonnet-4.5": "claude-sonnet-4-5",
    "claude-sonnet-3.5": "claude-3-5-sonnet-20241022",
    "claude-opus-4-20250514": "claude-opus-4-20250514",
    "claude-sonnet-4-20250514": "claude-sonnet-4-20250514",
    "claude-haiku-4-20250514": "claude-haiku-4-5",
    "claude-3-opus-20240229": "claude-3-opus-20240229",
}
EFFORT = {"claude-4.5-opus-high": "high", "claude-4.5-opus-low": "low"}


@dataclass(eq=False)
class Anthropic:
    name: str = "anthropic"
    label: str = "Anthropic"
    native: str = "anthropic"
    default_base_url: str = "https://api.anthropic.com"
    fields: tuple[Field, ...] = (
        Field(
            "api_key", "API key", required=True, secret=True, help="From the Claude Console; begins with sk-ant-api."
        ),
        Field("base_url", "Base URL", default="https://api.anthropic.com", help="Without /v1."),
    )
    options: tuple[Option, ...] = ()
    terms: str = (
        "API keys only: tokens of a Claude subscription are not accepted, its terms allow them in Anthropic's own apps."
    )
    model_names: Mapping[str, str] = field(default_factory=lambda: MODEL_NAMES)

    # ---- asking

    def request(self, call: Call, model: str, credentials: Credentials, verbatim: bool) -> HttpRequest:
        body: Body = {**call.canonical(), "model": model}
        body["messages"] = without_unsigned_thinking(body["messages"])
        if call.model in EFFORT:
            body["output_config"] = {"effort": EFFORT[call.model], **(body.get("output_config") or {})}
        if not verbatim:
            body["stream"] = True
        headers = {"content-type": "application/json", "anthropic-version": VERSION, **call.headers}
        headers |= {
            "x-api-key": credentials.api_key,
            "accept": "text/event-stream" if body.get("stream") else "application/json",
        }
        return HttpRequest("POST", f"{credentials.base_url}/v1/messages", headers, bodies.encoded(body))

    # ---- reading

    def events(self, call: Call, body: Iterator[bytes], credentials: Credentials) -> Iterator[list[Event]]:
        first, body = yield from bodies.begin(body)
        reader = EventReader(credentials)
        if first == b"{":
            reader.read(
                b"", (yield from bodies.whole(body)), []
            )  # an error, else a message where a stream was asked for
            raise broken("upstream sent no stream")
        for batch in sse.decode(body):
            facts: list[Event] = []
            for name, data in batch:
                facts.append(reader.event(name, data))
            yield facts
        reader.close()

    def verbatim(self, call: Call, body: Iterator[bytes], credentials: Credentials) -> Iterator[Relayed]:
        first, body = yield from bodies.relayed(bodies.begin(body))
        reader = EventReader(credentials)
        if first == b"{":
            data = yield from bodies.relayed(bodies.whole(body))
            yield data, _facts_of_message(reader.event(b"", data))
        else:
            yield from bodies.relay(body, reader)

    # ---- judging

    def failure(self, response: HttpResponse, credentials: Credentials) -> Failure:
        failure = judge(response.status, message_of(response), response.headers, credentials)
        if failure.verdict is Verdict.RATE and failure.retry_after is None:
            failure.verdict, failure.retry_after = Verdict.QUOTA, SPEND_CAP_WAIT
        return failure

    def probe(self, credentials: Credentials) -> Flow[Probe]:
        url = f"{credentials.base_url}/v1/models?limit=1000"
        headers = {"x-api-key": credentials.api_key, "anthropic-version": VERSION, "accept": "application/json"}
        response = yield HttpRequest("GET", url, headers)
        return read_models(response, self.failure(response, credentials), url)


class EventReader:
    """Reads Anthropic events along: all until the first content, then only what may carry usage, an error or the end."""

    NOTABLE = re.compile(rb'"usage"|"error"|message_stop')

    def __init__(self, credentials: Credentials):
        self._credentials = credentials
        self._content = False
        self._ended = False

    def wants(self, data: bytes) -> bool:
        return not self._content or bool(self.NOTABLE.search(data))

    def event(self, name: bytes, data: bytes) -> Event:
        """Raises Failure for an error, whether it has its event name or not."""
        event = bodies.parsed(data)
        if not isinstance(event, dict):
            raise broken("upstream sent invalid JSON")
        kind = event.get("type")
        if kind in ("error", None) and (found := error_in(event)):
            raise judge(found[2] or 502, found[1], {}, self._credentials)
        if not isinstance(kind, str):
            raise broken("upstream sent an event without a type")
        self._content = self._content or kind.startswith("content_block")
        self._ended = self._ended or kind == "message_stop"
        return event

    def read(self, name: bytes, data: bytes, facts: list[Event]) -> bool:
        facts.append(self.event(name, data))
        return True

    def close(self) -> None:
        if not self._ended:
            raise broken(bodies.EARLY)


def _facts_of_message(message: Mapping[str, Any]) -> list[Event]:
    if message.get("type") != "message":
        raise broken("upstream sent no message")
    return [
        {"type": "content_block_start"},
        {"type": "message_delta", "delta": {}, "usage": message.get("usage") or {}},
        {"type": "message_stop"},
    ]


UPSTREAM = Anthropic()
