"""The rules of accounts, against a real database and a provider over real HTTP."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from opus_api.extensions import db
from opus_api.models import OVERTAKING, Account, User
from opus_api.services import settings as saved
from opus_api.services.accounts import Accounts, as_json, hint, shown_proxy
from opus_api.services.values import FieldError
from opus_api.wire.errors import Conflict, NotFound
from tests.conftest import Provider

KEY = "sk-upstream-0123456789"
UNREACHABLE = "http://127.0.0.1:9/v1"


@pytest.fixture
def accounts(app: Flask) -> Accounts:
    found: Accounts = app.extensions["accounts"]
    return found


def body(server: Provider, **more: Any) -> dict[str, Any]:
    return {"provider": "openai", "name": "one", "api_key": KEY, "base_url": server.url, **more}


def test_a_new_account_knows_what_its_provider_lists(accounts: Accounts, provider: Provider) -> None:
    account = accounts.create(body(provider))
    assert account.listed_models == ["model-a", "model-b"]
    assert (account.state, account.is_valid) == ("active", True)
    assert account.last_validated is not None
    assert provider.asked[0][0] == "/v1/models"
    assert provider.asked[0][1]["authorization"] == f"Bearer {KEY}"


def test_an_account_is_saved_although_its_provider_cannot_be_reached(accounts: Accounts) -> None:
    account = accounts.create({"provider": "openai", "name": "one", "api_key": KEY, "base_url": UNREACHABLE})
    assert (account.state, account.is_valid, account.listed_models) == ("active", True, None)


def test_an_account_is_saved_although_its_name_does_not_resolve(accounts: Accounts) -> None:
    account = accounts.create({"name": "one", "api_key": KEY, "base_url": "https://no-such-host.invalid/v1"})
    assert account.id is not None


def test_a_refused_credential_is_saved_as_invalid(accounts: Accounts, provider: Provider) -> None:
    provider.status, provider.body = 401, {"error": {"message": "bad key"}}
    account = accounts.create(body(provider))
    assert (account.state, account.is_valid) == ("invalid", False)
    assert account.state_reason


def test_no_transaction_is_open_while_the_provider_is_asked(app: Flask, accounts: Accounts, provider: Provider) -> None:
    in_use: list[int] = []
    provider.before_answer = lambda: in_use.append(engine.pool.checkedout())  # type: ignore[attr-defined]
    engine = db.engine
    accounts.create(body(provider))
    accounts.validate_all()
    assert in_use == [0, 0]


def test_credentials_are_encrypted_at_rest(accounts: Accounts, provider: Provider) -> None:
    account = accounts.create(body(provider, session_key="session-secret-1234", proxy="http://u:pass@127.0.0.1:1"))
    row = db.session.execute(sa.text("SELECT * FROM accounts WHERE id = :id"), {"id": account.id}).one()
    stored = " ".join(str(value) for value in row)
    assert KEY not in stored
    assert "session-secret" not in stored
    assert "pass@" not in stored


def test_the_first_real_account_is_remembered_for_ever(accounts: Accounts, provider: Provider) -> None:
    assert not saved.get(saved.REAL_ACCOUNT_SEEN)
    accounts.delete(accounts.create(body(provider)).id)
    assert saved.get(saved.REAL_ACCOUNT_SEEN) is True


def test_names_are_unique_per_provider(accounts: Accounts, provider: Provider) -> None:
    accounts.create(body(provider))
    with pytest.raises(Conflict, match="openai has an account named 'one' already"):
        accounts.create(body(provider))
    assert accounts.create(body(provider, provider="morph")).name == "one"


def test_update_changes_only_what_is_given(accounts: Accounts, provider: Provider) -> None:
    account = accounts.create(body(provider, priority=3, models=["gpt-*"]))
    changed = accounts.update(account.id, {"priority": 7, "api_key": None})
    assert (changed.priority, changed.models, changed.api_key) == (7, ["gpt-*"], KEY)


def test_what_get_shows_may_come_back_in_an_update(accounts: Accounts, provider: Provider) -> None:
    account = accounts.create(body(provider, proxy="http://user:secret@127.0.0.1:1"))
    before = as_json(account)
    after = as_json(accounts.update(account.id, before))
    assert before | {"updated_at": None} == after | {"updated_at": None}
    assert accounts.get(account.id).proxy == "http://user:secret@127.0.0.1:1"


def cooled(account: Account, state: str = "cooling") -> None:
    account.state, account.state_reason, account.error_count = state, "429", 4
    account.state_until = datetime.now(UTC) + timedelta(hours=1)
    account.is_valid = state != "invalid"
    db.session.commit()


@pytest.mark.parametrize("state", ["cooling", "invalid"])
def test_a_new_credential_resets_state_and_counters(accounts: Accounts, provider: Provider, state: str) -> None:
    account = accounts.create(body(provider))
    cooled(account, state)
    version = account.state_version
    changed = accounts.update(account.id, {"api_key": "sk-another-0123456789"})
    assert (changed.state, changed.state_until, changed.error_count, changed.is_valid) == ("active", None, 0, True)
    assert changed.state_version > version


def test_other_edits_leave_the_state_alone(accounts: Accounts, provider: Provider) -> None:
    account = accounts.create(body(provider))
    cooled(account)
    assert accounts.update(account.id, {"priority": 1, "api_key": KEY}).state == "cooling"


def test_a_new_credential_does_not_undo_a_persons_switch(accounts: Accounts, provider: Provider) -> None:
    account = accounts.create(body(provider))
    accounts.disable(account.id)
    assert accounts.update(account.id, {"api_key": "sk-another-0123456789"}).state == "disabled"
    accounts.validate(account.id)
    assert accounts.reset(account.id).state == "disabled"
    accounts.reset_all()
    assert accounts.get(account.id).state == "disabled"
    assert accounts.enable(account.id).state == "active"


def test_only_a_persons_states_can_be_set(accounts: Accounts, provider: Provider) -> None:
    account = accounts.create(body(provider))
    with pytest.raises(FieldError, match=r"^state: "):
        accounts.update(account.id, {"state": "cooling"})
    cooled(account)
    assert accounts.update(account.id, {"state": "cooling"}).state == "cooling"  # as it was shown
    assert accounts.update(account.id, {"state": "active"}).state == "cooling"  # the machine's, until it heals or reset


def test_reset_clears_cooling_counters_and_invalid(accounts: Accounts, provider: Provider) -> None:
    first, second = accounts.create(body(provider)), accounts.create(body(provider, name="two"))
    cooled(first)
    cooled(second, "invalid")
    versions = [first.state_version, second.state_version]
    accounts.reset_all()
    for account in (first, second):
        assert (account.state, account.state_reason, account.state_until) == ("active", None, None)
        assert (account.error_count, account.is_valid) == (0, True)
    assert [first.state_version, second.state_version] == [version + OVERTAKING for version in versions]


def test_validation_that_succeeds_heals(accounts: Accounts, provider: Provider) -> None:
    account = accounts.create(body(provider))
    cooled(account, "invalid")
    provider.body = {"data": [{"id": "model-c"}]}
    result = accounts.validate(account.id)
    assert result == {
        "id": account.id,
        "is_valid": True,
        "state": "active",
        "latency_ms": result["latency_ms"],
        "message": result["message"],
    }
    assert 0 <= result["latency_ms"] < 5000
    assert (account.error_count, account.listed_models) == (0, ["model-c"])


@pytest.mark.parametrize(
    "status, least, reason", [(429, 20, "rate limit reached"), (402, 3000, "quota or credit used up")]
)
def test_a_refusal_for_rate_or_quota_says_that_the_credential_is_good(
    accounts: Accounts, provider: Provider, status: int, least: int, reason: str
) -> None:
    account = accounts.create(body(provider))
    provider.status, provider.body = status, {"error": {"message": "later"}}
    result = accounts.validate(account.id)
    assert (result["is_valid"], result["state"]) == (True, "cooling")
    assert account.state_until
    assert account.state_until > datetime.now(UTC) + timedelta(seconds=least)
    assert account.state_reason == reason, "as the pool says it: clients are told 429, not 529"


def test_an_unreachable_provider_says_nothing_about_the_credential(accounts: Accounts, provider: Provider) -> None:
    account = accounts.create(body(provider))
    cooled(account)
    account.base_url = UNREACHABLE
    db.session.commit()
    result = accounts.validate(account.id)
    assert (result["is_valid"], result["state"]) == (True, "cooling")
    assert result["message"]


def test_all_accounts_are_validated_side_by_side(accounts: Accounts, provider: Provider) -> None:
    for name in "abc":
        accounts.create(body(provider, name=name))
    provider.asked.clear()
    accounts.update(accounts.named("c").id, {"base_url": UNREACHABLE})
    result = accounts.validate_all()
    assert (result["total"], result["valid"], result["invalid"]) == (3, 3, 0)
    assert [entry["id"] for entry in result["results"]] == [account.id for account in accounts.all()]


def test_an_account_that_is_deleted_meanwhile_does_not_disturb(accounts: Accounts, provider: Provider) -> None:
    account_id, engine = accounts.create(body(provider)).id, db.engine

    def delete() -> None:
        with engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM accounts"))

    provider.before_answer = delete
    assert accounts.validate_all()["results"] == []
    with pytest.raises(NotFound):
        accounts.validate(account_id)


def test_statistics_count_by_state_and_provider(accounts: Accounts, provider: Provider) -> None:
    for name, state in (("a", "active"), ("b", "cooling"), ("c", "invalid")):
        cooled(accounts.create(body(provider, name=name)), state)
    accounts.create(body(provider, provider="morph", state="disabled", name="d"))
    assert accounts.stats() == {
        "total": 4,
        "valid": 3,
        "invalid": 1,
        "cooling": 1,
        "disabled": 1,
        "usage_count": 0,
        "error_count": 12,
        "by_provider": {"openai": 3, "morph": 1},
    }


def test_what_a_refusal_taught_is_kept_until_the_credential_changes(accounts: Accounts, provider: Provider) -> None:
    account = accounts.create(body(provider))
    db.session.commit()
    accounts.learn(account.id, {"stream_options": False})
    accounts.learn(account.id, {"max_tokens": 100})
    db.session.refresh(account)
    assert account.learned_options == {"stream_options": False, "max_tokens": 100}
    assert accounts.update(account.id, {"options": {"max_tokens": 50}}).learned_options == {"stream_options": False}
    assert accounts.update(account.id, {"api_key": "sk-another-0123456789"}).learned_options == {}


def test_learning_about_an_account_that_is_gone_is_no_error(accounts: Accounts) -> None:
    accounts.learn(4711, {"stream_options": False})


def test_names_find_accounts(accounts: Accounts, provider: Provider) -> None:
    accounts.create(body(provider))
    accounts.create(body(provider, provider="morph"))
    assert accounts.named("one", "morph").provider == "morph"
    with pytest.raises(Conflict, match="PROVIDER/NAME"):
        accounts.named("one")
    with pytest.raises(NotFound):
        accounts.named("two")


def test_who_added_an_account_is_recorded(accounts: Accounts, provider: Provider, admin: User) -> None:
    assert accounts.create(body(provider), admin.id).user_id == admin.id


@pytest.mark.parametrize(
    "secret, shown", [(None, None), ("", None), ("short", "****"), ("sk-0123456789", "6789"), ("x" * 12, "xxxx")]
)
def test_at_most_the_last_four_characters_of_a_secret_are_shown(secret: str | None, shown: str | None) -> None:
    assert hint(secret) == shown


@pytest.mark.parametrize(
    "proxy, shown",
    [
        (None, None),
        ("http://proxy:3128", "http://proxy:3128"),
        ("http://user:secret@proxy:3128", "http://user:***@proxy:3128"),
        ("http://user:p@ss@proxy:3128", "http://user:***@proxy:3128"),
    ],
)
def test_a_proxys_password_is_never_shown(proxy: str | None, shown: str | None) -> None:
    assert shown_proxy(proxy) == shown
