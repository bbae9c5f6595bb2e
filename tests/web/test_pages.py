"""Pages as a browser receives them: who may see them, headers, weight, and forms that keep what was typed."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from flask import Flask, current_app
from flask.testing import FlaskClient
from flask_babel import force_locale

from opus_api import config
from opus_api.extensions import db
from opus_api.models import Account, User, UserSession, now
from opus_api.services import api_keys, metrics, overview, validation_run
from opus_api.services.accounts import Accounts
from opus_api.state import Health
from opus_api.upstreams.base import Failure, Verdict
from opus_api.upstreams.models_list import read_models
from opus_api.web import console, dashboard_pages
from opus_api.web.languages import in_words
from opus_api.wire.http import HttpResponse
from tests.conftest import Provider
from tests.forms import PASSWORD, sign_in, token
from tests.services.test_statistics import row, write
from tests.web.conftest import weight

KEY = "sk-or-v1-0123456789abcdef"
ROOT = config.ROOT


@pytest.fixture
def client(browser: FlaskClient) -> FlaskClient:
    return browser


def add(name: str = "one", **columns: object) -> Account:
    account = Account(provider="openai", name=name, api_key=KEY, **columns)
    db.session.add(account)
    db.session.commit()
    return account


# --- Who may see them -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/cookies", "/cookies/new?provider=morph", "/cookies/1/edit", "/password"])
def test_strangers_are_led_to_the_sign_in_and_back(client: FlaskClient, admin: User, path: str) -> None:
    answer = client.get(path)
    assert answer.location.startswith("/login?next=")
    sign_in(client, next=path)
    assert client.get(answer.location).location == path


def test_signing_in_again_ends_the_session_before(person: FlaskClient) -> None:
    data = {"csrf_token": token(person, "/password"), "username": "admin", "password": PASSWORD}
    assert person.post("/login", data=data).location == "/dashboard"
    assert db.session.query(UserSession).count() == 1


@pytest.mark.parametrize("path", ["/", "/index.html"])
def test_the_front_door_leads_on(client: FlaskClient, admin: User, path: str) -> None:
    assert client.get(path).location == "/login"
    sign_in(client)
    assert client.get(path).location == "/dashboard"


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil.example", "/\t/evil.example", "x"]
)
def test_after_the_sign_in_only_paths_of_this_site_are_followed(client: FlaskClient, admin: User, target: str) -> None:
    data = {"csrf_token": token(client), "username": "admin", "password": PASSWORD, "next": target}
    assert client.post("/login", data=data).location == "/dashboard"


def test_a_known_password_must_be_changed_before_anything_else(client: FlaskClient, admin: User) -> None:
    admin.must_change_password = True
    db.session.commit()
    sign_in(client)
    for path in ("/cookies", "/cookies/new"):
        assert client.get(path).location == "/password"
    data = {"csrf_token": token(client, "/password"), "old_password": PASSWORD, "new_password": "another good one"}
    assert client.post("/password", data=data).location == "/dashboard"
    assert client.get("/cookies").status_code == 200


def test_a_password_that_is_too_short_is_refused_at_its_field(post: Callable[..., str]) -> None:
    page = post("/password", old_password=PASSWORD, new_password="short")
    assert "New password must be at least 8 characters." in page


def test_too_many_tries_say_how_long_to_wait(client: FlaskClient) -> None:
    data = {"csrf_token": token(client), "username": "somebody", "password": "wrong"}
    for _ in range(5):
        page = client.post("/login", data=data)
        assert "The user name or the password is wrong." in page.text
    page = client.post("/login", data=data)
    assert page.status_code == 429
    assert re.search(r"try again in \d+ s", page.text)
    assert 'value="somebody"' in page.text


def test_signing_out_needs_a_form_and_ends_the_session(person: FlaskClient) -> None:
    assert person.get("/logout").status_code == 405
    assert person.post("/logout", data={"csrf_token": token(person, "/cookies")}).location == "/login"
    assert person.get("/cookies").location.startswith("/login")


# --- Headers, CSRF, errors --------------------------------------------------------------------------------------------


def test_a_browser_may_run_only_what_is_ours(client: FlaskClient) -> None:
    headers = client.get("/login").headers
    assert headers["Content-Security-Policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "Strict-Transport-Security" not in headers
    assert "Strict-Transport-Security" in client.get("/login", base_url="https://opus.example").headers


class TestFramed:
    @pytest.fixture
    def environment(self, environment: dict[str, str]) -> dict[str, str]:
        return environment | {"FRAME_ANCESTORS": "https://a.example, https://b.example"}

    def test_named_sites_may_frame_the_console(self, client: FlaskClient) -> None:
        headers = client.get("/login").headers
        assert "frame-ancestors https://a.example https://b.example" in headers["Content-Security-Policy"]
        assert "X-Frame-Options" not in headers


@pytest.mark.parametrize(
    "base_url, shown",
    [
        ("http://opus.example", True),
        ("http://192.168.1.5:7860", True),
        ("http://localhost:7860", False),
        ("http://127.0.0.1:7860", False),
        ("http://[::1]:7860", False),
        ("https://opus.example", False),
    ],
)
def test_plain_http_over_a_network_is_pointed_out(client: FlaskClient, base_url: str, shown: bool) -> None:
    assert ("Plain http" in client.get("/login", base_url=base_url).text) is shown


@pytest.mark.parametrize("name", ["validate", "state", "reset", "saved", "delete", "edit"])
def test_a_form_without_its_token_changes_nothing(person: FlaskClient, name: str) -> None:
    account = add()
    answer = person.post(f"/cookies/{account.id}/{name}", data={"state": "disabled"})
    assert answer.status_code == 400
    assert "out of date" in answer.text
    assert db.session.get(Account, account.id).state == "active"


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}])
def test_a_form_of_another_site_is_refused(person: FlaskClient, headers: dict[str, str]) -> None:
    data = {"csrf_token": token(person, "/password")}
    assert person.post("/logout", data=data, headers=headers).status_code == 403


def test_what_is_not_there_is_a_page_with_the_same_headers(person: FlaskClient) -> None:
    answer = person.get("/cookies/99/edit")
    assert answer.status_code == 404
    assert "There is no account with the id 99." in answer.text
    assert "Content-Security-Policy" in answer.headers


def test_an_error_page_needs_no_session(app: Flask) -> None:
    with app.test_request_context("/static/missing.css"):
        assert "Nothing here" in console.error_page(404, "Not found").get_data(as_text=True)


@pytest.mark.parametrize("path", sorted(str(path.relative_to(ROOT)) for path in (ROOT / "templates").rglob("*.html")))
def test_templates_escape_and_have_nothing_inline(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert not re.search(r"\|\s*safe\b|autoescape|<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=|https?://", text)


# --- Accounts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_a_full_page_of_accounts_weighs_at_most_60_kb(person: FlaskClient, language: str) -> None:
    for number in range(60):
        add(
            f"Account number {number}",
            listed_models=["claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5"],
            state="cooling",
            state_reason="429: the limit of output tokens per minute is reached",
            state_until=now() + timedelta(minutes=5),
            last_used=now(),
        )
    page = person.get("/cookies?page=2", headers={"Accept-Language": language})
    assert page.text.count("<tr id=") == 20
    assert weight(page) <= 60_000


def test_what_is_ticked_in_the_list_is_disabled_enabled_reset_and_validated(
    post: Callable[..., str], provider: Provider
) -> None:
    one, two, three = (add(name, base_url=provider.url) for name in ("one", "two", "three"))

    def states() -> list[str]:
        db.session.expire_all()
        return [account.state for account in (one, two, three)]

    assert "Tick the accounts first." in post("/cookies", do="disabled")
    assert "Tick the accounts first." in post("/cookies", do="burn", account=one.id)
    assert "2 accounts are disabled." in post("/cookies", do="disabled", account=[one.id, three.id])
    assert states() == ["disabled", "active", "disabled"]
    assert "one is enabled." in post("/cookies", do="active", account=one.id)
    assert "2 accounts are enabled." in post("/cookies?state=active", do="active", account=[one.id, three.id])
    assert states() == ["active"] * 3
    two.state = three.state = "invalid"
    db.session.commit()
    assert "2 accounts may be used again at once." in post("/cookies", do="reset", account=[two.id, three.id, 99])
    assert states() == ["active"] * 3
    assert "2 of 2 accounts are valid." in post("/cookies", do="validate", account=[one.id, two.id])


def test_an_account_of_a_provider_that_is_not_known_keeps_no_other_from_what_was_ticked(
    post: Callable[..., str],
) -> None:
    one, foreign = add("one"), add("two")
    foreign.provider = "of a newer version"
    db.session.commit()
    told = post("/cookies", do="disabled", account=[foreign.id, one.id])
    assert "1 accounts are disabled. Deleted meanwhile or refused: 1." in told.replace("\n", " ")


@pytest.mark.parametrize("do, said", [("disabled", "are disabled"), ("reset", "may be used again at once")])
def test_an_account_that_is_deleted_meanwhile_keeps_no_other_from_what_was_ticked(
    post: Callable[..., str], monkeypatch: pytest.MonkeyPatch, do: str, said: str
) -> None:
    ids = [add(name, state="cooling").id for name in ("one", "two", "three")]
    get = Accounts.get

    def found(self: Accounts, account_id: int) -> Account:
        if account_id == ids[1] and (account := db.session.get(Account, account_id)):
            db.session.delete(account)
            db.session.commit()
        return get(self, account_id)

    monkeypatch.setattr(Accounts, "get", found)
    told = post("/cookies", do=do, account=ids)
    assert f"2 accounts {said}. Deleted meanwhile or refused: 1." in told.replace("\n", " ")
    db.session.expire_all()
    states = {account.id: account.state for account in db.session.scalars(sa.select(Account))}
    assert states == dict.fromkeys([ids[0], ids[2]], "disabled" if do == "disabled" else "active")


def test_the_list_tells_state_reason_and_healing(person: FlaskClient) -> None:
    add(
        state="cooling",
        state_reason="credit is spent",
        state_until=now() + timedelta(hours=3),
        listed_models=["model-a"],
    )
    page = person.get("/cookies").text
    for part in ("Cooling", "credit is spent", "in 3 h", "model-a", "•••• cdef"):
        assert part in page
    assert KEY not in page


def test_a_pause_that_is_over_is_not_shown(person: FlaskClient) -> None:
    add(state="cooling", state_reason="credit is spent", state_until=now() - timedelta(seconds=1))
    page = person.get("/cookies").text
    assert "credit is spent" not in page
    assert 'class="badge active"' in page


def test_names_are_escaped(person: FlaskClient) -> None:
    account = add("<script>alert(1)</script>")
    for path in ("/cookies", f"/cookies/{account.id}/edit", f"/cookies/{account.id}/delete"):
        page = person.get(path).text
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page


@pytest.mark.parametrize(
    "path", ["/cookies", "/cookies/1/edit", "/cookies/1/delete", "/cookies/1/saved", "/chat", "/dashboard"]
)
def test_no_name_of_an_account_turns_a_line_around(person: FlaskClient, path: str) -> None:
    add("one\u202elive", state="invalid", state_reason="said \u202ebackwards")
    page = person.get(path)
    assert page.status_code == 200
    assert "\u202e" not in page.text.replace(' value="one\u202elive"', "")  # as it is typed in its own field
    assert "&lt;U+202E&gt;" in page.text


def test_the_practice_provider_takes_no_accounts(person: FlaskClient) -> None:
    answer = person.get("/cookies/new?provider=practice")
    assert answer.status_code == 404
    assert "built in" in answer.text


@pytest.mark.parametrize("name", ["anthropic", "openai", "morph"])
def test_every_provider_has_its_form_with_its_terms(person: FlaskClient, name: str) -> None:
    page = person.get(f"/cookies/new?provider={name}").text
    assert 'name="api_key"' in page
    assert "Pooling free or personal accounts" in page


def test_an_added_account_is_stored_as_it_was_typed(post: Callable[..., str], provider: Provider) -> None:
    form = {
        "provider": "openai",
        "name": " Workstation ",
        "api_key": KEY,
        "base_url": provider.url,
        "priority": "7",
        "max_concurrency": "",
        "models": "model-a, model-*\n\n",
        "model_map": "claude-* = model-a\nsmall=model-b",
        "proxy": "",
        "options.top_k": "true",
        "options.max_tokens": "4096",
    }
    assert "The provider accepted the credential." in post("/cookies/new", **form)
    account = db.session.query(Account).one()
    assert account.name == "Workstation"
    assert account.api_key == KEY
    assert (account.priority, account.max_concurrency, account.proxy) == (7, 0, None)
    assert account.models == ["model-a", "model-*"]
    assert account.model_map == {"claude-*": "model-a", "small": "model-b"}
    assert account.options == {"top_k": True, "max_tokens": 4096}


@pytest.mark.parametrize(
    "field, typed, sentence",
    [
        ("name", "", "Give the account a name."),
        ("priority", "high", "Enter a whole number."),
        ("max_concurrency", "-5", "Requests at once must be a whole number between 0 and"),
        ("model_map", "claude-*", "Line 1 must read: pattern = model."),
        ("base_url", "ftp://example.com", None),
        ("proxy", "nonsense", "Proxy must be an address such as"),
        ("options.max_tokens", "many", "Enter a whole number."),
    ],
)
def test_bad_input_is_shown_at_its_field_and_kept(
    post: Callable[..., str], field: str, typed: str, sentence: str | None
) -> None:
    page = post("/cookies/new", **{"provider": "openai", "name": "Kept", "api_key": KEY, field: typed})
    control = re.search(rf'<(?:input|textarea)[^>]*name="{re.escape(field)}"[^>]*>[^<]*', page)
    assert control
    assert 'aria-invalid="true"' in control[0]
    assert typed in control[0]
    assert f'id="{field}-error"' in page
    assert sentence is None or sentence in page
    assert KEY not in page
    assert db.session.query(Account).count() == 0


def test_a_name_that_is_taken_is_shown_at_the_name(post: Callable[..., str]) -> None:
    add("Twin")
    page = post("/cookies/new", provider="openai", name="Twin", api_key=KEY, base_url="http://127.0.0.1:1/v1")
    assert 'id="name-error"' in page
    assert "has an account named" in page


def test_editing_shows_no_secret_and_keeps_it_when_left_empty(post: Callable[..., str], person: FlaskClient) -> None:
    account = add(options={"top_k": True}, proxy="http://me:hush@127.0.0.1:3128")
    page = person.get(f"/cookies/{account.id}/edit").text
    assert KEY not in page
    assert "hush" not in page
    assert "•••• cdef, leave empty to keep" in page
    form = {
        "name": "Renamed",
        "api_key": "",
        "priority": "3",
        "options.top_k": "",
        "proxy": "http://me:***@127.0.0.1:3128",
    }
    assert "Saved." in post(f"/cookies/{account.id}/edit", **form)
    db.session.refresh(account)
    assert (account.name, account.api_key, account.priority, account.options) == ("Renamed", KEY, 3, {})
    assert account.proxy == "http://me:hush@127.0.0.1:3128"


def test_the_first_account_of_a_kind_without_claude_names_is_offered_a_rule(
    post: Callable[..., str], provider: Provider
) -> None:
    page = post("/cookies/new", provider="openai", name="First", api_key=KEY, base_url=provider.url)
    assert "is answered by" in page
    account = db.session.query(Account).one()
    assert account.model_map == {}
    assert "lists no model of this name" in post(f"/cookies/{account.id}/saved", model="model-of-mine")
    post(f"/cookies/{account.id}/saved", model="model-b")
    db.session.refresh(account)
    assert account.model_map == {"claude-*": "model-b"}
    page = post("/cookies/new", provider="openai", name="Second", api_key=KEY, base_url=provider.url)
    assert "is answered by" not in page


def test_validating_shows_what_the_provider_said(post: Callable[..., str], provider: Provider) -> None:
    account = add(base_url=provider.url)
    provider.status, provider.body = 401, {"error": {"message": "no such key"}}
    assert 'class="notice error"' in post(f"/cookies/{account.id}/validate")
    db.session.refresh(account)
    assert account.state == "invalid"
    provider.status, provider.body = 200, {"data": [{"id": "model-a"}]}
    assert "one: The key works; 1 models." in post("/cookies/validate")


def test_a_provider_that_cannot_be_reached_says_nothing_of_the_account(post: Callable[..., str]) -> None:
    account = add(base_url="http://127.0.0.1:1/v1")
    assert 'class="notice warning"' in post(f"/cookies/{account.id}/validate")
    db.session.refresh(account)
    assert account.state == "active"


def test_an_account_is_switched_reset_and_deleted(post: Callable[..., str], person: FlaskClient) -> None:
    account = add(state="cooling", state_until=now() + timedelta(hours=1), error_count=4)
    assert "may be used again at once" in post(f"/cookies/{account.id}/reset")
    assert "one is disabled." in post(f"/cookies/{account.id}/state", state="disabled")
    assert "one is enabled." in post(f"/cookies/{account.id}/state", state="active")
    assert "Delete one?" in person.get(f"/cookies/{account.id}/delete").text
    assert "one was deleted." in post(f"/cookies/{account.id}/delete")
    assert db.session.query(Account).count() == 0


def test_the_rotation_strategy_is_saved(app: Flask, person: FlaskClient, post: Callable[..., str]) -> None:
    add()
    post("/cookies/rotation", rotation_strategy="least_used")
    assert '<option selected value="least_used">' in person.get("/cookies").text
    assert app.extensions["snapshots"].current().settings["rotationStrategy"] == "least_used"
    assert "There is no such rotation strategy." in post("/cookies/rotation", rotation_strategy="coin")


# --- Words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seconds, words",
    [
        (-1, (0, "now", False)),
        (-42, (42, "s", False)),
        (-150, (2, "min", False)),
        (-7300, (2, "h", False)),
        (-90_000, (25, "h", False)),
        (-200_000, (2, "d", False)),
        (130, (3, "min", True)),
        (20, (20, "s", True)),
    ],
)
def test_distances_are_told_in_the_largest_unit_that_fits(seconds: int, words: tuple[int, str, bool]) -> None:
    found = console.distance(now() + timedelta(seconds=seconds))
    assert (found.count, found.unit, found.ahead) == words


REFUSED = {
    "en": ("New password must be at least 8 characters.", "There is no account with the id 4711."),
    "zh-CN": ("新密码 至少须有 8 个字符。", "没有编号为 4711 的账号。"),
}


@pytest.mark.parametrize("language", REFUSED)
def test_what_a_service_says_with_numbers_in_it_is_in_the_language_of_the_page(
    person: FlaskClient, language: str
) -> None:
    headers = {"Accept-Language": language}
    data = {"csrf_token": token(person, "/password"), "old_password": PASSWORD, "new_password": "short"}
    at_its_field, on_a_page_of_its_own = REFUSED[language]
    assert at_its_field in person.post("/password", data=data, headers=headers).text
    assert on_a_page_of_its_own in person.get("/cookies/4711/edit", headers=headers).text


REASON = {
    "en": "The key was refused (401): invalid key",
    "zh-CN": "密钥被拒绝 (401)：invalid key",
}


@pytest.mark.parametrize("language", REASON)
def test_what_a_check_found_is_in_the_language_of_the_page(person: FlaskClient, language: str) -> None:
    failure = Failure(Verdict.AUTH, 401, "authentication_error", "invalid key")
    probe = read_models(HttpResponse(401, {}, b""), failure, "https://x.example")
    account = add(state="invalid", state_reason=probe.message)
    with force_locale({"zh-CN": "zh_Hans_CN"}.get(language, language)):
        assert in_words(probe.message) == REASON[language]  # as it is flashed at once
    page = person.get(f"/cookies/{account.id}/edit", headers={"Accept-Language": language}).text
    assert REASON[language] in page


def steps(page: str) -> list[str]:
    """Of the first steps, in order: done, or where the button leads; ! for the one that stands out."""
    _, _, found = page.partition('<ol class="steps">')
    items = found.partition("</ol>")[0].split("<li")[1:]
    links = [re.search(r'<a class="button( primary)?" href="([^"]+)"', item) for item in items]
    return [f"{link[2]}{'!' if link[1] else ''}" if link else "done" for link in links]


def test_the_dashboard_leads_a_newcomer_step_by_step_to_the_first_answer(person: FlaskClient) -> None:
    def shown() -> list[str]:
        return steps(person.get("/dashboard").text)

    page = person.get("/dashboard").text
    assert "Nothing has happened yet" in page
    assert "<svg viewBox=" not in page
    assert shown() == ["/cookies/new!", "/keys/new", "/connect", "/logs"]
    add()
    assert shown() == ["done", "/keys/new!", "/connect", "/logs"]
    key, _ = api_keys.create(current_app.extensions["installation"].pepper, {"name": "one"})
    assert shown() == ["done", "done", "/connect!", "/logs"]
    key.last_used = now()
    db.session.commit()
    assert shown() == ["done", "done", "done", "/logs!"]
    assert "3 of 4 done" in person.get("/dashboard").text
    assert "4 步中已完成 3 步" in person.get("/dashboard", headers={"Accept-Language": "zh"}).text
    write(row(1, time=now() - timedelta(days=90), outcome="upstream_error"))
    assert shown() == ["done", "done", "done", "/logs!"]
    write(row(2, time=now() - timedelta(days=90)))
    assert shown() == []
    key.revoked_at = now()
    db.session.commit()
    assert shown() == []


@pytest.mark.parametrize(
    "anonymous, at_first, asked",
    [
        ("on", ["account", "client", "answer"], ["account", "answer"]),
        ("loopback", ["account", "key", "client", "answer"], ["account", "key", "answer"]),
        ("off", ["account", "key", "client", "answer"], ["account", "key", "client", "answer"]),
    ],
)
def test_the_first_steps_need_a_key_unless_everybody_may_come_in(
    app: Flask, anonymous: str, at_first: list[str], asked: list[str]
) -> None:
    def open_steps() -> list[str]:
        found = overview.first_steps(db.session.connection(), now(), anonymous)
        return [name for name, is_done in found.items() if not is_done]

    assert open_steps() == at_first
    write(row(1, outcome="client_error"))
    assert open_steps() == asked


def test_the_first_answer_ends_the_first_steps_whoever_gave_it(person: FlaskClient) -> None:
    write(row(1, time=now() - timedelta(days=90), provider="practice"))
    page = person.get("/dashboard").text
    assert steps(page) == []
    assert "Nothing has happened yet" not in page


@pytest.mark.parametrize(
    "redis_url, language, told",
    [
        ("", "en", ">{}</span>"),
        ("redis://example", "en", ">{} on this machine</span>"),
        ("redis://example", "zh", ">本机 {}</span>"),
    ],
)
def test_what_runs_now_is_said_to_be_of_this_machine_where_there_may_be_others(
    app: Flask, person: FlaskClient, redis_url: str, language: str, told: str
) -> None:
    write(row(1))
    settings = app.extensions["settings"]
    app.extensions["settings"] = replace(settings, redis_url=redis_url)
    page = person.get("/dashboard", headers={"Accept-Language": language}).text
    app.extensions["settings"] = settings
    live = metrics.live()  # of this process, where other tests may have left some
    assert told.format(live) in page.partition('<span class="muted small num"')[2].partition("\n")[0]


@pytest.mark.parametrize(
    "kept, told",
    [
        ("rate limit reached", "已达到速率限制"),
        ("suspended", "已被封停"),
        ("credential refused 3 times: invalid x-api-key", "凭据被拒绝 3 次：invalid x-api-key"),
        ("failed 5 times: suspended", "失败 5 次：suspended"),
        ("what a provider said", "what a provider said"),
    ],
)
def test_why_an_account_is_out_is_told_in_the_language_of_the_page(person: FlaskClient, kept: str, told: str) -> None:
    account = add(state="invalid", state_reason=kept)
    for path in ("/dashboard", "/cookies", f"/cookies/{account.id}/edit"):
        assert told in person.get(path, headers={"Accept-Language": "zh"}).text
        assert kept in person.get(path).text


@pytest.mark.parametrize("period", ["24h", "7d", "30d", "nonsense"])
def test_a_full_dashboard_weighs_at_most_60_kb(person: FlaskClient, period: str) -> None:
    moments = [now() - timedelta(hours=hours) for hours in range(24 * 30)]
    write(*(row(n, time=moment, model=f"a-model-{n % 9}", duration_ms=n) for n, moment in enumerate(moments)))
    for number in range(9):
        add(f"Account {number}", state="invalid", state_reason="credential refused 3 times: invalid x-api-key")
    page = person.get(f"/dashboard?period={period}")
    assert page.text.count('<section class="card chart">') == 4
    assert weight(page) <= 60_000


@pytest.mark.parametrize("language, day", [("en", "Feb 1"), ("zh-CN", "2月1日")])
def test_the_axis_of_days_reads_as_its_language_writes_them(app: Flask, language: str, day: str) -> None:
    with app.test_request_context(headers={"Accept-Language": language}):
        assert dashboard_pages._label("2026-02-01", overview.PERIODS["30d"]) == day


def test_the_dashboard_lists_requests_that_named_no_model(person: FlaskClient) -> None:
    write(row(1, time=now(), model=""), row(2, time=now(), model="a-model"))
    page = person.get("/dashboard").text
    assert '<th scope="row" class="mono">–</th>' in page
    assert '<th scope="row" class="mono">a-model</th>' in page


@pytest.mark.parametrize("path", ["/", "/index.html", "/static/index.html", "/static/dashboard.html"])
def test_every_old_address_leads_to_the_dashboard(person: FlaskClient, path: str) -> None:
    assert person.get(path).headers["location"] == "/dashboard"


# ---- what goes wrong behind the service


TROUBLES: list[tuple[Health, int, str]] = [
    (Health("redis", away=5.0), 0, "so limits are approximate"),
    (Health("redis", away=61.0, decides=False), 0, "requests are refused until it is back"),
    (Health("memory"), 7, "7 rows of the request log found no room"),
]


@pytest.mark.parametrize("health, dropped, told", TROUBLES, ids=[told for *_, told in TROUBLES])
def test_whoever_is_signed_in_is_told_on_every_page_what_goes_wrong(
    app: Flask, person: FlaskClient, monkeypatch: pytest.MonkeyPatch, health: Health, dropped: int, told: str
) -> None:
    assert 'class="banner"' not in person.get("/password").text
    monkeypatch.setattr(app.extensions["state"], "health", lambda: health)
    app.extensions["recorder"].log_dropped_total = dropped
    assert told in person.get("/password").text
    assert told not in app.test_client().get("/login").text


@pytest.mark.parametrize("access, is_told", [("on", True), ("loopback", False), ("off", False)])
def test_open_access_is_told_on_every_page(app: Flask, person: FlaskClient, access: str, is_told: bool) -> None:
    settings = app.extensions["settings"]
    app.extensions["settings"] = replace(settings, anonymous_access=access)
    assert ("without a key (ANONYMOUS_ACCESS=on)" in person.get("/cookies").text) is is_told
    app.extensions["settings"] = settings


def shown(account: Account) -> str:
    """The name of an account's priority in the list, as it is now."""
    return f"priority-{account.id}-{account.priority}"


