"""Setting up a client and trying it, in a real browser: with and without scripts."""

import json
import urllib.request
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import press
from tests.browser.test_console import FAINT_TEXT, TOO_WIDE, both

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
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_fit_and_can_be_read(open_page: Open, session: str, width: int, scheme: str) -> None:
    page = open_page(session, color_scheme=scheme, viewport={"width": width, "height": 800})
    page.goto("/connect")
    for tab in page.locator(".tabs > label").all():
        tab.click()
        assert not page.evaluate(TOO_WIDE), tab.inner_text()
        assert page.evaluate(FAINT_TEXT) == [], tab.inner_text()
