"""The service on PostgreSQL: what the other tests show on SQLite, once through."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import upgrade

from opus_api import config, create_app
from opus_api.extensions import db
from opus_api.models import User
from opus_api.services import retention, users
from tests.conftest import LOOPBACK, Caller, Provider
from tests.forms import PASSWORD
from tests.services.test_upkeep import another_writer, log_rows
from tests.web.test_wrong_types import refuse_every_wrong_type


@pytest.fixture
def app(postgresql: str, tmp_path: Path) -> Iterator[Flask]:
    environment = {"DATA_DIR": str(tmp_path), "SECRET_KEY": "any", "DATABASE_URL": postgresql, **LOOPBACK}
    settings = config.load(tmp_path, environment)
    with create_app(settings).app_context():
        upgrade()
        db.engine.dispose()
    app = create_app(settings)
    app.test_client_class = Caller
    with app.app_context():
        yield app
        db.session.remove()
        db.engine.dispose()


def test_signing_in_and_running_a_pool(app: Flask, admin: User, provider: Provider) -> None:
    client = app.test_client()
    wrong = {"username": "admin\0", "password": PASSWORD}
    assert client.post("/api/auth/login", json=wrong).status_code == 401
    answer = client.post("/api/auth/login", json={"username": "admin", "password": PASSWORD}).json
    assert answer
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {answer['token']}"

    body = {"provider": "openai", "name": "one", "api_key": "sk-upstream-0123456789", "base_url": provider.url}
    first = client.post("/api/cookies", json=body)
    assert first.status_code == 201
    assert client.post("/api/cookies", json=body).status_code == 409
    assert client.put("/api/cookies/1", json={"priority": 5, "options": {"vision": False}}).status_code == 200
    snapshot = app.extensions["snapshots"].current()
    assert [(account.priority, account.listed_models) for account in snapshot.accounts] == [(5, ("model-a", "model-b"))]
    assert client.post("/api/cookies/validate/all").json["valid"] == 1  # type: ignore[index]
    assert client.post("/v2/accounts/reset").status_code == 204
    assert client.get(f"/api/cookies/{2**64}").status_code == 404
    assert client.delete("/api/cookies/1").status_code == 204
    assert app.extensions["snapshots"].current().accounts == ()

    assert client.post("/api/auth/logout").status_code == 204
    assert client.get("/api/auth/me").status_code == 401


def test_deleting_a_user_takes_the_sessions_along(app: Flask, admin: User) -> None:
    other = users.create("other", PASSWORD)
    _, token = users.start_session(other, "jwt", None, None)
    users.delete(other)
    assert users.find_session(token, "jwt") is None


def test_a_call_is_done_once_here_too(api: FlaskClient) -> None:
    def make(name: str) -> Any:
        return api.post("/api/keys", json={"name": name}, headers={"Idempotency-Key": "first"})

    first, again, other = make("laptop"), make("laptop"), make("phone")
    assert (first.status_code, again.status_code, other.status_code) == (201, 201, 422)
    assert again.json == first.json


@pytest.mark.parametrize("call", ["POST /api/keys", "POST /v2/accounts/import", "POST /v2/ips/block"])
def test_fields_of_another_type_are_refused_here_too(api: FlaskClient, call: str) -> None:
    refuse_every_wrong_type(api, call)


def test_while_20000_rows_are_deleted_another_connection_waits_less_than_100_ms(app: Flask, postgresql: str) -> None:
    log_rows(20_000, 40)
    log_rows(1, 0)
    with closing(psycopg2.connect(postgresql)) as other, other.cursor() as cursor:
        change = "UPDATE request_logs SET status = 200 WHERE id = (SELECT max(id) FROM request_logs)"
        with another_writer(lambda: cursor.execute(change), other.commit) as waits:
            assert retention.purge_logs(db.engine, 30) == 20_000
    assert len(waits) > 100
    assert max(waits) < 0.1
