"""What strangers send, read by a real Chromium: no script of theirs runs, and the CSP has nothing to report (bar 19).

Each attempt would run by itself, so a page that let one through would show it. ``tests/web/test_xss.py`` reads all
pages with many more.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

from playwright.sync_api import Page, expect

from tests import bars
from tests.browser.conftest import PASSWORD
from tests.browser.test_every_page import caller

Open = Callable[..., Page]

RUN = "document.title='ran';window.ran=1"
ATTEMPTS = (
    f"<img src=x onerror={RUN}>",
    f"<svg onload={RUN}>",
    f"<script>{RUN}</script>",
    f'"><img src=x onerror={RUN}>',
    f"'><svg/onload={RUN}>",
    f"</title><script>{RUN}</script>",
    f"</textarea><script>{RUN}</script>",
    f"</script><script>{RUN}</script>",
    f"</option></select><img src=x onerror={RUN}>",
    f'" autofocus onfocus="{RUN}',
    f"<iframe srcdoc='<script>parent.{RUN}</script>'>",
    f"<details open ontoggle={RUN}>",
    f"<a href=javascript:{RUN}>x</a>",
    "<meta http-equiv=refresh content=0;url=/healthz>",
    "<base href=//evil.example/>",
    "<style>*{display:none}</style>",
)
# Before anything of a page runs: what the browser itself finds against the policy.
LISTEN = """() => { window.reports = []; document.addEventListener('securitypolicyviolation',
  (event) => window.reports.push(event.violatedDirective + ' ' + event.blockedURI)); }"""


def plant(service: str) -> dict[str, Any]:
    """Each attempt through the door by which strangers' texts come; what pages are about by name."""
    token = caller(service)("POST", "/api/auth/login", {"username": "admin", "password": PASSWORD})["token"]
    call = caller(service, token)
    made: dict[str, Any] = {}
    for attempt in ATTEMPTS:
        name = attempt[:80]
        made["account"] = call(
            "POST", "/api/cookies", {"provider": "morph", "name": name, "api_key": f"sk-{uuid4().hex}"}
        )
        made["key"] = call("POST", "/api/keys", {"name": name})
    for n, attempt in enumerate(ATTEMPTS):
        call("POST", "/v2/ips/block", {"cidr": f"203.0.113.{n}/32", "reason": attempt})
    asked = [(model, attempt) for attempt in ATTEMPTS for model in (attempt, "practice/x")]
    with ThreadPoolExecutor(len(ATTEMPTS)) as several:  # practice takes its time to answer
        made["request"] = [*several.map(lambda one: ask(service, made["key"]["key"], *one), asked)][-1]
    return made


def ask(service: str, key: str, model: str, prompt: str) -> str:
    """The id of a request whose model, prompt and user agent somebody chose."""
    content = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": prompt}]}
    headers = {"x-api-key": key, "content-type": "application/json", "user-agent": prompt}
    request = urllib.request.Request(f"{service}/v1/messages", json.dumps(content).encode(), headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return str(answer.headers["request-id"])
    except urllib.error.HTTPError as refused:
        return str(refused.headers["request-id"])


def test_no_script_of_a_stranger_runs(open_page: Open, session: str, service: str) -> None:
    made = plant(service)
    page = open_page(session)
    page.add_init_script(f"({LISTEN})()")
    shown = 0
    paths = ["/dashboard", "/cookies", "/keys", "/logs", "/ips", "/connect", "/patterns", "/changes", "/settings"]
    paths += [f"/cookies/{made['account']['id']}/edit"]
    paths += [f"/keys/{made['key']['id']}/edit", f"/keys/{made['key']['id']}/revoke", f"/logs/{made['request']}"]
    for path in paths:
        page.goto(path)
        page.wait_for_load_state("load")
        shown += page.content().count("ran=1")
        assert page.evaluate("[window.ran, window.reports]") == [None, []], path
        assert page.url == service + path  # and nobody was led away
    assert shown > 2 * len(ATTEMPTS)
    bars.report(19, in_chromium=len(ATTEMPTS), pages=len(paths), attempts_shown=shown, scripts_run=0, csp_reports=0)


def test_what_is_said_in_a_conversation_is_text(open_page: Open, session: str) -> None:
    page = open_page(session)
    page.add_init_script(f"({LISTEN})()")
    page.goto("/chat?model=practice/hello")
    for attempt in ("".join(ATTEMPTS[:8]), "".join(ATTEMPTS[8:])):
        page.get_by_label("Message").fill(attempt)
        page.get_by_role("button", name="Send").click()
        expect(page.locator(".turn.assistant").last).to_contain_text(f"You wrote: {attempt}")
        expect(page.locator(".turn.assistant").last).to_contain_text("tokens in")
    assert page.evaluate("[window.ran, window.reports]") == [None, []]
    assert page.locator("main .turn :is(script, svg[onload], iframe, img)").count() == 0
