"""The OpenAPI document is what the app does: every call is in it, and whatever is sent, the answer is one it names."""

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, given, settings

from opus_api import create_app
from opus_api.config import Settings
from opus_api.extensions import db
from opus_api.models import Account, User
from opus_api.services import api_keys, users
from opus_api.transport import Transport
from opus_api.transport.exchange import unreachable
from opus_api.web import openapi
from opus_api.web.signed_in import issue_token
from tests import bars


def test_the_document_names_every_call_and_nothing_else(app: Flask, client: FlaskClient) -> None:
    answer = client.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.json
    documented = {(path, method.upper()) for path, methods in answer.json["paths"].items() for method in methods}
    there = {(openapi.path_of(rule), method) for rule, method in openapi.calls(app)}
    assert documented == there


def test_what_is_left_out_is_a_page_or_a_documented_call_under_another_base_url(app: Flask) -> None:
    known = {rule.endpoint for rule, _ in openapi.calls(app)}
    for rule in app.url_map.iter_rules():
        if not openapi.is_call(rule):
            module = rule.endpoint.partition(".")[0]
            assert rule.endpoint in known or module in ("static", "assets", "console") or module.endswith("_pages"), (
                rule.rule
            )
            assert not rule.rule.startswith(("/api/", "/v2/")), rule.rule


def test_every_call_says_what_it_does_and_who_may(app: Flask) -> None:
    for path, methods in openapi.document(app)["paths"].items():
        for method, operation in methods.items():
            assert len(operation["summary"]) > 5, (method, path)
            assert "security" in operation or path in ("/health", "/healthz", "/api/auth/login", "/openapi.json")


def test_the_document_is_small_and_open_to_anybody(client: FlaskClient) -> None:
    answer = client.get("/openapi.json", environ_overrides={"REMOTE_ADDR": "203.0.113.9"})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert len(answer.data) < 100_000


# --- Generated calls --------------------------------------------------------------------------------------------------


@pytest.fixture
def fuzzed(settings: Settings, password_hash: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """An app with a user, accounts and keys, whose upstreams cannot be reached; no context of it is open."""
    monkeypatch.setattr(Transport, "send", lambda *_: unreachable("upstream could not be reached"))
    app = create_app(settings)
    with app.app_context():
        db.session.add(User(username="admin", password_hash=password_hash))
        db.session.add_all(Account(provider="openai", name=f"account {n}", api_key=f"sk-{n}") for n in range(3))
        for name in ("one", "two", "three"):
            api_keys.create(app.extensions["installation"].pepper, {"name": name})
        db.session.commit()
    yield app
    with app.app_context():
        db.session.remove()
        db.engine.dispose()


def credentials(app: Flask) -> dict[str, str]:
    """Both of a client and of a person, new ones: some calls end them."""
    with app.app_context():
        user = db.session.query(User).first()
        assert user
        row, token = users.start_session(user, "jwt", "127.0.0.1", "tests")
        jwt = issue_token(row, token)
        _, key = api_keys.create(app.extensions["installation"].pepper, {"name": f"client {token[:8]}"})
        db.session.remove()
    return {"Authorization": f"Bearer {jwt}", "x-api-key": key}


def fuzz(app: Flask, operation: Any, examples: int) -> list[float]:
    """How long each call took, in seconds. Raises what a check of schemathesis found."""
    from schemathesis import GenerationMode  # here: it takes a second to load, in every process of a run
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks as of_openapi

    checks = [
        not_a_server_error,
        of_openapi.status_code_conformance,
        of_openapi.content_type_conformance,
        of_openapi.response_schema_conformance,
    ]
    lasted: list[float] = []
    headers = credentials(app)
    phases = {"phases": [Phase.generate], "suppress_health_check": list(HealthCheck)}

    @settings(max_examples=examples, deadline=None, database=None, derandomize=examples < 100, **phases)
    @given(operation.as_strategy(GenerationMode.POSITIVE) | operation.as_strategy(GenerationMode.NEGATIVE))
    def call(case: Any) -> None:
        if case.operation.path.startswith("/v1/") and isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = "practice/claude-haiku-4-5"  # or hardly a call would come to its answer
        ends = case.operation.path == "/api/auth/logout"
        began = time.monotonic()
        response = case.call(headers=credentials(app) if ends else headers)
        lasted.append(time.monotonic() - began)
        # Some calls ask a server that cannot be reached here: the document says so, which the other checks look at.
        case.validate_response(response, checks=checks[1:] if response.status_code == 502 else checks)

    call()
    return lasted


@pytest.mark.parametrize(
    "examples", [5, pytest.param(int(os.environ.get("FUZZ_EXAMPLES", "450")), marks=pytest.mark.soak, id="soak")]
)
def test_whatever_is_sent_the_answer_is_one_that_the_document_names(fuzzed: Flask, examples: int) -> None:
    import schemathesis

    operations = [found.ok() for found in schemathesis.openapi.from_wsgi("/openapi.json", fuzzed).get_all_operations()]
    lasted = [seconds for operation in operations for seconds in fuzz(fuzzed, operation, examples)]
    assert len(lasted) >= 3 * len(operations)
    bars.report(16, operations=len(operations), calls=len(lasted), slowest_ms=1000 * max(lasted), failures=0)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
def test_a_stream_is_what_the_document_says(fuzzed: Flask, path: str) -> None:
    import schemathesis
    from schemathesis.specs.openapi.checks import response_schema_conformance

    operation = schemathesis.openapi.from_wsgi("/openapi.json", fuzzed)[path]["POST"]
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": "practice/claude-haiku-4-5", "max_tokens": 16, "messages": messages, "stream": True}
    case = operation.Case(body=body, media_type="application/json")
    response = case.call(headers=credentials(fuzzed))
    assert response.headers["content-type"][0].startswith("text/event-stream")
    case.validate_response(response, checks=[response_schema_conformance])
