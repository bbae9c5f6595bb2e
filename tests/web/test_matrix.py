"""Who may do what: every route there is × every credential × methods × ways to write an address (bar 17).

The routes come from ``url_map``, so a page or a call that somebody adds is asked about here without being named.
"""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from itsdangerous import URLSafeTimedSerializer
from werkzeug.test import TestResponse

from opus_api import create_app
from opus_api.config import Settings
from opus_api.extensions import db
from opus_api.models import User, UserSession, now
from opus_api.services import api_keys, passwords, users
from opus_api.web.signed_in import issue_token
from tests import bars, routes
from tests.conftest import Caller
from tests.forms import PASSWORD
from tests.routes import SAFE, Kind, Route

STRANGER = "203.0.113.5"
RAW_CSRF = "0123456789abcdef0123456789abcdef01234567"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get")
REFUSED = {Kind.CLIENT: {401}, Kind.JSON: {401}, Kind.LOCAL: {401}}

Arm = Callable[[FlaskClient], None]  # gives a caller a credential


@pytest.fixture
def all_routes(app: Flask) -> list[Route]:
    return routes.every(app)


@pytest.fixture
def stranger(app: Flask) -> FlaskClient:
    client = app.test_client()
    client.environ_base["REMOTE_ADDR"] = STRANGER
    return client


class Credentials:
    """Ways to say who one is; each puts it into a client, anew each time, as some routes end a sign-in."""

    def __init__(self, app: Flask, admin: User):
        self._app = app
        self._admin = admin
        self._pepper = app.extensions["installation"].pepper
        self.csrf = URLSafeTimedSerializer(app.secret_key, salt="wtf-csrf-token").dumps(RAW_CSRF)
        self.key = self._key("good")
        self.revoked = self._key("revoked")
        api_keys.revoke(api_keys.named("revoked"))
        self.expired = self._key("expired")
        api_keys.named("expired").expires_at = now() - timedelta(days=1)
        db.session.commit()

    def _key(self, name: str) -> str:
        return api_keys.create(self._pepper, {"name": name})[1]

    def session(self, client: FlaskClient) -> None:
        _, token = users.start_session(self._admin, "page", STRANGER, "tests")
        with client.session_transaction() as cookie:
            cookie.update(_user_id=token, _fresh=True, csrf_token=RAW_CSRF)

    def jwt(self, client: FlaskClient, life: timedelta = timedelta(hours=1), alive: bool = True) -> None:
        row, token = users.start_session(self._admin, "jwt", STRANGER, "tests")
        row.expires_at = now() + life
        db.session.commit()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {issue_token(row, token)}"
        if not alive:
            users.end_session(row)

    def armed(self, name: str) -> Arm:
        return {
            "none": lambda _: None,
            "bad key": lambda client: _show(client, "sk-opus-" + "x" * 43),
            "revoked key": lambda client: _show(client, self.revoked),
            "expired key": lambda client: _show(client, self.expired),
            "API key": lambda client: _show(client, self.key),
            "session": self.session,
            "JWT": self.jwt,
            "expired JWT": lambda client: self.jwt(client, timedelta(minutes=-5)),
            "JWT after sign-out": lambda client: self.jwt(client, alive=False),
        }[name]


def _show(client: FlaskClient, key: str) -> None:
    client.environ_base["HTTP_X_API_KEY"] = key
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"


@pytest.fixture
def credentials(app: Flask, admin: User) -> Credentials:
    return Credentials(app, admin)


def call(client: FlaskClient, route: Route, **more: object) -> TestResponse:
    options = {"json": {}} if route.method not in SAFE and route.kind in (Kind.JSON, Kind.CLIENT) else {}
    return client.open(route.path, method=route.method, **{**options, **more})  # type: ignore[arg-type]


