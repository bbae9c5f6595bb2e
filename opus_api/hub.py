"""A native thread that looks whether the hub still turns: while it does not, all streams of the process stand still."""

import logging
import sys
import time
import traceback
from typing import Any

import gevent
from gevent import monkey

log = logging.getLogger(__name__)

LIMIT = 1.0  # seconds
BEAT = 0.25

_sleep = monkey.get_original("time", "sleep")
_start_thread = monkey.get_original("_thread", "start_new_thread")
_this_thread = monkey.get_original("_thread", "get_ident")


class HubWatch:
    """Logs where the hub stands once it has stood still for ``limit`` seconds: once for each time."""

    def __init__(self, limit: float = LIMIT):
        self._limit = limit
        self._beat = time.monotonic()
        self._hubs_thread = _this_thread()
        self._turner: gevent.Greenlet[[], None] | None = None
        self._stopped = False

    def start(self) -> None:
        """To be called in the thread whose hub it is."""
        self._turner = gevent.spawn(self._turn)
        _start_thread(self._watch, ())

    def stop(self) -> None:
        self._stopped = True
        if self._turner is not None:
            self._turner.kill()

    def _turn(self) -> None:
        while True:
            self._beat = time.monotonic()
            gevent.sleep(BEAT)

    def _watch(self) -> None:
        told = 0.0
        while not self._stopped:
            _sleep(BEAT)
            beat = self._beat
            if time.monotonic() - beat > self._limit and beat != told:
                told = beat
                log.warning("the hub has been blocked for more than %g s, here:\n%s", self._limit, self._stack())

    def _stack(self) -> str:
        frame: Any = sys._current_frames().get(self._hubs_thread)
        return "".join(traceback.format_stack(frame, 12)) if frame else "unknown"
