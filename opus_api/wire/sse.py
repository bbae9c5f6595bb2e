"""Server-sent events: bytes to (event name, data) pairs, and back. Pure and incremental.

The rules are those of the HTML standard's event stream grammar, read at byte level: splitting decoded text would also
split at U+2028 and U+0085, which occur inside JSON.
"""

from collections.abc import Iterable, Iterator

from opus_api.wire import jsons

MAX_EVENT = 16 * 2**20
DONE = b"[DONE]"
BOM = b"\xef\xbb\xbf"

SseEvent = tuple[bytes, bytes]  # name (b"" when the event has none), data


class SseError(ValueError):
    """An event is larger than MAX_EVENT."""


class Decoder:
    """``feed`` what arrived, get what is complete; ``close`` at the end."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []  # the event in progress
        self._size = 0
        self._ended_line = False  # the last part ended with a line feed
        self._held = b""  # a carriage return whose line feed may still come, or the start of a BOM
        self._begun = False

    def feed(self, data: bytes) -> list[SseEvent]:
        """Raises SseError."""
        data = self._normalized(data)
        if not data:
            return []
        if b"\n\n" not in data and not (self._ended_line and data.startswith(b"\n")):
            return self._keep(data)
        block = b"".join([*self._parts, data]) if self._parts else data
        end = block.rfind(b"\n\n")
        self._parts, self._size = [], 0
        self._keep(block[end + 2 :])
        return [event for piece in block[:end].split(b"\n\n") if (event := parse(piece))]

    def close(self) -> list[SseEvent]:
        """What the last blank line would have dispatched, when it is whole: its data is JSON or the end mark."""
        events = self.feed(b"\n") if self._held == b"\r" else []  # the line feed that might have followed
        event = parse(b"".join([*self._parts, self._held]).strip(b"\n"))
        self._parts, self._held = [], b""
        return [*events, event] if event and _is_whole(event[1]) else events

    def _keep(self, data: bytes) -> list[SseEvent]:
        if data:
            self._parts.append(data)
        self._size += len(data)
        self._ended_line = data.endswith(b"\n")
        if self._size > MAX_EVENT:
            raise SseError(f"event larger than {MAX_EVENT} bytes")
        return []

    def _normalized(self, data: bytes) -> bytes:
        """Line ends as line feeds, without a byte order mark; a last carriage return waits for the next byte."""
        if self._held:
            data, self._held = self._held + data, b""
        if not self._begun:
            if len(data) < len(BOM) and BOM.startswith(data):
                self._held = data
                return b""
            data = data.removeprefix(BOM)
            self._begun = True
        if b"\r" in data:
            if data.endswith(b"\r"):
                data, self._held = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data


def parse(piece: bytes) -> SseEvent | None:
    """One event without its blank line; None when it carries no data (comments, retry, id) or only empty data, which
    the standard does not dispatch either."""
    line_end = piece.find(b"\n")
    if line_end < 0:
        if piece.startswith(b"data: "):
            return (b"", piece[6:]) if len(piece) > 6 else None
    elif (
        piece.startswith(b"event: ")
        and piece.startswith(b"data: ", line_end + 1)
        and piece.find(b"\n", line_end + 1) < 0
        and len(piece) > line_end + 7
    ):
        return piece[7:line_end], piece[line_end + 7 :]
    name, lines = b"", []
    for line in piece.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            lines.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    data = b"\n".join(lines)
    return (name, data) if data else None


def _is_whole(data: bytes) -> bool:
    if data.startswith(DONE):
        return True
    try:
        jsons.loads(data)
    except jsons.JsonError:
        return False
    return True


def decode(chunks: Iterable[bytes]) -> Iterator[list[SseEvent]]:
    """One list per read; an empty read (time passed) and a read that completes nothing give an empty list."""
    decoder = Decoder()
    for chunk in chunks:
        yield decoder.feed(chunk) if chunk else []
    yield decoder.close()


def encode(name: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


class WholeEvents:
    """Passes bytes on unchanged, but only up to the last blank line: an event is relayed whole or not at all.

    So a ping or an error event of ours never lands inside an event of the upstream.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._last = b""  # the last three bytes, in which a blank line may have begun

    def feed(self, data: bytes) -> bytes:
        """Raises SseError."""
        seam = self._last + data
        end = _after_last_blank_line(seam) - len(self._last)
        if end <= 0:
            self._hold(data, seam)
            return b""
        whole = b"".join([*self._parts, data[:end]]) if self._parts else data[:end]
        rest = data[end:]
        self._parts, self._size, self._last = [], 0, b""
        self._hold(rest, rest)
        return whole

    def close(self) -> bytes:
        """The rest, with its blank line, when it is a whole event; else nothing."""
        rest = b"".join(self._parts)
        self._parts = []
        event = parse(rest.replace(b"\r\n", b"\n").replace(b"\r", b"\n").strip(b"\n"))
        return rest.rstrip(b"\r\n") + b"\n\n" if event and _is_whole(event[1]) else b""

    def _hold(self, data: bytes, seam: bytes) -> None:
        if data:
            self._parts.append(data)
            self._size += len(data)
            self._last = seam[-3:]
        if self._size > MAX_EVENT:
            raise SseError(f"event larger than {MAX_EVENT} bytes")


def _after_last_blank_line(data: bytes) -> int:
    """Index behind the last blank line, 0 when there is none."""
    end = data.rfind(b"\n\n")
    best = end + 2 if end >= 0 else 0
    if b"\r" in data:
        for mark in (b"\r\n\r\n", b"\r\r", b"\n\r\n"):
            end = data.rfind(mark)
            best = max(best, end + len(mark) if end >= 0 else 0)
    return best
