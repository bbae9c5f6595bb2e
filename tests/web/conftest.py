"""What tests of pages share: a browser, a person who is signed in, forms with their tokens, the weight of a page."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, g
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from opus_api.config import ROOT
from opus_api.models import User
from opus_api.web import assets
from tests.conftest import COOKIE, Staff
from tests.forms import sign_in, token


class Browser(FlaskClient):
    """Every request has a ``g`` of its own, although the tests' app context is one for all."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        for name in list(g):
            g.pop(name)
        return super().open(*args, **kwargs)


@pytest.fixture
def browser(app: Flask) -> FlaskClient:
    """In which nobody is signed in."""
    return Browser(app)


@pytest.fixture
def person(browser: FlaskClient, admin: User, staff: Staff | None) -> FlaskClient:
    """A browser in which the administrator is signed in."""
    if staff:
        browser.set_cookie(COOKIE, staff.cookie)
    else:
        sign_in(browser)
    return browser


@pytest.fixture
def post(person: FlaskClient) -> Callable[..., str]:
    """Sends a form with its token and gives the page it leads to."""
    csrf = token(person, "/password")

    def send(path: str, **form: object) -> str:
        return person.post(path, data={"csrf_token": csrf, **form}, follow_redirects=True).text

    return send


def weight(page: TestResponse) -> int:
    """Of the page with its sheet and scripts as they are sent, in bytes."""
    used = re.findall(r'"/static/([\w.]+\.(?:css|js))\b', page.text)
    return len(page.data) + sum(len(assets.content(str(ROOT / "static"), name)) for name in used)
