"""Settings over the JSON API: typed, all or nothing, recorded, effective at once."""

import time
from datetime import datetime
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from opus_api import crypto
from opus_api.config import Settings
from opus_api.services import exchange_log, saved_settings, users
from opus_api.services.exchange_log import Recording
from tests.forms import PASSWORD

DOCUMENTED = {
    "apiKey": None,
    "adminPassword": None,
    "debugLog": False,
    "enableRequestLog": True,
    "logRetentionDays": 30,
    "enableIPRateLimit": False,
    "ipRateLimitWindow": 1,
    "ipRateLimitMax": 100,
}


def shown(api: FlaskClient) -> dict[str, Any]:
    return dict(api.get("/v2/settings").json or {})


def test_the_documents_names_and_defaults_and_ours(api: FlaskClient) -> None:
    found = shown(api)
    assert DOCUMENTED.items() <= found.items()
    assert found["rotationStrategy"] == "priority"
    assert found["upstreamIdleTimeout"] == 120.0
    assert found["metricsToken"] is None


def test_a_saved_one_wins_and_what_was_read_can_be_sent_back(app: Flask, api: FlaskClient) -> None:
    changed = api.put("/v2/settings", json={"logRetentionDays": 7, "rotationStrategy": "least_used", "pingInterval": 5})
    assert changed.status_code == 200
    assert changed.json == shown(api)
    assert (shown(api)["logRetentionDays"], shown(api)["rotationStrategy"], shown(api)["pingInterval"]) == (
        7,
        "least_used",
        5.0,
    )
    assert app.extensions["snapshots"].current().settings["logRetentionDays"] == 7
    assert api.put("/v2/settings", json=shown(api)).json == shown(api)
    assert len(api.get("/v2/changes").json["data"]) == 3  # type: ignore[index]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"colour": "red"}, "colour: is not a field"),
        ({"logRetentionDays": "7"}, "logRetentionDays: must be a whole number between 1 and 3650."),
        ({"logRetentionDays": 0}, "logRetentionDays: must be"),
        ({"logRetentionDays": None}, "logRetentionDays: must be"),
        ({"enableRequestLog": 1}, "enableRequestLog: must be true or false."),
        ({"ipRateLimitMax": 1.5}, "ipRateLimitMax: must be"),
        ({"rotationStrategy": "coin"}, "rotationStrategy: must be one of priority, round_robin, least_used."),
        ({"rotationStrategy": []}, "rotationStrategy: must be one of"),
        ({"pingInterval": 0}, "pingInterval: must be a number of seconds"),
        ({"pingInterval": True}, "pingInterval: must be"),
        ({"apiKey": "short"}, "apiKey: must be at least 16 characters."),
        ({"apiKey": 5}, "apiKey: must be text."),
        ({"metricsToken": "ä" * 20}, "metricsToken: must be printable ASCII"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_saved(api: FlaskClient, wrong: dict[str, Any], message: str) -> None:
    before = shown(api)
    response = api.put("/v2/settings", json={"debugLog": True, **wrong})
    assert response.status_code == 422
    assert response.json["error"]["message"].startswith(message)  # type: ignore[index]
    assert shown(api) == before
    assert api.get("/v2/changes").json == {"data": [], "total": 0}


def test_one_goes_back_to_its_default(app: Flask, api: FlaskClient) -> None:
    api.put("/v2/settings", json={"logRetentionDays": 7})
    for _ in range(2):  # also when it is there already
        assert api.delete("/v2/settings/logRetentionDays").status_code == 204
        assert shown(api)["logRetentionDays"] == 30
    assert "logRetentionDays" not in app.extensions["snapshots"].current().settings
    changes = [(row["before"], row["after"]) for row in api.get("/v2/changes").json["data"]]  # type: ignore[index]
    assert changes == [(7, 30), (30, 7)]
    assert api.delete("/v2/settings/adminPassword").status_code == 422


def test_each_change_is_recorded_with_who_when_before_and_after(api: FlaskClient) -> None:
    api.put("/v2/settings", json={"debugLog": True, "ipRateLimitMax": 100})
    api.put("/v2/settings", json={"debugLog": False, "apiKey": "sk-from-a-document"})
    rows = api.get("/v2/changes").json["data"]  # type: ignore[index]
    assert all(row.pop("time").endswith("Z") for row in rows)
    assert rows == [
        {"who": "admin", "what": "apiKey", "before": None, "after": None},
        {"who": "admin", "what": "debugLog", "before": True, "after": False},
        {"who": "admin", "what": "debugLog", "before": False, "after": True},
    ]


def test_debug_mode_ends_by_itself_and_says_when(app: Flask, api: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends() -> float:
        """From now on, in minutes."""
        return (datetime.fromisoformat(shown(api)["debugLogUntil"]).timestamp() - time.time()) / 60

    def is_on(after_minutes: float) -> bool:
        app.extensions["gateway"].catalog()
        monkeypatch.setattr(exchange_log.time, "time", lambda: now + 60 * after_minutes)
        try:
            recording: Recording | None = app.extensions["gateway"].recording("req_1")
        finally:
            monkeypatch.undo()
        return recording is not None

    now = time.time()
    assert (shown(api)["debugLogUntil"], is_on(0)) == (None, False)
    api.put("/v2/settings", json={"debugLog": True})
    assert 58 < ends() <= 60
    api.put("/v2/settings", json={"debugLogMinutes": 10})
    assert 8 < ends() <= 10
    assert api.put("/v2/settings", json=shown(api)).status_code == 200  # what was read begins nothing anew
    assert (is_on(9), is_on(11)) == (True, False)
    assert saved_settings.end_debug_log() is False
    monkeypatch.setattr(saved_settings.time, "time", lambda: now + 660)
    assert saved_settings.end_debug_log() is True
    assert (shown(api)["debugLog"], shown(api)["debugLogUntil"]) == (False, None)
    [change, *_] = api.get("/v2/changes").json["data"]  # type: ignore[index]
    assert (change["who"], change["what"], change["after"]) == ("machine", "debugLog", False)


def test_the_environment_switches_debug_mode_on_for_a_while_too() -> None:
    on = Settings(debug_mode=True)
    assert saved_settings.debug_until({}, on, 1000.0) == 1000.0 + 3600
    assert saved_settings.debug_until({"debugLogMinutes": 1}, on, 1000.0) == 1060.0
    assert saved_settings.debug_until({"debugLog": False}, on, 1000.0) == 0.0


def test_the_api_key_is_the_one_named_default(app: Flask, api: FlaskClient) -> None:
    def works(value: str) -> bool:
        snapshot = app.extensions["snapshots"].current()
        return crypto.keyed_hash(snapshot.pepper, value) in snapshot.keys

    first, second = "sk-the-first-value", "sk-the-second-value"
    for value, other in ((first, second), (second, first), (first, second)):
        assert api.put("/v2/settings", json={"apiKey": value}).json["apiKey"] is None  # type: ignore[index]
        assert (works(value), works(other)) == (True, False)
    for _ in range(2):  # who takes away what is not there has it as wanted
        assert api.put("/v2/settings", json={"apiKey": ""}).status_code == 200
        assert not works(first)
    api.put("/v2/settings", json={"apiKey": first})  # it may come back
    assert works(first)
    assert [key["name"] for key in api.get("/api/keys").json["data"]] == ["default"]  # type: ignore[index]


def test_an_api_key_that_somebody_else_has_is_a_conflict_and_nothing_is_saved(api: FlaskClient) -> None:
    value = api.post("/api/keys", json={"name": "laptop"}).json["key"]  # type: ignore[index]
    response = api.put("/v2/settings", json={"debugLog": True, "apiKey": value})
    assert response.status_code == 409
    assert shown(api)["debugLog"] is False


def test_the_administrators_password_wants_a_confirmation(client: FlaskClient, api: FlaskClient) -> None:
    wanted = {"adminPassword": "a better password"}
    refused = api.put("/v2/settings", json={"debugLog": True, **wanted})
    assert (refused.status_code, shown(api)["debugLog"]) == (403, False)
    assert api.post("/api/auth/confirm", json={"password": PASSWORD}).status_code == 204
    weak = api.put("/v2/settings", json={"adminPassword": "admin"})
    assert weak.status_code == 422
    assert api.put("/v2/settings", json=wanted).status_code == 200
    login = {"username": "admin", "password": wanted["adminPassword"]}
    assert client.post("/api/auth/login", json=login).status_code == 200
    assert shown(api)["adminPassword"] is None  # and this sign-in goes on


def test_a_new_password_ends_the_first_administrators_other_sign_ins(
    app: Flask, client: FlaskClient, admin: Any
) -> None:
    login = {"username": "admin", "password": PASSWORD}
    tokens = [client.post("/api/auth/login", json=login).json["token"] for _ in range(2)]  # type: ignore[index]
    headers = {"authorization": f"Bearer {tokens[0]}"}
    client.post("/api/auth/confirm", json={"password": PASSWORD}, headers=headers)
    assert client.put("/v2/settings", json={"adminPassword": "a better password"}, headers=headers).status_code == 200
    assert client.get("/api/auth/me", headers={"authorization": f"Bearer {tokens[1]}"}).status_code == 401
    assert users.named("admin").must_change_password is False


def test_a_metrics_token_is_stored_as_a_hash(app: Flask, api: FlaskClient) -> None:
    api.put("/v2/settings", json={"metricsToken": "scrape-me-0123456789"})
    assert shown(api)["metricsToken"] is None
    stored = app.extensions["snapshots"].current().settings["metricsToken"]
    assert stored == crypto.token_hash("scrape-me-0123456789")


def test_they_are_for_people_who_are_signed_in(client: FlaskClient) -> None:
    assert client.get("/v2/settings").status_code == 401
    assert client.put("/v2/settings", json={}).status_code == 401
