"""The gateway as its clients meet it: gunicorn on a port of loopback, a data folder of its own, real HTTP."""

import http.client
import itertools
import json
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from opus_api.config import ROOT
from tests.commands import Commands
from tests.forms import PASSWORD
from tests.processes import GUNICORN, clean, free_port

T = TypeVar("T")

KEY = "sk-client-0123456789"
CONF, HASTY, LEADING = "gunicorn.conf.py", "tests/fakes/hasty.conf.py", "tests/fakes/leading.conf.py"
LOOPBACK = "127.0.0.0/8"

_names = itertools.count(1)


def unique(word: str) -> str:
    """A name that no other test uses: what tests share one gateway for, they tell apart by names."""
    return f"{word}-{next(_names)}"


def wait_until(look: Callable[[], T], seconds: float = 10.0) -> T:
    """What ``look`` returns once it is true. Looked at ever less often: most looks ask a gateway, and cost it time."""
    give_up, pause = time.monotonic() + seconds, 0.005
    while True:
        if found := look():
            return found
        assert time.monotonic() < give_up, f"it did not happen within {seconds} s"
        time.sleep(pause)
        pause = min(1.3 * pause, 0.1)


def body(model: str, prompt: str = "Hi", **more: Any) -> dict[str, Any]:
    """A request that both dialects take."""
    return {"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": prompt}], **more}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The data of all events; OpenAI's [DONE] as {"done": True}."""
        lines = [line.removeprefix(b"data: ") for line in self.body.split(b"\n") if line.startswith(b"data: ")]
        return [{"done": True} if line == b"[DONE]" else json.loads(line) for line in lines]

    @property
    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]

    @property
    def text(self) -> str:
        """What the model said, in either dialect, streamed or not."""
        assert self.status == 200, self.body
        if not self.headers["content-type"].startswith("text/event-stream"):
            message = self.json
            if "choices" in message:
                return str(message["choices"][0]["message"]["content"])
            return "".join(block.get("text", "") for block in message["content"])
        said = ""
        for event in self.events:
            choices = event.get("choices")
            delta = choices[0]["delta"] if choices else {} if "choices" in event else event.get("delta") or {}
            said += delta.get("text") or delta.get("content") or ""
        return said

    @property
    def error(self) -> tuple[int, str, str]:
        """(status, type, message)"""
        found = self.json["error"]
        return self.status, found["type"], found["message"]


def read(connection: http.client.HTTPConnection) -> Answer:
    response = connection.getresponse()
    return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


