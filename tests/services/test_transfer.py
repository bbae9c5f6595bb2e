"""Accounts between installations: nothing twice, nothing lost, no secret that was not asked for."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from opus_api.extensions import db
from opus_api.models import Account, Change
from opus_api.services import transfer
from opus_api.wire.http import HttpResponse
from tests.conftest import Provider

KEY = "sk-upstream-0123456789"
PASSWORD = "correct horse battery"


def row(provider: Provider, name: str, **more: Any) -> dict[str, Any]:
    return {"provider": "openai", "name": name, "api_key": f"{KEY}-{name}", "base_url": provider.url, **more}


def fed(api: FlaskClient, *rows: Any) -> Any:
    response = api.post("/v2/accounts/feed", json={"accounts": list(rows)})
    assert response.status_code == 200, response.text
    return response.json


def names() -> list[str]:
    db.session.rollback()
    return [account.name for account in db.session.query(Account).order_by(Account.id)]


def export(api: FlaskClient, query: str = "") -> Any:
    return api.get(f"/v2/accounts/export{query}")


def whole_export(api: FlaskClient) -> Any:
    assert api.post("/api/auth/confirm", json={"password": PASSWORD}).status_code == 204
    response = export(api, "?secrets=1")
    assert response.status_code == 200, response.text
    return response.json


def test_valid_rows_land_and_bad_ones_are_reported(api: FlaskClient, provider: Provider) -> None:
    bad = [{"provider": "none"}, 5, row(provider, "two", priority="high"), row(provider, "")]
    result = fed(api, row(provider, "one"), *bad, row(provider, "three"))
    assert (result["created"], result["skipped"], names()) == (2, 0, ["one", "three"])
    assert [(error["index"], error["message"].split(":")[0]) for error in result["errors"]] == [
        (1, "provider"),
        (2, "must be an object."),
        (3, "priority"),
        (4, "name"),
    ]


def test_fed_accounts_know_their_models_at_once(api: FlaskClient, provider: Provider) -> None:
    fed(api, *(row(provider, f"a{n}") for n in range(7)))
    rows = api.get("/v2/accounts").json["data"]  # type: ignore[index]
    assert [bool(account["listed_models"]) for account in rows] == [True] * 7


def test_a_credential_is_taken_once(api: FlaskClient, provider: Provider) -> None:
    again = row(provider, "one") | {"name": "another name"}
    assert fed(api, row(provider, "one"), again) == {"created": 1, "skipped": 1, "errors": []}
    assert fed(api, row(provider, "one"), again) == {"created": 0, "skipped": 2, "errors": []}


def test_a_name_that_another_credential_has_is_an_error(api: FlaskClient, provider: Provider) -> None:
    result = fed(api, row(provider, "one"), row(provider, "one", api_key="sk-other-0123456789"))
    assert (result["created"], result["errors"][0]["index"]) == (1, 1)


@pytest.mark.parametrize("body", [{}, {"accounts": None}, {"accounts": {}}, {"accounts": [{}] * 1001}])
def test_a_body_without_a_list_is_a_422(api: FlaskClient, body: Any) -> None:
    assert api.post("/v2/accounts/feed", json=body).status_code == 422


def test_an_export_shows_hints_only(api: FlaskClient, provider: Provider) -> None:
    fed(api, row(provider, "one", proxy="http://user:hunter2@127.0.0.1:3128"))
    response = export(api)
    assert response.headers["cache-control"] == "no-store"
    assert KEY not in response.text
    assert "hunter2" not in response.text
    assert response.json["accounts"][0]["api_key_hint"] == "-one"


def test_secrets_need_the_password_again_and_leave_a_trace(api: FlaskClient, provider: Provider) -> None:
    fed(api, row(provider, "one"))
    assert export(api, "?secrets=1").status_code == 403
    assert whole_export(api)["accounts"][0]["api_key"] == f"{KEY}-one"
    assert [change.who for change in db.session.query(Change).filter_by(what="accounts exported with secrets")] == [
        "admin"
    ]


def test_secrets_leave_three_times_an_hour(api: FlaskClient) -> None:
    for _ in range(3):
        whole_export(api)
    assert export(api, "?secrets=1").status_code == 429


def test_what_was_exported_is_imported_as_it_was(api: FlaskClient, provider: Provider) -> None:
    given = row(
        provider,
        "one",
        priority=7,
        max_concurrency=3,
        model_map={"claude-*": "model-a"},
        models=["model-*"],
        options={"vision": False},
        session_key="session-0123456789",
        proxy="http://user:hunter2@127.0.0.1:3128",
        state="disabled",
    )
    fed(api, given)
    document = whole_export(api)
    before = document["accounts"]
    api.delete(f"/v2/accounts/{db.session.query(Account).one().id}")
    for result in ({"created": 1, "skipped": 0, "errors": []}, {"created": 0, "skipped": 1, "errors": []}):
        assert api.post("/v2/accounts/import", json=document).json == result
    assert whole_export(api)["accounts"] == before


def test_an_export_without_secrets_cannot_be_imported(api: FlaskClient, provider: Provider) -> None:
    fed(api, row(provider, "one"))
    response = api.post("/v2/accounts/import", json=export(api).json)
    assert (response.status_code, "secrets" in response.text) == (422, True)


@pytest.mark.parametrize("document", [{}, {"accounts": []}, {"format": "opus-api-accounts", "version": 9}])
def test_another_file_is_a_422_that_says_what_is_expected(api: FlaskClient, document: Any) -> None:
    assert api.post("/v2/accounts/import", json=document).status_code == 422


@pytest.mark.parametrize("path", ["feed", "import"])
def test_strangers_may_not(client: FlaskClient, path: str) -> None:
    assert client.post(f"/v2/accounts/{path}", json={"accounts": []}).status_code == 401
    assert client.get("/v2/accounts/export").status_code == 401


def test_a_pull_that_is_given_up_ends_quietly() -> None:
    flow = transfer.pull("http://other.example", "admin", "password")
    next(flow)
    flow.send(HttpResponse(200, {}, b'{"token": "t"}'))
    flow.close()  # it must not ask for another exchange
