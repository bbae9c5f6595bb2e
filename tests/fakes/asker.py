"""Asks upstreams by way of the transport, in a process that is patched as the service is.

``python -m tests.fakes.asker`` reads questions and prints answers, each a line of JSON; ``Asker`` is its other end.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.processes import clean

PATIENT = (5.0, 5.0, 5.0, 10.0)


@dataclass
class Told:
    """What a question was answered with. Each read is (milliseconds since it was asked, bytes)."""

    took: float
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    reads: list[tuple[int, bytes]] = field(default_factory=list)
    passed: int = 0  # how often time passed
    failure: tuple[str, int, str] | None = None  # verdict, status, message

    @property
    def body(self) -> bytes:
        return b"".join(data for _, data in self.reads)


class Asker:
    """The process. ``environment`` is what it finds in its own; settings come with each question."""

    def __init__(self, environment: Mapping[str, str]):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.asker"],
            cwd=Path(__file__).parent.parent.parent,
            env=clean(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(
        self,
        url: str,
        *,
        body: str | None = "{}",
        headers: Mapping[str, str] | None = None,
        limits: tuple[float, float, float, float] = PATIENT,
        proxy: str = "",
        wake: float = 0.0,
        **settings: str,
    ) -> Told:
        """``limits`` in seconds: connect, first byte, silence, everything; ``wake``: be woken each so many seconds."""
        question = {"url": url, "body": body, "headers": dict(headers or {}), "limits": limits, "proxy": proxy}
        return self._told({**question, "wake": wake, "settings": settings, "whole": False})

    def fetch(self, url: str, *, deadline: float = 5.0, **settings: str) -> Told:
        """A whole exchange at once, as probes make it."""
        return self._told({"url": url, "deadline": deadline, "settings": settings, "whole": True})

    def _told(self, question: dict[str, Any]) -> Told:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        told = Told(**json.loads(self._process.stdout.readline()))
        told.reads = [(at, data.encode("latin-1")) for at, data in told.reads]  # type: ignore[attr-defined]
        told.failure = tuple(told.failure) if told.failure else None  # type: ignore[assignment]
        return told

    def stop(self) -> None:
        self._process.communicate()


def _main() -> None:
    from opus_api import config
    from opus_api.transport import Failure, Limits, Patience, Transport
    from opus_api.wire.http import HttpRequest

    transports: dict[str, Transport] = {}  # by settings, so that connections are kept between questions
    for line in sys.stdin:
        asked = json.loads(line)
        named = json.dumps(asked["settings"], sort_keys=True)
        if named not in transports:
            transports[named] = Transport(config.load(Path("/nonexistent"), asked["settings"]))
        transport = transports[named]
        began = time.monotonic()
        told: dict[str, Any] = {"reads": [], "passed": 0}
        try:
            if asked["whole"]:
                response = transport.fetch(HttpRequest("GET", asked["url"]), deadline=asked["deadline"])
                told |= {"status": response.status, "headers": dict(response.headers)}
                told["reads"].append((0, response.body.decode("latin-1")))
            else:
                _ask(transport, asked, Patience(), Limits(*asked["limits"]), began, told)
        except Failure as failure:
            told["failure"] = (failure.verdict.value, failure.status, failure.message)
        print(json.dumps({**told, "took": time.monotonic() - began}), flush=True)  # noqa: T201


def _ask(transport: Any, asked: Any, patience: Any, limits: Any, began: float, told: dict[str, Any]) -> None:
    from opus_api.wire.http import HttpRequest

    body = None if asked["body"] is None else asked["body"].encode()
    request = HttpRequest("GET" if body is None else "POST", asked["url"], asked["headers"], body)
    exchange = transport.exchange(request, patience, limits, asked["proxy"])

    def passed() -> None:
        told["passed"] += 1
        patience.wake_at = time.monotonic() + asked["wake"]

    if asked["wake"]:
        patience.wake_at = time.monotonic() + asked["wake"]
    try:
        for _ in exchange.open():
            passed()
        told |= {"status": exchange.status, "headers": dict(exchange.headers)}
        for data in exchange.chunks():
            if data:
                told["reads"].append((round((time.monotonic() - began) * 1000), data.decode("latin-1")))
            else:
                passed()
    finally:
        exchange.close()


if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()
    _main()
