"""Accounts that were deleted: gone from everywhere, back as they were, or erased."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from opus_api.extensions import db
from opus_api.models import OVERTAKING, Account, Change, DeletedAccount, User, now
from opus_api.services import audit, deleted_accounts, rekeying, upkeep, users
from opus_api.services.accounts import Accounts
from opus_api.wire.errors import Conflict, NotFound

KEY = "sk-upstream-0123456789"


@pytest.fixture
def accounts(app: Flask) -> Accounts:
    found: Accounts = app.extensions["accounts"]
    return found


def add(name: str = "one", **columns: Any) -> Account:
    account = Account(provider="openai", name=name, api_key=KEY, **columns)
    db.session.add(account)
    db.session.commit()
    return account


def values(account: Account) -> dict[str, Any]:
    return {column.name: getattr(account, column.name) for column in Account.__table__.columns}


def test_a_restored_account_is_as_it_was_and_newer_than_what_workers_know(accounts: Accounts, admin: User) -> None:
    account = add(
        user_id=admin.id,
        base_url="https://models.example/v1",
        proxy="http://u:p@proxy.example:1",
        model_map={"claude-*": "m"},
        listed_models=["m"],
        listed_at=now(),
        state="cooling",
        state_until=now() + timedelta(hours=1),
        state_version=7,
        usage_count=12,
        refresh_token="refresh-1",
        token_expires_at=now(),
        oidc={"region": "us-east-1"},
        credits=1.5,
    )
    db.session.refresh(account)
    before = values(account)
    accounts.delete(account.id)
    assert accounts.all() == []
    restored = values(deleted_accounts.restore(before["id"]))
    assert restored == before | {"state_version": 7 + OVERTAKING}
    assert deleted_accounts.count() == 0


def test_a_deleted_account_serves_no_more_and_its_name_is_free(app: Flask, accounts: Accounts) -> None:
    account_id = add().id
    assert [known.id for known in app.extensions["snapshots"].current().accounts] == [account_id]
    accounts.delete(account_id)
    assert app.extensions["snapshots"].current().accounts == ()
    with pytest.raises(NotFound):
        accounts.delete(account_id)
    other = add()
    with pytest.raises(Conflict, match="name: openai has another account named 'one'"):
        deleted_accounts.restore(account_id)
    accounts.update(other.id, {"name": "two"})
    assert deleted_accounts.restore(account_id).name == "one"


def test_deleted_accounts_are_encrypted_and_follow_a_new_key(accounts: Accounts) -> None:
    accounts.delete(add().id)
    stored = sa.text("SELECT kept FROM deleted_accounts")
    before = db.session.execute(stored).scalar_one()
    assert KEY not in before
    db.session.rollback()
    assert rekeying.rotate(db.engine) == 2  # and what the installation's keys are made of
    assert db.session.execute(stored).scalar_one() != before
    assert KEY in db.session.scalars(sa.select(DeletedAccount.kept)).one()


def test_erasing_leaves_nothing_of_the_credential(accounts: Accounts) -> None:
    account_id = add().id
    accounts.delete(account_id)
    deleted_accounts.erase(account_id)
    assert deleted_accounts.all_() == []
    with pytest.raises(NotFound):
        deleted_accounts.restore(account_id)
    said = db.session.scalars(sa.select(Change.after).order_by(Change.id)).all()
    assert said == ["deleted", "erased"]


def test_after_thirty_days_they_are_erased(accounts: Accounts, tmp_path: Path) -> None:
    for name, days in (("old", 31), ("young", 29)):
        account_id = add(name).id
        accounts.delete(account_id)
        deleted_accounts.get(account_id).deleted_at = now() - timedelta(days=days)
        db.session.commit()
    assert upkeep.purge_deleted_accounts(upkeep.Means(db.engine, accounts, tmp_path)) == "1 accounts erased"
    assert [kept.name for kept in deleted_accounts.all_()] == ["young"]


def test_an_account_outlives_its_owner(accounts: Accounts, admin: User) -> None:
    users.create("other", "a long password 1")
    account_id = add(user_id=users.named("other").id).id
    accounts.delete(account_id)
    users.delete(users.named("other"))
    assert deleted_accounts.restore(account_id).user_id is None


def test_a_row_of_a_version_that_knew_other_columns_is_restored(accounts: Accounts) -> None:
    kept = '{"id": 5, "provider": "openai", "name": "one", "state_version": 1, "of_another_version": 1}'
    db.session.add(DeletedAccount(id=5, provider="openai", name="one", deleted_by="admin", kept=kept))
    db.session.commit()
    assert deleted_accounts.restore(5).state == "active"


def test_who_deleted_it_is_told(accounts: Accounts) -> None:
    account_id = add().id
    audit.acts("ada")
    accounts.delete(account_id)
    assert deleted_accounts.get(account_id).deleted_by == "ada"


def test_over_the_json_api_an_account_is_restored_or_erased(api: FlaskClient) -> None:
    account_id = add().id
    api.delete(f"/v2/accounts/{account_id}")
    listed = api.get("/v2/accounts/deleted").json or {}
    (row,) = listed["data"]
    shown = {"id": account_id, "provider": "openai", "name": "one", "deleted_by": "admin"}
    assert (listed["total"], {name: row[name] for name in shown}) == (1, shown)
    assert datetime.fromisoformat(row["erased_at"]) - datetime.fromisoformat(row["deleted_at"]) == timedelta(days=30)
    restored = api.post(f"/v2/accounts/deleted/{account_id}/restore")
    assert (restored.status_code, restored.json) == (200, api.get(f"/api/cookies/{account_id}").json)
    api.delete(f"/v2/accounts/{account_id}")
    other = add().id
    assert api.post(f"/v2/accounts/deleted/{account_id}/restore").status_code == 409
    assert api.delete(f"/v2/accounts/deleted/{account_id}").status_code == 204
    for method, path in (("DELETE", ""), ("POST", "/restore")):
        for absent in (account_id, other, 2**70):
            assert api.open(f"/v2/accounts/deleted/{absent}{path}", method=method).status_code == 404
    assert api.get("/v2/accounts/deleted").json == {"data": [], "total": 0}


@pytest.mark.parametrize("path", ["/api/cookies/{}", "/v2/accounts/{}"])
def test_over_the_json_api_a_deleted_account_is_gone(api: FlaskClient, path: str) -> None:
    path = path.format(add().id)
    assert api.delete(path).status_code == 204
    assert api.delete(path).status_code == 404
