"""The console's forms, as tests send them: with their tokens."""

import re

from flask.testing import FlaskClient

PASSWORD = "correct horse battery"


def sign_in(client: FlaskClient, password: str = PASSWORD, **form: str) -> None:
    """By the form on /login."""
    data = {"csrf_token": token(client), "username": "admin", "password": password, **form}
    assert client.post("/login", data=data).status_code == 302


def token(client: FlaskClient, path: str = "/login") -> str:
    """That of the forms on this page."""
    found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', client.get(path).text)
    assert found
    return found[1]
