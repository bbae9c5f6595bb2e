"""Every page of the console in a real browser: two languages, light and dark, phone and desk, with and without script.

Which pages there are, the routes say: a new one is walked through without anybody remembering it.
"""

import json
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from opus_api import config, create_app
from tests.browser.conftest import GOOD_KEY, PASSWORD, ROOT, Upstream

Open = Callable[..., Page]

AXE = ROOT / ".venv" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
AUDIT = """async () => (await axe.run(document, {
  runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"],
})).violations.filter((found) => ["serious", "critical"].includes(found.impact))
  .map((found) => `${found.id}: ${found.nodes.map((node) => node.target.join(" ")).slice(0, 3).join(", ")}`)"""
UNFOLD = """() => document.querySelectorAll("details:not(.menu)").forEach((fold) => { fold.open = true; })"""
# The page itself, or a card or the navigation that its content sticks out of.
TOO_WIDE = """() => [document.documentElement, ...document.querySelectorAll(".card, .nav")]
  .filter((box) => box.scrollWidth > box.clientWidth + 1).map((box) => `${box.tagName}.${box.className}`)"""
# Its look, as it knows it; how many headings it has of the first rank; what does not fit.
SHOWN = f"""() => [innerWidth, matchMedia("(prefers-color-scheme: dark)").matches,
  document.querySelectorAll("h1").length, ({TOO_WIDE})()]"""
WIDTHS = (360, 1024, 1280, 1440)
WIDTHS_WITHOUT_SCRIPT = (360, 1280)  # the same sheet: what differs is what scripts show
AUDITED = ((360, "light"), (1440, "dark"))
LONG = "A name that is as long as names may be and has no end in sight"
UNBROKEN = "a-name-without-a-space-" + "x" * 77
# What is no page: files, JSON, what only leads elsewhere, and what a running sign-in at AWS alone can show.
NO_PAGE = re.compile(
    r"/(static/.*|logs/.*/files/.*|v1.*|v2.*|api/.*|health|healthz|ready|metrics|openapi\.json|models.*|)$"
)
LEADS_ELSEWHERE = {"/index.html", "/logout"}
ELSEWHERE_SHOWN = {"/cookies/sign-in/<flow_id>"}
MORE = ["/cookies/new?provider=openai", "/cookies/new?provider=amazonq"]
OPEN = {"/login", "/my"}


@pytest.fixture(scope="module")
def rules(migrated: Path) -> list[str]:
    """The console's pages, as routes."""
    app = create_app(config.load(migrated, {"DATA_DIR": str(migrated)}))
    found = {rule.rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ())}
    return sorted(rule for rule in found if not NO_PAGE.match(rule) and rule not in LEADS_ELSEWHERE | ELSEWHERE_SHOWN)


