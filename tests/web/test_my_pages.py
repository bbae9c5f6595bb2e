"""The page of a key's holder: what it shows for a key, and what it never shows or keeps."""

import logging
import re
from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient

from opus_api.extensions import db
from opus_api.models import Account, now
from opus_api.services import api_keys
from tests.forms import token
from tests.services.test_statistics import row, write
from tests.web.conftest import weight

VALUE = "sk-opus-of-somebody-0123456789"


@pytest.fixture
def key(app: Flask) -> int:
    data = {"name": "Laptop", "value": VALUE, "limits": {"monthly_tokens": 1000, "rpm": 60}}
    return api_keys.create(app.extensions["installation"].pepper, data)[0].id


def show(browser: FlaskClient, value: str = VALUE) -> str:
    return browser.post("/my", data={"csrf_token": token(browser, "/my"), "key": value}).text


def test_a_key_shows_its_use_its_limits_and_its_models(browser: FlaskClient, key: int) -> None:
    write(
        row(1, key_id=key, time=now(), model="gpt-5", input_tokens=300, output_tokens=21),
        row(2, key_id=key, time=now(), model="gpt-5", status=429, outcome="client_error"),
        row(3, key_id=key + 1, time=now(), model="of-another-key"),
    )
    page = show(browser)
    assert re.findall(r"<dd>([^<]+)</dd>", page) == ["2", "332", "2", "332"]
    for part in ("Laptop", "Ends in 6789", "Tokens / month", "gpt-5", "Client error 429", "claude-sonnet-4.5"):
        assert part in page
    assert "of-another-key" not in page


def test_nothing_about_others_is_told(browser: FlaskClient, key: int) -> None:
    account = Account(provider="openai", name="Secret supplier", api_key="sk-0123456789", listed_models=["model-a"])
    db.session.add(account)
    db.session.commit()
    write(
        row(
            1,
            key_id=key,
            account_id=account.id,
            time=now(),
            client_ip="203.0.113.7",
            request_id="req_0",
            provider="openai",
        )
    )
    page = show(browser)
    assert "model-a" in page
    for secret in ("Secret supplier", "203.0.113.7", "openai", VALUE):
        assert secret not in page


def test_a_key_only_reaches_the_models_it_may_use(browser: FlaskClient, app: Flask, key: int) -> None:
    api_keys.update(key, {"models": ["claude-haiku-*"]})
    page = show(browser)
    assert "claude-haiku-4-20250514" in page
    assert "claude-sonnet-4.5" not in page


def test_the_key_is_kept_nowhere(browser: FlaskClient, key: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    show(browser)
    assert VALUE not in browser.get("/my").text
    assert VALUE not in caplog.text


@pytest.mark.parametrize("state", ["unknown", "revoked", "expired"])
def test_a_key_that_opens_nothing_is_refused_at_its_field(browser: FlaskClient, key: int, state: str) -> None:
    if state == "revoked":
        api_keys.revoke(api_keys.get(key))
    if state == "expired":
        api_keys.get(key).expires_at = now() - timedelta(seconds=1)
        db.session.commit()
    page = show(browser, "sk-opus-somebody-else-0123" if state == "unknown" else VALUE)
    assert "This is no key of this gateway, or it has expired or was revoked." in page
    assert 'id="key-error"' in page
    assert "Laptop" not in page


def test_who_guesses_has_to_wait(browser: FlaskClient, key: int) -> None:
    for _ in range(5):
        show(browser, "sk-opus-somebody-else-0123")
    answer = browser.post("/my", data={"csrf_token": token(browser, "/my"), "key": VALUE})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert "Laptop" not in answer.text


def test_a_form_of_another_site_shows_nothing(browser: FlaskClient, key: int) -> None:
    assert browser.post("/my", data={"key": VALUE}).status_code == 400


def test_the_page_weighs_at_most_60_kb(browser: FlaskClient, key: int) -> None:
    write(*(row(n, key_id=key, time=now(), model="claude-sonnet-4-5-20250929") for n in range(30)))
    answer = browser.post("/my", data={"csrf_token": token(browser, "/my"), "key": VALUE})
    assert answer.text.count("<li>") == 20
    assert weight(answer) <= 60_000
