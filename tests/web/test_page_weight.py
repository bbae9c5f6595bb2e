"""No page goes over 60 KB, whatever operators, providers and strangers call things: each list is full, and its words
are the longest that the database takes."""

from datetime import timedelta
from typing import Any

import pytest
from flask import current_app
from flask.testing import FlaskClient

from opus_api.extensions import db
from opus_api.models import (
    Account,
    AccountEvent,
    ApiKey,
    Base,
    Change,
    DeletedAccount,
    IpRule,
    Refusal,
    User,
    UserSession,
    now,
)
from opus_api.services import api_keys
from opus_api.services.api_keys import LIMITS
from opus_api.web import brief
from tests.forms import token
from tests.services.test_statistics import row, write
from tests.web.conftest import weight

MANY = 60
PAGES = [
    "/dashboard",
    "/cookies?page=2",
    "/cookies/deleted",
    "/cookies/1/edit",
    "/keys?page=2&revoked=1&period=7d",
    "/keys/1/edit",
    "/logs",
    "/logs/req_1",
    "/ips",
    "/changes",
    "/profile",
    "/connect",
    "/chat",
]


def everything(letter: str, user_id: int) -> list[Base]:
    """Rows of each table that a page lists."""

    def long(number: int, length: int) -> str:
        return str(number).ljust(length, letter)

    soon, minute = now() + timedelta(days=9), int(now().timestamp()) // 60
    rows: list[Base] = []
    for n in range(1, MANY + 1):
        models = [long(other, 256) for other in range(3)]
        down: dict[str, Any] = {
            "priority": -1_000_000,
            "state": "cooling",
            "state_reason": long(n, 255),
            "state_until": soon,
        }
        rows += [
            Account(provider="openai", name=long(n, 100), api_key="sk-0123456789", listed_models=models, **down),
            AccountEvent(account_id=1, who=long(n, 80), before="active", after="invalid", reason=long(n, 255)),
            ApiKey(
                name=long(n, 100),
                key_hash=str(n),
                hint="abcd",
                models=models,
                limits=dict.fromkeys(LIMITS, 1_000_000),
                expires_at=soon,
            ),
            Change(who=long(n, 80), what=long(n, 120), before=long(n, 2000), after=models),
            DeletedAccount(id=9000 + n, provider="openai", name=long(n, 100), deleted_by=long(n, 80), kept="{}"),
            IpRule(cidr=f"2001:db8:{n:x}:ffff:ffff:ffff:ffff:0/112", reason=long(n, 255), expires_at=soon),
            Refusal(minute=minute, client_ip=f"2001:db8:{n:x}:ffff::/64", status=401, requests=n),
            UserSession(
                user_id=user_id,
                token_hash=str(n),
                kind="page",
                expires_at=soon,
                client_ip=f"2001:db8:{n:x}:ffff:ffff:ffff:ffff:ffff",
                user_agent=long(n, 255),
            ),
        ]
    return rows


@pytest.mark.parametrize("language", ["en", "zh-CN"])
@pytest.mark.parametrize("letter", ['"', "汉", "\u202e"])
def test_no_page_is_over_60_kb_when_all_is_as_long_as_it_may_be(
    person: FlaskClient, admin: User, letter: str, language: str
) -> None:
    db.session.add_all(everything(letter, admin.id))
    db.session.commit()
    some = {"status": 529, "outcome": "upstream_error", "input_tokens": 123_456, "duration_ms": 123_456}
    names = [str(n).ljust(256, letter) for n in range(MANY)]
    write(*(row(n, time=now(), model=names[n], key_id=n + 1, account_id=n + 1, **some) for n in range(MANY)))
    pages = {path: person.get(path, headers={"Accept-Language": language}) for path in PAGES}
    assert {path: page.status_code for path, page in pages.items()} == dict.fromkeys(PAGES, 200)
    assert {path: weight(page) for path, page in pages.items() if weight(page) > 60_000} == {}


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_a_provider_with_hundreds_of_models_makes_no_page_heavy(person: FlaskClient, language: str) -> None:
    models = [f"some-vendor/a-model-with-a-longer-name-{n}" for n in range(400)]
    account = Account(provider="openai", name="one", api_key="sk-0123456789", listed_models=models)
    key, value = api_keys.create(current_app.extensions["installation"].pepper, {"name": "one"})
    db.session.add(account)
    db.session.commit()
    write(*(row(n, time=now(), model=models[n] + "x" * 200, key_id=key.id) for n in range(30)))
    headers = {"Accept-Language": language}
    pages = {
        path: person.get(path, headers=headers)
        for path in (f"/cookies/{account.id}/saved", f"/cookies/{account.id}/edit", "/cookies", "/connect", "/chat")
    }
    asked = {"csrf_token": token(person, "/my"), "key": value}
    pages["/my"] = person.post("/my", data=asked, headers=headers)
    assert "some-vendor/a-model" in pages["/my"].text
    assert 'value="some-vendor/a-model-with-a-longer-name-9"' in pages[f"/cookies/{account.id}/saved"].text
    assert {path: weight(page) for path, page in pages.items() if weight(page) > 60_000} == {}


@pytest.mark.parametrize(
    "text, most, shown",
    [
        ("", 3, ""),
        (None, 3, ""),
        ("abc", 3, "abc"),
        ("abcd", 3, "abc…"),
        ("汉字", 5, "汉…"),
        ('"a', 5, '"…'),
        ("a" * 9, 0, "…"),
    ],
)
def test_a_text_is_cut_by_the_bytes_that_it_takes(text: str | None, most: int, shown: str) -> None:
    assert brief.brief(text, most) == shown


@pytest.mark.parametrize(
    "sizes, budget, each",
    [([], 9, 0), ([3, 3], 6, 3), ([3, 3], 9, 3), ([1, 9], 6, 5), ([9, 9, 9], 6, 2), ([0, 9, 9], 8, 4)],
)
def test_what_short_texts_leave_is_given_to_the_long_ones(sizes: list[int], budget: int, each: int) -> None:
    assert brief.share(["x" * size for size in sizes], budget) == each


def test_names_are_suggested_until_their_budget_is_used_and_never_a_very_long_one() -> None:
    assert brief.light(["a" * 40, "b" * 101, "c" * 40, "d" * 40], 100) == ["a" * 40, "c" * 40]