@pytest.fixture(scope="module")
def samples(service: str, upstream: Upstream) -> dict[str, Any]:
    """Something for each page to show; a parameter of a route -> its value."""
    call = caller(service)
    token = call("POST", "/api/auth/login", {"username": "admin", "password": PASSWORD})["token"]
    call = caller(service, token)
    account = call(
        "POST", "/api/cookies", {"provider": "openai", "name": LONG, "api_key": GOOD_KEY, "base_url": upstream.url}
    )
    call("POST", "/api/cookies", {"provider": "morph", "name": "<b>bold</b>", "api_key": "sk-" + "0" * 40})
    call("POST", "/api/cookies", {"provider": "morph", "name": UNBROKEN, "api_key": "sk-" + "2" * 40})
    deleted = call(
        "POST", "/api/cookies", {"provider": "morph", "name": f"{LONG[:50]} (old)", "api_key": "sk-" + "1" * 40}
    )
    call("DELETE", f"/api/cookies/{deleted['id']}")
    key = call("POST", "/api/keys", {"name": LONG, "limits": {"rpm": 60, "monthly_tokens": 1_000_000}})
    call("POST", "/api/keys", {"name": UNBROKEN, "models": [f"{UNBROKEN}-*"]})
    call("PUT", "/v2/settings", {"debugLog": True})  # so that the log shows files, too
    asked = urllib.request.Request(
        f"{service}/v1/messages",
        json.dumps(
            {"model": f"practice/{UNBROKEN}", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
        ).encode(),
        {"x-api-key": key["key"], "content-type": "application/json"},
    )
    with urllib.request.urlopen(asked) as answer:
        request_id = answer.headers["request-id"]
    call("POST", "/v2/ips/block", {"cidr": "2001:db8::/32", "reason": "asked too much"})
    accounts = {"account_id": account["id"], "deleted_id": deleted["id"]}
    return {**accounts, "key_id": key["id"], "key": key["key"], "request_id": request_id}


def caller(url: str, token: str = "") -> Callable[..., Any]:
    def call(method: str, path: str, body: object = None) -> Any:
        headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
        request = urllib.request.Request(url + path, json.dumps(body).encode(), headers, method=method)
        with urllib.request.urlopen(request) as answer:
            return json.loads(answer.read() or b"null")

    return call


@pytest.fixture(scope="module")
def pages(rules: list[str], samples: dict[str, Any]) -> list[str]:
    """Their addresses. KeyError: a route has a parameter that ``samples`` does not know yet."""
    return [re.sub(r"<(?:\w+:)?(\w+)>", lambda found: str(samples[found[1]]), rule) for rule in rules] + MORE


def looks(page: Page) -> Callable[[int, str], None]:
    """Gives the page a width and its colours, where nobody sees it: its layout counts, and to paint it costs as much.

    Playwright's own way would size the window as well, at thrice the cost; other colours cost as much as another width.
    """
    shown = ""
    session = page.context.new_cdp_session(page)
    window = session.send("Browser.getWindowForTarget")["windowId"]
    session.send("Browser.setWindowBounds", {"windowId": window, "bounds": {"windowState": "minimized"}})

    def look(width: int, scheme: str) -> None:
        nonlocal shown
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        session.send("Emulation.setDeviceMetricsOverride", size)
        if scheme != shown:
            features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
            chosen = [{"name": name, "value": value} for name, value in features.items()]
            session.send("Emulation.setEmulatedMedia", {"features": chosen})
            shown = scheme

    return look


@pytest.mark.parametrize(
    "locale, script, scheme",
    [("en-US", True, "light"), ("en-US", False, "dark"), ("zh-CN", True, "dark")],  # without script English is wider
)
def test_every_page_fits_and_neither_the_browser_nor_axe_complains(
    open_page: Open, session: str, pages: list[str], locale: str, script: bool, scheme: str
) -> None:
    found = {}
    for person in (session, None):
        page = open_page(person, script=script, locale=locale)
        look, is_audited = looks(page), script and locale == "en-US"
        if is_audited:
            page.add_init_script(path=AXE)  # beside the page's own scripts: its CSP allows no other
        for path in pages if person else sorted(OPEN & set(pages)):
            answer = page.goto(path)
            assert answer is not None
            assert answer.status == 200, path
            for width in WIDTHS if script else WIDTHS_WITHOUT_SCRIPT:
                look(width, scheme)
                assert page.evaluate(SHOWN) == [width, scheme == "dark", 1, []], (path, width)
            if is_audited:
                found |= audited(page, look)
    assert {where: complaints for where, complaints in found.items() if complaints} == {}


def audited(page: Page, look: Callable[[int, str], None]) -> dict[tuple[str, int], list[str]]:
    """What axe finds of what is serious, with everything unfolded: (address, width) -> complaints."""
    page.evaluate(UNFOLD)
    found = {}
    for width, scheme in AUDITED:
        look(width, scheme)
        found[page.url, width] = page.evaluate(AUDIT)
    return found


def test_whoever_is_not_signed_in_is_led_to_the_sign_in(open_page: Open, pages: list[str]) -> None:
    page = open_page()
    for path in set(pages) - OPEN:
        page.goto(path, wait_until="commit")
        assert re.search("/login", page.url), path


def test_a_key_s_own_page_fits_whatever_was_asked_with_it(open_page: Open, samples: dict[str, Any]) -> None:
    page = open_page()
    page.goto("/my")
    page.get_by_label("API key").fill(samples["key"])
    page.get_by_role("button", name="Show").last.click()
    page.get_by_text("Last requests").wait_for()
    for width in (360, 720, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate(TOO_WIDE) == [], width
