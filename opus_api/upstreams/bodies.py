"""Reading an upstream's body, whatever it turns out to be: a stream, one JSON object, or no answer at all. Pure."""

import itertools
import re
from collections.abc import Generator, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from opus_api.upstreams.base import Failure, Relayed
from opus_api.upstreams.failures import broken
from opus_api.wire import jsons, sse
from opus_api.wire.errors import InvalidRequest
from opus_api.wire.messages import Event

LARGEST = 64 * 2**20
EARLY = "upstream stream ended early"

T = TypeVar("T")
Begun = tuple[bytes, Iterator[bytes]]


def begin(body: Iterator[bytes]) -> Generator[list[Event], None, Begun]:
    """Wait for the first bytes; returns (their first visible byte, the whole body). Raises Failure when there are none.

    The content type is no help here: errors come as JSON under text/event-stream and streams under text/plain.
    """
    seen = []
    for chunk in body:
        if not chunk:
            yield []
            continue
        seen.append(chunk)
        first = chunk.lstrip(sse.BOM + b" \t\r\n")[:1]
        if first == b"<":
            raise broken("upstream sent a web page instead of an answer")
        if first:
            return first, itertools.chain([b"".join(seen).removeprefix(sse.BOM)], body)
    raise broken("upstream sent an empty answer")


def whole(body: Iterable[bytes]) -> Generator[list[Event], None, bytes]:
    """The body in one piece. Raises Failure when it is larger than LARGEST."""
    parts: list[bytes] = []
    size = 0
    for chunk in body:
        if not chunk:
            yield []
            continue
        parts.append(chunk)
        size += len(chunk)
        if size > LARGEST:
            raise broken("upstream sent too large an answer")
    return b"".join(parts)


class Finishing(Protocol):
    """Reads OpenAI's chunks. ``said_all``: what follows is usage and the end mark, which some servers leave out."""

    @property
    def said_all(self) -> bool: ...

    @property
    def saw_usage(self) -> bool: ...


def until_finished(reader: Finishing, body: Iterator[bytes]) -> Iterator[bytes]:
    """The body; once the reader has all, it need not end: a server may keep the connection open, or cut it. Where
    usage is still missing, a cut is the loss of it."""
    try:
        yield from body
    except Failure as failure:
        if not reader.said_all or not (reader.saw_usage or failure.type == "timeout_error"):
            raise


def parsed(data: bytes) -> Any:
    """Raises Failure, also for what is nested too deeply to be written again."""
    try:
        return jsons.loads_shallow(data)
    except jsons.JsonError:
        raise broken("upstream sent invalid JSON") from None


def encoded(body: dict[str, Any]) -> bytes:
    """A request body as JSON. Raises InvalidRequest when it nests too deeply."""
    try:
        return jsons.dumps(body)
    except jsons.JsonError:
        raise InvalidRequest("The request body is nested too deeply.") from None


def written(answer: Any) -> bytes:
    """Part of an upstream's answer as JSON. Raises Failure when it nests too deeply."""
    try:
        return jsons.dumps(answer)
    except jsons.JsonError:
        raise broken("upstream sent an answer that is nested too deeply") from None


def text_of(value: Any) -> str:
    """A member that should be text; empty when it is none."""
    return value if isinstance(value, str) else ""


def arguments_of(value: Any) -> str:
    """A piece of a tool call's JSON; some servers send the object itself. Raises Failure."""
    if isinstance(value, str):
        return value
    try:
        return jsons.compact(value) if value else ""
    except jsons.JsonError:
        raise broken("upstream returned invalid tool arguments") from None


def events(body: Iterable[bytes]) -> Iterator[list[sse.SseEvent]]:
    """One list per read. Raises Failure for an event without end."""
    try:
        yield from sse.decode(body)
    except sse.SseError as error:
        raise broken(f"upstream sent an {error}") from None


# ---- the verbatim edge


class Reader(Protocol):
    """Reads along what is passed on verbatim."""

    def wants(self, data: bytes) -> bool:
        """Whether these bytes may hold something of note; a cheap look."""

    def read(self, name: bytes, data: bytes, facts: list[Event]) -> bool:
        """One event: adds what is of note to ``facts``; False keeps it from the client. Raises Failure."""

    def close(self) -> Relayed:
        """The body has ended: what its end still lacks. Raises Failure when the answer had not ended."""


def looks_broken(data: bytes) -> bool:
    """Some event in these whole events does not end as JSON does, or ends its lines as few servers do; a look that
    costs next to nothing."""
    return data.count(b"\n\n") != data.count(b"}\n\n") or b"\r" in data


def relayed(waiting: Generator[list[Event], None, T]) -> Generator[Relayed, None, T]:
    """The same wait, its passing of time said in the words of the verbatim edge."""
    while True:
        try:
            next(waiting)
        except StopIteration as end:
            value: T = end.value
            return value
        yield b"", []


def relay(body: Iterable[bytes], reader: Reader, wanted: bool) -> Iterator[Relayed]:
    """Whole events of the body, as they come. Raises Failure, after what preceded it was passed on; at once when no
    stream was ``wanted``."""
    if not wanted:
        raise broken("upstream sent no JSON")
    whole_events = sse.WholeEvents()
    try:
        for chunk in body:
            data = whole_events.feed(chunk) if chunk else b""
            if data and reader.wants(data):
                yield from _read_along(data, reader)
            else:
                yield data, []
    except sse.SseError as error:
        raise broken(f"upstream sent an {error}") from None
    if data := whole_events.close():
        yield from _read_along(data, reader)
    yield reader.close()


# An event whose data is empty is none, but the openai SDK tries to read it.
EMPTY_DATA = re.compile(rb"^data(?::|$)", re.M)


def _read_along(data: bytes, reader: Reader) -> Iterator[Relayed]:
    kept: list[bytes] = []
    facts: list[Event] = []
    all_kept = True
    for piece in data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n"):
        event = sse.parse(piece)
        try:
            keep = reader.read(*event, facts) if event else not EMPTY_DATA.search(piece)
        except Failure:
            yield b"".join(kept), facts
            raise
        if not keep:
            all_kept = False
        elif piece.strip():
            kept.append(piece + b"\n\n")
    yield data if all_kept else b"".join(kept), facts  # as it came, down to the line ends, unless something is left out
