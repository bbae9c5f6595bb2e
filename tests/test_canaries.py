"""Secrets that nobody else has, put wherever a secret can stand: after requests, failures, crashes and with DEBUG on,
none of them is in a log, a file, the database, a page or an answer (bar 18)."""

import base64
import itertools
import json
import logging
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from cryptography.fernet import Fernet
from flask import Flask

from opus_api import startup
from opus_api.extensions import db
from opus_api.models import User
from opus_api.services import users
from tests import bars, routes
from tests.fakes.upstream import Answer, Asked, Reply, Upstream, error_first, in_json, json_error, refusing, streamed
from tests.live import KEY, PASSWORD, Gateway, body, gateway
from tests.processes import FLASK, clean, free_port, run

STATUSES = (400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 503, 529)


class Canaries:
    """Made-up secrets by the field they stand in. Their shape is no known one, so that masking shapes is not enough."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def new(self, field: str, value: str = "") -> str:
        assert field not in self.values, field
        self.values[field] = value or f"Canary{secrets.token_hex(12)}"
        return self.values[field]

    def seen_in(self, where: str, data: bytes | str, but: tuple[str, ...] = ()) -> list[tuple[str, str]]:
        raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
        return [
            (field, where)
            for field, value in self.values.items()
            if field not in but and any(form in raw for form in _forms(value))
        ]


def _forms(value: str) -> set[bytes]:
    plain = value.encode()
    return {
        plain,
        quote(value, safe="").encode(),
        json.dumps(value)[1:-1].encode(),
        base64.b64encode(plain).rstrip(b"="),
    }


def echo(status: int) -> Answer:
    """A refusal that repeats every header the gateway sent: providers do say which key they did not like."""

    def answer(asked: Asked) -> Reply:
        said = " ".join(f"{name}={value}" for name, value in asked.headers.items())
        error = {
            "type": "error",
            "error": {"type": "x", "message": f"no: {said}", "code": said, "details": {"a": said}},
        }
        return in_json(error, status, **{"set-cookie": asked.headers.get("x-api-key", "a=b"), "x-echo": said})

    return answer


def broken(asked: Asked) -> Reply:
    """A stream that becomes nonsense, which holds the key."""
    said = " ".join(asked.headers.values()).encode()
    return streamed([b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n', b"data: {" + said + b"\n\n"])


def told_within(asked: Asked) -> Reply:
    said = json.dumps({"error": {"message": " ".join(asked.headers.values()), "type": "server_error"}}).encode()
    return streamed([b"data: " + said + b"\n\n"])


@pytest.fixture(scope="module")
def canaries() -> Canaries:
    return Canaries()


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    fake = Upstream()
    yield fake
    fake.stop()


@pytest.fixture(scope="module")
def running(migrated: Path, canaries: Canaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    logs = tmp_path_factory.mktemp("logs")
    environment = {
        "DEBUG_MODE": "true",
        "LOG_LEVEL": "debug",
        "LOG_DIR": str(logs),
        "ENCRYPTION_KEYS": canaries.new("ENCRYPTION_KEYS", Fernet.generate_key().decode()),
        "DEFAULT_ADMIN_PASSWORD": canaries.new("DEFAULT_ADMIN_PASSWORD"),
        "HTTPS_PROXY": f"http://op:{canaries.new('HTTPS_PROXY password')}@127.0.0.1:{free_port()}",
    }
    with gateway(migrated, **environment) as found:
        yield found


class Person:
    """The administrator, by JSON and in a browser; what is answered to him is looked through."""

    def __init__(self, live: Gateway, canaries: Canaries):
        self.live, self.canaries, self.seen = live, canaries, list[tuple[str, str]]()
        self.browser = requests.Session()
        self.browser.trust_env = False
        token = self._csrf("/login")
        form = {"csrf_token": token, "username": "admin", "password": PASSWORD}
        assert self.browser.post(f"{live.url}/login", data=form, allow_redirects=False).status_code == 302
        canaries.new("session cookie", self.browser.cookies["opus"])
        login = live.post("/api/auth/login", {"username": "admin", "password": PASSWORD}, key=None)
        self.jwt = canaries.new("JWT", login.json["token"])

    def _csrf(self, path: str) -> str:
        found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.browser.get(self.live.url + path).text)
        assert found
        return found[1]

    def call(self, method: str, path: str, sent: Any = None, but: tuple[str, ...] = ()) -> Any:
        answer = self.live.send(method, path, sent, {"authorization": f"Bearer {self.jwt}"}, key=None)
        self.look(f"{method} {path}", answer.body, answer.headers, but)
        return json.loads(answer.body) if answer.body.startswith((b"{", b"[")) else None

    def look(self, where: str, data: bytes, headers: Mapping[str, str], but: tuple[str, ...] = ()) -> None:
        self.seen += self.canaries.seen_in(where, data, but)
        self.seen += self.canaries.seen_in(f"{where}, headers", json.dumps(dict(headers)), but)


def with_secrets(person: Person, upstream: Upstream) -> list[str]:
    """Accounts of every kind, settings and keys, all of them with canaries; the models that clients may ask for."""
    new, models = person.canaries.new, list[str]()
    answers: dict[str, Answer] = {f"status {status}": echo(status) for status in STATUSES}
    answers |= {"200 with an error": json_error(429), "first event": error_first(500), "nonsense": broken}
    answers |= {"error within": told_within, "plain refusal": refusing(401, "no")}
    for kind, (name, answer) in itertools.product(("openai", "anthropic"), answers.items()):
        key = new(f"{kind} api_key, {name}")
        upstream.answers[key] = answer
        model = f"{kind}-{name}".replace(" ", "-")
        url = upstream.url + ("/v1" if kind == "openai" else "")
        person.call("POST", "/api/cookies", _account(kind, model, url, api_key=key, models=[model]))
        models.append(model)
    proxy = f"http://me:{new('proxy password')}@127.0.0.1:{free_port()}"
    more = {"session_key": new("session_key"), "proxy": proxy, "api_key": new("api_key behind a proxy")}
    person.call(
        "POST", "/api/cookies", _account("openai", "proxied", "http://127.0.0.1:1/v1", models=["proxied"], **more)
    )
    tokens = {name: new(name) for name in ("client_secret", "refresh_token", "access_token")}
    tokens |= {"client_id": "client", "proxy": f"http://me:{new('proxy password, Amazon Q')}@127.0.0.1:{free_port()}"}
    person.call("POST", "/api/cookies", {"provider": "amazonq", "name": "q", "models": ["q"], **tokens})
    shown_once = "API key, made by hand"
    person.call("POST", "/api/keys", {"name": "by hand", "value": new(shown_once)}, but=(shown_once,))
    person.call("PUT", "/v2/settings", {"apiKey": new("apiKey"), "metricsToken": new("metricsToken"), "debugLog": True})
    person.call("PUT", "/v2/settings", {"adminPassword": new("adminPassword, not confirmed")})
    person.call(
        "POST", "/api/cookies", {"name": "x", "base_url": "nonsense", "api_key": new("api_key of a refused form")}
    )
    gone = _account("openai", "deleted", "http://127.0.0.1:1/v1", api_key=new("api_key of a deleted account"))
    gone["proxy"] = f"http://me:{new('proxy password of a deleted account')}@127.0.0.1:{free_port()}"
    person.call("DELETE", f"/v2/accounts/{person.call('POST', '/api/cookies', gone)['id']}")
    feed = {"accounts": [{"provider": "nobody", "name": "x", "api_key": new("api_key of a refused row")}]}
    person.call("POST", "/v2/accounts/feed", feed)
    return [*models, "proxied", "q", "practice/x"]


def _account(kind: str, name: str, url: str, **more: Any) -> dict[str, Any]:
    return {"provider": kind, "name": name, "base_url": url, **more}


def ask(person: Person, models: list[str]) -> list[str]:
    """In both dialects, streamed and whole, with good and bad credentials. The ids of the requests."""
    live, new, ids = person.live, person.canaries.new, []
    wrong = {"x-api-key": new("a client's wrong key"), "authorization": "Bearer " + new("a client's wrong bearer")}
    more = {"cookie": "session=" + new("a client's cookie"), "authorization": f"Bearer {new('override')}"}
    for model, path, stream in itertools.product(models, ("/v1/messages", "/v1/chat/completions"), (True, False)):
        headers = {"x-api-key": KEY, **(more if stream else {})}
        answer = live.post(path, body(model, stream=stream), headers, key=None)
        person.look(f"POST {path} {model}", answer.body, answer.headers)
        ids.append(answer.headers["request-id"])
    for path in ("/v1/messages", "/v1/chat/completions", "/v1/models", "/api/keys", "/nothing", "/v1/nothing"):
        answer = live.send("POST", path, b"{", wrong, key=None)
        person.look(f"POST {path} by a stranger", answer.body, answer.headers)
    for sent in ({"username": "admin", "password": new("a wrong password")}, {"username": new("a password as name")}):
        answer = live.post("/api/auth/login", sent, key=None)
        person.look("POST /api/auth/login", answer.body, answer.headers)
    changed = {"old_password": new("old_password, wrong"), "new_password": new("new_password")}
    person.call("POST", "/api/auth/password", changed)
    person.call("POST", "/api/auth/confirm", {"password": new("a wrong confirmation")})
    return ids


def read_everything(person: Person, app: Flask, ids: list[str]) -> int:
    """All that can be read, by JSON and as pages. How many addresses."""
    accounts = [row["id"] for row in person.call("GET", "/api/cookies")["data"]]
    read = 0
    for route in routes.every(app):
        if route.method != "GET" or "<path:" in route.rule:
            continue
        numbers = accounts if "account_id" in route.rule else [1]
        for number, request_id in zip(numbers, itertools.cycle(ids), strict=False):
            path = route.filled({"account_id": number, "request_id": request_id})
            answer = person.browser.get(person.live.url + path, allow_redirects=False, timeout=20)
            assert answer.status_code < 500, path
            person.look(f"GET {path}", answer.content, dict(answer.headers))
            read += 1
    return read


def test_no_secret_is_seen_anywhere(running: Gateway, upstream: Upstream, canaries: Canaries, app: Flask) -> None:
    person = Person(running, canaries)
    models = with_secrets(person, upstream)
    ids = ask(person, models)
    person.call("POST", "/api/cookies/validate/all")
    read = read_everything(person, app, ids)
    running.stop()
    seen = person.seen + canaries.seen_in("its output", running.output())
    places = [path for folder in (running.folder, Path(running.environment["LOG_DIR"])) for path in folder.rglob("*")]
    files = [path for path in places if path.is_file() and path.name != "secret.key"]
    seen += [found for path in files for found in canaries.seen_in(path.name, path.read_bytes())]
    assert running.output()
    assert {"opus-api.log", "opus.db"} <= {path.name for path in files}
    assert not seen
    assert len(canaries.values) >= 20
    bars.report(18, canaries=len(canaries.values), addresses_read=read, files=len(files), seen=len(seen))


# --- Crashes ----------------------------------------------------------------------------------------------------------


def test_a_crash_tells_no_secret(app: Flask, admin: User, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of a page, of the JSON API and of a client's call; the traceback is kept, the secret in it is not."""
    from opus_api import logs
    from opus_api.models import Account

    secret = Canaries().new("api_key")
    db.session.add(Account(provider="openai", name="one", api_key=secret))
    db.session.commit()
    app.extensions["snapshots"].current()

    def crash() -> str:
        raise RuntimeError(f"no luck with {secret}")

    for path in ("/crash", "/v2/crash", "/v1/crash"):
        app.add_url_rule(path, endpoint=path, view_func=crash)
    logs.configure(app.extensions["settings"])
    for path in ("/crash", "/v2/crash", "/v1/crash"):
        answer = app.test_client().get(path)
        assert answer.status_code == 500
        assert secret not in answer.text
        assert "RuntimeError" not in answer.text
    printed = capfd.readouterr().err
    assert printed.count("RuntimeError: no luck with ***") == 3
    assert secret not in printed


