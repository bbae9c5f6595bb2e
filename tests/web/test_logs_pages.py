"""The pages of the request log: what they show, what their URL asks for, and how much they weigh."""

import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from opus_api.extensions import db
from opus_api.models import Account, ApiKey, now
from opus_api.services import exchange_log
from opus_api.services.explanations import LONGEST_WORD, MOST_TRIES, Try, trace
from tests.services.test_statistics import row, write
from tests.web.conftest import weight

Page = Callable[..., str]


@pytest.fixture
def page(person: FlaskClient) -> Page:
    """The log as it looks for a query."""

    def get(query: str = "", path: str = "/logs") -> str:
        answer = person.get(f"{path}?{query}", follow_redirects=True)
        assert answer.status_code == 200
        return answer.text

    return get


def shown(text: str) -> list[str]:
    return re.findall(r'href="/logs/(req_\w+)"', text)


def figures(text: str) -> dict[str, str]:
    return dict(re.findall(r'<div class="figure"><dt>([^<]+)</dt><dd>([^<]+?)(?: <small>.*?</small>)?</dd>', text))


def write_some(count: int, **more: Any) -> None:
    first = now() - timedelta(minutes=count)
    write(*(row(n, time=first + timedelta(minutes=n), **more) for n in range(count)))


# --- The list ---------------------------------------------------------------------------------------------------------


def test_the_newest_come_first_and_every_row_once_over_all_pages(page: Page) -> None:
    write_some(120)
    found, query = [], ""
    while True:
        text = page(query)
        found += shown(text)
        older = re.search(r'href="/logs\?([^"]+)">Older', text)
        if older is None:
            break
        query = older[1].replace("&amp;", "&")
        assert ("Newest" in text) == bool(len(found) > 50)
    assert found == [f"req_{n}" for n in reversed(range(120))]


FILTERS = [
    ("key=1", {"req_0", "req_1"}),
    ("account=2", {"req_1", "req_2"}),
    ("model=gpt-5", {"req_2"}),
    ("status=502", {"req_1"}),
    ("outcome=upstream_error", {"req_1"}),
    ("key=1&outcome=ok", {"req_0"}),
    ("key=9", set()),
    ("period=1h", {"req_0", "req_1", "req_2"}),
    ("period=7d", {"req_0", "req_1", "req_2", "req_3"}),
    ("period=all", {"req_0", "req_1", "req_2", "req_3", "req_4"}),
    ("period=nonsense", {"req_0", "req_1", "req_2"}),
]


@pytest.fixture
def five() -> Callable[[], None]:
    def make() -> None:
        moment = now() - timedelta(minutes=5)
        write(
            row(0, time=moment, key_id=1, account_id=1, model="m"),
            row(1, time=moment, key_id=1, account_id=2, model="m", status=502, outcome="upstream_error"),
            row(2, time=moment, key_id=2, account_id=2, model="gpt-5"),
            row(3, time=moment - timedelta(days=3)),
            row(4, time=moment - timedelta(days=90)),
        )

    return make


@pytest.mark.parametrize("query, expected", FILTERS)
def test_the_url_filters(page: Page, five: Callable[[], None], query: str, expected: set[str]) -> None:
    five()
    assert set(shown(page(query))) == expected


@pytest.mark.parametrize("query, expected", FILTERS)
def test_the_figures_count_what_is_listed(page: Page, five: Callable[[], None], query: str, expected: set[str]) -> None:
    five()
    found = figures(page(query))
    assert found.get("Requests", "0") == str(len(expected))
    assert found.get("Errors", "0") == str(int("req_1" in expected))


def test_a_span_can_be_typed_in_utc(page: Page) -> None:
    write_some(3)
    moment = (now() - timedelta(minutes=2, seconds=30)).strftime("%Y-%m-%dT%H:%M:%S")
    assert shown(page(f"from={moment}")) == ["req_2", "req_1"]
    assert shown(page(f"to={moment}")) == ["req_0"]


def chips(text: str) -> dict[str, str]:
    """What is filtered by, and where it no longer is."""
    found = re.findall(r'<li><a href="([^"]+)"><span class="muted">(\w+)</span> ([^<]+)<', text)
    return {f"{name} {value}": address.replace("&amp;", "&") for address, name, value in found}


