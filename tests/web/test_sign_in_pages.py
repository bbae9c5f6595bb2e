"""The pages that sign in to Amazon Q, as a browser without JavaScript gets them, against the fake."""

import html
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from opus_api import config, create_app
from opus_api.extensions import db
from opus_api.models import Account, SignIn, now
from tests.fakes.amazonq import AmazonQ
from tests.forms import token
from tests.web.conftest import Browser

FORM = {"name": "mine", "start_url": "https://view.awsapps.com/start", "region": "us-east-1"}


@pytest.fixture
def service() -> Iterator[AmazonQ]:
    service = AmazonQ()
    yield service
    service.stop()


@pytest.fixture
def app(tmp_path: Path, environment: dict[str, str], service: AmazonQ) -> Iterator[Flask]:
    proxy, trusted = service.behind_proxy(tmp_path)
    app = create_app(
        config.load(tmp_path, {**environment, "HTTPS_PROXY": proxy.url, "UPSTREAM_CA_BUNDLE": str(trusted)})
    )
    with app.app_context():
        yield app
        db.session.remove()
        db.engine.dispose()
    proxy.stop()


def begun(person: FlaskClient, **form: Any) -> str:
    """The address of the page that waits."""
    sent = {"csrf_token": token(person, "/cookies/sign-in"), **FORM, **form}
    answer = person.post("/cookies/sign-in", data=sent)
    assert answer.status_code == 302, re.findall(r'class="error[^>]*>[^<]*', answer.text)
    return str(answer.location)


def is_due() -> None:
    db.session.query(SignIn).update({"poll_at": now() - timedelta(seconds=1)})
    db.session.commit()


def test_the_choice_of_providers_leads_to_the_sign_in_with_its_terms(person: FlaskClient) -> None:
    assert 'href="/cookies/sign-in"' in person.get("/cookies/new").text
    page = person.get("/cookies/sign-in").text
    assert "a suspended one stays out until you bring it back" in page
    assert "Add only accounts that are licensed to you" in page
    assert 'value="https://view.awsapps.com/start"' in page


def test_the_code_its_link_and_the_state_are_shown_and_looked_at_again(person: FlaskClient, service: AmazonQ) -> None:
    where = begun(person)
    answer = person.get(where)
    code = next(iter(service.devices.values())).user_code
    assert code in answer.text
    assert f'href="{service.url}/device?user_code={code}"' in answer.text
    assert "Waiting for your approval" in answer.text
    assert answer.headers["Refresh"] == "5"
    assert answer.headers["Cache-Control"] == "no-store"


def test_once_approved_the_page_leads_to_the_account(person: FlaskClient, service: AmazonQ) -> None:
    where = begun(person)
    service.approve(next(iter(service.devices.values())).user_code)
    is_due()
    answer = person.get(where)
    account = db.session.query(Account).one()
    assert (answer.status_code, answer.location) == (302, f"/cookies/{account.id}/saved")
    assert "Signed in to Amazon Q." in person.get(answer.location).text
    edit = person.get(f"/cookies/{account.id}/edit").text
    for fact in ("12.4 of 50 credits", "New quota", "Sign-in ends", "in 9 d"):
        assert fact in edit
    account.credits = 1.5
    db.session.commit()
    assert "1.5 credits" in person.get(f"/cookies/{account.id}/edit").text
    assert f'href="/cookies/sign-in?account_id={account.id}"' in edit


def test_what_a_check_found_is_in_the_language_of_the_page(person: FlaskClient, service: AmazonQ) -> None:
    where = begun(person)
    service.approve(next(iter(service.devices.values())).user_code)
    is_due()
    person.get(where)
    path = f"/cookies/{db.session.query(Account).one().id}/validate"
    headers = {"Accept-Language": "zh-CN"}
    data = {"csrf_token": token(person, "/password")}
    page = person.post(path, data=data, headers=headers, follow_redirects=True).text
    assert "账号可用，共 22 个模型。已用 12.4 / 50 积分。" in page


def test_an_account_that_ended_is_signed_in_again(person: FlaskClient, service: AmazonQ) -> None:
    where = begun(person)
    service.approve(next(iter(service.devices.values())).user_code)
    is_due()
    person.get(where)
    account = db.session.query(Account).one()
    assert (
        f'action="/cookies/sign-in?account_id={account.id}"'
        in person.get(f"/cookies/sign-in?account_id={account.id}").text
    )
    again = begun(person, account_id=account.id)
    service.approve(list(service.devices.values())[-1].user_code)
    is_due()
    assert person.get(again).location == f"/cookies/{account.id}/saved"
    assert db.session.query(Account).count() == 1


def test_a_refused_sign_in_says_so_and_offers_another(person: FlaskClient, service: AmazonQ) -> None:
    where = begun(person)
    service.approve(next(iter(service.devices.values())).user_code, "denied")
    is_due()
    answer = person.get(where)
    assert "The sign-in was refused" in answer.text
    again = re.search(r'href="(/cookies/sign-in\?[^"]*)"', answer.text)
    assert again is not None
    assert 'value="mine"' in person.get(html.unescape(again[1])).text
    assert "Refresh" not in answer.headers


def test_a_sign_in_that_the_service_ended_says_why(person: FlaskClient, service: AmazonQ) -> None:
    where = begun(person)
    service.clients.clear()
    is_due()
    answer = person.get(where)
    assert "The sign-in service ended it." in answer.text
    assert "invalid_client" in answer.text
    assert "Refresh" not in answer.headers


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("name", "", "Give the account a name."),
        ("region", "nowhere", "must be a region"),
        ("start_url", "x", "address"),
    ],
)
def test_what_is_wrong_stands_at_its_field(person: FlaskClient, field: str, value: str, words: str) -> None:
    sent = {"csrf_token": token(person, "/cookies/sign-in"), **FORM, field: value}
    answer = person.post("/cookies/sign-in", data=sent)
    assert answer.status_code == 200
    assert words in answer.text


def test_nobody_else_sees_the_pages(app: Flask) -> None:
    stranger = Browser(app)
    assert stranger.get("/cookies/sign-in").status_code == 302
    assert stranger.get("/cookies/sign-in/any").status_code == 302
