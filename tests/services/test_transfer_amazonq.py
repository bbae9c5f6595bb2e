"""Amazon Q accounts between installations: what signs them in goes along, and a renewal makes no stranger of them."""

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from opus_api import config, create_app
from opus_api.extensions import db
from opus_api.models import Account, now
from tests import bars
from tests.conftest import Caller
from tests.fakes.amazonq import AmazonQ

PASSWORD = "correct horse battery"
PLACES = {"start_url": "https://view.awsapps.com/start", "region": "eu-central-1", "api_region": "us-east-1",
          "profile_arn": None, "wire": "rest"}  # fmt: skip


@pytest.fixture
def service() -> Iterator[AmazonQ]:
    service = AmazonQ()
    yield service
    service.stop()


@pytest.fixture
def app(tmp_path: Path, environment: dict[str, str], service: AmazonQ) -> Iterator[Flask]:
    proxy, trusted = service.behind_proxy(tmp_path)
    behind = {**environment, "HTTPS_PROXY": proxy.url, "UPSTREAM_CA_BUNDLE": str(trusted)}
    app = create_app(config.load(tmp_path, behind))
    app.test_client_class = Caller
    with app.app_context():
        yield app
        db.session.remove()
        db.engine.dispose()
    proxy.stop()


def row(service: AmazonQ, name: str, **more: Any) -> dict[str, Any]:
    session = service.signed_in()
    secrets = {"client_id": session.client_id, "client_secret": service.secret_of(session)}
    return {"provider": "amazonq", "name": name, **secrets, "refresh_token": session.refresh_token, **more}


def whole_export(api: FlaskClient) -> Any:
    assert api.post("/api/auth/confirm", json={"password": PASSWORD}).status_code == 204
    return api.get("/v2/accounts/export?secrets=1").json


def accounts() -> list[Account]:
    db.session.rollback()
    return db.session.query(Account).order_by(Account.id).all()


def test_what_signs_an_account_in_and_where_it_goes_travels(api: FlaskClient, service: AmazonQ) -> None:
    assert api.post("/v2/accounts/feed", json={"accounts": [row(service, "q", oidc=PLACES)]}).json["created"] == 1  # type: ignore[index]
    document = whole_export(api)
    before = document["accounts"][0]
    assert before["oidc"] == PLACES
    assert (before["refresh_token"], "access_token" in before) == (service.sessions[0].refresh_token, False)
    api.delete(f"/v2/accounts/{accounts()[0].id}")
    assert api.post("/v2/accounts/import", json=document).json == {"created": 1, "skipped": 0, "errors": []}
    (account,) = accounts()
    assert (account.oidc, account.state, account.is_valid, service.reused) == (PLACES, "active", True, [])
    assert account.access_token == service.sessions[0].access_token


def test_an_account_whose_tokens_were_renewed_is_still_the_same(api: FlaskClient, service: AmazonQ) -> None:
    given = {"accounts": [row(service, "q")]}
    api.post("/v2/accounts/feed", json=given)
    assert accounts()[0].refresh_token != given["accounts"][0]["refresh_token"]
    assert api.post("/v2/accounts/feed", json=given).json == {"created": 0, "skipped": 1, "errors": []}


def test_an_export_without_secrets_holds_no_token(api: FlaskClient, service: AmazonQ) -> None:
    given = row(service, "q")
    api.post("/v2/accounts/feed", json={"accounts": [given]})
    text = api.get("/v2/accounts/export").text
    account = accounts()[0]
    for secret in (given["client_secret"], given["client_id"], account.refresh_token, account.access_token):
        assert str(secret) not in text


@pytest.mark.chaos
def test_a_hundred_accounts_are_fed_and_each_is_renewed_once(app: Flask, api: FlaskClient, service: AmazonQ) -> None:
    rows = [row(service, f"q{number}") for number in range(100)]
    began = time.monotonic()
    assert api.post("/v2/accounts/feed", json={"accounts": rows}).json["created"] == 100  # type: ignore[index]
    fed = time.monotonic() - began
    versions = {account.id: account.token_version for account in accounts()}
    db.session.query(Account).update({"token_refresh_at": now() - timedelta(seconds=1)})
    db.session.commit()
    service.refreshed.clear()
    began = time.monotonic()
    assert app.extensions["accounts"].renew_due() == 100
    renewed = time.monotonic() - began
    assert all(account.token_version == versions[account.id] + 1 for account in accounts())
    assert (len(service.refreshed), len(set(service.refreshed)), service.reused) == (100, 100, [])
    bars.report(10, accounts=100, fed_s=fed, renewed_s=renewed)
