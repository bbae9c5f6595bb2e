"""gunicorn's gevent worker, with the manners of this service at the edge of HTTP.

Nothing of ours is imported at the top: gunicorn's master loads this file, and a reload must find what is on the disk.
"""

import logging
import mmap
import re
import socket
import struct
from contextlib import suppress
from typing import Any

import gevent
from gunicorn.http import errors as broken  # type: ignore[import-untyped]
from gunicorn.http.message import Request  # type: ignore[import-untyped]
from gunicorn.http.parser import RequestParser  # type: ignore[import-untyped]
from gunicorn.http.wsgi import create  # type: ignore[import-untyped]
from gunicorn.workers.ggevent import GeventWorker  # type: ignore[import-untyped]

log = logging.getLogger("opus_api.web.worker")

USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux

# Bytes that the kernel takes (twice that) for a client that does not read: else up to 4 MiB for each of a thousand.
LARGEST_UNREAD = 128 * 1024

# RFC 9112 3.2, RFC 3986 3.2.2; of the characters that a name may have there, those that names have.
HOST = re.compile(r"(?:[A-Za-z0-9._~%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")

# What gunicorn refuses before there is a request: class -> status. The rest of ParseException is a plain 400. An
# unknown transfer coding is one, too: it is the client's mistake, and an answer of 5xx says that it is ours.
STATUSES = {broken.LimitRequestLine: 414, broken.LimitRequestHeaders: 431, broken.ExpectationFailed: 417}


class _KnownRequest(Request):
    """Tells whoever refuses a request how far it could be read: its path decides the shape of the answer."""

    def __init__(self, *args: Any):
        try:
            super().__init__(*args)
        except broken.ParseException as error:
            error.request = self
            raise


RequestParser.mesg_class = _KnownRequest


class Generations:
    """How many workers were begun, and which of them serve already: one page of memory that all processes share.

    gunicorn tells a worker to stop as soon as its successor is forked, long before that has loaded its code.
    """

    def __init__(self) -> None:
        self._ages = memoryview(mmap.mmap(-1, 16)).cast("q")  # of the newest begun, of the newest that serves

    def begin(self, age: int) -> None:
        self._ages[0] = age

    def serve(self, age: int) -> None:
        self._ages[1] = max(age, self._ages[1])

    def successor_loads(self, age: int) -> bool:
        return self._ages[0] > max(age, self._ages[1])


class Worker(GeventWorker):
    """Cuts who does not read, refuses in JSON, and hangs up last of all when it stops.

    The app finds it as ``opus.worker`` in the environment of a request, and as ``opus.close`` what makes this the last
    answer on its connection.
    """

    longest_write = 60.0  # seconds a client may take for one piece of an answer
    longest_load = 30.0  # seconds that a successor may take
    generations: Generations  # set by gunicorn.conf.py before the fork

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._connected: set[Any] = set()
        self._told = False

    def handle_exit(self, sig: int, frame: Any) -> None:
        """On a reload, goes on serving until the new worker can; told twice, stops at once."""
        if self._told or not self.generations.successor_loads(self.age):
            self.alive = False
        else:
            gevent.spawn(self._wait_for_successor)
        self._told = True

    def _wait_for_successor(self) -> None:
        with gevent.Timeout(self.longest_load, False):  # type: ignore[arg-type]
            while self.generations.successor_loads(self.age):
                gevent.sleep(0.05)
        self.alive = False

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        self._connected.add(client)
        with suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST_UNREAD)
        if USER_TIMEOUT is not None:  # a write's own limit begins anew with each byte that the kernel finds room for
            with suppress(OSError):
                client.setsockopt(socket.IPPROTO_TCP, USER_TIMEOUT, round(self.longest_write * 1000))
        try:
            super().handle(listener, client, addr)
        finally:
            self._connected.discard(client)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Raises StopIteration when the connection is to be closed."""
        try:
            self._answer(listener_name, req, sock, addr)
        except TimeoutError:  # of a write: the kernel would keep megabytes that nobody reads for minutes
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise StopIteration from None
        except OSError as error:
            log.debug("the client is gone: %s", error)
            raise StopIteration from None
        except (gevent.GreenletExit, SystemExit):
            raise StopIteration from None

    def _answer(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        _check_host(req)
        response, environ = create(req, sock, addr, listener_name, self.cfg)
        environ["wsgi.multithread"] = True
        environ["opus.worker"] = self
        environ["opus.close"] = response.force_close
        if not self.alive:
            response.force_close()
        sock.settimeout(self.longest_write)
        body = self.wsgi(environ, response.start_response)
        try:
            for piece in body:
                response.write(piece)
            response.close()
        except Exception as error:
            if response.headers_sent and not isinstance(error, OSError):
                log.exception("unexpected error in an answer")  # a second head in it would only confuse its reader
                raise StopIteration from None
            raise
        finally:
            if hasattr(body, "close"):
                body.close()
        if response.should_close():
            raise StopIteration

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """What no app sees: a request that breaks HTTP, or our own bug below the app."""
        from opus_api.web.errors import raw_refusal
        from opus_api.wire.errors import ApiError

        if isinstance(exc, broken.ParseException):
            status = STATUSES.get(type(exc), 400)
            error = ApiError(status, "invalid_request_error", f"The request breaks HTTP: {_reason(exc)}.")
        else:
            log.error("unexpected error below the app", exc_info=exc)
            error = ApiError(500, "api_error", "Internal error")
        req = req or getattr(exc, "request", None)
        path = (getattr(req, "path", None) or "").partition("?")[0]
        names = {name.lower() for name, _ in getattr(req, "headers", None) or ()}
        _send_last(client, raw_refusal(error, path, names))

    def hang_up(self) -> None:
        """When no time is left: whoever is still connected sends no more, and a second later gets no more."""
        for how in (socket.SHUT_RD, socket.SHUT_RDWR):
            for client in list(self._connected):
                with suppress(OSError):
                    client.shutdown(how)
            gevent.sleep(1)


def _check_host(req: Any) -> None:
    """RFC 9112 3.2: one valid Host. gunicorn refuses a second one itself. Raises ParseException."""
    hosts = [value for name, value in req.headers if name == "HOST"]
    if (hosts and HOST.fullmatch(hosts[0])) or (not hosts and req.version < (1, 1)):
        return
    raise broken.InvalidHeader("HOST", req=req)


def _reason(error: Exception) -> str:
    """Which rule was broken, in the words of its class; what the client sent is not repeated."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    header = getattr(error, "hdr", "")
    return f"{words} {header.lower()}" if header in ("HOST", "CONTENT-LENGTH", "TRANSFER-ENCODING") else words


def _send_last(client: Any, answer: bytes) -> None:
    """Closing at once would make the kernel reset the connection, and the answer with it, while the client sends."""
    with suppress(OSError), gevent.Timeout(1, False):  # type: ignore[arg-type]
        client.sendall(answer)
        client.shutdown(socket.SHUT_WR)
        while client.recv(65_536):
            pass
