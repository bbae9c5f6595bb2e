"""Debug mode: the four faces of each exchange in files, one folder a request: what came from the client and went to
it, and of each attempt what went to the upstream and came from it.

``TIME-REQUEST_ID/`` holds ``client-in.http``, ``upstream-out-1.http``, ``upstream-in-1.http``, …, ``client-out.http``
and ``exchange.json``. Secrets are masked, bodies are cut at LARGEST_BODY, and old folders go when there are too many.
"""

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gevent

from opus_api.config import Settings
from opus_api.logs import redacted
from opus_api.upstreams.base import Credentials
from opus_api.wire.http import HttpRequest

log = logging.getLogger(__name__)

LARGEST_BODY = 64 * 1024  # bytes of a body that are kept
MOST_EXCHANGES, MOST_BYTES = 500, 64 * 2**20
PRUNE_EVERY = 20  # exchanges of this worker
KEPT_DAYS = 7
SECRET_HEADER = re.compile(r"auth|cookie|key|token|secret|password|credential|signature", re.I)
SHORTEST_SECRET = 8  # characters: masking shorter ones would spoil the text
FACTS = "exchange.json"
REQUEST_ID = re.compile(r"req_[A-Za-z0-9]{1,60}")
FACE = re.compile(r"client-(?:in|out)|upstream-(?:out|in)-([1-9][0-9]{0,3})")  # a file's name without .http


def root(settings: Settings) -> Path:
    """LOG_DIR/exchanges; without LOG_DIR under DATA_DIR."""
    folder = Path(settings.log_dir).expanduser() if settings.log_dir else settings.data_dir / "logs"
    return folder / "exchanges"


def find(folder: Path, request_id: str) -> Path | None:
    """What was kept of a request: a folder, never a link to one."""
    if not REQUEST_ID.fullmatch(request_id):
        return None
    return next((path for path in folder.glob(f"*-{request_id}") if path.is_dir() and not path.is_symlink()), None)


def faces(kept: Path) -> list[str]:
    """Their names, in the order in which they came about."""
    there = {path.stem for path in kept.glob("*.http") if FACE.fullmatch(path.stem)}
    order = ["client-in", *sorted((name for name in there if attempt_of(name)), key=_order), "client-out"]
    return [name for name in order if name in there]


def attempt_of(face: str) -> int:
    """Its number; 0 for what came from the client or went to it, and for what is no face."""
    found = FACE.fullmatch(face)
    return int(found[1] or 0) if found else 0


def _order(face: str) -> tuple[int, bool]:
    return attempt_of(face), face.startswith("upstream-in")


def read(kept: Path, face: str) -> bytes | None:
    """One of ``faces``, as it lies there; None when there is none of this name, or something that is no file."""
    if not FACE.fullmatch(face):
        return None
    try:
        with open(kept / f"{face}.http", "rb", opener=_no_link) as file:
            return file.read()
    except OSError:  # a link, or deleted just now
        return None


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


class ExchangeLog:
    """One per process. While it is off, a request pays for one comparison."""

    def __init__(self, folder: Path):
        self.until = 0.0  # Unix seconds
        self._folder = folder
        self._begun = 0
        self._full = False

    def begin(self, request_id: str) -> "Recording | None":
        """None while it is off, or when the disk does not take it."""
        if time.time() >= self.until:
            return None
        self._begun += 1
        if self._begun % PRUNE_EVERY == 0:
            gevent.get_hub().threadpool.spawn(prune, self._folder)
        folder = self._folder / f"{datetime.fromtimestamp(time.time(), UTC):%Y%m%dT%H%M%S}-{request_id}"
        try:
            folder.mkdir(mode=0o700, parents=True)
            self._full = False
        except OSError as error:
            if not self._full:  # one line per outage
                log.error("exchanges cannot be kept (%s)", error.strerror or error)
            self._full = True
            return None
        return Recording(folder, request_id)


def prune(folder: Path, days: float = KEPT_DAYS) -> int:
    """Delete the oldest until the rest is few, small and young enough; how many."""
    oldest = f"{datetime.fromtimestamp(time.time() - days * 86_400, UTC):%Y%m%dT%H%M%S}"
    kept = size = gone = 0
    for path in sorted(folder.iterdir(), reverse=True) if folder.is_dir() else ():
        kept, size = kept + 1, size + _size(path)
        if kept > MOST_EXCHANGES or size > MOST_BYTES or path.name < oldest:
            shutil.rmtree(path, ignore_errors=True)
            gone += 1
    return gone


def _size(folder: Path) -> int:
    try:
        return sum(entry.stat().st_size for entry in os.scandir(folder))
    except OSError:  # another worker deletes it just now
        return 0


