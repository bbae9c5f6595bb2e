"""The app is assembled from its parts, and the hot path carries none of the console's weight."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from opus_api.extensions import db
from opus_api.services import api_keys
from opus_api.web import guards, headers, openapi
from opus_api.web.openapi_operations import operations

HOT = ["/v1/messages", "/v1/chat/completions", "/chat/completions", "/v1/models", "/models", "/healthz"]


def test_every_part_is_there(app: Flask) -> None:
    parts = {"settings", "keyring", "transport", "snapshots", "recorder", "accounts", "gateway", "installation"}
    assert parts <= set(app.extensions)
    assert {"messages", "auth", "cookies", "management", "health", "console"} <= set(app.blueprints)


def test_only_the_look_at_blocked_addresses_and_the_headers_hook_into_every_request(app: Flask) -> None:
    assert app.before_request_funcs.get(None, []) == [guards.keep_out]
    assert app.after_request_funcs.get(None, []) == [headers.complete]
    assert app.teardown_request_funcs.get(None, []) == []


def test_every_call_of_the_json_api_is_described(app: Flask) -> None:
    """In web/openapi_operations.py, from which /openapi.json is made."""
    called = {rule.endpoint for rule, _ in openapi.calls(app)}
    assert called == set(operations(app.extensions["settings"]))


@pytest.fixture
def key(app: Flask) -> dict[str, str]:
    value = api_keys.create(app.extensions["installation"].pepper, {"name": "one"})[1]
    return {"x-api-key": value}


def call(client: FlaskClient, path: str, headers: dict[str, str]) -> Any:
    body = {"model": "any", "max_tokens": 16, "messages": [{"role": "user", "content": "Hi"}]}
    post = path.endswith(("messages", "completions"))
    return client.post(path, json=body, headers=headers) if post else client.get(path, headers=headers)


@pytest.mark.parametrize("path", HOT)
def test_a_request_with_a_key_opens_no_session_and_asks_the_database_nothing(
    app: Flask, client: FlaskClient, key: dict[str, str], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(client, path, key).status_code == 200  # loads the snapshot
    queries: list[str] = []
    sa.event.listen(db.engine, "before_cursor_execute", lambda *arguments: queries.append(arguments[2]))
    opened: list[str] = []
    original: Callable[..., Any] = type(app.session_interface).get_signing_serializer
    monkeypatch.setattr(
        type(app.session_interface),
        "get_signing_serializer",
        lambda *arguments: opened.append(path) or original(*arguments),
    )
    client.set_cookie("opus", "whatever")
    response = call(client, path, key)
    assert response.status_code == 200
    assert (queries, opened) == ([], [])
    assert "Set-Cookie" not in response.headers


def test_a_tables_repr_shows_no_column(app: Flask) -> None:
    from opus_api.models import Account

    assert repr(Account(id=5, api_key="sk-secret")) == "<Account 5>"
