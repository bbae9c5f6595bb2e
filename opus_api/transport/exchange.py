"""One request to an upstream and its answer, read from the socket.

Reading never blocks for longer than the request's Patience wants: an empty read (b"") means that time passed, so that
whoever waits for the upstream can ping its client meanwhile.

Whole-socket reads: for chunked bodies the framing is taken off here, so that one read of the socket (often many
events) is one read of ours. http.client would return one HTTP chunk, that is one event, at a time.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import gevent
import urllib3
from gevent.hub import Waiter

from opus_api.transport.patience import Patience, TimePassed, watchdog
from opus_api.upstreams import practice
from opus_api.upstreams.base import Failure, Verdict
from opus_api.wire.http import Dechunker, FramingError, HttpRequest

READ_SIZE = 16_384  # what a waiting stream pins in memory
FIRST_READ_SIZE = 65_536  # at least http.client's buffer, so that one read empties it
LARGEST_REFUSAL = 64 * 1024
# Statuses without a body. What follows nevertheless (after 103 the real answer) must not be the next request's answer.
BODILESS = (*range(100, 200), 204, 205, 304)
LAST_BYTES_WAIT = 1.0  # seconds an upstream gets to end a body whose last event has come


class Limits:
    """Seconds: to the first body byte, of silence within the body, and for everything."""

    __slots__ = ("connect", "first", "idle", "total")

    def __init__(self, connect: float, first: float, idle: float, total: float):
        self.connect, self.first, self.idle, self.total = connect, first, idle, total


def timed_out(message: str) -> Failure:
    return Failure(Verdict.TRANSIENT, 504, "timeout_error", message)


def unreachable(message: str) -> Failure:
    return Failure(Verdict.UNREACHABLE, 502, "api_error", message)


def cut(message: str = "upstream stream ended early") -> Failure:
    return Failure(Verdict.TRANSIENT, 502, "api_error", message)


class Send(Protocol):
    """Sends a request, waits for the head of the answer: urllib3's response, or the Failure."""

    def __call__(self, request: HttpRequest, proxy: str, connect_timeout: float) -> Any: ...


