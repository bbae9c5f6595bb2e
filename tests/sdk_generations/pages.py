"""The page /connect as a person without a script has it: signed in, with a fresh key, its snippets to copy."""

import re
from dataclasses import dataclass
from html import unescape

import requests

from tests.live import PASSWORD, Gateway


@dataclass
class ConnectPage:
    gateway: Gateway
    browser: requests.Session
    text: str

    def code(self, name: str) -> str:
        """What one of its buttons copies."""
        found = re.search(rf'id="code-{name}".*?<pre[^>]*>(.*?)</pre>', self.text, re.S)
        assert found, name
        return unescape(found[1])

    def is_green(self) -> bool:
        """Whether it says, when it looks again, that the first request has come."""
        watch = re.search(r'data-watch="([^"]+)"', self.text)
        assert watch
        return "Connected" in self.browser.get(self.gateway.url + unescape(watch[1])).text


def connect_page(gateway: Gateway, model: str) -> ConnectPage:
    """With a key that is made for it."""
    browser = requests.Session()
    login = {"csrf_token": _csrf(browser.get(f"{gateway.url}/login").text), "username": "admin", "password": PASSWORD}
    assert browser.post(f"{gateway.url}/login", login).status_code == 200
    sent = {"csrf_token": _csrf(browser.get(f"{gateway.url}/connect").text), "model": model}
    return ConnectPage(gateway, browser, browser.post(f"{gateway.url}/connect", sent).text)


def _csrf(page: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found
    return found[1]