@pytest.mark.parametrize(
    "typed, why",
    [
        ("x", "Priority must be a whole number between -1000000 and 1000000."),
        ("", "Priority must be a whole number"),
        ("1.5", "Priority must be a whole number"),
        ("1_0", "Priority must be a whole number"),
        ("9" * 30, "Priority must be a whole number"),
        ("1000001", "Priority must be a whole number"),
    ],
)
def test_a_priority_that_is_refused_is_marked_and_nothing_that_was_typed_is_lost(
    post: Callable[..., str], typed: str, why: str
) -> None:
    one, two, three = add("one", priority=1), add("two", priority=2), add("three")
    names = shown(one), shown(two)
    page = post("/cookies?name=o", **{names[0]: "7", names[1]: typed}, account=[one.id], do="save")
    assert re.search(rf'<p class="error" id="e{two.id}">{why}', page)
    assert f'name="{names[0]}" value="7"' in page
    assert f"Nothing was saved. two: {why}" in page
    field = re.search(rf'<input [^>]*name="{names[1]}"[^>]*>', page)
    assert field
    assert f'value="{typed}"' in field[0]
    assert f'aria-invalid="true" aria-describedby="e{two.id}"' in field[0]
    assert page.count("aria-invalid") == 1
    assert f'value="{one.id}" checked' in page
    assert "three</a>" not in page, "the list is filtered as it was"
    db.session.expire_all()
    assert [account.priority for account in (one, two, three)] == [1, 2, 0]


