"""Which pages may call /v1 from a browser: those that the operator has listed."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from opus_api import config, create_app

LISTED, OTHER = "https://chat.example", "https://evil.example"
ASKED = "authorization, anthropic-version, anthropic-beta, x-api-key, x-stainless-lang, content-type"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": f"{ASKED}, cookie, x-evil"}


@pytest.fixture
def browser(tmp_path: Path, environment: dict[str, str]) -> FlaskClient:
    return create_app(
        config.load(tmp_path, environment | {"CORS_ORIGINS": f"{LISTED}, https://two.example"})
    ).test_client()


def allowed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items() if name.lower().startswith("access-control")}


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions", "/messages", "/v1/models"])
def test_a_listed_page_may_ask_with_the_headers_that_sdks_send(browser: FlaskClient, path: str) -> None:
    answer = browser.options(path, headers={"Origin": LISTED, **PREFLIGHT})
    assert answer.status_code == 200
    found = allowed(answer.headers)
    assert found["access-control-allow-origin"] == LISTED
    assert found["access-control-allow-headers"] == ASKED
    assert "POST" in found["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in found
    assert answer.headers["Vary"] == "Origin"


def test_a_listed_page_may_read_answers_and_errors(browser: FlaskClient) -> None:
    for answer in (
        browser.get("/v1/models", headers={"Origin": LISTED}),
        browser.post("/v1/messages", headers={"Origin": LISTED}),
    ):
        assert answer.status_code == 401
        assert allowed(answer.headers)["access-control-allow-origin"] == LISTED
        assert "retry-after" in allowed(answer.headers)["access-control-expose-headers"]


@pytest.mark.parametrize(
    "origin", [OTHER, f"{LISTED}.evil.example", "https://chat.example:444", "http://chat.example", ""]
)
def test_no_other_page_may(browser: FlaskClient, origin: str) -> None:
    answer = browser.options("/v1/messages", headers={"Origin": origin, **PREFLIGHT})
    assert allowed(answer.headers) == {}
    assert answer.headers["Vary"] == "Origin"


@pytest.mark.parametrize("path", ["/api/auth/login", "/api/cookies", "/v2/accounts", "/login", "/health", "/ready"])
def test_nothing_but_v1_is_open_to_pages(browser: FlaskClient, path: str) -> None:
    for method in ("OPTIONS", "GET", "POST"):
        assert allowed(browser.open(path, method=method, headers={"Origin": LISTED, **PREFLIGHT}).headers) == {}


def test_without_a_list_no_page_may(client: FlaskClient) -> None:
    answer = client.options("/v1/messages", headers={"Origin": LISTED, **PREFLIGHT})
    assert allowed(answer.headers) == {}
    assert "Vary" not in answer.headers
