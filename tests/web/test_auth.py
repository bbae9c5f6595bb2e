"""Signing in and out by the JSON API, and who is let in."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from opus_api.extensions import db
from opus_api.models import User, UserSession, now
from opus_api.services import api_keys, users
from opus_api.web.auth import start_page_session
from tests.forms import PASSWORD

LOGIN = {"username": "admin", "password": PASSWORD}


def error(response: TestResponse) -> tuple[int, str]:
    assert response.json
    assert set(response.json) == {"error"}
    assert set(response.json["error"]) == {"type", "message"}
    return response.status_code, response.json["error"]["type"]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.usefixtures("admin")
class TestLogin:
    def test_gives_a_token_for_a_day(self, client: FlaskClient) -> None:
        response = client.post("/api/auth/login", json=LOGIN)
        assert response.status_code == 200
        assert response.json
        assert set(response.json) == {"token", "expires_at", "user"}
        assert response.json["user"] == {"id": 1, "username": "admin"}
        life = datetime.fromisoformat(response.json["expires_at"]) - datetime.now(UTC)
        assert timedelta(hours=23, minutes=59) < life <= timedelta(hours=24)
        assert "Set-Cookie" not in response.headers
        assert response.headers["Cache-Control"] == "no-store"
        assert client.get("/api/auth/me", headers=bearer(response.json["token"])).status_code == 200

    @pytest.mark.parametrize("name, password", [("admin", "wrong"), ("nobody", PASSWORD), ("admin\0", PASSWORD)])
    def test_refuses_what_is_wrong_without_saying_what(self, client: FlaskClient, name: str, password: str) -> None:
        response = client.post("/api/auth/login", json={"username": name, "password": password})
        assert error(response) == (401, "authentication_error")
        assert response.json["error"]["message"] == "The user name or the password is wrong."  # type: ignore[index]

    def test_is_throttled(self, client: FlaskClient) -> None:
        for _ in range(5):
            assert client.post("/api/auth/login", json=LOGIN | {"password": "wrong"}).status_code == 401
        response = client.post("/api/auth/login", json=LOGIN)
        assert error(response) == (429, "rate_limit_error")
        assert response.headers["retry-after"] == "1"

    @pytest.mark.parametrize(
        "body, status",
        [
            (b"", 400),
            (b"{", 400),
            (b"\xff", 400),
            (b'{"username": NaN}', 400),
            (b'{"username": "admin", "username": "other", "password": "x"}', 400),
            (b"[" * 10_000, 400),
            (b'{"username": "\\ud800", "password": "x"}', 400),
            (b"[]", 422),
            (b"null", 422),
            (b"{}", 422),
            (b'{"username": "admin"}', 422),
            (b'{"username": "admin", "password": 5}', 422),
            (b'{"username": ["admin"], "password": "x"}', 422),
        ],
    )
    def test_names_what_is_wrong_with_the_body(self, client: FlaskClient, body: bytes, status: int) -> None:
        assert error(client.post("/api/auth/login", data=body)) == (status, "invalid_request_error")

    def test_takes_little_from_strangers(self, client: FlaskClient) -> None:
        body = b'{"username": "' + b"x" * 20_000 + b'"}'
        assert error(client.post("/api/auth/login", data=body)) == (413, "request_too_large")

    def test_is_a_post(self, client: FlaskClient) -> None:
        response = client.get("/api/auth/login")
        assert error(response) == (405, "invalid_request_error")


def test_me_is_the_person_who_asks(api: FlaskClient, admin: User) -> None:
    response = api.get("/api/auth/me")
    assert response.json
    assert set(response.json) == {"id", "username", "created_at"}
    assert response.json["username"] == "admin"
    assert response.json["created_at"].endswith("Z")


def test_logging_out_ends_the_token_at_once(api: FlaskClient) -> None:
    response = api.post("/api/auth/logout")
    assert (response.status_code, response.data) == (204, b"")
    assert error(api.get("/api/auth/me")) == (401, "authentication_error")


def test_changing_the_password_keeps_this_sign_in_and_ends_others(api: FlaskClient, client: FlaskClient) -> None:
    other = client.post("/api/auth/login", json=LOGIN).json
    assert other
    response = api.post("/api/auth/password", json={"old_password": PASSWORD, "new_password": "another good one"})
    assert response.status_code == 204
    assert api.get("/api/auth/me").status_code == 200
    assert client.get("/api/auth/me", headers=bearer(other["token"])).status_code == 401
    assert client.post("/api/auth/login", json=LOGIN).status_code == 401
    assert client.post("/api/auth/login", json=LOGIN | {"password": "another good one"}).status_code == 200


@pytest.mark.parametrize(
    "body, field",
    [
        ({"old_password": "wrong", "new_password": "another good one"}, "old_password"),
        ({"old_password": PASSWORD, "new_password": "short"}, "new_password"),
        ({"old_password": PASSWORD, "new_password": "password123"}, "new_password"),
        ({"old_password": PASSWORD}, "new_password"),
    ],
)
def test_a_new_password_that_does_not_do_is_named(api: FlaskClient, body: dict[str, str], field: str) -> None:
    response = api.post("/api/auth/password", json=body)
    assert error(response) == (422, "invalid_request_error")
    assert response.json["error"]["message"].startswith(f"{field}: ")  # type: ignore[index]


def test_confirming_is_remembered_for_this_sign_in(api: FlaskClient) -> None:
    assert api.post("/api/auth/confirm", json={"password": "wrong"}).status_code == 422
    assert api.post("/api/auth/confirm", json={"password": PASSWORD}).status_code == 204
    session = db.session.query(UserSession).one()
    assert users.is_confirmed(session)


def test_a_known_password_must_be_changed_before_anything_else(api: FlaskClient, admin: User) -> None:
    admin.must_change_password = True
    db.session.commit()
    for path in ("/api/cookies", "/v2/accounts", "/api/cookies/stats"):
        assert error(api.get(path)) == (403, "permission_error")
    assert api.post("/api/auth/confirm", json={"password": PASSWORD}).status_code == 403
    assert api.get("/api/auth/me").status_code == 200
    changed = api.post("/api/auth/password", json={"old_password": PASSWORD, "new_password": "another good one"})
    assert changed.status_code == 204
    assert api.get("/api/cookies").status_code == 200
    assert api.post("/api/auth/logout").status_code == 204


# --- Tokens


Forge = Callable[..., str]


@pytest.fixture
def forge(app: Flask, admin: User) -> Forge:
    """A token of a living session with some claims replaced; None leaves one out."""

    def make(key: bytes | None = app.extensions["jwt_key"], algorithm: str = "HS256", **claims: Any) -> str:
        _, token = users.start_session(admin, "jwt", "127.0.0.1", None)
        moment = int(time.time())
        right = {"iss": "opus-api", "aud": "opus-api/json", "sub": "1", "iat": moment, "exp": moment + 60, "jti": token}
        return jwt.encode({k: v for k, v in (right | claims).items() if v is not None}, key, algorithm)

    return make


def test_a_right_token_is_let_in(client: FlaskClient, forge: Forge) -> None:
    assert client.get("/api/auth/me", headers=bearer(forge())).status_code == 200
    lower = {"authorization": f"bearer {forge()}"}
    assert client.get("/api/auth/me", headers=lower).status_code == 200


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")  # of HS512
@pytest.mark.parametrize(
    "claims",
    [
        {"key": b"another key that is long enough 1234"},
        {"key": None, "algorithm": "none"},
        {"algorithm": "HS512"},
        {"iss": "somebody"},
        {"aud": "something"},
        {"exp": 1},
        {"exp": None},
        {"jti": None},
        {"jti": "guessed"},
        {"sub": None},
    ],
)
def test_any_other_token_is_refused(client: FlaskClient, forge: Forge, claims: dict[str, Any]) -> None:
    assert error(client.get("/api/auth/me", headers=bearer(forge(**claims)))) == (401, "authentication_error")


def test_clocks_may_differ_by_a_minute(client: FlaskClient, forge: Forge) -> None:
    assert client.get("/api/auth/me", headers=bearer(forge(exp=int(time.time()) - 30))).status_code == 200


def test_a_clock_that_was_set_back_ends_no_sign_in(client: FlaskClient, forge: Forge) -> None:
    begun = int(time.time()) + 3600
    assert client.get("/api/auth/me", headers=bearer(forge(iat=begun, exp=begun + 60))).status_code == 200


def test_the_token_of_a_page_is_no_jwt(client: FlaskClient, admin: User, forge: Forge) -> None:
    _, page = users.start_session(admin, "page", None, None)
    assert client.get("/api/auth/me", headers=bearer(forge(jti=page))).status_code == 401


@pytest.mark.parametrize("header", ["Authorization", "x-api-key"])
def test_an_api_key_never_opens_the_management(app: Flask, client: FlaskClient, admin: User, header: str) -> None:
    _, key = api_keys.create(app.extensions["installation"].pepper, {"name": "one"})
    value = f"Bearer {key}" if header == "Authorization" else key
    assert client.get("/api/cookies", headers={header: value}).status_code == 401


def test_an_unknown_route_is_json_too(api: FlaskClient) -> None:
    assert error(api.get("/api/nothing")) == (404, "not_found_error")
    assert error(api.get("/v2/nothing")) == (404, "not_found_error")


# --- The console's session


@pytest.fixture
def browser(app: Flask, client: FlaskClient, admin: User) -> FlaskClient:
    """Signed in as pages do it; sends its CSRF token."""

    @app.get("/signs-in")
    def signs_in() -> str:
        from flask_wtf.csrf import generate_csrf

        start_page_session(db.session.get_one(User, admin.id))
        return str(generate_csrf())

    client.environ_base["HTTP_X_CSRF_TOKEN"] = client.get("/signs-in").text
    return client


def test_the_consoles_session_may_read_and_with_its_csrf_token_write(browser: FlaskClient) -> None:
    assert browser.get("/api/auth/me").status_code == 200
    assert browser.post("/api/cookies/validate/all").status_code == 200
    del browser.environ_base["HTTP_X_CSRF_TOKEN"]
    assert browser.get("/api/auth/me").status_code == 200
    assert error(browser.post("/api/cookies/validate/all")) == (403, "permission_error")
    assert browser.post("/api/cookies/validate/all", headers={"X-CSRF-Token": "guessed"}).status_code == 403


def test_a_form_field_may_carry_the_csrf_token(browser: FlaskClient) -> None:
    token = browser.environ_base.pop("HTTP_X_CSRF_TOKEN")
    assert browser.post("/api/cookies/validate/all", data={"csrf_token": token}).status_code == 200


@pytest.mark.parametrize(
    "headers, status",
    [
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "null"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
    ],
)
def test_other_sites_are_refused_even_with_the_token(
    browser: FlaskClient, headers: dict[str, str], status: int
) -> None:
    assert browser.post("/api/cookies/validate/all", headers=headers).status_code == status


def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites(client: FlaskClient, browser: FlaskClient) -> None:
    cookie = browser.get_cookie("opus")
    assert cookie
    assert cookie.http_only
    assert cookie.same_site == "Lax"
    assert not cookie.secure
    assert cookie.path == "/"


def test_over_https_the_cookie_is_bound_to_the_host(app: Flask, client: FlaskClient, admin: User) -> None:
    @app.get("/signs-in")
    def signs_in() -> str:
        start_page_session(db.session.get_one(User, admin.id))
        return ""

    response = client.get("/signs-in", base_url="https://gateway.example")
    cookie = response.headers["Set-Cookie"]
    assert cookie.startswith("__Host-opus=")
    assert "; Secure;" in cookie
    assert "; Path=/" in cookie
    assert "Domain" not in cookie


def test_the_cookie_is_worth_nothing_once_the_session_has_ended(browser: FlaskClient, admin: User) -> None:
    users.end_sessions(admin)
    db.session.commit()
    assert browser.get("/api/auth/me").status_code == 401


def test_a_session_that_was_idle_has_ended(browser: FlaskClient) -> None:
    db.session.query(UserSession).one().last_seen = now() - timedelta(hours=13)
    db.session.commit()
    assert browser.get("/api/auth/me").status_code == 401


def test_logging_out_by_cookie_ends_the_page_session(browser: FlaskClient) -> None:
    assert browser.post("/api/auth/logout").status_code == 204
    assert db.session.query(UserSession).count() == 0


def test_each_sign_in_and_each_new_password_has_a_new_id(browser: FlaskClient) -> None:
    def cookie() -> str:
        found = browser.get_cookie("opus")
        assert found
        return found.value

    first = cookie()
    browser.environ_base["HTTP_X_CSRF_TOKEN"] = browser.get("/signs-in").text
    second = cookie()
    body = {"old_password": PASSWORD, "new_password": "another good one"}
    assert browser.post("/api/auth/password", json=body).status_code == 204
    third = cookie()
    assert len({first, second, third}) == 3
    assert db.session.query(UserSession).count() == 1
    assert browser.get("/api/auth/me").status_code == 200
