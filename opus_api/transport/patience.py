"""Waiting for an upstream, so that it can be interrupted: time passed, a limit was reached, the client left."""

import time
from types import TracebackType
from typing import Any, Protocol

import gevent
from gevent.hub import Hub

CHECK_EVERY = 0.25  # seconds between two looks of the watchdog


class TimePassed(BaseException):
    """Thrown into a greenlet that waits for an upstream, so that it can do something else for a moment."""


class ClientGone(Exception):
    """Thrown into a greenlet that waits for an upstream whose answer nobody wants any more."""


class Patience:
    """How long one request waits for upstreams, and who may interrupt it meanwhile.

    ``wake_at`` (monotonic seconds) is when the waiting greenlet wants to be woken by an empty read.
    """

    def __init__(self, wake_at: float = float("inf")):
        self.wake_at = wake_at
        self._greenlet: Any = None  # set while it waits
        self._gone = False

    def __enter__(self) -> None:
        if self._gone:
            raise ClientGone
        self._greenlet = gevent.getcurrent()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._greenlet = None

    def interrupt(self, error: BaseException) -> None:
        """Raise ``error`` where the greenlet waits; nothing happens when it does not wait any more by then."""
        gevent.get_hub().loop.run_callback(self._throw, error)

    def client_gone(self) -> None:
        self._gone = True
        self.interrupt(ClientGone())

    def sleep(self, seconds: float) -> None:
        """Raises ClientGone."""
        with self:
            gevent.sleep(seconds)

    def _throw(self, error: BaseException) -> None:
        # Runs in the hub: the greenlet can not go on between the look and the throw.
        if self._greenlet is not None:
            greenlet, self._greenlet = self._greenlet, None
            greenlet.throw(error)


class Watched(Protocol):
    def check(self, now: float) -> None:
        """Interrupt whoever waits, when it is time. ``now`` in monotonic seconds."""


class Watchdog:
    """One greenlet per process that wakes and cuts exchanges: a timer per read would cost more than the read."""

    def __init__(self) -> None:
        self._watched: set[Watched] = set()
        self._hub: Hub | None = None

    def add(self, exchange: Watched) -> None:
        self._watched.add(exchange)
        if self._hub is not gevent.get_hub():  # also after a fork
            self._hub = gevent.get_hub()
            gevent.spawn(self._run)

    def discard(self, exchange: Watched) -> None:
        self._watched.discard(exchange)

    def _run(self) -> None:
        while True:
            gevent.sleep(CHECK_EVERY)
            now = time.monotonic()
            for exchange in list(self._watched):
                exchange.check(now)


watchdog = Watchdog()
