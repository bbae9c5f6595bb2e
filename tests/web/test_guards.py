"""Who is let in while the database is away, and who counts as this machine."""

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.exc import OperationalError

FOREIGN = {"X-Forwarded-For": "203.0.113.1"}
KEY = {"x-api-key": "sk-some-key-0123456789"}


def test_without_a_database_and_its_last_snapshot_nobody_is_let_in(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise OperationalError("", {}, Exception())

    monkeypatch.setattr(app.extensions["snapshots"], "current", away)
    answer = client.get("/v1/models", headers=KEY)
    assert (answer.status_code, "The database cannot be reached" in answer.text) == (503, True)
    assert client.get("/ready", headers={**FOREIGN, "Authorization": "Bearer some-token"}).status_code == 401


def test_a_key_that_may_have_been_made_meanwhile_is_told_to_come_back(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.extensions["snapshots"].current()
    monkeypatch.setattr(app.extensions["snapshots"], "_away", True)
    assert client.get("/v1/models", headers=KEY).status_code == 503
    assert client.get("/v1/models").status_code == 401, "without a key there is nothing to find out"


@pytest.mark.parametrize(
    "address, host, status",
    [
        ("127.0.0.1", "localhost:7860", 200),
        ("127.0.0.1", "localhost", 200),
        ("::1", "[::1]:7860", 200),
        ("::1", "[::1]", 200),
        ("127.0.0.1", "gateway.example", 401),
        ("203.0.113.1", "localhost", 401),
        ("", "localhost", 401),
        ("a socket", "localhost", 401),
    ],
)
def test_this_machine_is_known_by_its_address_and_by_what_it_asked_for(
    client: FlaskClient, address: str, host: str, status: int
) -> None:
    answer = client.get("/ready", headers={"Host": host}, environ_overrides={"REMOTE_ADDR": address})
    assert answer.status_code == status