def test_priorities_are_changed_in_the_list(post: Callable[..., str]) -> None:
    one, two = add("one", priority=1), add("two", priority=-2)
    assert "Saved." in post("/cookies", **{shown(one): " -7 ", shown(two): "+3"}, do="save")
    db.session.expire_all()
    assert (one.priority, two.priority) == (-7, 3)


def test_a_priority_that_somebody_else_changed_stays_when_this_list_changed_another(post: Callable[..., str]) -> None:
    one, two = add("one", priority=1), add("two", priority=2)
    form = {shown(one): "7", shown(two): "2"}
    two.priority = 9
    db.session.commit()
    post("/cookies", **form, do="save")
    post("/cookies", **form, do="disabled", account=two.id)
    db.session.expire_all()
    assert (one.priority, two.priority, two.state) == (7, 9, "disabled")


def test_a_priority_of_an_account_of_another_version_is_refused(post: Callable[..., str]) -> None:
    foreign = add("two")
    foreign.provider = "of a newer version"
    db.session.commit()
    assert "two: provider: must be one of" in post("/cookies", **{shown(foreign): "1"})


def test_a_priority_of_an_account_that_is_gone_holds_up_nothing_else(post: Callable[..., str]) -> None:
    gone, one, two = {"priority-99-0": "1"}, add("one"), add("two")
    page = post("/cookies", do="disabled", account=one.id, **gone, **{shown(two): "9"})
    assert "one is disabled." in page
    assert "Saved. The next request follows it. Deleted meanwhile or refused: 1." in post(
        "/cookies", do="save", **gone, **{shown(one): "7"}
    )
    assert "This account was deleted meanwhile. Nothing was changed." in post("/cookies", do="save", **gone)
    db.session.expire_all()
    assert (one.state, one.priority, two.priority) == ("disabled", 7, 9)


