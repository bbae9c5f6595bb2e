"""``Idempotency-Key``: what a repeated call makes, and what it answers."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.exc import OperationalError
from werkzeug.test import TestResponse

from opus_api.extensions import db
from opus_api.models import DoneCall, User, now
from opus_api.services import api_keys, done_calls, retention, users
from opus_api.web.signed_in import issue_token

Send = Callable[..., TestResponse]


@pytest.fixture
def make(api: FlaskClient) -> Send:
    """POST /api/keys under an Idempotency-Key."""

    def send(key: str = "first", client: FlaskClient = api, **fields: Any) -> TestResponse:
        return client.post("/api/keys", json={"name": "laptop", **fields}, headers={"Idempotency-Key": key})

    return send


def names() -> list[str]:
    return [key.name for key in api_keys.every()]


def test_a_call_sent_again_gets_the_same_answer_and_makes_nothing(make: Send) -> None:
    first, again = make(), make()
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json == first.json
    assert first.json
    assert first.json["key"].startswith("sk-opus-")
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Cache-Control"] == "no-store"
    assert names() == ["laptop"]


def test_without_a_key_or_under_another_it_is_another_call(api: FlaskClient, make: Send) -> None:
    assert make().status_code == 201
    assert api.post("/api/keys", json={"name": "laptop"}).status_code == 409
    assert make("second", name="phone").status_code == 201
    assert names() == ["laptop", "phone"]


def test_the_same_key_with_another_body_or_path_is_refused(api: FlaskClient, make: Send) -> None:
    make()
    for answer in (
        make(name="phone"),
        api.post("/v2/ips/block", json={"name": "laptop"}, headers={"Idempotency-Key": "first"}),
    ):
        assert answer.status_code == 422
        assert answer.json
        assert answer.json["error"]["message"].startswith("Idempotency-Key: was used for another call")
    assert names() == ["laptop"]


def test_a_call_that_was_refused_may_be_sent_again(make: Send) -> None:
    assert make(models=5).status_code == 422
    assert make().status_code == 201


def test_another_persons_key_is_another_key(app: Flask, make: Send) -> None:
    other = users.create("other", "a password of other")
    row, token = users.start_session(other, "jwt", None, None)
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {issue_token(row, token)}"
    assert make().status_code == 201
    assert make(client=client).status_code == 409  # the name is taken, which is no answer to somebody else's call


@pytest.mark.parametrize("key", ["", "x" * 256, "é", "a\tb"])
def test_a_key_that_is_none_is_refused(make: Send, key: str) -> None:
    answer = make(key)
    assert answer.status_code == 422
    assert answer.json
    assert answer.json["error"]["message"].startswith("Idempotency-Key: must be 1 to 255")
    assert names() == []


def test_after_a_day_it_is_forgotten_before_and_by_the_cleanup(app: Flask, make: Send) -> None:
    make()
    assert retention.purge_done_calls(db.engine) == 0
    db.session.execute(sa.update(DoneCall).values(created_at=now() - timedelta(hours=25)))
    db.session.commit()
    assert make(name="phone").status_code == 201  # another body: the old one does not count any more
    assert names() == ["laptop", "phone"]
    db.session.execute(sa.update(DoneCall).values(created_at=now() - timedelta(hours=25)))
    db.session.commit()
    assert retention.purge_done_calls(db.engine) == 1


def test_a_call_that_the_database_failed_before_it_saved_anything_may_be_sent_again(
    make: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Any:
        raise OperationalError("INSERT", {}, Exception("gone"))

    with monkeypatch.context() as patch:
        patch.setattr(api_keys, "create", broken)
        assert make().status_code == 503
    assert make().status_code == 201
    assert names() == ["laptop"]


def test_of_an_error_of_ours_nobody_knows_whether_it_took_effect(make: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        db.session.execute(sa.select(User.id))
        db.session.commit()
        raise OperationalError("COMMIT", {}, Exception("gone"))

    with monkeypatch.context() as patch:
        patch.setattr(api_keys, "create", broken)
        assert make().status_code == 503
    answer = make()
    assert (answer.status_code, answer.headers["Retry-After"]) == (409, "1")
    assert "has not ended" in answer.text
    assert names() == []


def test_neither_the_reply_nor_the_key_can_be_read_in_the_database(app: Flask, make: Send) -> None:
    answer = make("a key of mine").json
    assert answer
    path = db.engine.url.database
    assert path
    with closing(sqlite3.connect(path)) as connection:
        dump = "\n".join(connection.iterdump())
    assert "done_calls" in dump
    assert answer["key"] not in dump
    assert "a key of mine" not in dump


def test_a_call_that_was_forgotten_meanwhile_is_to_be_sent_again(app: Flask) -> None:
    """Between two looks of ours: whoever came first was refused."""
    with db.engine.connect() as connection, pytest.raises(done_calls.Conflict):
        done_calls._known(connection, "nobody", "request")


@pytest.mark.parametrize(
    "path, body",
    [
        ("/api/cookies", {"provider": "openai", "name": "one", "api_key": "sk-up-0123456789", "base_url": "{url}"}),
        ("/v2/accounts", {"provider": "openai", "name": "one", "api_key": "sk-up-0123456789", "base_url": "{url}"}),
        ("/v2/accounts/feed", {"accounts": [{"provider": "openai", "name": "one", "api_key": "sk-up-0123456789"}]}),
        ("/v2/ips/block", {"ip": "192.0.2.1"}),
    ],
)
def test_every_call_that_makes_something_can_be_repeated(
    api: FlaskClient, provider: Any, path: str, body: dict[str, Any]
) -> None:
    sent = {name: value.format(url=provider.url) if isinstance(value, str) else value for name, value in body.items()}
    if "accounts" in sent:
        sent["accounts"][0]["base_url"] = provider.url
    first, again = (api.post(path, json=sent, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert first.status_code in (200, 201)
    assert (again.status_code, again.json) == (first.status_code, first.json)
    assert again.headers["Idempotency-Replayed"] == "true"


def test_the_document_names_the_header_where_it_counts(client: FlaskClient, admin: User) -> None:
    paths = client.get("/openapi.json").json["paths"]  # type: ignore[index]
    found = {
        path
        for path, methods in paths.items()
        for call in methods.values()
        if any(one["name"] == "Idempotency-Key" for one in call.get("parameters", ()))
    }
    accounts = ("/v2/accounts", "/v2/accounts/feed", "/v2/accounts/import", "/v2/accounts/oidc/start")
    assert found == {"/api/cookies", "/api/keys", "/v2/ips/block", *accounts}
