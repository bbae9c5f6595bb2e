"""What a person typed, changed or was shown is kept, or its loss is said: sessions that ended, two tabs, reloads."""

import re
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm.exc import StaleDataError

from opus_api.extensions import db
from opus_api.models import Account, ApiKey
from opus_api.services.accounts import Accounts
from tests.forms import sign_in, token
from tests.web.test_keys_pages import add as add_key
from tests.web.test_keys_pages import control, made
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
    ("/ips", "reason"),
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


# --- Two who change the same thing ------------------------------------------------------------------------------------


def fields(page: str) -> dict[str, str]:
    """What a browser would send of the form with a version."""
    form = next(one for one in re.findall(r"<form.*?</form>", page, re.S) if 'name="version"' in one)
    found = dict(
        re.findall(r'<input(?=[^>]*type="(?:text|hidden)")(?=[^>]*name="([^"]+)")(?=[^>]*value="([^"]*)")', form)
    )
    return found | dict(re.findall(r'<textarea[^>]*name="([^"]+)"[^>]*>\r?\n?([^<]*)<', form))


def test_the_second_save_of_a_key_does_not_undo_the_first_unseen(person: FlaskClient) -> None:
    key = add_key(limits={"rpm": 60})
    mine = fields(person.get(f"/keys/{key.id}/edit").text)
    other = mine | {"limits.rpm": "10", "models": "claude-*", "override": "y"}
    assert person.post(f"/keys/{key.id}/edit", data=other).status_code == 302
    mine["name"] = "desk"
    page = person.post(f"/keys/{key.id}/edit", data=mine).text
    assert "Somebody changed this after you had opened it" in page
    assert page.count("Was changed elsewhere meanwhile, to:") == 3
    for told in ("to: 10", "to: claude-*", "to: On"):
        assert told in page
    assert 'value="desk"' in control(page, "name")
    db.session.expire_all()
    assert (key.name, key.limits, key.models) == ("laptop", {"rpm": 10}, ["claude-*"])
    assert person.post(f"/keys/{key.id}/edit", data=fields(page)).status_code == 302  # now it is meant
    db.session.expire_all()
    assert (key.name, key.limits, key.models) == ("desk", {"rpm": 60}, None)


def test_the_second_save_of_an_account_does_not_undo_the_first_unseen(person: FlaskClient) -> None:
    account = add()
    path = f"/cookies/{account.id}/edit"
    mine = fields(person.get(path).text)
    assert person.post(path, data=mine | {"priority": "5"}).status_code == 302
    assert person.post(path, data=mine | {"priority": "5", "name": "the same wish"}).status_code == 302
    page = person.post(path, data=mine | {"name": "mine", "api_key": "sk-typed-0123456789"}).text
    assert "meanwhile, to: 5" in page
    assert "meanwhile, to: the same wish" in page
    assert AGAIN in page
    db.session.expire_all()
    assert (account.name, account.priority) == ("the same wish", 5)


def test_two_new_secrets_of_one_account_are_told_apart(person: FlaskClient) -> None:
    account = add()
    path = f"/cookies/{account.id}/edit"
    mine = fields(person.get(path).text)
    assert person.post(path, data=mine | {"api_key": "sk-first-0123456789wxyz"}).status_code == 302
    assert person.post(path, data=mine).status_code == 302  # left empty, it stays as it is
    page = person.post(path, data=mine | {"api_key": "sk-second-0123456789"}).text
    assert "meanwhile, to: •••• wxyz" in page
    db.session.expire_all()
    assert account.api_key == "sk-first-0123456789wxyz"


def test_what_was_typed_for_an_account_that_is_gone_can_be_saved_as_a_new_one(person: FlaskClient) -> None:
    account = add()
    path = f"/cookies/{account.id}/edit"
    mine = fields(person.get(path).text) | {"name": "mine", "priority": "7", "api_key": "sk-typed-0123456789"}
    person.post(f"/cookies/{account.id}/delete", data=mine)
    page = person.post(path, data=mine).text
    assert "This account was deleted meanwhile." in page
    assert 'action="/cookies/new?provider=openai"' in page
    assert 'value="7"' in control(page, "priority")
    assert page.count(AGAIN) == 1
    assert "sk-typed" not in page
    assert 'name="language"' not in page, "no address shows it again"
    again = fields(page) | {"api_key": "sk-typed-0123456789"}
    assert person.post("/cookies/new?provider=openai", data=again).status_code == 302
    assert [(one.name, one.priority) for one in db.session.query(Account)] == [("mine", 7)]


