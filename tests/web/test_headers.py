"""What browsers are told with every answer of every route, refused or not."""

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from opus_api.models import User
from tests import routes
from tests.web.test_matrix import Credentials


def answers(app: Flask, client: FlaskClient, **more: Any) -> dict[str, Any]:
    return {str(route): client.open(route.path, method=route.method, **more) for route in routes.every(app)}


@pytest.mark.parametrize("signed_in", [False, True])
def test_every_answer_says_what_a_browser_may_do_with_it(app: Flask, admin: User, signed_in: bool) -> None:
    client = app.test_client()
    if signed_in:
        Credentials(app, admin).session(client)
    for route, answer in answers(app, client, base_url="https://opus.example").items():
        headers = answer.headers
        assert headers["X-Content-Type-Options"] == "nosniff", route
        assert headers["Referrer-Policy"] == "no-referrer", route
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; "), route
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"], route
        assert int(headers["Strict-Transport-Security"].removeprefix("max-age=")) >= 31_536_000, route


def test_no_answer_for_people_is_kept(app: Flask, admin: User) -> None:
    client = app.test_client()
    Credentials(app, admin).session(client)
    for route in routes.every(app):
        if route.kind in (routes.Kind.JSON, routes.Kind.PAGE):
            answer = client.open(route.path, method=route.method)
            assert answer.headers["Cache-Control"] == "no-store", route


def test_over_plain_http_no_browser_is_sent_to_https(client: FlaskClient) -> None:
    assert "Strict-Transport-Security" not in client.get("/health").headers


def test_an_address_that_is_nowhere_says_it_too(client: FlaskClient) -> None:
    answer = client.get("/nowhere.html")
    assert answer.status_code == 404
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
