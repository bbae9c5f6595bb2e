"""Keys, addresses, settings and the person's own page in a real browser, with and without scripts."""

import re
import urllib.request
from collections.abc import Callable
from uuid import uuid4

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import press

Open = Callable[..., Page]

both = pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])


def row(page: Page, name: str) -> Locator:
    return page.get_by_role("row").filter(has_text=name)


def works(service: str, key: str) -> bool:
    request = urllib.request.Request(f"{service}/v1/models", headers={"x-api-key": key})
    try:
        with urllib.request.urlopen(request) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return False


@both
def test_a_key_is_made_used_and_revoked(open_page: Open, session: str, service: str, script: bool) -> None:
    page = open_page(session, script)
    name = f"key-{uuid4().hex[:8]}"
    page.goto("/keys")
    page.get_by_role("link", name="Make a key").first.click()
    page.get_by_label("Requests / min").fill("many")
    page.get_by_label("Name").fill(name)
    page.get_by_label("May bring its own credential").check()
    press(page, "Make the key")
    expect(page.get_by_text("Enter a whole number.")).to_be_visible()
    expect(page.get_by_label("Name")).to_have_value(name)
    expect(page.get_by_label("May bring its own credential")).to_be_checked()
    page.get_by_label("Requests / min").fill("60")
    page.get_by_label("Works until").fill("2099-01-31T12:00")
    press(page, "Make the key")
    key = page.locator("pre").first.inner_text()
    assert works(service, key)
    expect(page.locator("pre").nth(1)).to_contain_text(f"-H 'x-api-key: {key}'")
    expect(page.get_by_role("button", name="Copy")).to_have_count(2 if script else 0)
    page.get_by_role("link", name="I have copied it").click()
    expect(row(page, name)).to_contain_text("Requests / min")
    assert key not in page.content()
    page.get_by_role("link", name=name).click()
    page.get_by_role("link", name="Revoke…").click()
    press(page, "Revoke key")
    expect(page.get_by_role("status")).to_have_text(f"{name} is revoked.")
    expect(row(page, name)).to_have_count(0)
    page.get_by_role("link", name=re.compile("Show revoked")).click()
    expect(row(page, name)).to_contain_text("Revoked")
    assert not works(service, key)


@both
def test_settings_are_saved_and_go_back(open_page: Open, session: str, script: bool) -> None:
    page = open_page(session, script)
    page.goto("/settings")
    page.get_by_label("Days to keep", exact=True).fill("0")
    page.get_by_label("Debug log", exact=True).check()
    press(page, "Save settings")
    expect(page.get_by_label("Days to keep", exact=True)).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Debug log", exact=True)).to_be_checked()
    page.get_by_label("Days to keep", exact=True).fill("7")
    page.keyboard.press("Enter")  # saves: the first button of the form is no other
    expect(page.get_by_role("status")).to_contain_text("Saved.")
    expect(page.get_by_label("Days to keep", exact=True)).to_have_value("7")
    for name, before in (("Days to keep", "7"), ("Debug log", "y")):
        expect(page.get_by_label(name, exact=True)).to_have_value(before)
        press(page, f"{name}: back to default")
    expect(page.get_by_label("Days to keep", exact=True)).to_have_value("30")
    expect(page.get_by_label("Debug log", exact=True)).not_to_be_checked()
