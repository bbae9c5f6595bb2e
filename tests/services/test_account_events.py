"""Each change of an account's state leaves a row that says who, from what, to what and why."""

from typing import Any

from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner

from opus_api.extensions import db
from opus_api.models import Account
from tests.conftest import Provider


def made(api: FlaskClient, provider: Provider) -> int:
    data = {"provider": "openai", "name": "one", "api_key": "sk-0123456789abc", "base_url": provider.url}
    answer: Any = api.post("/api/cookies", json=data).json
    return int(answer["id"])


def told(api: FlaskClient, id: int) -> list[tuple[str, str, str, str | None]]:
    """(who, from, to, reason), the newest first."""
    answer: Any = api.get(f"/v2/accounts/{id}/events").json
    assert answer["total"] == len(answer["data"])
    return [(found["who"], found["from"], found["to"], found["reason"]) for found in answer["data"]]


def test_a_persons_switch_and_reset_name_the_person(api: FlaskClient, provider: Provider) -> None:
    id = made(api, provider)
    assert told(api, id) == []
    api.put(f"/api/cookies/{id}", json={"state": "disabled"})
    api.put(f"/api/cookies/{id}", json={"priority": 3})
    api.put(f"/api/cookies/{id}", json={"state": "active"})
    assert told(api, id) == [("admin", "disabled", "active", None), ("admin", "active", "disabled", None)]


def test_a_reset_is_told_of_those_that_it_changed(app: Flask, api: FlaskClient, provider: Provider) -> None:
    id = made(api, provider)
    account = db.session.get(Account, id)
    assert account
    account.state, account.state_reason = "invalid", "401"
    db.session.commit()
    assert api.post("/v2/accounts/reset").status_code == 204
    assert api.post("/v2/accounts/reset").status_code == 204
    assert told(api, id) == [("admin", "invalid", "active", None), ("machine", "active", "invalid", "401")]


def test_the_command_line_is_nobody_in_particular(runner: FlaskCliRunner, api: FlaskClient, provider: Provider) -> None:
    id = made(api, provider)
    assert runner.invoke(args=["accounts", "disable", "one"]).exit_code == 0
    assert told(api, id) == [("command line", "active", "disabled", None)]


def test_what_validation_finds_is_told(api: FlaskClient, provider: Provider) -> None:
    id = made(api, provider)
    provider.status, provider.body = 401, {"error": {"message": "no such key"}}
    api.post(f"/api/cookies/{id}/validate")
    ((_, before, after, reason),) = told(api, id)
    assert (before, after) == ("active", "invalid")
    assert reason


def test_the_events_are_for_people_who_are_signed_in(client: FlaskClient) -> None:
    assert client.get("/v2/accounts/1/events").status_code == 401
