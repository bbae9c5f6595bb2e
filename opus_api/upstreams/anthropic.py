"""Anthropic's own API, and servers that speak it. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from opus_api.upstreams import anthropic_request, bodies
from opus_api.upstreams.base import Credentials, Failure, Field, Option, Probe, Relayed, Verdict
from opus_api.upstreams.failures import broken, details_of, failure_in, judge, message_of
from opus_api.upstreams.models_list import read_models
from opus_api.wire import sse
from opus_api.wire.events import EventError, checked, checked_message
from opus_api.wire.http import Flow, HttpRequest, HttpResponse
from opus_api.wire.messages import Event, unfold
from opus_api.wire.request import Body, Call

VERSION = "2023-06-01"

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
        body: Body = anthropic_request.fit(call, {**call.canonical(), "model": model})
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
        if first == b"{":  # a server that ignores "stream", or an error
            yield unfold(reader.message((yield from bodies.whole(body))))
            return
        for batch in bodies.events(body):
            events: list[Event] = []
            try:
                for _, data in batch:
                    events.append(reader.event(data))
            except Failure:
                yield events  # what came before it in the same read
                raise
            yield events
        reader.close()

    def verbatim(self, call: Call, body: Iterator[bytes], credentials: Credentials) -> Iterator[Relayed]:
        first, body = yield from bodies.relayed(bodies.begin(body))
        reader = EventReader(credentials)
        if first != b"{":
            yield from bodies.relay(body, reader, call.stream)
            return
        data = yield from bodies.relayed(bodies.whole(body))
        events = unfold(reader.message(data))
        yield _encoded(events) if call.stream else data, events

    # ---- judging

    def failure(self, response: HttpResponse, credentials: Credentials) -> Failure:
        failure = judge(response.status, message_of(response), response.headers, credentials)
        failure.details = details_of(response, credentials)
        if failure.verdict is Verdict.RATE and failure.retry_after is None:  # a monthly spend cap: an hour, then longer
            failure.verdict, failure.type = Verdict.QUOTA, "billing_error"
        return failure

    def probe(self, credentials: Credentials) -> Flow[Probe]:
        url = f"{credentials.base_url}/v1/models?limit=1000"
        headers = {"x-api-key": credentials.api_key, "anthropic-version": VERSION, "accept": "application/json"}
        response = yield HttpRequest("GET", url, headers)
        return read_models(response, self.failure(response, credentials), url)

    def own_name(self, name: str) -> str:
        return name


def _encoded(events: list[Event]) -> bytes:
    return b"".join([sse.encode(event["type"], bodies.written(event)) for event in events])


AFTER_START = ("content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop")


class EventReader:
    """Reads Anthropic events along: all until the first content, then only what may hold usage, an error, the end."""

    NOTABLE = re.compile(rb'"usage"|"error"|message_(?:delta|stop)')

    def __init__(self, credentials: Credentials):
        self._credentials = credentials
        self._began = self._content = self._told_why = self._ended = False

    def wants(self, data: bytes) -> bool:
        return not self._content or bool(self.NOTABLE.search(data)) or bodies.looks_broken(data)

    def event(self, data: bytes) -> Event:
        """One checked event. Raises Failure for an error, whether it has its event name or not."""
        event = bodies.parsed(data)
        try:
            kind = checked(event)["type"]
        except EventError as error:
            raise failure_in(event, self._credentials) or broken(f"upstream sent a {error}") from None
        if kind == "error":
            raise failure_in(event, self._credentials) or broken("upstream sent an error")
        self._note(kind)
        return event  # type: ignore[no-any-return] # checked

    def _note(self, kind: str) -> None:
        if kind == "message_start":
            self._began = True
        elif not self._began and kind in AFTER_START:
            raise broken(f"upstream sent {kind} before message_start")
        elif kind == "message_delta":
            self._told_why = True
        elif kind == "message_stop":
            if not self._told_why:
                raise broken(bodies.EARLY)
            self._ended = True
        elif kind.startswith("content_block"):
            self._content = True

    def message(self, data: bytes) -> dict[str, Any]:
        """The whole answer, where no stream came. Raises Failure."""
        message = bodies.parsed(data)
        try:
            return checked_message(message)
        except EventError as error:
            raise failure_in(message, self._credentials) or broken(f"upstream sent a {error}") from None

    def read(self, name: bytes, data: bytes, facts: list[Event]) -> bool:
        facts.append(self.event(data))
        return True

    def close(self) -> Relayed:
        if not self._ended:
            raise broken(bodies.EARLY)
        return b"", []


UPSTREAM = Anthropic()
