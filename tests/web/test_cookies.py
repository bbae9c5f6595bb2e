"""Accounts over the JSON API, exactly as its interface is written down; under /v2 as well."""

from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from opus_api.extensions import db
from opus_api.models import Account
from tests.conftest import Provider

KEY = "sk-upstream-0123456789"
FIELDS = {
    *("id", "provider", "name", "api_key_hint", "session_key_hint", "base_url", "models", "model_map", "options"),
    *("priority", "max_concurrency", "proxy", "is_valid", "state", "state_reason", "state_until", "last_validated"),
    *("last_used", "usage_count", "error_count", "created_at", "updated_at"),
}


def body(server: Provider, **more: Any) -> dict[str, Any]:
    return {"provider": "openai", "name": "one", "api_key": KEY, "base_url": server.url, **more}


def made(api: FlaskClient, server: Provider, **more: Any) -> dict[str, Any]:
    response = api.post("/api/cookies", json=body(server, **more))
    assert response.status_code == 201, response.text
    assert response.json
    return dict(response.json)


def problem(response: TestResponse) -> tuple[int, str]:
    assert response.json
    return response.status_code, response.json["error"]["message"]


def test_an_account_as_it_is_made(api: FlaskClient, provider: Provider) -> None:
    account = made(api, provider)
    assert set(account) >= FIELDS
    expected = {
        "id": 1,
        "provider": "openai",
        "name": "one",
        "api_key_hint": "6789",
        "session_key_hint": None,
        "base_url": provider.url,
        "models": None,
        "model_map": {},
        "options": {},
        "priority": 0,
        "max_concurrency": 0,
        "proxy": None,
        "is_valid": True,
        "state": "active",
        "state_reason": None,
        "state_until": None,
        "last_used": None,
        "usage_count": 0,
        "error_count": 0,
    }
    assert {name: account[name] for name in expected} == expected
    for moment in ("created_at", "updated_at", "last_validated"):
        assert account[moment].endswith("Z")


def test_secrets_never_come_back_whole(api: FlaskClient, provider: Provider) -> None:
    made(api, provider, session_key="session-0123456789", proxy="http://user:secret-word@127.0.0.1:1")
    for path in ("/api/cookies", "/api/cookies/1", "/v2/accounts"):
        text = api.get(path).text
        assert KEY not in text
        assert "session-0123456789" not in text
        assert "secret-word" not in text


def test_morph_is_meant_when_no_provider_is_named(api: FlaskClient, provider: Provider) -> None:
    response = api.post("/api/cookies", json={"name": "m", "api_key": KEY, "base_url": provider.url})
    assert (response.status_code, response.json and response.json["provider"]) == (201, "morph")


def test_who_adds_an_account_owns_it(api: FlaskClient, provider: Provider) -> None:
    assert db.session.get_one(Account, made(api, provider)["id"]).user_id == 1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"provider": "practice"}, "provider: The practice provider is built in and needs no account."),
        ({"provider": "nobody"}, "provider: must be one of"),
        ({"name": None}, "name: is required."),
        ({"priority": "high"}, "priority: must be a whole number"),
        ({"base_url": "http://10.0.0.1/v1"}, "base_url: "),
        ({"options": {"vision": 1}}, "options.vision: must be true or false."),
        ({"api_key": "sk-ant-oat01-x"}, "api_key: Subscription tokens"),
        ({"state": "cooling"}, "state: "),
        ({"colour": "red"}, "colour: is not a field of an account."),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_saved(
    api: FlaskClient, provider: Provider, change: dict[str, Any], message: str
) -> None:
    status, said = problem(api.post("/api/cookies", json=body(provider) | change))
    assert status == 422
    assert said.startswith(message)
    assert api.get("/api/cookies").json == {"data": [], "total": 0}


def test_a_name_that_is_taken_is_a_conflict(api: FlaskClient, provider: Provider) -> None:
    made(api, provider)
    status, message = problem(api.post("/api/cookies", json=body(provider)))
    assert (status, message) == (409, "name: openai has an account named 'one' already.")
    made(api, provider, name="two")
    assert problem(api.put("/api/cookies/2", json={"name": "one"}))[0] == 409


def test_put_changes_the_given_fields_and_an_absent_secret_stays(api: FlaskClient, provider: Provider) -> None:
    made(api, provider, priority=3)
    response = api.put("/api/cookies/1", json={"models": ["gpt-*"], "model_map": {"claude-*": "openai/gpt-5"}})
    assert response.status_code == 200
    assert response.json
    assert (response.json["priority"], response.json["models"]) == (3, ["gpt-*"])
    assert response.json["model_map"] == {"claude-*": "gpt-5"}
    assert response.json["api_key_hint"] == "6789"


def test_a_person_may_disable_and_enable(api: FlaskClient, provider: Provider) -> None:
    made(api, provider)
    for state in ("disabled", "active"):
        response = api.put("/api/cookies/1", json={"state": state})
        assert response.json
        assert response.json["state"] == state
    assert problem(api.put("/api/cookies/1", json={"state": "invalid"}))[0] == 422


