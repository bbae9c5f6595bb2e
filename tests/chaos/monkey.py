"""Does to a running gateway, its database and its Redis what a plan of acts says, and writes down when."""

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import psutil

from tests.chaos.ledgers import Done
from tests.chaos.plan import Act
from tests.chaos.servers import Server


class Monkey:
    """``database`` and ``redis`` are servers; ``sqlite`` is the file when there is no database server."""

    def __init__(
        self, master: int, sqlite: Path | None = None, database: Server | None = None, redis: Server | None = None
    ):
        self._master = master
        self._sqlite = sqlite
        self.done: list[Done] = []
        self._deeds: dict[str, Callable[[float], None]] = {
            "kill": lambda _: os.kill(self._worker(), signal.SIGKILL),
            "term": lambda _: os.kill(self._worker(), signal.SIGTERM),
            "hup": lambda _: os.kill(master, signal.SIGHUP),
            "lock": self._hold_lock,
        }
        for name, server in (("database", database), ("redis", redis)):
            if server is not None:
                self._deeds[f"stop {name}"] = _stopping(server)
                self._deeds[f"freeze {name}"] = _freezing(server)

    def workers(self) -> list[int]:
        return [child.pid for child in psutil.Process(self._master).children()]

    def _worker(self) -> int:
        """The oldest one: it has most to lose."""
        while not (workers := self.workers()):
            time.sleep(0.01)
        return min(workers, key=lambda pid: psutil.Process(pid).create_time())

    def _hold_lock(self, seconds: float) -> None:
        assert self._sqlite is not None
        with closing(sqlite3.connect(self._sqlite, timeout=5, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            connection.execute("ROLLBACK")

    def do(self, act: Act) -> None:
        began = time.monotonic()
        self._deeds[act.what](act.seconds)
        self.done.append(Done(act.what, began, time.monotonic()))

    @contextmanager
    def loose(self, acts: Sequence[Act]) -> Iterator[None]:
        """Does the acts at their times while the block runs; those whose time has not come by then are left out."""
        stopping = threading.Event()
        failed: list[BaseException] = []

        def run() -> None:
            start = time.monotonic()
            try:
                for act in acts:
                    if stopping.wait(max(0.0, start + act.at - time.monotonic())):
                        return
                    self.do(act)
            except BaseException as error:  # noqa: BLE001 - it is raised where the run ends
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()
        if failed:
            raise failed[0]


def _stopping(server: Server) -> Callable[[float], None]:
    def do(seconds: float) -> None:
        server.stop()
        time.sleep(seconds)
        server.start()

    return do


def _freezing(server: Server) -> Callable[[float], None]:
    def do(seconds: float) -> None:
        server.freeze()
        time.sleep(seconds)
        server.thaw()

    return do
