"""An upstream that says what a test tells it to: an Anthropic and an OpenAI-compatible server in one, on loopback.

What it answers is looked up by the account's key, then by the model: a Reply, a list of them (one each time, the last
again and again), or a function of what was asked. Without one it answers as the real servers do. It remembers what was
asked, on which connection, and when the asker hung up.
"""

import gzip
import itertools
import json
import select
import socket
import ssl
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from tests.fakes import formats


class End(Enum):
    CUT = auto()  # the connection is closed where it stands
    RESET = auto()  # the same with RST


CUT, RESET = End.CUT, End.RESET
FOREVER = float("inf")

# What comes next: bytes, seconds of silence, silence until the test sets the event, the connection's end.
Step = bytes | float | threading.Event | End


@dataclass
class Reply:
    """``body`` as bytes has a length; as steps it is chunked, or ends with the connection when ``framing`` is close.

    With ``framing`` raw it goes over the wire as it is, and so do the headers.
    """

    status: int = 200
    body: bytes | Sequence[Step] = b""
    headers: dict[str, str] = field(default_factory=dict)
    before: Sequence[Step] = ()  # happens before the head is sent
    framing: str = "chunked"


@dataclass(eq=False)
class Asked:
    """One request as it came. Times are monotonic seconds."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    at: float = field(default_factory=time.monotonic)
    ended_at: float | None = None  # everything was sent
    gone_at: float | None = None  # the asker hung up before that
    left_at: float = 0.0  # set by a test whose client leaves

    @property
    def key(self) -> str:
        return self.headers.get("x-api-key") or self.headers.get("authorization", "").removeprefix("Bearer ")

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body or b"{}")
        return found

    @property
    def model(self) -> str:
        return str(self.json.get("model", ""))


# A list: one each time, the last again and again.
Answer = Reply | Callable[[Asked], Reply] | list[Reply | Callable[[Asked], Reply]]


class Upstream:
    def __init__(self, tls: ssl.SSLContext | None = None):
        self.answers: dict[str, Answer] = {}  # account's key or model -> what it gets
        self.asked: list[Asked] = []
        self.models: dict[str, list[str]] = {}  # account's key -> what its list of models holds
        self.open_connections = 0
        self._tls = tls
        self._idle: set[socket.socket] = set()
        self._turns: dict[str, int] = defaultdict(int)
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def of(self, key: str) -> list[Asked]:
        """What was asked with this account's key, messages only."""
        return [asked for asked in self.asked if asked.key == key and asked.method == "POST"]

    def hang_up(self) -> None:
        """Close every connection on which nothing is being answered."""
        for connection in list(self._idle):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        self._stopping.set()
        self._listener.close()

    # ---- connections

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection, next(self._numbers)), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self.open_connections += 1
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            incoming = connection.makefile("rb")
            answered = True
            while answered:
                self._idle.add(connection)
                asked = _read(incoming, number)
                self._idle.discard(connection)
                if asked is None:
                    break
                self.asked.append(asked)
                answered = self._answer(connection, asked)
        except OSError:  # it hung up between two requests, or does not like our certificate
            pass
        finally:
            self._idle.discard(connection)
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # the file made of it would keep it open
            connection.close()
            with self._lock:
                self.open_connections -= 1

    def _answer(self, connection: socket.socket, asked: Asked) -> bool:
        """False when the connection has ended."""
        reply = self._reply(asked)
        try:
            for step in _bytes(reply):
                if isinstance(step, bytes):
                    connection.sendall(step)
                elif isinstance(step, End):
                    _hang_up(connection, step)
                    asked.ended_at = time.monotonic()
                    return False
                elif not self._wait(connection, step):
                    asked.gone_at = time.monotonic()
                    return False
        except OSError:
            asked.gone_at = time.monotonic()
            return False
        asked.ended_at = time.monotonic()
        return reply.framing != "close"

    def _wait(self, connection: socket.socket, step: float | threading.Event) -> bool:
        """False when the asker hung up meanwhile."""
        began = time.monotonic()
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        look_again = 200 if isinstance(step, float) else 20  # milliseconds
        while not self._stopping.is_set():
            left = step - (time.monotonic() - began) if isinstance(step, float) else 0.0 if step.is_set() else FOREVER
            if left <= 0:
                return True
            if poll.poll(min(left * 1000, look_again)) and connection.recv(1, socket.MSG_PEEK) == b"":
                return False
        return False

    # ---- what is said

    def _reply(self, asked: Asked) -> Reply:
        if asked.method == "GET":
            return self._listed(asked)
        answer = self.answers.get(asked.key) or self.answers.get(asked.model)
        if isinstance(answer, list):
            with self._lock:
                turn = self._turns[asked.key]
                self._turns[asked.key] += 1
            answer = answer[min(turn, len(answer) - 1)]
        if answer is not None:
            return answer if isinstance(answer, Reply) else answer(asked)
        return refused(401, asked) if "wrong" in asked.key else spoken(asked)

    def _listed(self, asked: Asked) -> Reply:
        if "wrong" in asked.key:
            return refused(401, asked)
        names = self.models.get(asked.key, ["model-a", "model-b"])
        listed = formats.anthropic_models(names) if "x-api-key" in asked.headers else formats.openai_models(names)
        return Reply(200, json.dumps(listed).encode(), {"content-type": "application/json"})