def test_deleting(api: FlaskClient, provider: Provider) -> None:
    made(api, provider)
    response = api.delete("/api/cookies/1")
    assert (response.status_code, response.data) == (204, b"")
    assert api.delete("/api/cookies/1").status_code == 404
    assert made(api, provider)["id"] == 2  # an id is never given out again


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/api/cookies/7"),
        ("PUT", "/api/cookies/7"),
        ("DELETE", "/api/cookies/7"),
        ("POST", "/api/cookies/7/validate"),
        ("POST", "/api/cookies/7/reset"),
        ("DELETE", "/v2/accounts/7"),
    ],
)
def test_who_is_not_there_is_not_found(api: FlaskClient, method: str, path: str) -> None:
    response = api.open(path, method=method, json={})
    assert problem(response) == (404, "There is no account with the id 7.")


def test_a_number_that_is_no_id_is_not_found(api: FlaskClient) -> None:
    assert api.get(f"/api/cookies/{2**64}").status_code == 404
    assert api.get("/api/cookies/-1").status_code == 404
    assert api.get("/api/cookies/one").status_code == 404


def test_a_body_is_at_most_five_mebibytes_of_json_without_duplicates(api: FlaskClient) -> None:
    assert api.post("/api/cookies", data=b'{"name": "' + b"x" * (5 * 2**20) + b'"}').status_code == 413
    assert problem(api.post("/api/cookies", data=b"{")) == (
        400,
        "The body is not valid JSON, or nested more than 64 levels deep.",
    )
    twice = b'{"name": "a", "model_map": {"x": "1", "x": "2"}}'
    assert problem(api.post("/api/cookies", data=twice)) == (400, "The body names the field 'x' twice.")
    assert problem(api.post("/api/cookies", data=b"[]")) == (422, "The body must be a JSON object.")


def test_an_account_of_a_provider_that_only_another_version_knows_can_be_listed_and_deleted(api: FlaskClient) -> None:
    db.session.add(Account(provider="of-tomorrow", name="one"))
    db.session.commit()
    assert api.get("/api/cookies/1").status_code == 200
    assert api.put("/api/cookies/1", json={"priority": 1}).status_code == 422
    assert api.post("/api/cookies/1/validate").status_code == 422
    assert api.post("/api/cookies/validate/all").json == {"total": 0, "valid": 0, "invalid": 0, "results": []}
    assert api.delete("/api/cookies/1").status_code == 204


def test_a_wrong_method_is_405(api: FlaskClient) -> None:
    assert api.patch("/api/cookies/1").status_code == 405
    assert api.get("/api/cookies/validate/all").status_code == 405


def test_validating_one(api: FlaskClient, provider: Provider) -> None:
    made(api, provider)
    found = api.post("/api/cookies/1/validate").json
    assert found
    assert set(found) == {"id", "is_valid", "state", "latency_ms", "message"}
    assert (found["id"], found["is_valid"], found["state"]) == (1, True, "active")
    provider.status, provider.body = 401, {}
    found = api.post("/api/cookies/1/validate").json
    assert found
    assert (found["is_valid"], found["state"]) == (False, "invalid")


def test_validating_all(api: FlaskClient, provider: Provider) -> None:
    made(api, provider)
    made(api, provider, name="two")
    found = api.post("/api/cookies/validate/all").json
    assert found
    assert set(found) == {"total", "valid", "invalid", "results"}
    assert (found["total"], found["valid"], found["invalid"], len(found["results"])) == (2, 2, 0, 2)


def test_resetting_one(api: FlaskClient, provider: Provider) -> None:
    made(api, provider)
    account = db.session.get_one(Account, 1)
    account.state, account.state_reason, account.error_count = "cooling", "429", 3
    db.session.commit()
    found = api.post("/api/cookies/1/reset").json
    assert found
    assert (found["state"], found["state_reason"], found["error_count"]) == ("active", None, 0)


def test_statistics(api: FlaskClient, provider: Provider) -> None:
    assert api.get("/api/cookies/stats").json == {
        "total": 0,
        "valid": 0,
        "invalid": 0,
        "cooling": 0,
        "disabled": 0,
        "usage_count": 0,
        "error_count": 0,
        "by_provider": {},
    }
    made(api, provider)
    found = api.get("/api/cookies/stats").json
    assert found
    assert (found["total"], found["valid"], found["by_provider"]) == (1, 1, {"openai": 1})


def test_the_same_accounts_stand_under_v2(api: FlaskClient, provider: Provider) -> None:
    response = api.post("/v2/accounts", json=body(provider))
    assert response.status_code == 201
    assert api.get("/v2/accounts").json == api.get("/api/cookies").json
    assert api.get("/v2/accounts").json == {"data": [response.json], "total": 1}
    assert api.delete("/v2/accounts/1").status_code == 204


def test_resetting_all_heals_what_no_person_disabled(api: FlaskClient, provider: Provider) -> None:
    for name, state in (("a", "cooling"), ("b", "invalid"), ("c", "disabled")):
        account = db.session.get_one(Account, made(api, provider, name=name)["id"])
        account.state, account.error_count, account.is_valid = state, 2, state != "invalid"
    db.session.commit()
    response = api.post("/v2/accounts/reset")
    assert (response.status_code, response.data) == (204, b"")
    rows = api.get("/v2/accounts").json
    assert rows
    assert [row["state"] for row in rows["data"]] == ["active", "active", "disabled"]
    assert [row["error_count"] for row in rows["data"]] == [0, 0, 0]
    assert all(row["is_valid"] for row in rows["data"])
