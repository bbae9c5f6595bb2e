"""The pages that export accounts and import them: nothing without the password, nothing twice, nothing by accident."""

import io
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from opus_api.extensions import db
from opus_api.models import Account, Change, User, UserSession, now
from tests.conftest import Provider
from tests.forms import PASSWORD, token
from tests.web.conftest import weight

KEY = "sk-upstream-0123456789"
Send = Callable[..., TestResponse]


@pytest.fixture
def send(person: FlaskClient) -> Send:
    """Sends a form of these pages; ``file``: what is in the chosen file."""

    def send(path: str, file: Any = None, **form: str) -> TestResponse:
        data: dict[str, Any] = {"csrf_token": token(person, path), **form}
        if file is not None:
            content = file if isinstance(file, bytes) else json.dumps(file).encode()
            data["file"] = (io.BytesIO(content), "accounts.json")
        return person.post(path, data=data)

    return send


@pytest.fixture
def account(provider: Provider) -> Account:
    account = Account(provider="openai", name="=one", api_key=KEY, base_url=provider.url, priority=3)
    db.session.add(account)
    db.session.commit()
    return account


def document(provider: Provider, *names: str) -> dict[str, Any]:
    rows = [
        {"provider": "openai", "name": name, "api_key": f"{KEY}-{name}", "base_url": provider.url} for name in names
    ]
    return {"format": "opus-api-accounts", "version": 1, "secrets": True, "accounts": rows}


def names() -> list[str]:
    db.session.rollback()
    return [account.name for account in db.session.query(Account).order_by(Account.id)]


# ---- export


def test_without_credentials_the_file_has_their_ends_and_needs_no_password(send: Send, account: Account) -> None:
    got = send("/cookies/export", format="json")
    assert got.status_code == 200
    assert got.headers["content-disposition"].startswith('attachment; filename="opus-accounts-2')
    assert got.headers["cache-control"] == "no-store"
    assert KEY not in got.text
    assert got.json is not None
    assert got.json["accounts"][0]["api_key_hint"] == "6789"


@pytest.mark.parametrize("password, says", [("", "Your password is needed."), ("wrong", "Your password")])
def test_with_credentials_it_asks_for_the_password(send: Send, account: Account, password: str, says: str) -> None:
    got = send("/cookies/export", format="csv", secrets="y", password=password)
    assert says in got.text
    assert KEY not in got.text
    assert db.session.query(Change).count() == 0


def test_it_is_noted_and_ends_after_three_in_an_hour(send: Send, account: Account) -> None:
    first = send("/cookies/export", format="json", secrets="y", password=PASSWORD)
    assert KEY in first.text
    later = [send("/cookies/export", format="csv", secrets="y") for _ in range(3)]  # the password counts for a while
    assert [KEY in got.text for got in later] == [True, True, False]
    assert "3 times an hour" in later[-1].text
    assert [change.what for change in db.session.query(Change)] == ["accounts exported with secrets"] * 3


def test_a_table_for_a_spreadsheet_runs_nothing_in_it(send: Send, account: Account) -> None:
    got = send("/cookies/export", format="csv", secrets="y", password=PASSWORD)
    assert got.content_type == "text/csv; charset=utf-8"
    assert "'=one" in got.text


# ---- import


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_what_was_exported_is_imported_and_nothing_twice(send: Send, account: Account, kind: str) -> None:
    file = send("/cookies/export", format=kind, secrets="y", password=PASSWORD).data
    assert send("/cookies/import", file, save="1").location == "/cookies"
    assert names() == ["=one"]
    db.session.delete(account)
    db.session.commit()
    assert send("/cookies/import", file, save="1").location == "/cookies"
    (again,) = db.session.query(Account)
    assert (again.name, again.api_key, again.priority) == ("=one", KEY, 3)


def test_looking_into_it_saves_nothing_and_shows_no_credential(send: Send, provider: Provider) -> None:
    file = document(provider, "one", "two") | {}
    file["accounts"] += [{"provider": "none", "name": "<b>three"}, 4]
    got = send("/cookies/import", file, password=PASSWORD)
    assert names() == []
    assert "&lt;b&gt;three" in got.text
    assert "provider: must be one of" in got.text
    assert KEY not in got.text
    assert "choose the file again" in got.text


def test_valid_accounts_land_and_the_others_are_named(send: Send, provider: Provider) -> None:
    file = document(provider, "one", "two")
    file["accounts"].insert(1, {"provider": "openai", "name": "bad", "priority": "high"})
    got = send("/cookies/import", file, save="1", password=PASSWORD)
    assert names() == ["one", "two"]
    assert "2 · bad" in got.text
    assert "What was imported" in got.text


@pytest.mark.parametrize(
    "file, says",
    [
        (None, "Choose a file."),
        (b"", "provider: there is no such column"),
        (b"\xff\xfe", "UTF-8"),
        (b"{", "no valid JSON"),
        (b'{"accounts": [{"\\ud800": 1}]}', "no valid JSON"),
        (b'{"accounts": [{"options": ' + b"[" * 900 + b"]" * 900 + b"}]}", "no valid JSON"),
        (b"[1]", "format: must be"),
        (b'{"format": "opus-api-accounts", "version": 1, "secrets": false, "accounts": []}', "holds no credentials"),
        (b"provider,name,api_key_hint\nopenai,one,6789", "holds no credentials"),
        (b'{"format": "opus-api-accounts", "version": 1, "secrets": true, "accounts": 5}', "at most 1000 accounts"),
        (b"x" * (5 * 2**20 + 1), "at most 5 MiB"),
    ],
)
def test_a_wrong_file_is_an_error_at_its_field(send: Send, file: bytes | None, says: str) -> None:
    got = send("/cookies/import", file, save="1", password=PASSWORD)
    assert got.status_code == 200
    assert says in got.text
    assert 'id="file-error"' in got.text
    assert names() == []


def test_a_file_beyond_all_bounds_is_a_413(person: FlaskClient) -> None:
    form = {"data": b"x" * (6 * 2**20 + 1), "content_type": "multipart/form-data; boundary=b"}
    assert person.post("/cookies/import", **form).status_code == 413


def test_nothing_is_imported_without_the_password_or_long_after_it(
    app: Flask, send: Send, provider: Provider, admin: User
) -> None:
    assert "is needed" in send("/cookies/import", document(provider, "one"), save="1").text
    session = db.session.query(UserSession).filter_by(kind="page").one()
    session.confirmed_at = now() - timedelta(minutes=6)
    db.session.commit()
    assert "is needed" in send("/cookies/import", document(provider, "one"), save="1").text
    assert names() == []


def test_both_pages_say_which_way_and_are_light(person: FlaskClient, account: Account) -> None:
    page = person.get("/cookies").text
    assert 'href="/cookies/import"' in page
    assert 'href="/cookies/export"' in page
    for path in ("/cookies/import", "/cookies/export"):
        assert weight(person.get(path)) <= 60_000
