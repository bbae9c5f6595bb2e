"""Both shapes of the health check, and what they must not cost."""

import re

import pytest
from flask.testing import FlaskClient

from opus_api.version import __version__


def test_health_says_when_and_which_version(client: FlaskClient) -> None:
    body = client.get("/health").json
    assert body
    assert set(body) == {"status", "timestamp", "version"}
    assert (body["status"], body["version"]) == ("healthy", __version__)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body["timestamp"])


def test_healthz_says_ok_and_nothing_else(client: FlaskClient) -> None:
    response = client.get("/healthz")
    assert response.json == {"status": "ok"}
    assert response.content_type == "application/json"


@pytest.mark.parametrize("path", ["/health", "/healthz"])
def test_health_neither_opens_a_session_nor_sets_a_cookie(client: FlaskClient, path: str) -> None:
    client.set_cookie("opus", "whatever")
    response = client.get(path)
    assert "Set-Cookie" not in response.headers
    assert "Vary" not in response.headers