FAILING = [
    {"DATABASE_URL": "postgresql://opus:{}@127.0.0.1:1/opus"},
    {"DATABASE_URL": "postgresql://opus:{}@127.0.0.1:port/opus"},
    {"REDIS_URL": "redis://:{}@127.0.0.1:1/0", "WEB_CONCURRENCY": "2"},
    {"JWT_SECRET": "{}"},
    {"ENCRYPTION_KEYS": "{}"},
    {"HTTPS_PROXY": "nonsense://me:{}@"},
]


@pytest.mark.parametrize("setting", FAILING, ids=lambda setting: next(iter(setting)))
def test_a_start_that_fails_tells_no_secret(
    environment: dict[str, str],
    setting: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    secret = Canaries().new("setting")
    changed = {name: value.format(secret) for name, value in setting.items()}
    monkeypatch.setattr(
        os, "environ", clean({**environment, **changed, "PORT": str(free_port()), "DEBUG_MODE": "true"})
    )
    monkeypatch.setattr(os, "execv", lambda *_: sys.exit("it serves"))  # some of these can be served with
    with pytest.raises(SystemExit) as end:
        startup.main()
    assert secret not in f"{end.value.code}{capfd.readouterr()}"


def test_a_command_that_fails_tells_no_secret(environment: dict[str, str]) -> None:
    secret = Canaries().new("setting")
    url = FAILING[0]["DATABASE_URL"].format(secret)
    done = run([*FLASK, "keys", "list"], {**environment, "DATABASE_URL": url, "SECRET_KEY": "x", "DEBUG_MODE": "true"})
    assert "127.0.0.1:1/opus" in done.stderr
    assert secret not in done.stdout + done.stderr


def test_a_canary_that_sings_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    """The test itself can fail."""
    found = Canaries()
    value = found.new("key")
    forms: list[Callable[[str], str]] = [str, lambda text: quote(f"a/{text}", safe=""), repr]
    assert [found.seen_in("here", form(value)) for form in forms] == [[("key", "here")]] * 3
    assert found.seen_in("here", f"Basic {base64.b64encode(value.encode()).decode()}")
    with caplog.at_level(logging.WARNING):
        logging.getLogger("elsewhere").warning("see %s", value)
    assert found.seen_in("log", caplog.text)


def test_users_are_kept_as_hashes_and_accounts_encrypted(app: Flask, admin: User) -> None:
    _, token = users.start_session(admin, "page", None, None)
    raw = Path(str(db.engine.url.database)).read_bytes()
    assert token.encode() not in raw