def _read(incoming: Any, connection: int) -> Asked | None:
    words = incoming.readline().decode("latin-1").split()
    if len(words) != 3:  # nothing more, or no HTTP
        return None
    method, path, _ = words
    headers = {}
    while header := incoming.readline().decode("latin-1").strip():
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    return Asked(method, path, headers, incoming.read(int(headers.get("content-length", 0))), connection)


def _bytes(reply: Reply) -> Iterator[Step]:
    """The reply as it goes over the wire."""
    yield from reply.before
    whole = isinstance(reply.body, bytes)
    headers = {"date": "Thu, 01 Jan 2026 00:00:00 GMT", "set-cookie": "upstream=1", "server": "fake", **reply.headers}
    if reply.framing == "close":
        headers["connection"] = "close"
    elif reply.framing == "raw":
        whole = True
    elif isinstance(reply.body, bytes):
        headers.setdefault("content-length", str(len(reply.body)))
    else:
        headers["transfer-encoding"] = "chunked"
    head = [f"HTTP/1.1 {reply.status} Said", *(f"{name}: {value}" for name, value in headers.items())]
    yield "\r\n".join([*head, "", ""]).encode("latin-1")
    for step in [reply.body] if isinstance(reply.body, bytes) else reply.body:
        framed = isinstance(step, bytes) and not whole and reply.framing == "chunked"
        yield b"%x\r\n%b\r\n" % (len(step), step) if framed and isinstance(step, bytes) else step
    if not whole and reply.framing == "chunked":
        yield b"0\r\n\r\n"


def _hang_up(connection: socket.socket, how: End) -> None:
    if how is RESET:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


# ---- what upstreams say


def is_anthropic(asked: Asked) -> bool:
    return asked.path.partition("?")[0].endswith("/messages")


def streamed(steps: Iterable[Step], **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(200, list(steps), {"content-type": "text/event-stream; charset=utf-8", **named})


def in_json(body: Any, status: int = 200, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(body).encode(), {"content-type": "application/json", **named})


def spoken(asked: Asked, **said: Any) -> Reply:
    """A regular answer, in the format and form that was asked for; ``said`` as in ``formats.Said``."""
    body = asked.json
    answer = formats.Said(model=body.get("model", ""), **said) if said else formats.conversation(body)
    kind = formats.anthropic if is_anthropic(asked) else formats.openai
    request_id = {"request_id": "req_upstream"} if is_anthropic(asked) else {"x_request_id": "req_upstream"}
    if body.get("stream"):
        return streamed(kind.stream(answer, body), **request_id)
    return in_json(kind.whole(answer), **request_id)


def refused(status: int, asked: Asked | None = None, message: str = "", **headers: str) -> Reply:
    """An error in the shape of whoever was asked."""
    text = message or f"upstream says {status}"
    if asked is None or is_anthropic(asked):
        return in_json(formats.anthropic_error(status, text), status, request_id="req_refused", **headers)
    return in_json(formats.openai_error(status, text), status, x_request_id="req_refused", **headers)


def refusing(status: int, message: str = "", **headers: str) -> Callable[[Asked], Reply]:
    return lambda asked: refused(status, asked, message, **headers)


def json_error(status: int) -> Callable[[Asked], Reply]:
    """An error in the body, although the status is 200."""

    def answer(asked: Asked) -> Reply:
        told = formats.anthropic_error if is_anthropic(asked) else formats.openai_error
        return in_json(told(status, "boom"))

    return answer


def error_first(status: int) -> Callable[[Asked], Reply]:
    """An error as the first event of the stream; of a whole answer, the answer."""

    def answer(asked: Asked) -> Reply:
        if not asked.json.get("stream"):
            return json_error(status)(asked)
        if is_anthropic(asked):
            return streamed([formats.event(formats.anthropic_error(status, "boom"))])
        return streamed([b"event: error\n" + formats.data(formats.openai_error(status, "boom"))])

    return answer


def after(steps: int, *then: Step) -> Callable[[Asked], Reply]:
    """The regular stream as far as ``steps`` events, then something else; of a whole answer, half of it."""

    def answer(asked: Asked) -> Reply:
        reply = spoken(asked)
        if isinstance(reply.body, bytes):
            reply.body = [reply.body[: len(reply.body) // 2], *then]
        else:
            reply.body = [*reply.body[:steps], *then]
        return reply

    return answer


def zipped(reply: Reply) -> Reply:
    """The same answer compressed as a whole."""
    parts = [reply.body] if isinstance(reply.body, bytes) else [s for s in reply.body if isinstance(s, bytes)]
    return Reply(reply.status, gzip.compress(b"".join(parts)), {**reply.headers, "content-encoding": "gzip"})
