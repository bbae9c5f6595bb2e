"""Setting up a client: what the page tells to copy, and what it says of the client's first request or mistake."""

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from opus_api.extensions import db
from opus_api.models import ApiKey, now
from opus_api.services.contacts import ONE_PER, Contact, Contacts, looks_like
from opus_api.state import NOTES
from opus_api.state.memory import MemoryState
from opus_api.web import snippets
from tests.forms import token
from tests.web.conftest import weight
from tests.web.test_pages import add

BODY = {"model": "claude-sonnet-4.5", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}


def code(page: str, name: str) -> str:
    """What the page gives to copy."""
    found = re.search(rf'id="code-{name}".*?<pre[^>]*>(.*?)</pre>', page, re.S)
    assert found
    return unescape(found[1])


@pytest.fixture
def page(post: Callable[..., str]) -> str:
    """With a fresh key in it."""
    return post("/connect")


@pytest.fixture
def key(page: str) -> str:
    return code(page, "key")


@pytest.fixture
def status(app: Flask, person: FlaskClient, key: str) -> Callable[[], str]:
    """What the page says once everything is written down."""
    row = db.session.query(ApiKey).one()

    def look() -> str:
        app.extensions["recorder"].flush()
        return person.get(f"/connect/status?key={row.id}").text

    return look


def test_a_fresh_key_is_in_every_snippet_and_shown_once(page: str, person: FlaskClient, key: str) -> None:
    assert key.startswith("sk-opus-")
    assert snippets.PLACEHOLDER not in page
    names = ("claude_env", "claude_settings", "anthropic_python", "anthropic_node", "openai_python", "openai_node")
    for name in (*names, "curl", "curl_chat", "curl_models"):
        assert key in code(page, name), name
    assert key not in person.get("/connect").text


@pytest.mark.parametrize("host", ["localhost", "opus.example:8080"])
def test_the_address_is_the_one_that_the_browser_reached(person: FlaskClient, host: str) -> None:
    cookie = person.get_cookie("opus")
    assert cookie
    person.set_cookie("opus", cookie.value, domain=host.partition(":")[0])
    page = person.get("/connect", base_url=f"http://{host}").text
    assert f'base_url="http://{host}"' in code(page, "anthropic_python")
    assert f'base_url="http://{host}/v1"' in code(page, "openai_python")


@pytest.mark.parametrize("model", ["it's", 'a"b', "$(rm -rf)", "<key>", "模型"])
def test_whatever_a_model_is_called_it_is_quoted(model: str) -> None:
    found = snippets.snippets("http://127.0.0.1:7860", "sk-secret", model)
    compile(found["anthropic_python"], "snippet", "exec")
    compile(found["openai_python"], "snippet", "exec")
    assert "$(rm" not in found["claude_env"] or "'$(rm -rf)'" in found["claude_env"]
    assert found["anthropic_python"].count("sk-secret") == 1


def test_the_page_weighs_at_most_60_kb(person: FlaskClient) -> None:
    assert weight(person.get("/connect")) <= 60_000


def ask(client: FlaskClient, key: str = "", path: str = "/v1/messages", **body: Any) -> Any:
    return client.post(path, json={**BODY, **body}, headers={"x-api-key": key} if key else {})


def test_it_waits_then_turns_green_with_the_first_request(
    client: FlaskClient,
    status: Callable[[], str],
    key: str,
) -> None:
    assert "Waiting" in status()
    assert "data-watch" in status()
    assert ask(client, key).status_code == 200
    assert "Connected" in status()
    assert "data-watch" not in status()


def test_a_list_of_models_is_a_first_request_too(client: FlaskClient, status: Callable[[], str], key: str) -> None:
    assert client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    assert "Connected" in status()


