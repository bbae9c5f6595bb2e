"""A conversation in the console: whole answers for forms, a stream for the script, one account when it is chosen."""

import json
import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from opus_api.extensions import db
from opus_api.models import RequestLog
from tests.forms import token
from tests.web.conftest import weight
from tests.web.test_pages import add

FORM = {"model": "practice/hello", "account_id": "0", "max_tokens": "200", "message": "Hello there"}
STREAM = {"Accept": "text/event-stream"}


def conversation(page: str) -> Any:
    found = re.search(r'name="conversation"[^>]*value="([^"]*)"', page)
    assert found
    return json.loads(unescape(found[1]))


def test_without_a_script_the_whole_answer_comes_and_the_conversation_is_kept(post: Callable[..., str]) -> None:
    page = post("/chat", **FORM)
    assert "You wrote: Hello there" in page
    assert "tokens in" in page
    assert "Raw events" in page
    turns = conversation(page)
    assert [turn["role"] for turn in turns] == ["user", "assistant"]
    page = post("/chat", **{**FORM, "message": "And again", "conversation": json.dumps(turns)})
    assert [turn["role"] for turn in conversation(page)] == ["user", "assistant"] * 2
    assert page.index("Hello there") < page.index("And again")


def test_the_script_gets_the_gateways_own_stream_and_then_who_answered(person: FlaskClient) -> None:
    answer = person.post("/chat", data={"csrf_token": token(person, "/chat"), **FORM}, headers=STREAM)
    assert answer.content_type.startswith("text/event-stream")
    names = re.findall(r"^event: (.*)$", answer.text, re.M)
    assert names[0] == "message_start"
    assert names[-2:] == ["message_stop", "opus"]
    last = json.loads(answer.text.rpartition("data: ")[2])
    assert last["said"].startswith("practice · hello · ")
    assert last["log"] == f"/logs/{answer.headers['request-id']}"


def test_who_answered_is_told_in_the_language_of_the_page(person: FlaskClient) -> None:
    headers = {**STREAM, "Accept-Language": "zh-CN"}
    answer = person.post("/chat", data={"csrf_token": token(person, "/chat"), **FORM}, headers=headers)
    assert "输入" in json.loads(answer.text.rpartition("data: ")[2])["said"]


@pytest.mark.parametrize("field, said", [("message", "Write a message."), ("model", "Name a model.")])
def test_spaces_alone_are_nothing(app: Flask, post: Callable[..., str], field: str, said: str) -> None:
    assert said in post("/chat", **{**FORM, field: " \n "})
    app.extensions["recorder"].flush()
    assert db.session.query(RequestLog).count() == 0


def test_it_is_logged_without_a_key(app: Flask, post: Callable[..., str]) -> None:
    post("/chat", **FORM)
    app.extensions["recorder"].flush()
    row = db.session.query(RequestLog).one()
    assert (row.key_id, row.model, row.outcome) == (None, "practice/hello", "ok")


def test_system_prompt_thinking_and_tokens_are_sent(post: Callable[..., str]) -> None:
    page = post("/chat", **{**FORM, "thinking": "enabled", "max_tokens": "4096", "system": "Be brief."})
    assert '<details class="thinking">' in page
    page = post("/chat", **{**FORM, "thinking": "enabled", "max_tokens": "1000"})
    assert "budget_tokens" in page


def test_an_error_is_said_in_words_with_its_row_and_the_message_stays(post: Callable[..., str]) -> None:
    add(models=["model-a"])
    page = post("/chat", **{**FORM, "model": "nobody-has-it"})
    assert "model: nobody-has-it" in page
    assert 'href="/logs/req_' in page
    assert ">\r\nHello there</textarea>" in page or "Hello there</textarea>" in page
    assert conversation(page) == []


@pytest.mark.parametrize(
    "columns, said",
    [
        ({"models": ["other"]}, "this account does not serve it"),
        ({"models": ["model-a"], "state": "disabled"}, "one is disabled."),
        ({"models": ["model-a"], "state": "invalid", "state_reason": "no such key"}, "no such key"),
    ],
)
def test_one_account_is_tested_and_no_other(post: Callable[..., str], columns: dict[str, Any], said: str) -> None:
    account = add(**columns)
    add("two", models=["model-a"])
    assert said in post("/chat", **{**FORM, "model": "model-a", "account_id": account.id})


def test_what_a_model_says_is_text_only(post: Callable[..., str]) -> None:
    page = post("/chat", **{**FORM, "message": "<img src=x onerror=alert(1)>**bold**"})
    assert "<img" not in page
    assert "You wrote: &lt;img" in page
    assert "<strong>bold" not in page


@pytest.mark.parametrize("sent", ["no json", "{}", '[1, "x"]', '[{"role": "assistant"}]'])
def test_a_conversation_that_somebody_broke_is_refused_or_left_out(post: Callable[..., str], sent: str) -> None:
    assert "<h1>Chat</h1>" in post("/chat", **{**FORM, "conversation": sent})


def test_a_stream_needs_the_forms_token(person: FlaskClient) -> None:
    assert person.post("/chat", data=FORM, headers=STREAM).status_code == 400


def test_the_page_weighs_at_most_60_kb(person: FlaskClient) -> None:
    assert weight(person.get("/chat")) <= 60_000
