"""Both shapes of the health check, and what they must not cost."""

import re
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from opus_api import crypto
from opus_api.extensions import db
from opus_api.services import settings
from opus_api.state import Health
from opus_api.version import __version__


def test_health_says_when_and_which_version(client: FlaskClient) -> None:
    body = client.get("/health").json
    assert body
    assert set(body) == {"status", "timestamp", "version"}
    assert (body["status"], body["version"]) == ("healthy", __version__)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body["timestamp"])


def test_healthz_says_ok_and_nothing_else(client: FlaskClient) -> None:
    response = client.get("/healthz")
    assert response.json == {"status": "ok"}
    assert response.content_type == "application/json"


@pytest.mark.parametrize("path", ["/health", "/healthz"])
def test_health_neither_opens_a_session_nor_sets_a_cookie(client: FlaskClient, path: str) -> None:
    client.set_cookie("opus", "whatever")
    response = client.get(path)
    assert "Set-Cookie" not in response.headers
    assert "Vary" not in response.headers


FOREIGN = {"X-Forwarded-For": "203.0.113.1"}


def test_ready_looks_at_the_database(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = client.get("/ready")
    assert (answer.status_code, answer.json) == (200, {"status": "ready", "checks": {"database": "ok", "worker": "ok"}})

    def away(*_: object) -> None:
        raise sa.exc.OperationalError("SELECT 1", {}, OSError("away"))

    monkeypatch.setattr(sa.Engine, "connect", away)
    answer = client.get("/ready")
    assert answer.status_code == 503
    assert answer.json
    assert (answer.json["status"], answer.json["checks"]["database"]) == ("not ready", "unreachable")


def test_a_worker_that_stops_is_not_ready(client: FlaskClient) -> None:
    answer = client.get("/ready", environ_overrides={"opus.worker": SimpleNamespace(alive=False)})
    assert answer.status_code == 503
    assert answer.json
    assert answer.json["checks"]["worker"] == "stopping"


@pytest.mark.parametrize(
    "health, status, told",
    [
        (Health("redis"), 200, "ok"),
        (Health("redis", away=12.3), 200, "away for 12 s, limits are approximate"),
        (Health("redis", away=61.0, decides=False), 503, "away for 61 s, limits are approximate"),
    ],
)
def test_ready_says_when_limits_are_approximate_because_redis_is_away(
    app: Flask, client: FlaskClient, health: Health, status: int, told: str
) -> None:
    app.extensions["state"] = SimpleNamespace(health=lambda: health)
    answer = client.get("/ready")
    assert answer.json
    assert (answer.status_code, answer.json["checks"]["redis"]) == (status, told)


def test_ready_is_told_to_this_machine_to_who_is_signed_in_and_to_monitors(
    client: FlaskClient, api: FlaskClient
) -> None:
    assert client.get("/ready", headers=FOREIGN).status_code == 401
    assert client.get("/ready", headers={"Host": "gateway.example"}).status_code == 401
    assert client.get("/ready", environ_overrides={"REMOTE_ADDR": "203.0.113.1"}).status_code == 401
    assert api.get("/ready", headers=FOREIGN).status_code == 200
    shown = {**FOREIGN, "Authorization": "Bearer monitor-token"}
    assert client.get("/ready", headers=shown).status_code == 401
    settings.put("metricsToken", crypto.token_hash("monitor-token"))
    db.session.commit()
    assert client.get("/ready", headers=shown).status_code == 200
    assert client.get("/ready", headers={**FOREIGN, "Authorization": "Bearer wrong"}).status_code == 401
