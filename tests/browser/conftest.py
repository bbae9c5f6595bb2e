"""A real Chromium in front of a real service, with a provider of our own behind it."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests import live
from tests.live import PASSWORD
from tests.loopback import serving
from tests.processes import free_port

ROOT = Path(__file__).parent.parent.parent
GOOD_KEY = "sk-good-0123456789abcdef"
ON_THE_PATH = ("chromium-headless-shell", "chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--num-raster-threads=1",  # four would take no less time on two cores, and more work
    "--in-process-gpu",  # there is none; a process less to start and to talk to
    "--disable-site-isolation-trials",  # with it goes the process that is kept ready for the next site
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


# --- The provider -----------------------------------------------------------------------------------------------------


@dataclass
class Upstream:
    """An OpenAI-compatible server that knows one key."""

    url: str = ""
    models: list[str] = field(default_factory=lambda: ["model-a", "model-b"])
    keys: list[str] = field(default_factory=list)  # as they came
    slow: float = 0.0  # seconds that the next answer takes


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    known = Upstream()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            known.keys.append(key)
            waits, known.slow = known.slow, 0.0
            time.sleep(waits)
            if key == GOOD_KEY:
                self._answer(200, {"object": "list", "data": [{"id": name} for name in known.models]})
            else:
                self._answer(401, {"error": {"message": "Incorrect API key provided.", "code": "invalid_api_key"}})

        def _answer(self, status: int, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as address:
        known.url = f"{address}/v1"
        yield known


# --- The service ------------------------------------------------------------------------------------------------------


def start(folder: Path, password: str) -> tuple[str, subprocess.Popen[bytes]]:
    """The whole service on a fresh data folder, as an operator starts it; its address and its process."""
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment = clean | {
        "DATA_DIR": str(folder / "data"),
        "DATABASE_URL": "",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "DEFAULT_ADMIN_PASSWORD": password,
        "ALLOW_PRIVATE_UPSTREAMS": "127.0.0.0/8",
        "GRACEFUL_TIMEOUT": "1",
    }
    log = folder / "service.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "wsgi.py"], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/healthz"):
                return url, process
        except OSError:
            time.sleep(0.1)
    process.kill()
    process.wait()
    pytest.fail(f"the service did not start:\n{log.read_text()}")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="module")
def service(migrated: Path) -> Iterator[str]:
    """The address of a service whose administrator has the password PASSWORD."""
    with live.gateway(migrated, GRACEFUL_TIMEOUT="1") as found:
        yield found.url


@pytest.fixture
def weak_service(tmp_path: Path) -> Iterator[str]:
    """The address of a service that was started with a password everybody knows."""
    url, process = start(tmp_path, "admin")
    yield url
    stop(process)


# --- The browser ------------------------------------------------------------------------------------------------------


def executable() -> str | None:
    """$CHROMIUM, the one without windows, any on the path, else Playwright's own."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ON_THE_PATH)), None)


# Of this folder, not of the session: while Playwright runs, its event loop occupies the thread that other tests need.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable(), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def session(browser: Browser, service: str) -> str:
    """The cookies of a person who is signed in, kept as a file's content."""
    context = browser.new_context(base_url=service)
    page = context.new_page()
    sign_in(page)
    state = json.dumps(context.storage_state())
    context.close()
    return state


@pytest.fixture
def open_page(browser: Browser, service: str) -> Iterator[Callable[..., Page]]:
    """Opens pages; when the test ends, none may have complained: no script error, no CSP report, nothing missing.
    ``refusals``: what a test means to see refused."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def heard(message: ConsoleMessage, refusals: str) -> None:
        if message.type in {"error", "warning"} and not (refusals and re.search(refusals, message.text)):
            complaints.append(f"{message.text} ({message.location['url']})")

    def open_one(
        session: str | None = None, script: bool = True, url: str = service, refusals: str = "", **options: object
    ) -> Page:
        state = json.loads(session) if session else None
        context = browser.new_context(
            base_url=url, storage_state=state, java_script_enabled=script, reduced_motion="reduce", **options
        )
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard(message, refusals))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


def sign_in(page: Page, username: str = "admin", password: str = PASSWORD) -> None:
    page.goto("/login")
    page.get_by_label("User name").fill(username)
    page.get_by_label("Password").fill(password)
    press(page, "Sign in")


def press(page: Page, name: str) -> None:
    """Press a button that sends a form, and wait for the page it leads to."""
    with page.expect_navigation():
        page.get_by_role("button", name=name, exact=True).click()
