"""The service as a process of its own, started as its operator starts it."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

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
    process: subprocess.Popen[str]
    output: str = ""  # once it has ended

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def stop(self) -> int:
        """Sends SIGTERM and waits; ``output`` holds what it has printed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.output, _ = self.process.communicate(timeout=30)
        return self.process.returncode


@contextmanager
def service(command: list[str], environment: Mapping[str, str]) -> Iterator[Service]:
    """A running service that answers on ``environment["PORT"]``; stopped at the end."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=clean(environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    found = Service(f"http://127.0.0.1:{environment['PORT']}", process)
    try:
        _wait_until_it_answers(found)
        yield found
    finally:
        found.stop()


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