@dataclass
class Gateway:
    url: str
    port: int
    folder: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes]
    log: Path
    _token: list[str] = field(default_factory=list)

    # -- as a client

    def connection(self, timeout: float = 30.0) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def send(
        self, method: str, path: str, sent: Any = None, headers: Mapping[str, str] | None = None, key: str | None = KEY
    ) -> Answer:
        """``sent``: bytes as they are, anything else as JSON."""
        data = sent if isinstance(sent, bytes) or sent is None else json.dumps(sent).encode()
        named = {"content-type": "application/json", **({"x-api-key": key} if key else {}), **(headers or {})}
        with closing(self.connection()) as connection:
            connection.request(method, path, data, named)
            return read(connection)

    def post(self, path: str, sent: Any, headers: Mapping[str, str] | None = None, key: str | None = KEY) -> Answer:
        return self.send("POST", path, sent, headers, key)

    def ask(self, model: str, prompt: str = "Hi", **more: Any) -> Answer:
        """In Anthropic's dialect."""
        return self.post("/v1/messages", body(model, prompt, **more))

    def chat(self, model: str, prompt: str = "Hi", **more: Any) -> Answer:
        return self.post("/v1/chat/completions", body(model, prompt, **more))

    @contextmanager
    def streaming(self, model: str, path: str = "/v1/messages", **more: Any) -> Iterator[http.client.HTTPResponse]:
        """A stream that is still running."""
        connection = self.connection()
        headers = {"content-type": "application/json", "x-api-key": KEY}
        connection.request("POST", path, json.dumps(body(model, stream=True, **more)), headers)
        try:
            yield connection.getresponse()
        finally:
            connection.close()

    # -- as its operator

    def flask(self, *words: str, stdin: str = "") -> str:
        """A command, in this process: one of its own takes a second, and to the service this one is another as well."""
        from opus_api import config, create_app, crypto
        from opus_api.extensions import db

        mine = crypto.current()  # of the test's own app
        app = create_app(config.load(self.folder, clean(self.environment)))
        try:
            with app.app_context():
                told = Commands(app.test_cli_runner()).text(*words, stdin=stdin)
                db.engine.dispose()
            return told.strip()
        finally:
            crypto.use(mine)

    def api(self, method: str, path: str, sent: Any = None) -> Any:
        """A call of the JSON API by the administrator: what it answers."""
        if not self._token:
            login = self.post("/api/auth/login", {"username": "admin", "password": PASSWORD}, key=None)
            self._token.append(login.json["token"])
        answer = self.send(method, path, sent, {"authorization": f"Bearer {self._token[0]}"}, key=None)
        assert answer.status < 300, answer.body
        return answer.json if answer.body else None

    def account(self, provider: str, base_url: str, key: str = "", **fields: Any) -> dict[str, Any]:
        """Adds one; its name and key are made up, its models are what a test shares with nobody."""
        key = key or unique("sk-up")
        added: dict[str, Any] = self.api(
            "POST",
            "/api/cookies",
            {"provider": provider, "name": unique("account"), "api_key": key, "base_url": base_url, **fields},
        )
        return {**added, "key": key}

    def shown(self, account: Mapping[str, Any]) -> dict[str, Any]:
        """The account as the API shows it now."""
        found: dict[str, Any] = self.api("GET", f"/api/cookies/{account['id']}")
        return found

    def until(self, account: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
        """Waits until the account shows these values."""

        def look() -> dict[str, Any] | None:
            now = self.shown(account)
            return now if all(now[name] == value for name, value in fields.items()) else None

        return wait_until(look)

    def rows(self, where: str = "1", *values: Any) -> list[dict[str, Any]]:
        """Of the request log."""
        with closing(sqlite3.connect(self.database, timeout=5)) as connection:
            connection.row_factory = sqlite3.Row
            query = f"SELECT * FROM request_logs WHERE {where} ORDER BY id"
            return [dict(row) for row in connection.execute(query, values)]

    def row(self, answer: Answer | str) -> dict[str, Any]:
        """The log row of an answer, once it is written."""
        name = answer if isinstance(answer, str) else answer.headers["request-id"]
        return wait_until(lambda: self.rows("request_id = ?", name))[0]

    def row_of(self, model: str) -> dict[str, Any]:
        """The log row of the one request that named this model, once it is written."""
        return wait_until(lambda: self.rows("model = ?", model))[0]

    def forget_accounts(self) -> None:
        """All there are, for the next module that shares this service: it reads them all at each change of one."""
        with closing(sqlite3.connect(self.database, timeout=5)) as connection, connection:
            connection.execute("DELETE FROM accounts")

    @property
    def database(self) -> Path:
        return next(self.folder.glob("*.db"))

    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


@cache
def installed(migrated: Path) -> Path:
    """A data folder with one key and one administrator; gateways take copies."""
    from opus_api import config, create_app
    from opus_api.extensions import db
    from opus_api.services import api_keys, users

    folder = migrated.parent / "installed"
    shutil.copytree(migrated, folder)
    app = create_app(config.load(folder, {"DATA_DIR": str(folder)}))
    with app.app_context():
        api_keys.create(app.extensions["installation"].pepper, {"name": "client", "value": KEY})
        users.create("admin", PASSWORD)
        db.session.remove()
        db.engine.dispose()
    return folder


@contextmanager
def gateway(migrated: Path, conf: str = CONF, **settings: str) -> Iterator[Gateway]:
    """A running service; ``settings`` by their environment names. ``conf``: what gunicorn is configured by."""
    root = Path(tempfile.mkdtemp())
    folder, log = root / "data", root / "log"
    shutil.copytree(installed(migrated), folder)
    _validate_later(folder / "opus.db")
    port = free_port()
    environment = {"DATA_DIR": str(folder), "PORT": str(port), "ALLOW_PRIVATE_UPSTREAMS": LOOPBACK}
    environment |= {"GRACEFUL_TIMEOUT": "5", **settings}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*GUNICORN, "-c", conf, "wsgi:app"],
            cwd=ROOT,
            env=clean(environment),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    found = Gateway(f"http://127.0.0.1:{port}", port, folder, environment, process, log)
    try:
        _wait_until_it_answers(found)
        yield found
    finally:
        # It takes a second or two, in which other tests may run; Python ends after this thread.
        threading.Thread(target=_end, args=(found, root)).start()


class Gateways:
    """Running services that tests share, one for each conf and settings, from its first use to the end of all tests."""

    def __init__(self, migrated: Path):
        self._migrated = migrated
        self._running: dict[tuple[Any, ...], Gateway] = {}
        self._open = ExitStack()

    def __call__(self, conf: str = CONF, **settings: str) -> Gateway:
        key = (conf, *sorted(settings.items()))
        if key not in self._running:
            self._running[key] = self._open.enter_context(gateway(self._migrated, conf, **settings))
        return self._running[key]

    def stop(self) -> None:
        self._open.close()


def _validate_later(database: Path) -> None:
    """The first start would soon validate every account, and so clear the counts of failures that tests look at."""
    later = datetime.now(UTC) + timedelta(minutes=50)
    with closing(sqlite3.connect(database)) as connection, connection:
        words = "INSERT INTO job_runs (name, next_run) VALUES ('validate_accounts', ?)"
        connection.execute(words, (f"{later:%Y-%m-%d %H:%M:%S.%f}",))


def _end(found: Gateway, root: Path) -> None:
    found.stop()
    shutil.rmtree(root, ignore_errors=True)


def _wait_until_it_answers(found: Gateway) -> None:
    def look() -> bool:
        assert found.process.poll() is None, found.output()
        try:
            return found.send("GET", "/healthz").status == 200
        except OSError:
            return False

    wait_until(look, 30.0)