def test_the_script_is_told_what_came_of_a_priority(person: FlaskClient) -> None:
    one = add("one")
    csrf, json = token(person, "/password"), {"Accept": "application/json"}
    for typed, refused in (("x", {str(one.id): "Priority must be a whole number"}), ("7", {})):
        answer = person.post("/cookies", data={"csrf_token": csrf, shown(one): typed}, headers=json).json
        assert answer is not None
        assert {name: why.partition(" between")[0] for name, why in answer["refused"].items()} == refused
    assert answer["said"] == "Saved. The next request follows it."
    answer = person.post("/cookies", data={"csrf_token": csrf, "priority-99-0": "1"}, headers=json).json
    assert answer is not None
    assert answer["refused"] == {"99": "This was deleted meanwhile."}
    assert one.priority == 7
    assert "Saved." not in person.get("/cookies").text


def test_what_is_ticked_stays_so_when_a_priority_is_saved_and_a_priority_when_the_ticked_are_switched(
    post: Callable[..., str],
) -> None:
    one, two = add("one"), add("two")
    page = post("/cookies?name=o", **{shown(one): "7"}, account=[two.id], do="save")
    assert [value for value in (one.id, two.id) if f'value="{value}" checked' in page] == [two.id]
    assert "one is disabled." in post("/cookies", do="disabled", account=one.id, **{shown(two): "9"})
    db.session.expire_all()
    assert (one.priority, two.priority, one.state) == (7, 9, "disabled")
    page = post("/cookies", do="active", account=one.id, **{shown(two): "x"})
    assert "must be a whole number" in page
    assert f'value="{one.id}" checked' in page
    assert one.state == "disabled"