def is_refused(route: Route, answer: TestResponse) -> bool:
    """As a caller without the right is refused: 401, for a page also the way to the sign-in or the missing token."""
    if route.kind is Kind.PAGE:
        to_sign_in = answer.status_code == 302 and answer.location.startswith("/login")
        is_signed_out = answer.status_code == 401 and "You are signed out" in answer.text
        return (
            to_sign_in
            or is_signed_out
            or (answer.status_code == 400 and "The page you came from is out of date." in answer.text)
        )
    return answer.status_code in REFUSED[route.kind]


# --- The list ---------------------------------------------------------------------------------------------------------


def test_at_most_six_routes_are_open(all_routes: list[Route]) -> None:
    known = routes.OPEN | routes.LEADING | routes.OWN_COOKIES
    found = {route.rule for route in all_routes if route.kind is Kind.OPEN}
    assert found <= known
    assert len(routes.OPEN) <= 6
    bars.report(17, routes=len(all_routes), open=len(found & routes.OPEN))


def test_a_new_route_needs_a_credential_unless_the_list_names_it(app: Flask, stranger: FlaskClient) -> None:
    """The test itself can fail: a route that forgot its guard is found."""
    app.add_url_rule("/v2/forgotten", view_func=lambda: "everything", endpoint="forgotten")
    app.add_url_rule("/forgotten", view_func=lambda: "everything", endpoint="forgotten_page")
    new = [route for route in routes.every(app) if "forgotten" in route.rule]
    assert [is_refused(route, call(stranger, route)) for route in new] == [False, False]


# --- Routes × credentials ---------------------------------------------------------------------------------------------

# Which credential opens which kind of route; everything else is refused.
RIGHT = {
    "API key": {Kind.CLIENT},
    "session": {Kind.JSON, Kind.PAGE, Kind.LOCAL},
    "JWT": {Kind.JSON, Kind.LOCAL},
}
CREDENTIALS = ("none", "bad key", "revoked key", "expired key", *RIGHT, "expired JWT", "JWT after sign-out")


def test_a_credential_opens_exactly_what_it_is_for(
    app: Flask, all_routes: list[Route], credentials: Credentials
) -> None:
    wrong = []
    guarded = [route for route in all_routes if route.kind is not Kind.OPEN]
    for name in CREDENTIALS:
        for route in guarded:
            client = app.test_client()
            client.environ_base["REMOTE_ADDR"] = STRANGER
            credentials.armed(name)(client)
            is_form = route.kind is Kind.PAGE and route.method not in SAFE
            form = {"data": {"csrf_token": credentials.csrf}} if is_form else {}
            answer = call(client, route, headers={"X-CSRF-Token": credentials.csrf}, **form)
            opened = not is_refused(route, answer) and answer.status_code not in (401, 403)
            if opened != (route.kind in RIGHT.get(name, ())) or answer.status_code >= 500:
                wrong.append((name, str(route), answer.status_code, answer.location))
    assert not wrong
    bars.report(17, guarded_routes=len(guarded), credentials=len(CREDENTIALS), not_as_listed=len(wrong))


def test_every_unsafe_route_refuses_a_session_without_its_csrf_token(
    app: Flask, all_routes: list[Route], credentials: Credentials
) -> None:
    """What a page of another site can make a browser send: the cookie, no token, or a guessed one."""
    unsafe = [r for r in all_routes if r.method not in SAFE and (r.kind in (Kind.JSON, Kind.PAGE) or r.is_form)]
    assert len(unsafe) > 30
    let_in = []
    for route in unsafe:
        refusal = 403 if route.kind is Kind.JSON else 400
        client = app.test_client()
        credentials.session(client)
        for headers in ({}, {"X-CSRF-Token": "guessed"}, {"Content-Type": "text/plain"}):
            answer = client.open(route.path, method=route.method, data=b"{}", headers=headers)
            if answer.status_code != refusal:
                let_in.append((str(route), headers, answer.status_code))
        sent = {"data": {"csrf_token": credentials.csrf}, "headers": {"X-CSRF-Token": credentials.csrf}}
        for foreign in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            answer = client.open(
                route.path, method=route.method, data=sent["data"], headers={**sent["headers"], **foreign}
            )
            if answer.status_code != 403:
                let_in.append((str(route), foreign, answer.status_code))
    assert not let_in
    assert db.session.query(UserSession).count() == len(unsafe)  # and nothing of it ended a session
    bars.report(17, unsafe_routes=len(unsafe), ways_to_forge=5, forged_requests_let_in=len(let_in))


