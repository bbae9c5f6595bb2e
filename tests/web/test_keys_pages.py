"""The pages of API keys: what they show, what their forms take and keep, what is shown once."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient

from opus_api.extensions import db
from opus_api.models import ApiKey, now
from opus_api.services.api_keys import LIMITS
from tests.services.test_statistics import row, write
from tests.web.conftest import weight

HELLO = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}


def add(name: str = "laptop", **columns: object) -> ApiKey:
    key = ApiKey(name=name, key_hash=f"hash of {name}", hint="cdef", **{"limits": {}, **columns})
    db.session.add(key)
    db.session.commit()
    return key


def made(page: str) -> str:
    """The key that a page shows."""
    found = re.search(r"<pre[^>]*>(sk-opus-\w+)</pre>", page)
    assert found, page
    return found[1]


def control(page: str, name: str) -> str:
    """The element with which a field is filled in, and what stands in it."""
    found = re.search(rf'<(?:input|textarea|select)[^>]*name="{re.escape(name)}"[^>]*>[^<]*', page)
    assert found
    return found[0]


# --- The list ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/keys", "/keys/new", "/keys/1/edit", "/keys/1/revoke"])
def test_strangers_are_led_to_the_sign_in(client: FlaskClient, path: str) -> None:
    assert client.get(path).location.startswith("/login?next=")


def test_without_keys_the_next_step_is_shown(person: FlaskClient) -> None:
    page = person.get("/keys").text
    assert "No keys yet" in page
    assert 'href="/keys/new"' in page


def test_usage_is_that_of_the_period(person: FlaskClient) -> None:
    key = add()
    write(
        *(row(n, key_id=key.id, time=now() - timedelta(hours=1), input_tokens=1000) for n in range(3)),
        row(9, key_id=key.id, time=now() - timedelta(days=3), input_tokens=1000),
        row(10, time=now()),
    )
    for period, requests, tokens in (("24h", 3, "3k"), ("7d", 4, "4k")):
        page = person.get(f"/keys?period={period}").text
        assert f'data-label="Requests">{requests}\n' in page
        assert f'data-label="Tokens">{tokens}\n' in page


def test_bars_show_what_a_limit_really_has_taken(app: Flask, person: FlaskClient, post: Callable[..., str]) -> None:
    limits = {"limits.rpm": "2", "limits.concurrency": "4", "limits.monthly_tokens": "1000"}
    key = made(post("/keys/new", name="laptop", **limits))
    for _ in range(2):
        answer = app.test_client().post("/v1/messages", json=HELLO, headers={"x-api-key": key})
        assert answer.status_code == 200
    tokens = sum(2 * answer.json["usage"][kind] for kind in ("input_tokens", "output_tokens"))  # type: ignore[index]
    page = person.get("/keys").text
    bars = dict(re.findall(r"<label>([^<]+) <b>([^<]+)</b><progress", page))
    assert bars == {"Requests / min": "2 / 2", "At once": "0 / 4", "Tokens / month": f"{tokens} / 1k"}
    assert '<b>2 / 2</b><progress class="high" value="1.0">' in page


def test_revoked_keys_are_shown_when_asked_for(person: FlaskClient) -> None:
    add("gone", revoked_at=now())
    page = person.get("/keys").text
    assert "No key works at present" in page
    assert "gone" not in page
    page = person.get("/keys?revoked=1").text
    assert '<span class="badge revoked">' in page
    assert "Revoke…" not in page


def test_a_key_that_has_expired_says_so(person: FlaskClient) -> None:
    add(expires_at=now() - timedelta(days=3))
    page = person.get("/keys").text
    assert '<span class="badge expired">' in page
    assert "3 d ago" in page


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_a_full_page_of_keys_weighs_at_most_60_kb(person: FlaskClient, language: str) -> None:
    for number in range(50):
        add(
            f"Key number {number} of somebody",
            models=["claude-opus-4-5", "anthropic/claude-sonnet-*", "gpt-5*"],
            limits=dict.fromkeys(LIMITS, 1_000_000),
            expires_at=now() + timedelta(days=9),
            last_used=now(),
        )
    page = person.get("/keys?page=2&revoked=1&period=7d", headers={"Accept-Language": language})
    assert page.text.count("<tr id=") == 20
    assert 'href="/keys?page=3&amp;period=7d&amp;revoked=1"' in page.text
    assert weight(page) <= 60_000


# --- Make, edit, revoke -----------------------------------------------------------------------------------------------


def test_an_end_stays_to_the_second_when_something_else_is_saved(person: FlaskClient, post: Callable[..., str]) -> None:
    end = (now() + timedelta(seconds=20)).replace(second=28, microsecond=0)  # which is over, or soon will be
    key = add(expires_at=end)
    page = person.get(f"/keys/{key.id}/edit").text
    shown = {name: re.search(rf'name="{name}"[^>]*value="([^"]+)"', page) for name in ("expires_at", "version")}
    post(f"/keys/{key.id}/edit", name="renamed", **{name: found[1] for name, found in shown.items() if found})
    db.session.refresh(key)
    assert (key.name, key.expires_at) == ("renamed", end)


def test_a_key_is_shown_once_with_a_curl_that_works(app: Flask, person: FlaskClient, post: Callable[..., str]) -> None:
    form = {
        "name": " Laptop ",
        "models": "claude-*\nmodel-a, ",
        "expires_at": "2099-01-31T12:00",
        "limits.rpm": "60",
        "limits.itpm": "",
        "override": "y",
    }
    page = post("/keys/new", **form)
    value = made(page)
    assert f"x-api-key: {value}" in page
    assert "model-a" in page  # the example asks for what the key may ask for
    key = db.session.query(ApiKey).one()
    assert (key.name, key.models, key.limits, key.override) == ("Laptop", ["claude-*", "model-a"], {"rpm": 60}, True)
    assert key.expires_at == datetime(2099, 1, 31, 12, tzinfo=UTC)
    for path in ("/keys", f"/keys/{key.id}/edit", f"/keys/{key.id}/revoke"):
        assert value not in person.get(path).text
    again = post("/keys/new", **form)  # the page was loaded again
    assert "there is a key named" in again
    assert db.session.query(ApiKey).count() == 1
    answer = app.test_client().get("/v1/models", headers={"x-api-key": value})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "field, typed, sentence",
    [
        ("name", "", "Give the key a name."),
        ("name", "taken", "there is a key named"),
        ("limits.rpm", "many", "Enter a whole number."),
        ("limits.otpm", "0", "Output tokens / min must be a whole number between 1 and"),
        ("expires_at", "tomorrow", "Enter a date and a time, such as"),
        ("expires_at", "2020-01-31T12:00", "Works until must lie ahead."),
        ("models", "m" * 201, "Models must be at most 200 characters."),
    ],
)
def test_bad_input_is_shown_at_its_field_and_kept(
    post: Callable[..., str], field: str, typed: str, sentence: str
) -> None:
    add("taken")
    key = add("mine")
    form = {"name": "Kept", "models": "kept-*", "limits.itpm": "77", "override": "y", field: typed}
    for path in ("/keys/new", f"/keys/{key.id}/edit"):
        page = post(path, **form)
        assert sentence in page
        assert 'aria-invalid="true"' in control(page, field)
        for name, value in form.items():
            assert (value if name != "override" else "checked") in control(page, name)
    assert [key.name for key in db.session.query(ApiKey)] == ["taken", "mine"]


def test_editing_begins_with_what_there_is_and_changes_it(person: FlaskClient, post: Callable[..., str]) -> None:
    key = add(models=["claude-*"], limits={"rpm": 60}, expires_at=datetime(2099, 1, 31, 12, tzinfo=UTC), override=True)
    page = person.get(f"/keys/{key.id}/edit").text
    for name, value in (("models", "claude-*"), ("limits.rpm", '"60"'), ("expires_at", '"2099-01-31T12:00"')):
        assert value in control(page, name)
    assert "checked" in control(page, "override")
    assert "Saved." in post(f"/keys/{key.id}/edit", name="desk", **{"limits.otpm": "5"})
    db.session.refresh(key)
    assert (key.name, key.models, key.limits, key.expires_at, key.override) == ("desk", None, {"otpm": 5}, None, False)


def test_revoking_asks_first_and_is_for_good(person: FlaskClient, post: Callable[..., str]) -> None:
    key = add()
    assert "Revoke laptop?" in person.get(f"/keys/{key.id}/revoke").text
    assert "laptop is revoked." in post(f"/keys/{key.id}/revoke")
    page = person.get(f"/keys/{key.id}/edit").text
    assert "nothing brings it back" in page
    assert "<textarea" not in page
    assert "This key was revoked meanwhile" in post(f"/keys/{key.id}/edit", name="back")
    db.session.refresh(key)
    assert (key.name, key.revoked_at is None) == ("laptop", False)


@pytest.mark.parametrize("name", ["edit", "revoke"])
def test_a_form_without_its_token_changes_nothing(person: FlaskClient, name: str) -> None:
    key = add()
    assert person.post(f"/keys/{key.id}/{name}", data={"name": "other"}).status_code == 400
    db.session.refresh(key)
    assert (key.name, key.revoked_at) == ("laptop", None)


def test_a_key_that_has_expired_can_be_renamed(post: Callable[..., str]) -> None:
    key = add(expires_at=datetime(2020, 1, 31, 12, tzinfo=UTC))
    assert "Saved." in post(f"/keys/{key.id}/edit", name="desk", expires_at="2020-01-31T12:00")


def test_a_name_that_turns_its_line_around_is_shown_with_the_mark(
    person: FlaskClient, post: Callable[..., str]
) -> None:
    key = add("safe\u202egnp.exe")
    pages = [person.get(path).text for path in ("/keys", f"/keys/{key.id}/revoke")]
    pages.append(post(f"/keys/{key.id}/revoke"))
    for page in pages:
        assert "\u202e" not in page
        assert "safe&lt;U+202E&gt;gnp.exe" in page


def test_names_are_escaped(person: FlaskClient) -> None:
    key = add("<script>alert(1)</script>")
    for path in ("/keys", f"/keys/{key.id}/edit", f"/keys/{key.id}/revoke"):
        assert "<script>alert" not in person.get(path).text
