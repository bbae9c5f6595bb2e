"""Setting up a client and trying it, in a real browser: with and without scripts."""

import json
import re
import urllib.request
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import press
from tests.browser.test_console import both
from tests.browser.test_every_page import TOO_WIDE

Open = Callable[..., Page]


def say_hello(service: str, key: str) -> None:
    body = {"model": "practice/hello", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"x-api-key": key, "content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{service}/v1/messages", json.dumps(body).encode(), headers)):
        pass


@both
def test_a_client_is_set_up_with_a_fresh_key_and_its_first_request_turns_the_page_green(
    open_page: Open, session: str, service: str, script: bool
) -> None:
    page = open_page(session, script)
    page.goto("/connect")
    press(page, "Make a fresh key")
    key = page.locator("#code-key pre").inner_text()
    page.get_by_text("curl", exact=True).first.click()
    expect(page.locator("#code-curl")).to_contain_text(key)
    expect(page.locator("#code-claude_env")).to_be_hidden()
    expect(page.locator("#status")).to_contain_text("Waiting")
    if not script:  # a page of its own looks again by itself
        with page.context.expect_page() as opened:
            page.get_by_role("link", name="Watch for the first request").click()
        page = opened.value
    say_hello(service, key)
    expect(page.locator("#status")).to_contain_text("Connected", timeout=15_000)


@pytest.mark.parametrize("width", [360, 1440])
def test_every_clients_set_up_fits(open_page: Open, session: str, width: int) -> None:
    page = open_page(session, viewport={"width": width, "height": 800})
    page.goto("/connect")
    for tab in page.locator(".tabs > label").all():
        tab.click()
        assert page.evaluate(TOO_WIDE) == [], tab.inner_text()


@both
def test_a_conversation_of_two_turns(open_page: Open, session: str, script: bool) -> None:
    page = open_page(session, script)
    page.goto("/chat?model=practice/hello")
    languages = page.locator("[name=language]:not([hidden] *)")
    expect(languages).to_have_count(2)
    for words in ("Hello <b>you</b>", "And again"):
        page.get_by_label("Message").fill(words)
        page.get_by_role("button", name="Send").click()
        expect(page.locator(".turn.assistant").last).to_contain_text(f"You wrote: {words}")
        expect(page.locator(".turn.assistant").last).to_contain_text("tokens in")
    expect(page.locator(".turn.user")).to_have_count(2)
    expect(languages).to_have_count(0)  # they would lead to an empty conversation
    expect(page.locator(".turn b")).to_have_count(0)
    page.get_by_text("Raw events").last.click()
    expect(page.locator(".turn pre").last).to_contain_text("message_stop" if script else "end_turn")


def test_an_answer_can_be_stopped_and_an_error_is_told_in_words(open_page: Open, session: str) -> None:
    page = open_page(session)
    page.goto("/chat?model=practice/hello")
    page.get_by_label("Message").fill("[[practice:slow]] " + "word " * 200)
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".turn.assistant .text")).to_contain_text("This is practice")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(page.get_by_role("link", name="Its row in the log")).to_have_attribute("href", re.compile("/logs/req_"))
    page.get_by_label("Message").fill("[[practice:cut]] now")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_be_visible()