def test_each_filter_is_a_chip_that_takes_itself_away(page: Page) -> None:
    db.session.add(ApiKey(name="Team", key_hash="x", hint="abcd"))
    db.session.commit()
    assert chips(page("key=1&outcome=ok&period=7d&before=1-1")) == {
        "Key Team": "/logs?outcome=ok&period=7d",
        "Outcome OK": "/logs?key=1&period=7d",
    }


def test_who_was_busy_can_be_chosen_by_name(page: Page) -> None:
    db.session.add(Account(provider="openai", name="Workstation", api_key="sk-0123456789"))
    db.session.commit()
    write_some(2, account_id=1, key_id=7, model="a-model")
    text = page("account=1&model=gone")
    assert '<option selected value="1">Workstation</option>' in text
    assert '<option value="7">#7</option>' in text  # its key is gone
    assert '<option value="a-model">a-model</option>' in text
    assert '<option selected value="gone">gone</option>' in text


def test_fields_that_were_left_alone_do_not_stand_in_the_url(person: FlaskClient) -> None:
    answer = person.get("/logs?key=&model=gpt-5&status=+&from=&_scheme=evil")
    assert answer.headers["location"] == "/logs?model=gpt-5"


@pytest.mark.parametrize(
    "query, sentence",
    [
        ("key=abc", "Key must be a whole number."),
        ("status=bad", "Status must be a whole number."),
        ("from=yesterday", "From must be a time such as"),
        ("model=%00x", "Model must not contain a NUL character."),
        ("request_id=req_none", "There is no such request in the log."),
    ],
)
def test_what_is_wrong_is_shown_at_its_field_and_kept(page: Page, query: str, sentence: str) -> None:
    write_some(1)
    text = page(query)
    assert sentence in text
    assert '<details class="card filter" open>' in text
    assert 'aria-invalid="true"' in text


def test_a_cursor_of_nobody_is_refused(person: FlaskClient) -> None:
    assert person.get("/logs?before=evil").status_code == 422


def test_a_request_id_leads_to_its_page(person: FlaskClient) -> None:
    write_some(1)
    assert person.get("/logs?request_id=+req_0&key=").headers["location"] == "/logs?request_id=req_0"
    assert person.get("/logs?request_id=req_0").headers["location"] == "/logs/req_0"


def test_nothing_found_says_what_to_do(page: Page) -> None:
    assert "What clients ask shows up here" in page()
    assert "Clear all filters" in page("model=none")