@pytest.mark.parametrize(
    "made, said",
    [
        (lambda client, key: ask(client), "came without a key"),
        (lambda client, key: ask(client, key[:-1]), "a key that nobody made here"),
        (lambda client, key: ask(client, "YOUR_API_KEY"), "a placeholder"),
        (lambda client, key: ask(client, "sk-ant-api03-abcdef"), "a key of Anthropic"),
        (lambda client, key: ask(client, key, "/prefix/v1/messages"), "a path that does not exist"),
        (lambda client, key: client.get("/v1/messages", headers={"x-api-key": key}), "a path that does not exist"),
        (lambda client, key: ask(client, key, max_tokens=-1), "the request is not"),
    ],
)
def test_a_mistake_is_named(
    client: FlaskClient,
    status: Callable[[], str],
    key: str,
    made: Callable[..., Any],
    said: str,
) -> None:
    made(client, key)
    page = status()
    assert said in page
    assert "data-watch" in page
    assert key[:-1] not in page


def test_a_model_that_nobody_serves_is_named_with_its_row_of_the_log(
    client: FlaskClient,
    status: Callable[[], str],
    key: str,
) -> None:
    add(models=["model-a"])
    answer = ask(client, key, model="model-x")
    assert answer.status_code == 404
    page = status()
    assert "Nobody serves this model" in page
    assert f"/logs/{answer.headers['request-id']}" in page


def test_a_key_that_was_revoked_is_named(client: FlaskClient, status: Callable[[], str], key: str) -> None:
    row = db.session.query(ApiKey).one()
    row.revoked_at = now()
    db.session.commit()
    assert ask(client, key).status_code == 401
    assert f"“{row.name}” is revoked" in status()


def test_another_key_is_named(
    client: FlaskClient,
    post: Callable[..., str],
    status: Callable[[], str],
) -> None:
    row = db.session.query(ApiKey).one()
    row.name = "first"
    db.session.commit()
    other = code(post("/connect", once="another form"), "key")
    assert ask(client, other).status_code == 200
    assert "with the key “Connect" in status()


def test_success_wins_over_mistakes_before_it(client: FlaskClient, status: Callable[[], str], key: str) -> None:
    ask(client, "wrong-key-0123456789")
    ask(client, key)
    assert "Connected" in status()


def test_no_secret_is_kept_of_a_refused_request(client: FlaskClient, app: Flask, key: str) -> None:
    ask(client, "sk-somebody-elses-secret")
    kept = "".join(app.extensions["state"].notes())
    assert "401" in kept
    assert "somebody" not in kept


def seen(moment: float, address: str = "192.0.2.1", key: str = "") -> Contact:
    return Contact(moment, "", address, "POST", "/v1/messages", 401, "authentication_error", "no", key, "")


def test_a_client_that_tries_all_the_time_drives_nobody_out() -> None:
    contacts = Contacts(MemoryState())
    contacts.note(seen(100.0, "192.0.2.9"))
    for number in range(NOTES * 2):
        contacts.note(seen(100.0 + number / 1000))
    assert {contact.address for contact in contacts.since(0.0)} == {"192.0.2.1", "192.0.2.9"}
    contacts.note(seen(101.0 + ONE_PER))
    assert len(contacts.since(100.5)) == 1


@pytest.mark.parametrize(
    "key, kind",
    [
        ("", ""),
        ("YOUR_API_KEY", "placeholder"),
        ("<your-key>", "placeholder"),
        ("sk-ant-api03-x", "anthropic"),
        ("sk-opus-x", "gateway"),
        ("sk-proj-x", ""),
    ],
)
def test_what_a_wrong_key_looks_like(key: str, kind: str) -> None:
    assert looks_like(key) == kind


def test_a_form_of_another_site_makes_no_key(person: FlaskClient) -> None:
    assert person.post("/connect").status_code == 400
    sent = {"csrf_token": token(person, "/password")}
    assert person.post("/connect", data=sent, headers={"Origin": "https://evil.example"}).status_code == 403
    assert db.session.query(ApiKey).count() == 0


@pytest.mark.parametrize("since", ["nan", "inf", "-inf", "1e400", "9" * 30, "-" + "9" * 30, "x", ""])
def test_a_moment_that_is_none_is_looked_at_as_the_earliest(person: FlaskClient, since: str) -> None:
    assert person.get(f"/connect/status?since={since}").status_code == 200


def test_the_tokens_of_the_form_stay_in_no_address(person: FlaskClient) -> None:
    answer = person.get("/connect?csrf_token=x&once=y&model=a-model&client=curl")
    assert answer.location == "/connect?client=curl&model=a-model"
    assert person.get(answer.location).status_code == 200
