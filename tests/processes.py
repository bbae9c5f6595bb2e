"""The service as a process of its own, started as its operator starts it."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from opus_api.config import ROOT

START = [sys.executable, "wsgi.py"]
GUNICORN = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"]
FLASK = [sys.executable, "-m", "flask"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """Nothing of the tests' own environment but what Python needs."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "COVERAGE_PROCESS_CONFIG") if name in os.environ}
    return {**kept, "FLASK_APP": "wsgi", "HOST": "127.0.0.1", **environment}


def run(command: list[str], environment: Mapping[str, str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(
        command, cwd=ROOT, env=clean(environment), input=stdin, capture_output=True, text=True, timeout=60
    )


@dataclass
class Service:
    url: str
    process: subprocess.Popen[bytes]
    printed: IO[bytes]
    last: str | None = None  # what it had printed when it ended

    @property
    def output(self) -> str:
        """What it has printed so far."""
        if self.last is not None:
            return self.last
        size = os.fstat(self.printed.fileno()).st_size
        return os.pread(self.printed.fileno(), size, 0).decode()  # where it writes is not where we read

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def stop(self) -> int:
        """Sends SIGTERM and waits."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


@contextmanager
def service(command: list[str], environment: Mapping[str, str]) -> Iterator[Service]:
    """A running service that answers on ``environment["PORT"]``; stopped at the end."""
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(command, cwd=ROOT, env=clean(environment), stdout=printed, stderr=subprocess.STDOUT)
        found = Service(f"http://127.0.0.1:{environment['PORT']}", process, printed)
        try:
            _wait_until_it_answers(found)
            yield found
        finally:
            found.stop()
            found.last = found.output


def _wait_until_it_answers(found: Service) -> None:
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up and found.process.poll() is None:
        try:
            if found.get("/healthz")[0] == 200:
                return
        except OSError:
            time.sleep(0.05)
    found.stop()
    raise AssertionError(f"the service did not start:\n{found.output}")
