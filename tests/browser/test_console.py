"""The first pages in a real browser: with and without scripts, on a phone and on a wide screen, light and dark."""

import re
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import GOOD_KEY, PASSWORD, Upstream, press, sign_in
from tests.browser.test_every_page import caller

Open = Callable[..., Page]

both = pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])


def row(page: Page, name: str) -> Locator:
    return page.get_by_role("row").filter(has_text=name)


def add(page: Page, upstream: Upstream, key: str = GOOD_KEY) -> str:
    """Adds an account by the form; its name."""
    name = f"account-{uuid4().hex[:8]}"
    page.goto("/cookies/new?provider=openai")
    page.get_by_label("Name").fill(name)
    page.get_by_label("API key").fill(key)
    page.get_by_label("Base URL").fill(upstream.url)
    press(page, "Save and check")
    return name


@pytest.fixture(scope="module")
def call(service: str) -> Callable[..., Any]:
    """The JSON API, for what a test needs and another shows to be done on the pages."""
    token = caller(service)("POST", "/api/auth/login", {"username": "admin", "password": PASSWORD})["token"]
    return caller(service, token)


@pytest.fixture
def account(call: Callable[..., Any], upstream: Upstream) -> str:
    """The name of an account that its provider accepts."""
    name = f"account-{uuid4().hex[:8]}"
    call("POST", "/api/cookies", {"provider": "openai", "name": name, "api_key": GOOD_KEY, "base_url": upstream.url})
    return name


# --- Signing in and out -----------------------------------------------------------------------------------------------


@both
def test_a_wrong_password_keeps_the_user_name(open_page: Open, script: bool) -> None:
    page = open_page(script=script)
    sign_in(page, password="not this one")
    expect(page.get_by_role("alert")).to_have_text("The user name or the password is wrong.")
    expect(page.get_by_label("User name")).to_have_value("admin")
    expect(page.get_by_label("Password")).to_have_value("")
    page.get_by_label("Password").fill(PASSWORD)
    press(page, "Sign in")
    expect(page).to_have_title("Dashboard · Opus API")


@both
def test_signing_out_ends_the_session(open_page: Open, script: bool) -> None:
    page = open_page(script=script)
    page.goto("/cookies/new?provider=morph")
    expect(page).to_have_url(re.compile("/login"))
    page.get_by_label("User name").fill("admin")
    page.get_by_label("Password").fill(PASSWORD)
    press(page, "Sign in")
    expect(page).to_have_url(re.compile(r"/cookies/new\?provider=morph"))
    page.get_by_label("Menu of admin").click()
    press(page, "Sign out")
    expect(page.get_by_role("status")).to_have_text("You are signed out.")
    page.go_back()
    expect(page).to_have_url(re.compile("/login"))


def test_a_known_password_leads_to_its_change_and_then_to_the_first_steps(open_page: Open, weak_service: str) -> None:
    page = open_page(url=weak_service)
    sign_in(page, password="admin")
    expect(page).to_have_url(re.compile("/password"))
    page.goto("/cookies")
    expect(page).to_have_url(re.compile("/password"))
    page.get_by_label("Current password").fill("admin")
    page.get_by_label("New password").fill("short")
    press(page, "Save new password")
    expect(page.get_by_text("must be at least 8 characters")).to_be_visible()
    page.get_by_label("Current password").fill("admin")
    page.get_by_label("New password").fill("a password of my own")
    press(page, "Save new password")
    expect(page.get_by_text("Nothing has happened yet")).to_be_visible()
    page.get_by_role("link", name="Add account").click()
    expect(page).to_have_url(re.compile("/cookies/new"))


# --- Accounts ---------------------------------------------------------------------------------------------------------


@both
def test_an_account_is_added_and_checked(open_page: Open, session: str, upstream: Upstream, script: bool) -> None:
    page = open_page(session, script)
    name = add(page, upstream)
    expect(page.get_by_role("heading", name=f"{name} was added")).to_be_visible()
    expect(page.get_by_text("The provider accepted the credential.")).to_be_visible()
    expect(page.get_by_text("model-a").first).to_be_visible()
    page.goto("/cookies")
    expect(row(page, name)).to_contain_text("Active")
    expect(row(page, name)).to_contain_text("cdef")
    assert GOOD_KEY not in page.content()