class Face:
    """One message: its first line, its headers, the beginning of its body."""

    def __init__(self, first_line: str, headers: Iterable[tuple[str, str]], body: bytes = b""):
        self._head = [first_line, *(f"{name}: {_masked(name, value)}" for name, value in headers)]
        self._parts: list[bytes] = []
        self._size = 0
        self.add(body)

    def add(self, data: bytes) -> None:
        if self._size < LARGEST_BODY:
            self._parts.append(data[: LARGEST_BODY - self._size])
        self._size += len(data)

    @property
    def size(self) -> int:
        return self._size

    def bytes(self, secrets: Iterable[str]) -> bytes:
        """With a line that says so when some of the body is missing."""
        cut = [f"{CUT}: {LARGEST_BODY} of {self._size} bytes"] if self._size > LARGEST_BODY else []
        body = b"".join(self._parts).decode("utf-8", "surrogateescape")
        text = "\n".join([*self._head, *cut, "", body])
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return redacted(text).encode("utf-8", "surrogateescape")


CUT = "opus-kept"  # no server sends it


def _masked(name: str, value: str) -> str:
    shown = "***" if SECRET_HEADER.search(name) else value
    return shown.replace("\r", " ").replace("\n", " ")


class Recording:
    """What is kept of one request. No method raises: a full disk fails no request."""

    def __init__(self, folder: Path, request_id: str):
        self._folder = folder
        self._secrets: set[str] = set()
        self._attempts: list[dict[str, Any]] = []
        self._in = self._out = Face("HTTP 0", ())
        self._facts: dict[str, Any] = {"request_id": request_id}
        self._pings: list[tuple[int, int]] = []

    def client_in(self, method: str, path: str, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        headers = list(headers)
        for name, value in headers:
            if SECRET_HEADER.search(name):
                self._hide(value, value.rpartition(" ")[2], *(part.partition("=")[2] for part in value.split("; ")))
        self._in = Face(f"{method} {path}", headers, body)
        self._write("client-in.http", self._in)

    def upstream(self, exchange: Any, request: HttpRequest, facts: Mapping[str, Any], credentials: Credentials) -> Any:
        """The exchange, watched."""
        self._hide(credentials.api_key, credentials.access_token)
        self._attempts.append(dict(facts))
        number = len(self._attempts)
        face = Face(f"{request.method} {request.url}", request.headers.items(), request.body or b"")
        self._write(f"upstream-out-{number}.http", face)
        return _Watched(exchange, lambda face: self._write(f"upstream-in-{number}.http", face))

    def client_out(self, status: int, headers: Iterable[tuple[str, str]], body: bytes = b"") -> None:
        self._out = Face(f"HTTP {status}", headers, body)

    def watched(self, pieces: Iterator[bytes], ping: bytes) -> Iterator[bytes]:
        """The pieces on their way to the client; pings of ours are noted apart: they are no answer."""
        for piece in pieces:
            if piece is ping:
                self._pings.append((self._out.size, len(piece)))
            self._out.add(piece)
            yield piece

    def close(self, facts: Mapping[str, Any]) -> None:
        self._write("client-in.http", self._in)  # once more: by now we know the secrets of the accounts, too
        self._write("client-out.http", self._out)
        self._facts |= {**facts, "attempts": self._attempts, "pings": self._pings}
        text = redacted(json.dumps(self._facts, indent=2, ensure_ascii=True))
        self._store(FACTS, text.encode())

    def _hide(self, *values: str) -> None:
        self._secrets.update(value for value in values if len(value) >= SHORTEST_SECRET)

    def _write(self, name: str, face: Face) -> None:
        self._store(name, face.bytes(self._secrets))

    def _store(self, name: str, data: bytes) -> None:
        part = self._folder / f"{name}.part"
        try:
            with open(part, "wb", opener=_private) as file:
                file.write(data)
            part.rename(self._folder / name)  # whoever finds it finds all of it
        except OSError as error:
            log.error("%s of an exchange cannot be kept (%s)", name, error.strerror or error)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class _Watched:
    """An exchange of the transport, whose answer is kept as it is read."""

    def __init__(self, exchange: Any, write: Callable[[Face], None]):
        self._exchange = exchange
        self._write = write
        self._face = Face("HTTP 0", ())  # no answer came

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exchange, name)

    def chunks(self) -> Iterator[bytes]:
        return self._noted(self._exchange.chunks())

    def body(self) -> Iterator[bytes]:
        return self._noted(self._exchange.body())

    def _noted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        self._face = Face(f"HTTP {self._exchange.status}", self._exchange.headers.items())
        for piece in pieces:
            self._face.add(piece)
            yield piece

    def close(self) -> None:
        self._exchange.close()
        self._write(self._face)