def test_figures_that_no_statistics_are_kept_of_say_how_far_they_count(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opus_api.services.logs.MOST_COUNTED", 3)
    write_some(5)
    assert "Counted over the newest 3 of the requests that match." in page("outcome=ok")
    assert "Counted over" not in page()


def strange(count: int) -> Sequence[dict[str, Any]]:
    return [
        row(
            10**23 + n,
            time=now() - timedelta(minutes=n),
            model="claude-sonnet-4-5-20250929",
            key_id=n % 25 + 1,
            account_id=n % 25 + 1,
            status=529,
            outcome="upstream_error",
            input_tokens=123_456,
            output_tokens=12_345,
            duration_ms=123_456,
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_a_full_page_weighs_at_most_60_kb(person: FlaskClient, language: str) -> None:
    for n in range(25):
        db.session.add(Account(provider="openai", name=f"Account number {n}", api_key="sk-0123456789"))
        db.session.add(ApiKey(name=f"Team of people {n}", key_hash=str(n), hint="abcd"))
    db.session.commit()
    write(*strange(60))
    answer = person.get("/logs", headers={"Accept-Language": language})
    assert len(shown(answer.text)) == 50
    assert weight(answer) <= 60_000


def test_a_model_named_by_a_stranger_is_shown_as_text(page: Page) -> None:
    name = "<script>alert(1)</script>\x1b[31m\u202egnp"
    write_some(1, model=name, upstream_request_id=name)
    for text in (page(), page(path="/logs/req_0")):
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;\u241b[31m&lt;U+202E&gt;gnp" in text


# --- One request ------------------------------------------------------------------------------------------------------


def test_a_request_shows_all_that_is_known_of_it(page: Page) -> None:
    db.session.add(Account(provider="openai", name="Workstation", api_key="sk-0123456789"))
    db.session.add(ApiKey(name="Team", key_hash="x", hint="abcd"))
    db.session.commit()
    write_some(
        1,
        key_id=1,
        account_id=1,
        provider="openai",
        upstream_model="gpt-5",
        upstream_request_id="up-42",
        first_token_ms=400,
        duration_ms=2400,
        output_tokens=100,
        cache_read_input_tokens=7000,
        cache_creation_input_tokens=80,
        estimated=True,
        client_ip="203.0.113.9",
    )
    text = page(path="/logs/req_0")
    for part in (
        "Workstation",
        "Team",
        "openai/gpt-5",
        "up-42",
        "400 ms",
        "2.4 s",
        "50 tokens/s",
        "7,000",
        "Estimated",
    ):
        assert part in text
    assert 'href="/ips?ip=203.0.113.9&amp;reason=req_0"' in text
    assert 'href="/logs?key=1"' in text
    assert 'class="lane"' in text


def test_a_request_nobody_knows_is_a_404(person: FlaskClient) -> None:
    for name in ("req_none", "req_%00", "%E2%80%AE"):
        answer = person.get(f"/logs/{name}")
        assert answer.status_code == 404
        assert "There is no such request in the log." in answer.text


# --- What debug mode kept of it ---------------------------------------------------------------------------------------

SAID = {
    "client-in": 'POST /v1/messages\nx-api-key: ***\n\n{"model": "m"}',
    "upstream-out-1": "POST https://a.test/v1/messages\n\n{}",
    "upstream-in-1": "HTTP 200\n\nevent: message_start",
    "client-out": "HTTP 200\n\nevent: message_stop",
}
FILE = "/logs/req_0/files"


@pytest.fixture
def kept(app: Flask) -> Path:
    """The folder of req_0, which is still empty."""
    folder = exchange_log.root(app.extensions["settings"]) / "20260102T220000-req_0"
    folder.mkdir(parents=True)
    return folder


def keep(folder: Path, said: dict[str, str]) -> None:
    for name, text in said.items():
        (folder / f"{name}.http").write_text(text, encoding="utf-8")


def excerpts(page: str) -> dict[str, str]:
    """Face -> what is shown of it."""
    found = re.findall(rf'<a href="{FILE}/([\w-]+)">.*?<pre[^>]*>(.*?)</pre>', page, re.DOTALL)
    return {name: unescape(text) for name, text in found}


def test_the_four_faces_are_shown_and_handed_out(person: FlaskClient, page: Page, kept: Path) -> None:
    write_some(1)
    keep(kept, SAID)
    text = page(path="/logs/req_0")
    assert excerpts(text) == SAID
    assert list(excerpts(text)) == list(SAID)
    assert "Only its beginning" not in text
    for name, said in SAID.items():
        answer = person.get(f"{FILE}/{name}")
        assert answer.text == said
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["Content-Disposition"] == f'attachment; filename="req_0-{name}.txt"'
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"


def test_of_more_tries_the_last_is_shown_and_all_are_handed_out(person: FlaskClient, page: Page, kept: Path) -> None:
    write_some(1)
    more = {f"upstream-{way}-{n}": f"{way} {n}" for n in range(2, 12) for way in ("out", "in")}
    keep(kept, SAID | more)
    text = page(path="/logs/req_0")
    assert list(excerpts(text.partition("Earlier tries")[0])) == [
        *("client-in", "upstream-out-11", "upstream-in-11", "client-out")
    ]
    linked = re.findall(rf'href="{FILE}/(upstream-[\w-]+)"', text.partition("Earlier tries")[2])
    assert linked == [f"upstream-{way}-{n}" for n in range(1, 11) for way in ("out", "in")]
    assert person.get(f"{FILE}/upstream-in-2").text == "in 2"


def test_without_a_folder_it_says_how_to_switch_debug_mode_on(page: Page) -> None:
    write_some(1)
    text = page(path="/logs/req_0")
    assert "only debug mode keeps it" in text
    assert 'href="/settings#debugLog"' in text
    assert 'id="debugLog"' in page(path="/settings")


@pytest.mark.parametrize("language", ["en", "zh-CN"])
@pytest.mark.parametrize("letter", ["x", '"', "\u202e", "\u6c49"])
def test_a_page_with_long_files_and_many_tries_weighs_at_most_60_kb(
    person: FlaskClient, kept: Path, letter: str, language: str
) -> None:
    tries = [Try("anthropic", 1, 529, "overloaded", 99_999, letter * LONGEST_WORD)] * MOST_TRIES
    name = "claude-sonnet-4-5-20250929"
    long = {"model": name, "upstream_model": name, "upstream_request_id": "u" * 60, "first_token_ms": 9}
    write_some(1, **long, status=529, outcome="upstream_error", account_id=1, trace=trace(tries, letter * 200))
    keep(kept, dict.fromkeys(SAID, letter * 70000))
    keep(kept, {f"upstream-{way}-{n}": letter for n in range(1, MOST_TRIES) for way in ("out", "in")})
    keep(kept, {f"upstream-{way}-{MOST_TRIES}": letter * 70_000 for way in ("out", "in")})
    answer = person.get("/logs/req_0", headers={"Accept-Language": language})
    assert len(excerpts(answer.text)) == 4
    assert weight(answer) <= 60_000


def test_what_is_long_is_cut_on_the_page_which_says_so_and_whole_in_the_file(
    person: FlaskClient, page: Page, kept: Path
) -> None:
    write_some(1)
    keep(kept, SAID | {"client-in": "x" * 65_536})
    text = page(path="/logs/req_0")
    assert len(excerpts(text)["client-in"]) == 8192
    assert text.count("Only its beginning is shown here.") == 1
    assert "65,536 bytes" in text
    assert len(person.get(f"{FILE}/client-in").data) == 65_536


def test_what_a_stranger_said_stays_text(person: FlaskClient, page: Page, kept: Path) -> None:
    write_some(1)
    hostile = "</pre><script>alert(1)</script>\x1b[31m\u202egnp"
    keep(kept, SAID | {"upstream-in-1": hostile})
    text = page(path="/logs/req_0")
    assert "<script>alert" not in text
    assert excerpts(text)["upstream-in-1"] == "</pre><script>alert(1)</script>\u241b[31m<U+202E>gnp"
    answer = person.get(f"{FILE}/upstream-in-1")
    assert (answer.text, answer.mimetype) == (hostile, "text/plain")


@pytest.mark.parametrize(
    "path",
    [
        "/logs/req_0/files/exchange.json",
        "/logs/req_0/files/exchange",
        "/logs/req_0/files/client-in.http",
        "/logs/req_0/files/client-in%00",
        "/logs/req_0/files/client-in%0a",
        "/logs/req_0/files/upstream-in-0",
        "/logs/req_0/files/upstream-in-2",
        "/logs/req_0/files/upstream-in-\u0661",
        "/logs/req_0/files/..%2f..%2fsecret",
        "/logs/req_0/files/%2e%2e/%2e%2e/secret",
        "/logs/req_0/files/%2fetc%2fpasswd",
        "/logs/..%2freq_0/files/client-in",
        "/logs/../files/client-in",
        "/logs/*/files/client-in",
        "/logs/req_*/files/client-in",
        "/logs/req_/files/client-in",
        "/logs/msg_0/files/client-in",
        "/logs/0/files/client-in",
        "/logs/req_00/files/client-in",
    ],
)
def test_no_address_leads_out_of_the_folder(person: FlaskClient, kept: Path, path: str) -> None:
    keep(kept, SAID)
    for folder in (kept, kept.parent, kept.parent.parent):
        (folder / "secret.http").write_text("a secret")
    answer = person.get(path, follow_redirects=True)
    assert answer.status_code == 404
    assert "a secret" not in answer.text


def test_no_link_leads_out_of_the_folder(person: FlaskClient, page: Page, kept: Path) -> None:
    write_some(2)
    secret = kept.parent.parent / "client-in.http"
    secret.write_text("a secret")
    (kept / "client-in.http").symlink_to(secret)
    (kept / "client-out.http").mkdir()
    (kept.parent / "20260102T220000-req_1").symlink_to(secret.parent, target_is_directory=True)
    for path in (f"{FILE}/client-in", f"{FILE}/client-out", "/logs/req_1/files/client-in"):
        assert person.get(path).status_code == 404
    assert "only debug mode keeps it" in page(path="/logs/req_0")
    assert "only debug mode keeps it" in page(path="/logs/req_1")


def test_files_are_for_who_is_signed_in(browser: FlaskClient, kept: Path) -> None:
    keep(kept, SAID)
    answer = browser.get(f"{FILE}/client-in")
    assert answer.status_code == 302
    assert answer.location == f"/login?next={FILE}/client-in"
    assert "x-api-key" not in answer.text
