"""Signing in to Amazon Q over the JSON API and the command line, against the fake of both services."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner

from opus_api import config, create_app
from opus_api.extensions import db
from opus_api.models import Account, SignIn, now
from tests.conftest import Caller
from tests.fakes.amazonq import ARN, MODELS, SCENARIOS, AmazonQ

START = {"name": "mine", "start_url": "https://view.awsapps.com/start", "region": "us-east-1"}
TEAM = {**START, "start_url": "https://team.awsapps.com/start"}


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


def started(api: FlaskClient, sent: dict[str, Any] = START) -> dict[str, Any]:
    answer = api.post("/v2/accounts/oidc/start", json=sent)
    assert answer.status_code == 200, answer.json
    found: dict[str, Any] = answer.json
    return found


def asked(api: FlaskClient, flow: dict[str, Any], is_due: bool = True) -> dict[str, Any]:
    """How far it is; with ``is_due`` the time until the next poll has passed."""
    if is_due:
        db.session.query(SignIn).update({"poll_at": now() - timedelta(seconds=1)})
        db.session.commit()
    answer = api.get(f"/v2/accounts/oidc/{flow['flow_id']}")
    assert answer.status_code == 200, answer.json
    found: dict[str, Any] = answer.json
    return found


def test_a_sign_in_tells_what_a_person_opens_and_types(api: FlaskClient, service: AmazonQ) -> None:
    flow = started(api)
    assert set(flow) == {
        *("flow_id", "verification_uri", "verification_uri_complete", "user_code", "expires_at", "interval"),
    }
    assert flow["verification_uri_complete"] == f"{service.url}/device?user_code={flow['user_code']}"
    (registered,) = service.of("/client/register")
    assert registered["clientName"] == "Opus API"


def test_an_approved_sign_in_makes_an_account_that_works(api: FlaskClient, service: AmazonQ) -> None:
    flow = started(api)
    assert asked(api, flow) == {"status": "pending"}
    service.approve(flow["user_code"])
    found = asked(api, flow)
    assert found["status"] == "complete"
    account = found["account"]
    assert (account["provider"], account["name"], account["state"]) == ("amazonq", "mine", "active")
    assert "claude-sonnet-4.5" in account["listed_models"]
    assert account["oidc"]["start_url"] == START["start_url"]
    assert account["oidc"]["wire"] == "aws-json"
    assert account["oidc"]["token_expires_at"].endswith("Z")
    assert account["oidc"]["client_expires_at"].endswith("Z")
    assert (account["oidc"]["quota"]["used"], account["oidc"]["quota"]["limit"]) == (12.4, 50.0)
    assert account["oidc"]["quota"]["resets_at"].endswith("Z")
    assert account["oidc"]["credits"] == 0.0


def test_asking_again_gives_the_same_answer_and_asks_nobody(api: FlaskClient, service: AmazonQ) -> None:
    flow = started(api)
    service.approve(flow["user_code"])
    first = asked(api, flow)
    polls = len(service.of("/token"))
    assert asked(api, flow)["account"]["id"] == first["account"]["id"]
    assert len(service.of("/token")) == polls
    assert db.session.query(Account).count() == 1


def test_nobody_polls_more_often_than_the_service_allows(api: FlaskClient, service: AmazonQ) -> None:
    service.interval = 600
    flow = started(api)
    assert [asked(api, flow, is_due=False) for _ in range(5)] == [{"status": "pending"}] * 5
    assert service.of("/token") == []


def test_slow_down_makes_the_polls_rarer(api: FlaskClient, service: AmazonQ) -> None:
    service.polls = ["slow_down"]
    flow = started(api)
    assert asked(api, flow) == {"status": "pending"}
    row = db.session.query(SignIn).one()
    assert row.interval == 6.0
    assert row.poll_at > now() + timedelta(seconds=4)


@pytest.mark.parametrize("state, status", [("denied", "denied"), ("used", "expired")])
def test_a_refused_sign_in_ends(api: FlaskClient, service: AmazonQ, state: str, status: str) -> None:
    flow = started(api)
    service.approve(flow["user_code"], state)
    assert asked(api, flow) == asked(api, flow) == {"status": status}
    assert db.session.query(Account).count() == 0


def test_a_sign_in_that_nobody_approves_expires(api: FlaskClient, service: AmazonQ) -> None:
    service.device_life = 0.5
    flow = started(api)
    service.devices[next(iter(service.devices))].expires_at = 0.0
    assert asked(api, flow) == {"status": "expired"}


def test_a_sign_in_service_in_trouble_is_asked_again(api: FlaskClient, service: AmazonQ) -> None:
    flow = started(api)
    service.polls = []
    service.devices[next(iter(service.devices))].answers = ["server_error"]
    service.approve(flow["user_code"])
    assert asked(api, flow) == {"status": "pending"}
    assert asked(api, flow)["status"] == "complete"


ELSEWHERE = ARN.replace("us-east-1", "eu-central-1")


@pytest.mark.parametrize("arn", [ARN, ELSEWHERE])
def test_an_organisations_account_gets_its_profile_whichever_region_it_is_in(
    api: FlaskClient, service: AmazonQ, arn: str
) -> None:
    service.profile = arn
    flow = started(api, TEAM)
    service.approve(flow["user_code"])
    account = asked(api, flow)["account"]
    assert (account["oidc"]["profile_arn"], account["state"]) == (arn, "active")
    assert [body["profileArn"] for body in service.of("ListAvailableModels")] == [arn]
    assert api.post(f"/api/cookies/{account['id']}/validate").json["is_valid"]  # type: ignore[index]
    assert len(service.of("ListAvailableProfiles")) == 1 + (arn == ELSEWHERE)  # known from now on


def test_an_account_that_is_signed_in_to_another_organisation_forgets_its_profile(
    api: FlaskClient, service: AmazonQ
) -> None:
    flow = started(api, TEAM)
    service.approve(flow["user_code"])
    account = asked(api, flow)["account"]
    again = started(api, {"account_id": account["id"], "start_url": START["start_url"]})
    service.approve(again["user_code"])
    assert asked(api, again)["account"]["oidc"]["profile_arn"] is None


def test_a_list_of_models_in_pages_is_read_whole(api: FlaskClient, service: AmazonQ) -> None:
    service.page = 5
    account = api.post("/api/cookies", json=fields(service)).json
    assert account is not None
    assert account["listed_models"] == [*MODELS, *SCENARIOS]


def test_looking_at_accounts_asks_nobody(api: FlaskClient, service: AmazonQ) -> None:
    """What is shown of usage and models is what validating found: once an hour, or when a person asks."""
    account = api.post("/api/cookies", json=fields(service)).json
    assert account is not None
    service.asked.clear()
    for _ in range(3):
        assert api.get(f"/api/cookies/{account['id']}").json["oidc"]["quota"]["used"] == 12.4  # type: ignore[index]
        assert api.get("/v2/accounts").status_code == 200
    assert service.asked == []


def test_an_account_can_be_signed_in_again(api: FlaskClient, service: AmazonQ) -> None:
    flow = started(api)
    service.approve(flow["user_code"])
    account = asked(api, flow)["account"]
    service.sessions[0].dead = True
    again = started(api, {"account_id": account["id"]})
    service.approve(again["user_code"])
    found = asked(api, again)["account"]
    assert (found["id"], found["state"]) == (account["id"], "active")
    assert db.session.get_one(Account, account["id"]).access_token == service.sessions[1].access_token


def test_secrets_of_a_sign_in_are_encrypted_and_never_shown(api: FlaskClient, service: AmazonQ) -> None:
    flow = started(api)
    row = db.session.execute(db.text("SELECT device_code, client_secret FROM sign_ins")).one()
    assert not any(code in str(row) for code in service.devices)
    assert not any(secret in str(row) for secret, _ in service.clients.values())
    service.approve(flow["user_code"])
    shown = str(asked(api, flow))
    assert service.sessions[0].refresh_token not in shown
    assert service.sessions[0].access_token not in shown


@pytest.mark.parametrize(
    "sent, status, words",
    [
        ({**START, "name": ""}, 422, "name"),
        ({**START, "region": "evil.example/"}, 422, "oidc.region"),
        ({**START, "start_url": "http://x"}, 422, "oidc.start_url"),
        ({**START, "color": "red"}, 422, "color"),
        ({"account_id": 99}, 404, "99"),
    ],
)
def test_a_sign_in_that_makes_no_sense_is_refused_by_field(
    api: FlaskClient, sent: dict[str, Any], status: int, words: str
) -> None:
    answer = api.post("/v2/accounts/oidc/start", json=sent)
    assert answer.status_code == status
    assert words in answer.json["error"]["message"]


def test_an_unknown_sign_in_and_an_unknown_caller_are_refused(api: FlaskClient, client: FlaskClient) -> None:
    assert api.get("/v2/accounts/oidc/nobody").status_code == 404
    assert client.get("/v2/accounts/oidc/nobody").status_code == 401
    assert client.post("/v2/accounts/oidc/start", json=START).status_code == 401


def test_a_sign_in_service_that_refuses_is_told(api: FlaskClient, service: AmazonQ) -> None:
    service.client_life = -1.0
    answer = api.post("/v2/accounts/oidc/start", json=START)
    assert (answer.status_code, "invalid_client" in answer.json["error"]["message"]) == (502, True)


# ---- accounts by their tokens


def fields(service: AmazonQ, **more: Any) -> dict[str, Any]:
    session = service.signed_in()
    tokens = {"client_id": session.client_id, "client_secret": service.secret_of(session)}
    return {"provider": "amazonq", "name": "q", "refresh_token": session.refresh_token, **tokens, **more}


def test_an_account_is_added_by_its_tokens_and_its_places_are_settable(api: FlaskClient, service: AmazonQ) -> None:
    account = api.post("/api/cookies", json=fields(service, oidc={"wire": "rest"})).json
    assert (account["state"], account["oidc"]["wire"], account["oidc"]["region"]) == ("active", "rest", "us-east-1")
    changed = api.put(f"/api/cookies/{account['id']}", json={"oidc": {"api_region": "eu-central-1"}}).json
    assert (changed["oidc"]["api_region"], changed["oidc"]["wire"]) == ("eu-central-1", "rest")
    back = api.put(f"/api/cookies/{account['id']}", json=changed)
    assert back.status_code == 200, back.json


def test_a_client_that_a_person_replaces_takes_its_end_along(api: FlaskClient, service: AmazonQ) -> None:
    flow = started(api)
    service.approve(flow["user_code"])
    account = asked(api, flow)["account"]
    other = fields(service)
    tokens = {name: other[name] for name in ("client_id", "client_secret", "refresh_token")}
    changed = api.put(f"/api/cookies/{account['id']}", json=tokens).json
    assert changed is not None
    assert (changed["oidc"]["client_expires_at"], changed["state"]) == (None, "active")


@pytest.mark.parametrize(
    "more, field",
    [
        ({"client_secret": ""}, "client_secret"),
        ({"refresh_token": ""}, "refresh_token"),
        ({"oidc": {"wire": "grpc"}}, "oidc.wire"),
        ({"oidc": {"profile_arn": "x"}}, "oidc.profile_arn"),
        ({"oidc": {"host": "x"}}, "oidc.host"),
    ],
)
def test_tokens_and_places_are_checked(api: FlaskClient, service: AmazonQ, more: dict[str, Any], field: str) -> None:
    answer = api.post("/api/cookies", json=fields(service, **more))
    assert (answer.status_code, field in answer.json["error"]["message"]) == (422, True)


@pytest.mark.parametrize("in_json", [True, False])
def test_the_command_line_adds_an_account_by_its_refresh_token(
    runner: FlaskCliRunner, service: AmazonQ, in_json: bool
) -> None:
    found = fields(service)
    words = ["accounts", "add", "--provider", "amazonq", "--name", "q", "--refresh-token-stdin"]
    words += ["--region", "us-east-1", "--start-url", TEAM["start_url"], "--profile-arn", ARN]
    if in_json:
        tokens = {"refreshToken": found["refresh_token"], "clientId": found["client_id"]}
        sent = json.dumps({**tokens, "clientSecret": found["client_secret"]}, indent=2)
    else:
        sent = found["refresh_token"]
        words += ["--client-id", found["client_id"], "--client-secret", found["client_secret"]]
    done = runner.invoke(args=words, input=sent)
    assert done.exit_code == 0, done.output
    account = db.session.query(Account).one()
    assert (account.state, account.oidc["profile_arn"]) == ("active", ARN)
