"""What a person typed is kept, or its loss is said: sessions that ended, refused secrets."""

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient

from opus_api.extensions import db
from opus_api.models import Account, ApiKey
from tests.web.conftest import sign_in, token
from tests.web.test_keys_pages import add as add_key
from tests.web.test_keys_pages import control
from tests.web.test_pages import add

AGAIN = "Type this again"

# --- The session has ended --------------------------------------------------------------------------------------------

FORMS = (
    ("/keys/new", "name"),
    ("/keys/1/edit", "name"),
    ("/cookies/new", "name"),
    ("/cookies/1/edit", "name"),
    ("/cookies/sign-in", "name"),
    ("/settings", "logRetentionDays"),
    ("/chat", "message"),
    ("/ips/block", "reason"),
)


@pytest.mark.parametrize("path, field", FORMS)
def test_what_was_typed_outlives_the_session(person: FlaskClient, path: str, field: str) -> None:
    add(), add_key("laptop")
    form = {"csrf_token": token(person, "/keys/new"), "provider": "openai", field: "12345678"}
    person.post("/logout", data=form)
    gone = person.post(path, data=form)
    assert gone.status_code == 401
    assert "You are signed out" in gone.text
    assert 'href="/login" target="_blank"' in gone.text
    assert "load it again" in gone.text
    sign_in(person)
    again = person.post(path, data=form)  # as a browser does that loads the page again
    assert again.status_code == 400
    assert "look through what you typed" in again.text
    assert "12345678" in control(again.text, field)
    assert form["csrf_token"] not in again.text
    assert [key.name for key in db.session.query(ApiKey)] == ["laptop"]
    assert [account.name for account in db.session.query(Account)] == ["one"]


def test_a_button_says_that_one_is_signed_out(browser: FlaskClient) -> None:
    answer = browser.post("/cookies/1/delete")
    assert answer.status_code == 401
    assert "Sign in, then repeat what you did." in answer.text


def test_without_a_token_no_setting_goes_back_to_its_default(post: Callable[..., str], person: FlaskClient) -> None:
    post("/settings", logRetentionDays="7")
    answer = person.post("/settings", data={"default": "logRetentionDays"})
    assert answer.status_code == 400
    answer = person.post("/settings", data={"removeMetricsToken": "1"})
    assert answer.status_code == 400


# --- Secrets ----------------------------------------------------------------------------------------------------------


def test_a_refused_account_form_says_that_its_key_must_be_typed_again(post: Callable[..., str]) -> None:
    form = {"provider": "openai", "name": "one", "api_key": "sk-secret-0123456789", "base_url": "https://x.example/v1"}
    page = post("/cookies/new", **form, priority="high")
    assert page.count(AGAIN) == 1
    assert 'aria-invalid="true"' in control(page, "api_key")
    assert "sk-secret" not in page
    page = post("/cookies/new", **{**form, "api_key": ""}, priority="high")
    assert AGAIN not in page


def test_a_refusal_of_the_service_says_so_too(post: Callable[..., str]) -> None:
    account = add("taken"), add("mine")
    page = post(f"/cookies/{account[1].id}/edit", name="taken", api_key="sk-secret-0123456789", base_url="")
    assert page.count(AGAIN) == 1
    page = post("/settings", apiKey="sk-secret-0123456789", metricsToken="short", maxAttempts="x")
    assert AGAIN in page
    assert 'aria-invalid="true"' in control(page, "apiKey")


def test_the_first_field_with_an_error_has_the_focus(post: Callable[..., str], browser: FlaskClient) -> None:
    page = post("/keys/new", name="laptop", expires_at="soon", **{"limits.rpm": "many"})
    assert page.count(" autofocus") == 1
    assert " autofocus" in control(page, "expires_at")
    browser.delete_cookie("opus")
    page = browser.post("/login", data={"csrf_token": token(browser), "username": "admin"}).text
    assert page.count(" autofocus") == 1
    assert " autofocus" in control(page, "password")


def test_a_setting_that_goes_back_says_what_else_is_lost(post: Callable[..., str]) -> None:
    page = post("/settings", default="maxAttempts", apiKey="sk-secret-0123456789")
    assert 'aria-invalid="true"' in control(page, "apiKey")