def test_the_first_account_is_offered_a_rule_for_claude_names(
    open_page: Open, session: str, upstream: Upstream, call: Callable[..., Any]
) -> None:
    # The offer is for the first account of its kind only, whichever test came before.
    for earlier in call("GET", "/api/cookies")["data"]:
        call("DELETE", f"/api/cookies/{earlier['id']}")
    page = open_page(session)
    page.goto("/cookies")
    page.get_by_role("link", name="Add account").first.click()
    page.get_by_role("link", name="OpenAI-compatible").click()
    expect(page).to_have_url(re.compile("provider=openai"))
    name = add(page, upstream)
    page.get_by_label("is answered by").fill("model-b")
    press(page, "Save the rule")
    expect(page.get_by_role("status")).to_contain_text("model-b answers every claude-* name")
    expect(row(page, name)).to_contain_text("claude-*")


@both
def test_bad_input_is_shown_and_kept(open_page: Open, session: str, script: bool) -> None:
    page = open_page(session, script)
    page.goto("/cookies/new?provider=openai")
    page.get_by_label("Name").fill("Kept")
    page.get_by_label("Base URL").fill("http://192.0.2.1/v1")
    page.get_by_label("Priority").fill("high")
    page.get_by_label("Model map").fill("claude-*")
    press(page, "Save and check")
    expect(page.get_by_label("Priority")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_text("Enter a whole number.")).to_be_visible()
    expect(page.get_by_text("Line 1 must read: pattern = model.")).to_be_visible()
    for label, value in (("Name", "Kept"), ("Priority", "high"), ("Model map", "claude-*")):
        expect(page.get_by_label(label)).to_have_value(value)
    page.get_by_label("Priority").fill("1")
    page.get_by_label("Model map").fill("")
    press(page, "Save and check")
    expect(page.get_by_label("Base URL")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Base URL")).to_have_value("http://192.0.2.1/v1")


@both
def test_an_account_is_validated_disabled_and_enabled(
    open_page: Open, session: str, upstream: Upstream, script: bool
) -> None:
    page = open_page(session, script)
    name = add(page, upstream, key="sk-wrong-0123456789abcdef")
    expect(page.get_by_text("The provider refused the credential.")).to_be_visible()
    page.goto("/cookies")
    for what, state in (("Validate", "Invalid"), ("Disable", "Disabled"), ("Enable", "Active")):
        page.get_by_role("checkbox", name=name, exact=True).check()
        with page.expect_navigation():
            press(page, what)
        expect(row(page, name)).to_contain_text(state)


def test_a_priority_is_saved_by_its_button_and_what_is_ticked_and_typed_stays(
    open_page: Open, session: str, upstream: Upstream
) -> None:
    page = open_page(session, script=False)
    name = add(page, upstream)
    page.goto("/cookies")
    tick, priority = (page.get_by_role(role, name=name) for role in ("checkbox", "textbox"))  # type: ignore[arg-type]
    tick.check()
    for typed, said in (
        ("x", f"Nothing was saved. {name}: Priority must be"),
        ("7", "Saved. The next request follows"),
    ):
        priority.fill(typed)
        with page.expect_navigation():
            priority.press("Enter")
        expect(page.get_by_text(said)).to_be_visible()
        expect(priority).to_have_value(typed)
        expect(tick).to_be_checked()
    page.reload()
    expect(priority).to_have_value("7")


def test_a_refused_priority_moves_no_column(open_page: Open, session: str, account: str) -> None:
    page = open_page(session, script=False, viewport={"width": 360, "height": 800})
    page.goto("/cookies")
    requests = row(page, account).locator("[data-label=Requests]")
    before = requests.bounding_box()
    page.get_by_role("textbox", name=account).fill("x")
    with page.expect_navigation():
        page.get_by_role("textbox", name=account).press("Enter")
    after = requests.bounding_box()
    assert before
    assert after
    assert (after["x"], after["width"]) == (before["x"], before["width"])


def test_the_first_steps_stand_apart_from_the_figures(open_page: Open, session: str, account: str) -> None:
    page = open_page(session)
    page.goto("/dashboard")
    steps, figures = (page.locator(".card", has=page.locator(part)).bounding_box() for part in (".steps", ".figure"))
    assert steps
    assert figures
    assert steps["y"] + steps["height"] + 16 <= figures["y"]


def test_priorities_save_themselves_and_the_page_stays(open_page: Open, session: str, upstream: Upstream) -> None:
    page = open_page(session)
    names = [add(page, upstream) for _ in range(2)]
    page.goto("/cookies")
    one, two = (page.get_by_role("textbox", name=name) for name in names)
    page.evaluate("window.sameDocument = true")
    one.fill("x")
    one.press("Tab")
    tick = page.get_by_role("checkbox", name=names[1])
    tick.check()
    expect(one).to_have_attribute("aria-invalid", "true")
    expect(one).to_have_accessible_description(re.compile("^Priority must be a whole number"))
    expect(page.locator("#save")).to_be_visible()
    one.fill("-7")
    one.press("Enter")
    expect(one).to_have_attribute("aria-invalid", "false")
    expect(one).to_be_focused()
    two.fill("8")
    two.press("Tab")
    expect(page.locator("#told")).to_have_text("Saved. The next request follows it.")
    expect(page.locator("#save")).to_be_hidden()
    expect(tick).to_be_checked()
    one.fill("0")  # what it showed at first
    one.press("Enter")
    expect(one).to_have_attribute("name", re.compile("-0$"))
    assert page.evaluate("window.sameDocument")
    page.reload()
    expect(one).to_have_value("0")
    expect(two).to_have_value("8")


def test_a_priority_that_cannot_save_itself_is_sent_as_without_a_script(
    open_page: Open, session: str, upstream: Upstream
) -> None:
    page = open_page(session, refusals="401")
    name = add(page, upstream)
    page.goto("/cookies")
    priority = page.get_by_role("textbox", name=name)
    page.evaluate("window.really = fetch; window.fetch = () => Promise.reject(new Error('away')); 0")
    priority.fill("3")
    priority.press("Enter")
    expect(priority).to_have_accessible_description("The server does not answer.")
    page.evaluate("window.fetch = really; 0")
    page.context.clear_cookies()
    page.get_by_role("button", name="Save priorities").click()
    expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()


HANGS = """const limit = AbortSignal.timeout.bind(AbortSignal), really = fetch;
    AbortSignal.timeout = () => limit(window.patience || 60000);
    window.fetch = (url, how) => window.answers ? really(url, how) : new Promise(
        (_, fail) => how.signal.addEventListener("abort", () => fail(how.signal.reason)))"""


def test_a_priority_that_waits_for_an_answer_is_not_said_to_be_saved(
    open_page: Open, session: str, upstream: Upstream
) -> None:
    page = open_page(session)
    page.add_init_script(f"{HANGS}; window.answers = true; window.patience = 300")
    one, two = (page.get_by_role("textbox", name=add(page, upstream)) for _ in range(2))
    page.goto("/cookies")
    told, save = page.locator("#told"), page.get_by_role("button", name="Save priorities")
    one.fill("3")
    one.press("Enter")
    expect(told).to_have_text("Saved. The next request follows it.")
    page.evaluate("window.answers = false")
    two.fill("4")
    two.press("Enter")
    expect(told).not_to_contain_text("Saved.", timeout=250)
    expect(two).to_have_accessible_description("The server does not answer.")
    page.evaluate("window.answers = true")
    save.click()
    expect(told).to_have_text("Saved. The next request follows it.")
    page.reload()
    expect(two).to_have_value("4")


def test_priorities_that_wait_are_sent_by_whoever_leaves(open_page: Open, session: str, upstream: Upstream) -> None:
    page = open_page(session)
    names = [add(page, upstream) for _ in range(2)]
    page.add_init_script(HANGS)
    page.goto("/cookies")
    for name in names:
        page.get_by_role("textbox", name=name).fill("6")
        page.get_by_role("textbox", name=name).press("Tab")
    page.goto("/keys")

    def is_saved() -> bool:
        page.goto("/cookies")
        return page.get_by_role("textbox", name=names[1]).input_value() == "6"

    wait_for(is_saved)  # the first had been sent before


def test_back_does_not_show_a_priority_that_nobody_saved(open_page: Open, session: str, upstream: Upstream) -> None:
    page = open_page(session, script=False)
    priority = page.get_by_role("textbox", name=add(page, upstream))
    page.goto("/cookies")
    priority.fill("77")
    page.get_by_role("link", name="Add account").click()
    page.go_back()
    expect(priority).to_have_value("0")


@both
def test_editing_keeps_the_secret(
    open_page: Open, session: str, upstream: Upstream, account: str, script: bool
) -> None:
    page = open_page(session, script)
    page.goto("/cookies")
    page.get_by_role("link", name=account).click()
    expect(page.get_by_label("API key")).to_have_value("")
    expect(page.get_by_label("API key")).to_have_attribute("placeholder", "•••• cdef, leave empty to keep")
    page.get_by_label("Name").fill(f"{account}-renamed")
    page.get_by_label("Priority").fill("5")
    page.get_by_text("Options of this provider").click()
    page.get_by_label("top_k").select_option("On")
    press(page, "Save changes")
    expect(row(page, f"{account}-renamed")).to_be_visible()
    upstream.keys.clear()
    page.get_by_role("checkbox", name=f"{account}-renamed", exact=True).check()
    press(page, "Validate")
    assert upstream.keys == [GOOD_KEY]
    page.get_by_role("link", name=f"{account}-renamed").click()
    expect(page.get_by_label("top_k")).to_have_value("true")  # its section is open, because something is set


@both
def test_deleting_asks_first(open_page: Open, session: str, account: str, script: bool) -> None:
    page = open_page(session, script)
    page.goto("/cookies")
    page.get_by_role("link", name=account).click()
    page.get_by_role("link", name="Delete…").click()
    page.get_by_role("link", name="Cancel").click()
    expect(row(page, account)).to_be_visible()
    page.get_by_role("link", name=account).click()
    page.get_by_role("link", name="Delete…").click()
    press(page, "Delete account")
    expect(page.get_by_role("status")).to_have_text(f"{account} was deleted.")
    expect(row(page, account)).to_have_count(0)


@both
def test_validating_all_shows_how_far_it_is_also_after_a_reload(
    open_page: Open, session: str, upstream: Upstream, script: bool
) -> None:
    page = open_page(session, script)
    name = add(page, upstream)
    page.goto("/cookies")
    upstream.keys.clear()
    upstream.slow = 2.0
    press(page, "Validate all")
    expect(page.get_by_role("progressbar")).to_be_visible()
    page.reload()
    expect(page.get_by_text(re.compile(r"Accounts checked: \d+ / \d+"))).to_be_visible()
    upstream.slow = 0.0
    if script:
        expect(page.get_by_role("link", name="Look again")).to_have_count(0)
    else:
        wait_for(lambda: GOOD_KEY in upstream.keys and look_again(page))
    expect(page.get_by_role("status").first).to_contain_text("accounts are valid.", timeout=20_000)
    expect(page.get_by_role("progressbar")).to_have_count(0)
    expect(row(page, name)).to_contain_text("Active")
    assert GOOD_KEY in upstream.keys


def look_again(page: Page) -> bool:
    """Whether the check has ended."""
    with page.expect_navigation():
        page.get_by_role("link", name="Look again").click()
    return page.get_by_role("progressbar").count() == 0


def wait_for(done: Callable[[], bool]) -> None:
    for _ in range(100):
        if done():
            return
        time.sleep(0.2)
    pytest.fail("it never came")


def test_the_end_of_a_check_changes_the_rows_and_leaves_what_a_person_does(
    open_page: Open, session: str, upstream: Upstream
) -> None:
    page = open_page(session)
    name = add(page, upstream)
    page.goto("/cookies")
    tick, search = page.get_by_role("checkbox", name=name), page.get_by_role("textbox", name="Name", exact=True)
    upstream.slow = 2.0
    tick.check()
    press(page, "Validate")
    upstream.slow = 0.0
    tick.check()
    search.fill("half-ty")
    page.evaluate("document.querySelector('td.state').textContent = 'of before'")
    page.evaluate("document.querySelector('.figures').textContent = 'of before'")
    expect(page.get_by_role("status").first).to_contain_text(f"{name}: The key works", timeout=20_000)
    expect(page.get_by_text("of before")).to_have_count(0)
    expect(tick).to_be_checked()
    expect(search).to_be_focused()
    expect(search).to_have_value("half-ty")


def watching(page: Page, upstream: Upstream, name: str, state: str = "") -> Page:
    """The list while a check goes on that takes its time."""
    page.goto(f"/cookies?name={name}&state={state}")
    upstream.slow = 4.0
    page.get_by_role("checkbox", name=name).check()
    press(page, "Validate")
    return page


def test_an_account_that_a_check_took_out_of_the_filtered_list_is_said_to_have_left(
    open_page: Open, session: str, upstream: Upstream
) -> None:
    page = open_page(session)
    name = add(page, upstream, key="sk-wrong-0123456789abcdef")
    page.goto(f"/cookies?name={name}")
    page.get_by_role("checkbox", name=name).check()
    press(page, "Reset state")
    watching(page, upstream, name, state="active")
    expect(row(page, name)).to_contain_text("No longer in this list", timeout=20_000)


def test_a_check_says_that_nobody_answers_and_goes_on_when_somebody_does(
    open_page: Open, session: str, upstream: Upstream
) -> None:
    page = open_page(session)
    name = add(page, upstream)
    watching(page, upstream, name)
    page.evaluate("window.really = fetch; window.fetch = () => Promise.reject(new Error('away')); 0")
    expect(page.get_by_text("The server does not answer. Asking again.")).to_have_count(1)
    page.evaluate("window.fetch = really; 0")
    expect(page.get_by_role("status").first).to_contain_text(f"{name}: The key works", timeout=20_000)
    expect(page.get_by_text("The server does not answer. Asking again.")).to_have_count(0)


def test_whoever_was_signed_out_meanwhile_is_led_to_the_sign_in(
    open_page: Open, session: str, upstream: Upstream
) -> None:
    page = open_page(session)
    name = add(page, upstream)
    watching(page, upstream, name)
    page.context.clear_cookies()
    expect(page).to_have_url(re.compile(r"/login\?next="), timeout=20_000)


@both
def test_a_download_leaves_its_button_as_it_was(
    open_page: Open, session: str, upstream: Upstream, script: bool
) -> None:
    page = open_page(session, script)
    add(page, upstream)
    page.goto("/cookies/export")
    if page.get_by_label("Your password").count():
        page.get_by_label("Your password").fill(PASSWORD)
    if script:
        page.clock.install()
    export = page.get_by_role("button", name="Export")
    with page.expect_download():
        export.click()
    if script:
        expect(export).to_have_attribute("aria-busy", "true")
        page.clock.fast_forward(6_000)
        expect(export).to_have_attribute("aria-busy", "false")


@both
def test_the_rotation_strategy_is_chosen(open_page: Open, session: str, account: str, script: bool) -> None:
    page = open_page(session, script)
    page.goto("/cookies")
    wanted = "round_robin" if script else "priority"
    choice = page.get_by_label("Who answers next")
    if script:  # choosing is saving
        with page.expect_navigation():
            choice.select_option(wanted)
    else:
        choice.select_option(wanted)
        press(page, "Save")
    expect(page.get_by_role("status").filter(has_text="Saved.")).to_be_visible()
    expect(choice).to_have_value(wanted)


# --- How it looks -----------------------------------------------------------------------------------------------------


@both
def test_the_colours_can_be_chosen(open_page: Open, session: str, script: bool) -> None:
    page = open_page(session, script, color_scheme="light")
    page.goto("/cookies")
    page.get_by_label("Menu of admin").click()
    if script:
        with page.expect_response("**/theme"):
            page.get_by_role("button", name="Dark").click()
    else:
        press(page, "Dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.goto("/cookies/new")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_a_password_can_be_looked_at(open_page: Open) -> None:
    page = open_page()
    page.goto("/login")
    page.get_by_label("Password").fill("visible")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_label("Password")).to_have_attribute("type", "text")


# --- When the session has ended ---------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("path, label, button", [("/chat", "Message", "Send"), ("/keys/new", "Name", "Make the key")])
def test_a_form_outlives_its_session(open_page: Open, script: bool, path: str, label: str, button: str) -> None:
    page = open_page(script=script, refusals="status of 40[01]")
    sign_in(page)
    page.goto(path)
    page.get_by_label(label, exact=True).fill("typed and kept")
    other = page.context.new_page()
    other.goto("/")
    other.get_by_label("Menu of admin").click()
    press(other, "Sign out")
    with page.expect_navigation():
        page.get_by_role("button", name=button, exact=True).click()
    expect(page).to_have_title("You are signed out · Opus API")
    with page.expect_popup() as popup:
        page.get_by_role("link", name="Sign in in a new tab").click()
    popup.value.get_by_label("User name").fill("admin")
    popup.value.get_by_label("Password").fill(PASSWORD)
    press(popup.value, "Sign in")
    page.reload()
    expect(page.get_by_label(label, exact=True)).to_have_value("typed and kept")
    expect(page.get_by_text("look through what you typed")).to_be_visible()


def test_a_message_that_is_sent_again_takes_the_words_about_the_one_before_away(open_page: Open, session: str) -> None:
    page = open_page(session, refusals="status of (400|502)")
    page.goto("/chat")
    page.get_by_label("Message", exact=True).fill("hello")
    page.evaluate("document.querySelector('.chat [name=csrf_token]').value = 'of before'")
    press(page, "Send")
    notice = page.get_by_text("The page you came from is out of date.")
    expect(notice).to_be_visible()
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_role("link", name="Its row in the log")).to_be_visible()
    expect(notice).to_have_count(0)
