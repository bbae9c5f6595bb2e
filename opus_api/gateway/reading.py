"""From what one exchange with an upstream brings to what the client gets: verbatim, encoded anew, or folded."""

from collections.abc import Iterator
from typing import Any

from opus_api.dialects import DIALECTS
from opus_api.upstreams.base import Credentials, Failure, Relayed, Upstream
from opus_api.upstreams.failures import broken
from opus_api.wire.messages import Event, Folder, FoldError, Message
from opus_api.wire.request import Call

USAGE_WAIT = 3.0  # seconds an upstream gets to tell its usage after it said why the answer ends


def read(upstream: Upstream, call: Call, exchange: Any, credentials: Credentials, verbatim: bool) -> Iterator[Relayed]:
    """The answer in an exchange that has its headers. Raises Failure, ClientGone."""
    call.said_all = False
    if verbatim:
        pieces = _to_the_end(call, exchange, upstream.verbatim(call, exchange.chunks(), credentials))
        return pieces if call.stream else _joined(pieces)
    events = ((b"", batch) for batch in upstream.events(call, exchange.chunks(), credentials))
    batches = (batch for _, batch in _to_the_end(call, exchange, events))
    return _encoded(call, batches) if call.stream else _folded(call, batches)


def _encoded(call: Call, batches: Iterator[list[Event]]) -> Iterator[Relayed]:
    encode = DIALECTS[call.dialect].Encoder(call).encode
    for events in batches:
        yield (encode(events) if events else b""), events


def _folded(call: Call, batches: Iterator[list[Event]]) -> Iterator[Relayed]:
    """A client without streaming: the message that the events spell out. Raises Failure."""
    folder = Folder()
    try:
        for events in batches:
            for event in events:
                folder.feed(event)
            yield b"", []
        message = folder.message()
    except FoldError as error:
        raise broken(str(error)) from None
    message["model"] = call.model
    yield DIALECTS[call.dialect].render(call, message), _summary(message)


def _to_the_end(call: Call, exchange: Any, pieces: Iterator[Relayed]) -> Iterator[Relayed]:
    """What follows the last event is read, to use the connection again, but neither passed on nor judged."""
    ended = False
    try:
        for data, events in pieces:
            if ended:
                yield b"", []
                continue
            if any(event["type"] == "message_stop" for event in events):
                ended = True
                exchange.last_event_came()
            elif call.said_all:
                exchange.last_event_came(USAGE_WAIT)
            yield data, events
    except Failure:
        if not ended:
            raise


def _joined(pieces: Iterator[Relayed]) -> Iterator[Relayed]:
    """A whole JSON answer in one piece, so that it commits only when it is complete."""
    parts: list[bytes] = []
    facts: list[Event] = []
    for data, events in pieces:
        parts.append(data)
        facts += events
        yield b"", []
    yield b"".join(parts), facts


def _summary(message: Message) -> list[Event]:
    """What the meter needs to know of a folded message."""
    return [
        {"type": "content_block_start"},
        {"type": "message_delta", "delta": {}, "usage": message.get("usage") or {}},
        {"type": "message_stop"},
    ]
