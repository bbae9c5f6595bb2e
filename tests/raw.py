"""HTTP by hand: requests as their bytes, sent as slowly or as wrongly as a test wants."""

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any

from tests.live import KEY, Answer, body

MESSAGES, CHAT, COUNT = "/v1/messages", "/v1/chat/completions", "/v1/messages/count_tokens"


def head(path: str, *lines: str, method: str = "POST", key: str = KEY) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: localhost", f"x-api-key: {key}", *lines, "", ""]).encode()


def request(path: str, sent: Mapping[str, Any]) -> bytes:
    data = json.dumps(sent).encode()
    return head(path, f"content-length: {len(data)}") + data


def slow_ones(port: int, model: str, count: int, seconds: float = 0.0) -> list[tuple[socket.socket, float]]:
    """Connections that send their head, send their body, or read their answer as slowly as they can, a third each.

    With each, the monotonic seconds at which it had sent what it sends at once. ``model`` may have ``{}`` for a number;
    ``seconds``: the time in which all of them come.
    """
    header = b"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-slow: "
    found = []
    for n in range(count):
        reading = request(MESSAGES, body(model.format(n), stream=True))
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(10)
        sock.connect(("127.0.0.1", port))
        sock.sendall((header, head(MESSAGES, "content-length: 90000") + b"{", reading)[n * 3 // count])
        found.append((sock, time.monotonic()))
        time.sleep(seconds / count)
    return found


@contextmanager
def connected(port: int, timeout: float = 10.0) -> Iterator[socket.socket]:
    with closing(socket.create_connection(("127.0.0.1", port), timeout)) as sock:
        yield sock


def to_the_end(sock: socket.socket) -> bytes:
    """Everything until the other side closes; what a reset has taken along is missing."""
    seen = b""
    with suppress(ConnectionError):
        while got := sock.recv(65_536):
            seen += got
    return seen


def ended_after(sock: socket.socket, began: float) -> float:
    """Seconds from ``began`` until the other side has closed."""
    to_the_end(sock)
    return time.monotonic() - began


def answer(seen: bytes) -> Answer:
    """One answer with a Content-Length, and nothing after it."""
    top, _, rest = seen.partition(b"\r\n\r\n")
    line, *lines = top.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert len(rest) == int(headers["content-length"]), seen
    return Answer(int(line.split()[1]), headers, rest)