def test_a_deleted_account_that_is_restored_takes_what_was_typed(person: FlaskClient) -> None:
    path = f"/cookies/{add().id}/edit"
    mine = fields(person.get(path).text) | {"name": "mine"}
    person.post(path.replace("edit", "delete"), data=mine)
    assert "deleted meanwhile" in person.post(path, data=mine).text
    person.post(path.replace("cookies/", "cookies/deleted/").replace("edit", "restore"), data=mine)
    assert person.post(path, data=mine).status_code == 302  # as a browser does that loads the page again
    assert [one.name for one in db.session.query(Account)] == ["mine"]


def test_an_account_that_is_deleted_while_it_is_saved_keeps_what_was_typed(
    person: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(*_: object) -> None:
        raise StaleDataError

    path = f"/cookies/{add().id}/edit"
    mine = fields(person.get(path).text) | {"priority": "7"}
    monkeypatch.setattr(Accounts, "update", overtaken)
    page = person.post(path, data=mine).text
    assert "This account was deleted meanwhile." in page
    assert 'value="7"' in control(page, "priority")


def test_what_was_typed_for_a_key_that_is_revoked_can_be_made_a_new_one(person: FlaskClient) -> None:
    path = f"/keys/{add_key().id}/edit"
    mine = fields(person.get(path).text) | {"limits.rpm": "many"}
    person.post(path.replace("edit", "revoke"), data=mine)
    for typed in ("many", "7"):
        page = person.post(path, data=mine | {"limits.rpm": typed}).text
        assert "This key was revoked meanwhile." in page
        assert 'action="/keys/new"' in page
        assert f'value="{typed}"' in control(page, "limits.rpm")
    assert "sk-opus-" in person.post("/keys/new", data=fields(page)).text


@pytest.mark.parametrize("what", ["edit", "validate", "state", "reset", "saved", "delete"])
def test_an_account_that_is_gone_leads_to_the_list(post: Callable[..., str], what: str) -> None:
    page = post(f"/cookies/7/{what}", name="typed", state="disabled")
    assert "<title>Accounts" in page
    assert "This account was deleted meanwhile." in page


def test_ending_a_sign_in_twice_leads_to_the_list(post: Callable[..., str]) -> None:
    page = post("/profile/sign-ins/99/end")
    assert "<title>Profile" in page
    assert "This sign-in has ended already." in page


def test_a_revoked_key_is_not_asked_about_again(post: Callable[..., str], person: FlaskClient) -> None:
    key = add_key()
    post(f"/keys/{key.id}/revoke")
    assert person.get(f"/keys/{key.id}/revoke").location == f"/keys/{key.id}/edit"


# --- The language and the colours -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path, form",
    [
        ("/profile", {"new_password": "short"}),
        ("/ips", {"ip": "no address"}),
        ("/cookies/1/saved", {"model": "no model"}),
        ("/cookies/new?provider=openai", {"priority": "high"}),
        ("/cookies/sign-in?account_id=1", {"start_url": ""}),
        ("/keys/new", {"name": ""}),
        ("/my", {"key": "wrong"}),
    ],
)
def test_a_page_that_answers_a_form_leads_back_to_it(
    post: Callable[..., str], person: FlaskClient, path: str, form: dict[str, str]
) -> None:
    add(listed_models=["m"])
    page = post(path, **form)
    found = re.search(r'name="next" value="([^"]+)"', page)
    assert found
    assert found[1].rstrip("?") == path
    action = re.search(rf'<form method="post"[^>]*action="({re.escape(path)})"', person.get(path).text)
    assert action or path in ("/keys/new",)  # which is sent to where it is


def test_what_is_shown_once_is_not_lost_to_another_language(post: Callable[..., str]) -> None:
    value = made(post("/keys/new", name="laptop"))
    for page in (post("/keys/new", name="desk"), post("/connect", once="x"), post("/my", key=value)):
        assert 'name="language"' not in page
        assert 'name="theme"' not in page


def test_a_form_of_connect_makes_one_key(person: FlaskClient) -> None:
    found = re.search(r'name="once" value="([^"]+)"', person.get("/connect").text)
    assert found
    form = {"csrf_token": token(person, "/connect"), "once": found[1], "model": "m"}
    assert "sk-opus-" in person.post("/connect", data=form).text
    again = person.post("/connect", data=form, follow_redirects=True)
    assert "This key was made already" in again.text
    assert 'value="m"' in control(again.text, "model")
    assert db.session.query(ApiKey).count() == 1