def test_ticked_accounts_that_are_gone_are_said_to_be_gone(post: Callable[..., str]) -> None:
    add("one")
    assert "What was ticked was deleted meanwhile." in post("/cookies", do="disabled", account=99)


def test_whoever_is_deleted_between_the_tick_and_the_writing_is_said_to_be_gone(
    person: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    account_id, csrf = add("one").id, token(person, "/password")
    get = Accounts.get

    def found(self: Accounts, account_id: int) -> Account:
        account = get(self, account_id)
        with db.engine.begin() as connection:
            connection.execute(sa.delete(Account).where(Account.id == account_id))
        return account

    monkeypatch.setattr(Accounts, "get", found)
    answer = person.post("/cookies", data={"csrf_token": csrf, "do": "disabled", "account": account_id})
    assert answer.status_code == 404
    assert "This was deleted meanwhile." in answer.text


@pytest.mark.parametrize("most", [1, 2])
def test_checking_ticked_accounts_goes_on_behind_the_page_and_not_twice_at_once(
    post: Callable[..., str], provider: Provider, most: int
) -> None:
    ticked = [add(str(number), base_url=provider.url).id for number in range(most)]
    assert validation_run.begin(9)
    page = post("/cookies", do="validate", account=ticked)
    assert "Accounts are being checked already." in page
    assert page.count(" checked aria-labelledby") == most, "the ticks stay"
    page = post("/cookies/validate")
    assert "Accounts checked: 0 / 9" in page
    assert re.search(r'<noscript><a href="/cookies\?page=1&amp;check=[0-9.]+">Look again</a></noscript>', page)
    assert 'http-equiv="refresh"' not in page


@pytest.mark.parametrize(
    "keys, said, kind",
    [
        ("good good", "2 of 2 accounts are valid.", "success"),
        ("good bad", "1 of 2 accounts are valid. Refused: 1.", "warning"),
        ("away away", "0 of 2 accounts are valid. No clear answer: 2.", "warning"),
        ("good bad away away", "1 of 4 accounts are valid. Refused: 1. No clear answer: 2.", "warning"),
        ("away", "0: ", "warning"),
        ("bad", "0: The key was refused (401): no such key", "error"),
        ("good", "0: The key works; 2 models.", "success"),
    ],
)
def test_a_check_of_accounts_counts_who_answered_clearly(
    person: FlaskClient, post: Callable[..., str], provider: Provider, keys: str, said: str, kind: str
) -> None:
    for number, key in enumerate(keys.split()):
        url = "http://127.0.0.1:1/v1" if key == "away" else provider.url
        account = Account(provider="openai", name=str(number), api_key=f"sk-{key}-0123456789", base_url=url)
        db.session.add(account)
    db.session.commit()
    provider.refused = "sk-bad"
    page = post("/cookies/validate")
    found = re.search(r'<div id="run"><div class="notice (\w+)".*?<div>(.*?)</div>', page, re.DOTALL)
    assert found
    assert found[1] == kind
    assert found[2].startswith(said) if said == "0: " else found[2] == said
    assert 'id="run"' not in person.get("/cookies").text, "once is enough"


def test_a_check_that_broke_off_is_told_once(person: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    add()
    assert validation_run.begin(9)
    monkeypatch.setattr(validation_run, "LOST_AFTER", 0.0)
    assert "The check broke off: 0 of 9 accounts were checked." in person.get("/cookies").text
    assert "The check broke off" not in person.get("/cookies").text


def test_each_page_that_showed_how_far_a_check_was_is_told_its_end(
    person: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    add()
    assert validation_run.begin(9)
    found = re.search(r'data-watch="(.*?)"', person.get("/cookies").text)
    assert found
    monkeypatch.setattr(validation_run, "LOST_AFTER", 0.0)
    end = "The check broke off"
    assert end in person.get("/cookies").text
    assert end not in person.get("/cookies").text
    monkeypatch.setattr(validation_run, "NEWS_FOR", 0.0)
    assert end in person.get(found[1].replace("&amp;", "&")).text, "the other tab, and after however long"
    assert end not in person.get("/cookies?check=1").text, "of another check"


def test_a_check_stays_the_same_one_until_its_end(post: Callable[..., str], provider: Provider) -> None:
    add(base_url=provider.url)
    post("/cookies/validate")
    run = validation_run.current()
    assert run
    assert run.started > 0.0


def test_a_check_of_accounts_that_are_all_gone_is_no_success(person: FlaskClient) -> None:
    add()
    assert validation_run.begin(0)
    assert "accounts are valid" not in person.get("/cookies").text


def test_the_list_is_filtered_by_its_address(person: FlaskClient) -> None:
    for number in range(30):
        add(f"well-{number}")
    add("ill", state="invalid")
    page = person.get("/cookies?state=invalid").text
    assert "ill</a>" in page
    assert "well-" not in page
    assert 'href="/cookies?page=2&amp;state=active"' in person.get("/cookies?state=active").text
    assert "No account is like that." in person.get("/cookies?provider=morph").text
    named = person.get("/cookies?name=WELL-2").text
    assert named.count('<tr id="account-') == 11
    assert "well-1" not in named
    assert 'href="/cookies?page=2&amp;name=WELL"' in person.get("/cookies?name=WELL").text


def test_a_deleted_account_is_restored_or_erased(post: Callable[..., str], person: FlaskClient) -> None:
    account_id = add().id
    assert "kept for 30 days" in person.get(f"/cookies/{account_id}/delete").text
    post(f"/cookies/{account_id}/delete")
    assert 'href="/cookies/deleted"' in person.get("/cookies").text
    page = person.get("/cookies/deleted").text
    assert "in 30 d" in page
    assert KEY not in page
    other = add()
    assert "Another account is named one by now." in post(f"/cookies/deleted/{account_id}/restore")
    post(f"/cookies/{other.id}/delete")
    assert "one is back as it was." in post(f"/cookies/deleted/{account_id}/restore")
    assert db.session.query(Account).one().api_key == KEY
    assert "Erase one now?" in person.get(f"/cookies/deleted/{other.id}/erase").text
    assert "one was erased with its credential." in post(f"/cookies/deleted/{other.id}/erase")
    assert "Nothing was deleted lately" in person.get("/cookies/deleted").text
    assert person.get(f"/cookies/deleted/{other.id}/erase").status_code == 404


def test_an_accounts_page_tells_what_became_of_it_and_by_whom(person: FlaskClient, post: Callable[..., str]) -> None:
    account = add()
    assert "has not changed yet" in person.get(f"/cookies/{account.id}/edit").text
    post(f"/cookies/{account.id}/state", state="disabled")
    page = person.get(f"/cookies/{account.id}/edit").text
    assert page.index("History") < page.index("· admin")