# --- Methods, hosts, ways to write an address ------------------------------------------------------------------------


def test_no_other_method_opens_a_route(stranger: FlaskClient, all_routes: list[Route]) -> None:
    told = []
    guarded = {route.path for route in all_routes if route.kind is not Kind.OPEN}
    guarded -= {route.path for route in all_routes if route.kind is Kind.OPEN}
    for path in sorted(guarded):
        for method in METHODS:
            answer = stranger.open(path, method=method)
            if answer.status_code in (200, 204) and not (method == "OPTIONS" and not answer.data):
                told.append((method, path, answer.status_code))
            assert answer.status_code < 500, (method, path)
    assert not told
    bars.report(17, paths=len(guarded), methods=len(METHODS), answered_to_strangers=len(told))


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "[::1]", "evil.example", "localhost:7860", "a.localhost", "health", "0", "%6c"]
)
def test_no_host_header_opens_a_route(stranger: FlaskClient, all_routes: list[Route], host: str) -> None:
    """Some guard once believed the Host header (CVE-2026-48710); none of ours reads it for strangers."""
    for route in all_routes:
        if route.kind is not Kind.OPEN:
            for forged in ({}, {"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}):
                answer = call(stranger, route, headers={"Host": host, **forged})
                # 400: such a host is none at all
                assert is_refused(route, answer) or answer.status_code == 400, (str(route), host, forged)


def variants(path: str) -> Iterator[str]:
    """The same address, as another reader might write or read it."""
    yield from (f"/{path}", path.replace("/", "//"), f"/.{path}", f"/%2e{path}", f"/x/..{path}", f"/x/%2e%2e{path}")
    for opened in ("/health", "/healthz", "/static", "/login", "/api/auth/login", "/v1/models"):
        yield from (f"{opened}/..{path}", f"{opened}/%2e%2e{path}", f"{opened}/..%2f{path[1:]}", f"{opened}{path}")
        yield f"{opened};/..{path}"
    yield from (f"{path}/", f"{path}//", f"{path}/.", f"{path}/%2e", f"{path};x", f"{path};/health", f"{path}%00")
    yield from (path.upper(), path.replace("/", "/%2f", 1), path.replace("/", "\\"), path.replace("/", "%5c"))
    yield from (f"{path}%20", f"{path}%0a", f"{path}?/health", f"{path}%3f", f"{path}%23", f"{path}/../health/x")
    yield from (path.replace("a", "%61"), path.replace("a", "%2561"))


def ask_for(client: FlaskClient, written: str) -> TestResponse:
    """As a server hands it on: the client of the tests would read ``//host`` as another server's address."""
    path, _, query = written.partition("?")
    place = unquote_to_bytes(path).decode("latin-1")
    return client.get("/", environ_overrides={"PATH_INFO": place, "QUERY_STRING": query, "RAW_URI": written})


def test_no_way_to_write_an_address_gets_past_its_guard(stranger: FlaskClient, all_routes: list[Route]) -> None:
    """A slash too many may lead on to the plain address of this site, which has its guard; nothing else is told."""
    told, asked = [], 0
    for route in all_routes:
        if route.kind is Kind.OPEN or route.method != "GET":
            continue
        for written in variants(route.path):
            answer = ask_for(stranger, written)
            asked += 1
            if answer.status_code in (301, 307, 308):
                place = urlsplit(answer.location)
                assert place.netloc in ("", "localhost"), (written, answer.location)
                answer = ask_for(stranger, place.path)
            lead_on = answer.status_code == 302 and answer.location.startswith("/login")
            if not lead_on and not 400 <= answer.status_code < 500:
                told.append((route.rule, written, answer.status_code))
    assert not told, told[:20]
    bars.report(17, addresses_written_otherwise=asked, told_to_strangers=len(told))


# --- Sign-ins ---------------------------------------------------------------------------------------------------------


def test_whatever_cookie_a_browser_came_with_is_void_after_the_sign_in(
    app: Flask, client: FlaskClient, admin: User, credentials: Credentials
) -> None:
    """Session fixation: an id that somebody else planted, or knows, never becomes the one that is signed in."""
    credentials.session(client)
    planted = client.get_cookie("opus")
    assert planted
    data = {"csrf_token": credentials.csrf, "username": "admin", "password": PASSWORD}
    assert client.post("/login", data=data).status_code == 302
    fresh = client.get_cookie("opus")
    assert fresh
    assert fresh.value != planted.value
    other = app.test_client()
    other.set_cookie("opus", planted.value)
    assert other.get("/api/auth/me").status_code == 401


@pytest.mark.parametrize("kind", ["session", "JWT"])
def test_signing_out_ends_it_in_every_worker_at_once(
    app: Flask, settings: Settings, credentials: Credentials, kind: str
) -> None:
    other_worker = create_app(settings)
    other_worker.test_client_class = Caller
    here, there = app.test_client(), other_worker.test_client()
    credentials.armed(kind)(here)
    if kind == "session":
        cookie = here.get_cookie("opus")
        assert cookie
        there.set_cookie("opus", cookie.value)
    else:
        there.environ_base["HTTP_AUTHORIZATION"] = here.environ_base["HTTP_AUTHORIZATION"]
    assert there.get("/api/auth/me").status_code == 200
    assert here.post("/api/auth/logout", headers={"X-CSRF-Token": credentials.csrf}).status_code == 204
    assert there.get("/api/auth/me").status_code == 401


def test_a_revoked_key_is_refused_within_a_second(app: Flask, client: FlaskClient, credentials: Credentials) -> None:
    header = {"x-api-key": credentials.key}
    assert client.get("/v1/models", headers=header).status_code == 200
    api_keys.revoke(api_keys.named("good"))
    began = time.monotonic()
    while client.get("/v1/models", headers=header).status_code == 200:
        assert time.monotonic() - began < 1.5
        time.sleep(0.01)
    bars.report(17, revoked_within_s=time.monotonic() - began)


@pytest.mark.usefixtures("passwords_of_real_work")
def test_somebody_unknown_is_refused_as_slowly_as_somebody_known(client: FlaskClient, admin: User) -> None:
    """In processor time, which other programs on the machine change least."""
    users.set_password(admin, PASSWORD)  # a hash as the service makes it; the tests' own is of less work

    def cost(name: str, address: str) -> float:
        client.environ_base["REMOTE_ADDR"] = address
        began = time.process_time()
        assert client.post("/api/auth/login", json={"username": name, "password": "wrong"}).status_code == 401
        return time.process_time() - began

    cost("admin", "192.0.2.1")  # what is loaded once is loaded
    known = unknown = float("inf")
    for n in range(2, 30):  # the least of several: what the machine adds comes off
        known = min(known, cost("admin", f"192.0.2.{n}"))
        unknown = min(unknown, cost("nobody", f"198.51.100.{n}"))
        difference = abs(known - unknown) / known
        if n > 5 and difference <= 0.05:
            break
    bars.report(17, known_ms=known * 1000, unknown_ms=unknown * 1000, difference_percent=100 * difference)
    assert difference <= 0.05


def test_no_password_that_everybody_tries_opens_anything(client: FlaskClient, admin: User) -> None:
    """No default: only a random password is ever set without somebody choosing it (tests/test_startup.py)."""
    for n, password in enumerate(["", "admin", "changeme123", "password", "opus", "12345678"]):
        client.environ_base["REMOTE_ADDR"] = f"192.0.2.{n}"
        sent = {"username": "admin", "password": password}
        assert client.post("/api/auth/login", json=sent).status_code in (401, 422)
        assert passwords.is_weak(password)
    bars.report(17, default_passwords=0)
