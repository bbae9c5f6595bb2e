"""What the service does by itself: ask about accounts, delete what is old."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner

from opus_api.extensions import db
from opus_api.models import Account, Refusal, RequestLog, User, UserSession, now
from opus_api.services import exchange_log, retention, settings, statistics, upkeep
from opus_api.services.upkeep import Means
from tests.conftest import Provider


@pytest.fixture
def means(app: Flask) -> Means:
    return Means(db.engine, app.extensions["accounts"], exchange_log.root(app.extensions["settings"]))


def account(provider: Provider, **more: Any) -> Account:
    name = more.pop("name", "one")
    made = Account(provider="openai", name=name, api_key="sk-up-0123456789", base_url=provider.url, **more)
    db.session.add(made)
    db.session.commit()
    return made


def shown(made: Account) -> tuple[str, list[str] | None]:
    db.session.refresh(made)
    return made.state, made.listed_models


# ---- validation


def test_validating_asks_once_finds_refused_credentials_and_refreshes_the_lists(
    means: Means, provider: Provider
) -> None:
    made = account(provider, listed_models=["old"])
    assert upkeep.validate_accounts(means) == "1 accounts valid, 0 invalid"
    assert shown(made) == ("active", ["model-a", "model-b"])
    provider.status, provider.body = 401, {"error": {"message": "wrong key"}}
    assert upkeep.validate_accounts(means) == "0 accounts valid, 1 invalid"
    assert shown(made)[0] == "invalid"
    assert [path for path, _ in provider.asked] == ["/v1/models"] * 2  # spends no tokens


@pytest.mark.parametrize("state", ["disabled", "invalid"])
def test_accounts_that_are_out_are_not_asked(means: Means, provider: Provider, state: str) -> None:
    account(provider, state=state)
    assert upkeep.validate_accounts(means) == "0 accounts valid, 0 invalid"
    assert provider.asked == []


def test_a_provider_in_trouble_says_nothing_about_its_accounts(means: Means, provider: Provider) -> None:
    made = account(provider)
    provider.status = 503
    upkeep.validate_accounts(means)
    assert shown(made)[0] == "active"


def test_at_most_five_are_asked_at_once(means: Means, provider: Provider) -> None:
    live: list[int] = []
    most: list[int] = []

    def answer() -> None:
        live.append(1)
        most.append(len(live))
        time.sleep(0.05)
        live.pop()

    provider.before_answer = answer
    for i in range(12):
        account(provider, name=f"account {i}")
    upkeep.validate_accounts(means)
    assert len(provider.asked) == 12
    assert max(most) <= 5


def test_an_answer_about_a_credential_that_was_changed_meanwhile_is_dropped(
    app: Flask, api: FlaskClient, means: Means, provider: Provider
) -> None:
    made = account(provider)
    provider.status, provider.body = 401, {"error": {"message": "wrong key"}}

    def change() -> None:
        with means.engine.begin() as connection:
            connection.execute(sa.update(Account.__table__).values(base_url=f"{provider.url}/new"))

    provider.before_answer = change
    upkeep.validate_accounts(means)
    assert shown(made)[0] == "active"


# ---- probes of invalid accounts


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], datetime]:
    """Moves the time that probes are planned by."""
    moment = [now()]

    def later(minutes: int) -> datetime:
        moment[0] += timedelta(minutes=minutes)
        return moment[0]

    monkeypatch.setattr(upkeep, "now", lambda: moment[0])
    return later


def asked(means: Means, provider: Provider) -> int:
    before = len(provider.asked)
    upkeep.probe_invalid_accounts(means)
    return len(provider.asked) - before


def test_a_refused_credential_is_probed_after_5_30_and_120_minutes_and_then_left_alone(
    means: Means, provider: Provider, clock: Callable[[int], datetime]
) -> None:
    account(provider, state="invalid", is_valid=False, state_reason="401")
    provider.status = 401
    probes, minute = [], 0
    for step in (0, 4, 1, 1, 23, 1, 1, 89, 1, 1, 10_000):
        minute += step
        clock(step)
        probes += [minute] * asked(means, provider)
    assert probes == [5, 30, 120]


def test_a_probe_heals_and_an_edit_begins_a_new_series(
    means: Means, provider: Provider, clock: Callable[[int], datetime]
) -> None:
    made = account(provider, state="invalid", is_valid=False)
    asked(means, provider)
    clock(5)
    assert asked(means, provider) == 1
    assert shown(made)[0] == "active"
    made.state, made.state_version = "invalid", 7
    db.session.commit()
    assert asked(means, provider) == 0
    clock(4)
    assert asked(means, provider) == 0
    clock(1)
    assert asked(means, provider) == 1


def test_a_suspended_account_is_never_probed(
    means: Means, provider: Provider, clock: Callable[[int], datetime]
) -> None:
    account(provider, state="invalid", is_valid=False, state_reason="Suspended by the provider")
    for _ in range(5):
        assert asked(means, provider) == 0
        clock(60)


# ---- retention


def log_rows(count: int, days: float) -> None:
    plain = {"dialect": "openai", "model": "m", "stream": True, "status": 200, "outcome": "ok"}
    moment = now() - timedelta(days=days)
    rows = [{"request_id": f"req_{days}_{i}", "time": moment, **plain} for i in range(count)]
    db.session.execute(sa.insert(RequestLog), rows)
    db.session.commit()


def left() -> int:
    return db.session.scalar(sa.select(sa.func.count()).select_from(RequestLog)) or 0


def test_rows_go_after_30_days_or_as_the_setting_says(means: Means) -> None:
    log_rows(3, 31)
    log_rows(2, 29)
    assert upkeep.purge_logs(means) == "3 rows deleted"
    settings.put("logRetentionDays", 10)
    db.session.commit()
    assert upkeep.purge_logs(means) == "2 rows deleted"


def test_the_log_is_kept_within_its_room(means: Means, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "ROW_SIZE", 2**20 // 4)  # four rows are a MiB
    log_rows(3, 5)
    log_rows(4, 1)
    settings.put("logRetentionMiB", 2)
    db.session.commit()
    assert upkeep.purge_logs(means) == "0 rows deleted"
    settings.put("logRetentionMiB", 1)
    db.session.commit()
    assert upkeep.purge_logs(means) == "3 rows deleted"
    assert all(name.startswith("req_1_") for name in db.session.scalars(sa.select(RequestLog.request_id)))


def test_counts_of_refusals_go_as_rows_do(means: Means) -> None:
    minute = int(now().timestamp()) // 60
    days = {age: minute - age * 24 * 60 for age in (29, 31)}
    with db.engine.begin() as connection:
        for at in days.values():
            statistics.add_refusals(connection, {(at, f"192.0.2.{n}", 401): 1 for n in range(250)})
    assert upkeep.purge_refusals(means) == "250 counts deleted"
    assert set(db.session.scalars(sa.select(Refusal.minute))) == {days[29]}


@contextmanager
def another_writer(begin: Callable[[], None], end: Callable[[], None]) -> Iterator[list[float]]:
    """How long each of another connection's transactions waited for its turn meanwhile, in seconds."""
    waits: list[float] = []
    over = threading.Event()

    def write() -> None:
        while not over.wait(0.0005):
            began = time.monotonic()
            begin()
            waits.append(time.monotonic() - began)
            end()

    thread = threading.Thread(target=write)
    thread.start()
    yield waits
    over.set()
    thread.join()


