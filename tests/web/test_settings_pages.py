"""The page of settings: sources, what its form takes and keeps, secrets, the password again."""

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from opus_api import crypto
from opus_api.extensions import db
from opus_api.models import ApiKey, Change, User, UserSession
from opus_api.services import saved_settings
from opus_api.services.saved_settings import SAVED, SECRETS
from tests.forms import PASSWORD, token
from tests.web.conftest import weight
from tests.web.test_keys_pages import control

Post = Callable[..., str]


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"MAX_ATTEMPTS": "4", "PING_INTERVAL": "15"}


@pytest.fixture
def post(app: Flask, person: FlaskClient) -> Post:
    """Sends the form as it was shown, with some fields typed over, and gives the page it leads to."""
    csrf = token(person, "/settings")

    def send(**typed: object) -> str:
        shown = saved_settings.as_json(app.extensions["settings"])
        form = {name: value for name, value in shown.items() if value not in (None, False)}
        form = {name: value for name, value in {**form, **typed}.items() if value is not None}
        return person.post("/settings", data={"csrf_token": csrf, **form}, follow_redirects=True).text

    return send


def saved() -> dict[str, object]:
    return saved_settings.rows()


def test_strangers_are_led_to_the_sign_in(client: FlaskClient) -> None:
    assert client.get("/settings").location == "/login?next=/settings"


def test_every_setting_has_its_field_its_help_and_its_source(person: FlaskClient, post: Post) -> None:
    post(logRetentionDays="7")
    page = person.get("/settings").text
    for name, known in SAVED.items():
        assert f'for="{name}"' in page
        assert known.help in page.replace("&#39;", "'")
        assert control(page, name)
    for name in SECRETS:
        assert 'type="password"' in control(page, name)
    assert page.count("Saved here.") == page.count('name="default"') == 1
    assert page.count("From the environment:") == 2
    assert "<code>MAX_ATTEMPTS</code>" in page
    assert "<code>PING_INTERVAL</code>" in page
    assert page.count('<p class="help">') == 3 + len(SECRETS)  # nothing is said of what is a default


def test_only_what_differs_is_saved(post: Post) -> None:
    assert "Nothing was changed." in post()
    page = post(logRetentionDays="7", enableRequestLog=None, pingInterval="2.5", rotationStrategy="least_used")
    assert "Saved. The next request follows it." in page
    assert saved() == {
        "logRetentionDays": 7,
        "enableRequestLog": False,
        "pingInterval": 2.5,
        "rotationStrategy": "least_used",
    }
    assert {(change.who, change.what) for change in db.session.query(Change)} == {("admin", name) for name in saved()}


def test_everything_wrong_is_shown_at_its_field_kept_and_nothing_is_saved(post: Post) -> None:
    typed = {"logRetentionDays": "0", "maxAttempts": "many", "pingInterval": "soon", "ipRateLimitMax": "7"}
    page = post(**typed, debugLog="y")
    for name, value in typed.items():
        assert f'value="{value}"' in control(page, name)
        assert ('aria-invalid="true"' in control(page, name)) == (name != "ipRateLimitMax")
    assert "checked" in control(page, "debugLog")
    page = post(logRetentionDays="0", upstreamIdleTimeout="-1")
    assert "Days to keep must be a whole number between 1 and 3650." in page
    assert "Longest silence must be a number of seconds above 0" in page
    assert saved() == {}


def test_back_to_default_keeps_what_was_typed_into_the_others(post: Post) -> None:
    post(logRetentionDays="7", maxAttempts="2")
    page = post(default="maxAttempts", logRetentionDays="nonsense")
    assert "Tries of a request is back to its default." in page
    assert 'value="4"' in control(page, "maxAttempts")  # what the environment says
    assert 'value="nonsense"' in control(page, "logRetentionDays")
    assert saved() == {"logRetentionDays": 7}
    change = db.session.query(Change).order_by(Change.id.desc()).first()
    assert change is not None
    assert (change.what, change.before, change.after) == ("maxAttempts", 2, 4)
    assert "is not a field" in post(default="adminPassword")


def test_secrets_are_written_and_never_shown(app: Flask, person: FlaskClient, post: Post) -> None:
    post(apiKey="sk-from-a-document", metricsToken="scrape-me-0123456789")
    page = person.get("/settings").text
    assert "sk-from-a-document" not in page
    assert "scrape-me" not in page
    key = db.session.query(ApiKey).one()
    assert (key.name, key.hint) == ("default", "ment")
    assert f'href="/keys/{key.id}/edit"' in page
    assert "One is set." in page
    stored = app.extensions["snapshots"].current().settings
    assert stored["metricsToken"] == crypto.token_hash("scrape-me-0123456789")
    assert "One is set." not in post(removeMetricsToken="1")
    assert app.extensions["snapshots"].current().settings["metricsToken"] == ""
    assert db.session.query(ApiKey).one().revoked_at is None  # what is left empty stays
    page = post(apiKey="short", debugLog="y")
    assert "API key must be at least 16 characters." in page
    assert "debugLog" not in saved()


@pytest.mark.parametrize(
    "own, sentence",
    [
        ("", "Your own password is needed to change a password."),
        ("not this one", "Your own password is wrong."),
    ],
)
def test_a_password_is_changed_only_with_ones_own(post: Post, admin: User, own: str, sentence: str) -> None:
    before = admin.password_hash
    page = post(adminPassword="a better password", password=own, logRetentionDays="7")
    assert sentence in page
    assert 'value="7"' in control(page, "logRetentionDays")
    assert "a better password" not in page
    db.session.refresh(admin)
    assert admin.password_hash == before
    assert saved() == {}


def test_ones_own_password_is_good_for_five_minutes(person: FlaskClient, post: Post, client: FlaskClient) -> None:
    page = post(adminPassword="short", password=PASSWORD)
    assert "Administrator&#39;s password must be at least 8 characters." in page
    assert 'name="password"' not in page  # it was right, so it is not asked for again
    assert "Saved." in post(adminPassword="a better password")
    login = {"username": "admin", "password": "a better password"}
    assert client.post("/api/auth/login", json=login).status_code == 200
    assert person.get("/settings").status_code == 200
    assert db.session.query(UserSession).filter_by(kind="page").count() == 1


def test_a_form_without_its_token_changes_nothing(person: FlaskClient) -> None:
    assert person.post("/settings", data={"logRetentionDays": "7"}).status_code == 400
    assert saved() == {}


def test_the_page_weighs_at_most_60_kb(person: FlaskClient, post: Post) -> None:
    post(**{name: "9" for name in SAVED if name != "rotationStrategy"})
    assert weight(person.get("/settings")) <= 60_000
