"""API keys over the JSON API, exactly as its interface is written down."""

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

FIELDS = {
    *("id", "name", "hint", "created_at", "expires_at", "revoked_at", "last_used", "override", "models", "limits"),
    "usage",
}
NO_LIMITS = {"rpm": None, "itpm": None, "otpm": None, "concurrency": None, "monthly_tokens": None}


def made(api: FlaskClient, **fields: Any) -> dict[str, Any]:
    response = api.post("/api/keys", json={"name": "laptop", **fields})
    assert response.status_code == 201, response.text
    return dict(response.json or {})


def problem(response: Any) -> tuple[int, str]:
    return response.status_code, response.json["error"]["message"]


def test_a_key_is_shown_once(api: FlaskClient) -> None:
    key = made(api, models=["claude-*"], limits={"rpm": 60}, expires_at="2030-01-01T00:00:00Z", override=True)
    value = key.pop("key")
    assert value.startswith("sk-opus-")
    assert set(key) == FIELDS
    assert (key["hint"], key["override"], key["models"]) == (value[-4:], True, ["claude-*"])
    assert key["limits"] == {**NO_LIMITS, "rpm": 60}
    assert key["expires_at"] == "2030-01-01T00:00:00Z"
    assert key["usage"] == {"requests": 0, "input_tokens": 0, "output_tokens": 0}
    assert api.get("/api/keys").json == {"data": [key], "total": 1}
    assert value not in api.get("/api/keys").text


def test_a_change_touches_what_is_given(api: FlaskClient) -> None:
    key = made(api, models=["claude-*"], limits={"rpm": 60, "itpm": 1000})
    del key["key"]
    changed = api.put(f"/api/keys/{key['id']}", json={"name": "desk", "limits": {"concurrency": 2}})
    assert changed.json == {**key, "name": "desk", "limits": {**NO_LIMITS, "concurrency": 2}}
    sent_back = {name: changed.json[name] for name in ("name", "models", "limits", "expires_at", "override")}
    assert api.put(f"/api/keys/{key['id']}", json=sent_back).json == changed.json


def test_revoking_ends_a_key_for_good(app: Flask, api: FlaskClient) -> None:
    key = made(api)
    assert len(app.extensions["snapshots"].current().keys) == 1
    assert api.delete(f"/api/keys/{key['id']}").status_code == 204
    assert app.extensions["snapshots"].current().keys == {}
    assert api.delete(f"/api/keys/{key['id']}").status_code == 204  # still gone
    assert api.get(f"/api/keys/{key['id']}").json["revoked_at"]  # type: ignore[index]
    assert problem(api.put(f"/api/keys/{key['id']}", json={"name": "x"}))[0] == 409
    assert made(api)["id"] != key["id"]  # the name is free again


@pytest.mark.parametrize(
    "fields, status, message",
    [
        ({"name": ""}, 422, "name: is required."),
        ({"models": "claude"}, 422, "models: must be null or a list"),
        ({"limits": {"rps": 1}}, 422, "limits.rps: is not a field"),
        ({"limits": {"rpm": 0}}, 422, "limits.rpm: must be a whole number"),
        ({"limits": {"rpm": True}}, 422, "limits.rpm: must be a whole number"),
        ({"expires_at": "tomorrow"}, 422, "expires_at: must be a time"),
        ({"expires_at": "0001-01-01T00:00:00+14:00"}, 422, "expires_at: must be a time"),
        ({"expires_at": "9999-12-31T23:59:59-14:00"}, 422, "expires_at: must be a time"),
        ({"override": 1}, 422, "override: must be true or false"),
        ({"key": "x"}, 422, "key: is not a field"),
        ({"name": "other"}, 409, "name: there is a key named 'other' already."),
    ],
)
def test_what_is_wrong_is_named_and_nothing_changes(
    api: FlaskClient, fields: dict[str, Any], status: int, message: str
) -> None:
    made(api, name="other")
    key = made(api)
    for response in (
        api.post("/api/keys", json={"name": "new", **fields}),
        api.put(f"/api/keys/{key['id']}", json=fields),
    ):
        found = problem(response)
        assert found[0] == status
        assert found[1].startswith(message)
    del key["key"]
    assert api.get(f"/api/keys/{key['id']}").json == key


def test_they_are_for_people_who_are_signed_in(client: FlaskClient, api: FlaskClient) -> None:
    key = made(api)["key"]
    for headers in ({}, {"x-api-key": key}, {"authorization": f"Bearer {key}"}):
        assert client.get("/api/keys", headers=headers).status_code == 401
    assert api.get(f"/api/keys/{2**64}").status_code == 404