class Exchange:
    """One request and its answer. ``open`` waits for the head, ``chunks`` for the body; ``close`` is always called."""

    def __init__(self, send: Send, request: HttpRequest, proxy: str, patience: Patience, limits: Limits):
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._send = send
        self._request: HttpRequest | None = request
        self._proxy = proxy
        self._patience = patience
        self._limits = limits
        self._began = self._heard = time.monotonic()
        self._deadline = self._began + limits.total
        self._silence = limits.first  # seconds allowed without a byte
        self._opening: gevent.Greenlet[..., Any] | None = None
        self._raw: Any = None
        self._whole = False  # the body was read to its end
        self._complete = False  # the answer in it has come to its end

    # -- the head

    def open(self) -> Iterator[bytes]:
        """Send and wait for status and headers; yields b"" when time passes. Raises Failure, ClientGone."""
        assert self._request is not None
        done: Waiter[Any] = Waiter()
        self._opening = gevent.spawn(self._send, self._request, self._proxy, self._limits.connect)
        self._opening.rawlink(done.switch)  # called in the hub
        self._request = None  # a prompt may be large
        watchdog.add(self)
        while not self._opening.ready():
            try:
                with self._patience:
                    done.get()
            except TimePassed:
                yield b""
        outcome: Any = self._opening.value
        self._opening = None
        if isinstance(outcome, Failure):
            raise outcome
        self._raw = outcome
        self.status = outcome.status
        # What came several times is one list, as HTTP has it.
        self.headers = {name.lower(): value for name, value in outcome.headers.itermerged()}

    # -- the body

    def chunks(self) -> Iterator[bytes]:
        """What each read of the socket brought; b"" when time passed. Raises Failure, ClientGone."""
        if self.status in BODILESS:
            return  # unread, so that the connection is not used again
        dechunker = Dechunker() if self._is_plainly_chunked() else None
        read = self._socket_reader() if dechunker else self._plain_reader()
        size = FIRST_READ_SIZE
        while not (dechunker and dechunker.done):
            data = self._read(read, size)
            if data is None:
                yield b""
                continue
            if not data:
                break
            size = READ_SIZE
            payload = self._unframed(dechunker, data) if dechunker else data
            if payload:
                yield payload
        if dechunker and not dechunker.done:
            raise cut()
        self._whole = not (dechunker and dechunker.rest)
        self._release()

    def body(self, largest: int = LARGEST_REFUSAL) -> Iterator[bytes]:
        """The first ``largest`` bytes in one piece, after b"" for each time that passed."""
        parts, size = [], 0
        for chunk in self.chunks():
            if not chunk:
                yield b""
            parts.append(chunk)
            size += len(chunk)
            if size >= largest:
                break
        yield b"".join(parts)[:largest]

    def last_event_came(self, wait: float = LAST_BYTES_WAIT) -> None:
        """The answer is complete; what may still come gets ``wait`` seconds, and need not."""
        self._complete = True
        self._deadline = min(self._deadline, time.monotonic() + wait)

    def no_total_limit(self, seconds: float) -> None:
        """Content flows: from now on only silence and ``seconds`` end it."""
        if not self._complete:
            self._deadline = self._began + seconds

    def close(self) -> None:
        """Give the connection back, or cut it when the body was not read to its end."""
        watchdog.discard(self)
        if self._opening is not None:
            self._opening.unlink_all()
            self._opening.kill(block=False)
            self._opening = None
        if self._raw is not None:
            self._raw.close()
            self._raw = None

    def check(self, now: float) -> None:
        """By the watchdog: wake the reader, or end its wait."""
        if now >= self._deadline:
            self._patience.interrupt(timed_out("upstream took too long"))
        elif now - self._heard >= self._silence:
            self._patience.interrupt(timed_out("upstream stayed silent for too long"))
        elif now >= self._patience.wake_at:
            self._patience.interrupt(TimePassed())

    def _read(self, read: Any, size: int) -> bytes | None:
        try:
            with self._patience:
                data: bytes = read(size)
        except TimePassed:
            return None
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise cut() from error
        self._heard = time.monotonic()
        self._silence = self._limits.idle
        return data

    def _unframed(self, dechunker: Dechunker, data: bytes) -> bytes:
        try:
            return dechunker.feed(data)
        except FramingError as error:
            raise cut("upstream broke the chunked framing") from error

    def _is_plainly_chunked(self) -> bool:
        framing = self.headers.get("transfer-encoding", "").lower()
        return framing == "chunked" and self.headers.get("content-encoding", "identity").lower() == "identity"

    def _socket_reader(self) -> Any:
        """Reads the connection itself. The first read empties http.client's buffer, where the body may have begun."""
        buffered = self._raw._fp.fp
        sock = buffered.raw._sock
        sock.settimeout(None)  # the watchdog keeps time

        def read(size: int) -> bytes:
            if size == FIRST_READ_SIZE:
                return bytes(buffered.read1(size))
            return bytes(sock.recv(size))

        return read

    def _plain_reader(self) -> Any:
        connection = self._raw.connection
        if connection is not None and connection.sock is not None:
            connection.sock.settimeout(None)
        return lambda size: self._raw.read1(size, decode_content=True)

    def _release(self) -> None:
        """Give the connection back when its body was read to the end: reuse saves more than anything else does."""
        watchdog.discard(self)
        if self._whole and self._raw is not None:
            self._raw._fp.close()  # http.client did not see the end that we read
            self._raw.release_conn()
            self._raw = None


class PracticeExchange:
    """The built-in provider behind the same interface: what it says comes from a script instead of a socket."""

    def __init__(self, request: HttpRequest, patience: Patience, limits: Limits):
        reply = practice.reply(request)
        self.status = reply.status
        self.headers = reply.headers
        self._script = reply.script
        self._patience = patience
        self._limits = limits

    def open(self) -> Iterator[bytes]:
        yield from ()

    def chunks(self) -> Iterator[bytes]:
        for step in self._script:
            if isinstance(step, bytes):
                yield step
            elif step > self._limits.idle:
                yield from self._pause(self._limits.idle)
                raise timed_out("upstream stayed silent for too long")
            else:
                yield from self._pause(step)

    def body(self, largest: int = LARGEST_REFUSAL) -> Iterator[bytes]:
        yield b"".join(self.chunks())[:largest]

    def _pause(self, seconds: float) -> Iterator[bytes]:
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            wake = max(self._patience.wake_at, now + 0.01)
            self._patience.sleep(min(until, wake) - now)
            if wake <= until:
                yield b""

    def last_event_came(self, wait: float = 0.0) -> None:
        pass

    def no_total_limit(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        pass
