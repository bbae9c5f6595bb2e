"""HTTP as values: what is to be sent, what came back, and the end of chunked framing. No sockets here."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request to an upstream; ``url`` is absolute, ``body`` is None or bytes."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A whole response; header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


# A conversation with a server: yields requests, is handed responses, returns a result (httpx calls this an auth flow).
Flow = Generator[HttpRequest, HttpResponse, T]


class FramingError(ValueError):
    """The body breaks the rules of chunked transfer coding."""


class Dechunker:
    """Takes chunked framing (RFC 9112 section 7.1) off a body that arrives in pieces.

    ``feed(data)`` returns the payload bytes that ``data`` completes; ``done`` turns true after the last chunk and its
    trailers. Bytes after the end stay in ``rest`` (an upstream must not send any before we ask again).
    """

    MAX_LINE = 8192

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self._line = b""  # the incomplete size, end-of-chunk or trailer line
        self._left = 0  # payload bytes of the current chunk still to come
        self._state = "size"

    def feed(self, data: bytes) -> bytes:
        """Raises FramingError."""
        out: list[bytes] = []
        position, end = 0, len(data)
        while position < end and not self.done:
            if self._state == "data":
                piece = data[position : position + self._left]
                out.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = "data-end"
                continue
            stop = data.find(b"\n", position)
            if stop < 0:
                self._line += data[position:]
                if len(self._line) > self.MAX_LINE:
                    raise FramingError("chunk line too long")
                return b"".join(out)
            line = (self._line + data[position:stop]).removesuffix(b"\r")
            self._line = b""
            position = stop + 1
            self._on_line(line)
        if self.done:
            self.rest += data[position:]
        return out[0] if len(out) == 1 else b"".join(out)

    def _on_line(self, line: bytes) -> None:
        if self._state == "data-end":
            if line:
                raise FramingError("chunk is longer than its size")
            self._state = "size"
        elif self._state == "size":
            self._left = self._size(line)
            self._state = "data" if self._left else "trailer"
        elif not line:
            self.done = True

    @staticmethod
    def _size(line: bytes) -> int:
        digits = line.partition(b";")[0].strip(b" \t")
        if not digits or len(digits) > 15 or digits.strip(b"0123456789abcdefABCDEF"):
            raise FramingError("bad chunk size")
        return int(digits, 16)
