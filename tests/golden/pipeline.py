"""One exchange through the pure parts, as the gateway joins them: no sockets, no accounts, no retries."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from opus_api.dialects import DIALECTS
from opus_api.upstreams import UPSTREAMS
from opus_api.upstreams.base import Credentials, Failure, Relayed
from opus_api.upstreams.failures import broken
from opus_api.wire.errors import ApiError
from opus_api.wire.http import HttpRequest, HttpResponse
from opus_api.wire.messages import Folder, FoldError
from opus_api.wire.request import Call

BASE_URL = "https://upstream.test/v1"
CONTENT = ("content_block_start", "content_block_delta", "message_delta")


@dataclass(frozen=True)
class Exchange:
    """Who talks to whom."""

    dialect: str = "anthropic"
    provider: str = "openai"
    model: str = "upstream-model"
    options: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    estimate: int = 10

    @property
    def credentials(self) -> Credentials:
        defaults = {option.name: option.default for option in UPSTREAMS[self.provider].options}
        return Credentials("sk-of-the-account", BASE_URL, {**defaults, **self.options}, "token-of-the-account")

    @property
    def verbatim(self) -> bool:
        return UPSTREAMS[self.provider].native == self.dialect

    def parse(self, body: dict[str, Any]) -> Call:
        """Raises ApiError."""
        return replace(DIALECTS[self.dialect].parse(body, self.headers), input_estimate=self.estimate)

    def request(self, call: Call) -> HttpRequest:
        """Raises ApiError."""
        return UPSTREAMS[self.provider].request(call, self.model, self.credentials, self.verbatim)


@dataclass
class Answer:
    """What the client gets."""

    status: int
    body: bytes


def answer(exchange: Exchange, call: Call, chunks: Iterable[bytes], status: int = 200) -> Answer:
    """The client's answer to what an upstream sent, in the chunks in which it arrived."""
    out = bytearray()
    held = bytearray()
    committed = False
    try:
        if status != 200:
            raise UPSTREAMS[exchange.provider].failure(HttpResponse(status, {}, b"".join(chunks)), exchange.credentials)
        for data, events in _pieces(exchange, call, iter(chunks)):
            held += data
            committed = committed or any(event["type"] in CONTENT for event in events)
            if committed:
                out += held
                held.clear()
    except Failure as failure:
        return _failed(exchange, call, failure, bytes(out))
    return Answer(200, bytes(out))


def _pieces(exchange: Exchange, call: Call, chunks: Iterator[bytes]) -> Iterator[Relayed]:
    upstream, dialect = UPSTREAMS[exchange.provider], DIALECTS[exchange.dialect]
    if exchange.verbatim:
        yield from upstream.verbatim(call, chunks, exchange.credentials)
        return
    batches = upstream.events(call, chunks, exchange.credentials)
    if call.stream:
        encoder = dialect.Encoder(call)
        for events in batches:
            yield encoder.encode(events), events
        return
    folder = Folder()
    try:
        for events in batches:
            for event in events:
                folder.feed(event)
        message = {**folder.message(), "model": call.model}
    except FoldError as error:
        raise broken(str(error)) from None
    yield dialect.render(call, message), [{"type": "message_delta"}]


def _failed(exchange: Exchange, call: Call, failure: Failure, sent: bytes) -> Answer:
    dialect = DIALECTS[exchange.dialect]
    error = ApiError(failure.status, failure.type, failure.message, details=failure.details)
    if sent and call.stream:
        return Answer(200, sent + dialect.error_event(error, "req_1"))
    return Answer(dialect.status(error), dialect.error_body(error, "req_1"))


def cut(data: bytes, size: int) -> list[bytes]:
    """``data`` in pieces of ``size`` bytes; 0: in one. Silence comes first, as it does in the service."""
    size = size or len(data) or 1
    return [b"", *(data[start : start + size] for start in range(0, len(data), size))]