def test_while_20000_rows_are_deleted_another_connection_waits_less_than_100_ms(means: Means) -> None:
    log_rows(20_000, 40)
    path = means.engine.url.database
    assert path
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)) as other:

        def begin() -> None:
            while True:
                with suppress(sqlite3.OperationalError):  # its own waiting would look again after 100 ms only
                    other.execute("BEGIN IMMEDIATE")
                    return
                time.sleep(0.0005)

        with another_writer(begin, other.rollback) as waits:
            assert retention.purge_logs(means.engine, 30) == 20_000
    assert len(waits) > 100
    assert max(waits) < 0.1
    assert left() == 0


def test_expired_sign_ins_go(means: Means, admin: User) -> None:
    for hours in (-1, 1):
        ends = now() + timedelta(hours=hours)
        db.session.add(UserSession(user_id=admin.id, token_hash=str(hours), kind="jwt", expires_at=ends))
    db.session.commit()
    assert upkeep.purge_sessions(means) == "1 sessions deleted"
    assert db.session.scalars(sa.select(UserSession.token_hash)).all() == ["1"]


def test_the_operator_purges_by_hand(runner: FlaskCliRunner) -> None:
    log_rows(3, 5)
    log_rows(2, 1)
    assert runner.invoke(args=["logs", "purge", "--json"]).output == '{"deleted": 0}\n'
    assert runner.invoke(args=["logs", "purge", "--days", "3"]).output == "Deleted 3 rows older than 3 days.\n"
    assert runner.invoke(args=["logs", "purge", "--days", "-1"]).exit_code != 0
