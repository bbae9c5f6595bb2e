"""Rows, usage and states reach the database in batches; nothing is lost while it is away."""

import logging
import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import Any

import gevent
import pytest
import sqlalchemy as sa
from flask import Flask

from opus_api import config, create_app
from opus_api.config import Settings
from opus_api.extensions import db
from opus_api.models import OVERTAKING, Account, AccountEvent, ApiKey, RequestLog
from opus_api.services import statistics
from opus_api.services.request_log import AccountState, Recorder
from opus_api.services.spool import Spool
from opus_api.state.standing import RATE_REASON
from tests import bars

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def recorder(app: Flask) -> Recorder:
    found: Recorder = app.extensions["recorder"]
    return found


def row(request_id: str = "req_1", **more: Any) -> dict[str, Any]:
    named = {"dialect": "openai", "model": "m", "stream": True, "status": 200, "outcome": "ok"}
    return {"request_id": request_id, "time": NOW, **named, **more}


def rows() -> list[RequestLog]:
    db.session.rollback()
    return list(db.session.scalars(sa.select(RequestLog).order_by(RequestLog.id)))


@pytest.fixture
def account(app: Flask) -> Account:
    account = Account(provider="openai", name="one", usage_count=5)
    db.session.add(account)
    db.session.commit()
    return account


def test_a_row_is_written_whole_with_defaults_for_what_it_leaves_out(recorder: Recorder) -> None:
    recorder.record(row(key_id=7, input_tokens=12, client_ip="::1"))
    recorder.record(row("req_2", error_type="api_error"))
    recorder.flush()
    first, second = rows()
    assert (first.request_id, first.time, first.key_id, first.input_tokens, first.client_ip) == (
        "req_1",
        NOW,
        7,
        12,
        "::1",
    )
    assert (second.error_type, second.output_tokens, second.estimated, second.key_id) == ("api_error", 0, False, None)


def test_recording_does_not_touch_the_database(recorder: Recorder) -> None:
    recorder.began(row())
    recorder.record(row())
    assert rows() == []


def test_batches_of_any_length_use_a_few_statements_because_sqlite_keeps_each(recorder: Recorder) -> None:
    used: set[str] = set()
    sa.event.listen(db.engine, "before_cursor_execute", lambda *seen: used.add(seen[2]))
    for size in range(1, 60):
        for n in range(size):
            recorder.record(row(f"req_{size}_{n}"))
        recorder.flush()
    assert len(rows()) == sum(range(1, 60))
    inserts = [statement for statement in used if statement.startswith("INSERT INTO request_logs")]
    assert len(inserts) <= 20


def test_a_request_leaves_one_row_although_it_is_recorded_twice(recorder: Recorder) -> None:
    recorder.record(row(status=200))
    recorder.flush()
    recorder.record(row(status=500))
    recorder.record(row("req_2"))
    recorder.flush()
    assert [(entry.request_id, entry.status) for entry in rows()] == [("req_1", 200), ("req_2", 200)]


def test_many_rows_are_written_in_batches(recorder: Recorder) -> None:
    for i in range(1234):
        recorder.record(row(f"req_{i}"))
    recorder.flush()
    assert len(rows()) == 1234


def unix(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_uses_are_added_to_what_stands_there(recorder: Recorder, account: Account) -> None:
    updated = account.updated_at
    recorder.record(row(uses=[(account.id, 30.0), (account.id, 20.0)]))
    recorder.record(row("req_2", uses=[(account.id, 10.0), (account.id + 1, 40.0)]))
    recorder.flush()
    recorder.record(row("req_3", time=unix(5.0), uses=[(account.id, 5.0)]))  # a long answer, logged at its end
    recorder.flush()
    db.session.refresh(account)
    assert account.usage_count == 9
    assert account.last_used == unix(30.0)
    assert account.updated_at == updated  # being used is no edit


def test_credits_go_to_the_account_that_answered_once_for_each_row(recorder: Recorder, account: Account) -> None:
    answered = {"account_id": account.id, "uses": [(account.id, 20.0), (account.id, 30.0)], "credits": 0.25}
    recorder.record(row(**answered))
    recorder.record(row("req_2", **answered))
    recorder.flush()
    recorder.record(row("req_2", **answered))
    recorder.record(row("req_3", account_id=None, credits=0.0))
    recorder.flush()
    db.session.expire_all()
    assert (account.credits, account.usage_count) == (0.5, 5 + 4)


def test_a_keys_sums_grow(recorder: Recorder) -> None:
    key = ApiKey(name="k", key_hash="h", hint="hint")
    db.session.add(key)
    db.session.commit()
    tokens = {"input_tokens": 100, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 3, "output_tokens": 20}
    recorder.record(row(time=unix(11.0), key_id=key.id, **tokens))
    recorder.record(row("req_2", time=unix(10.0), key_id=key.id, input_tokens=1))
    recorder.flush()
    recorder.record(row("req_2", time=unix(12.0), key_id=key.id, input_tokens=1))  # its row is there already
    recorder.flush()
    db.session.refresh(key)
    assert (key.requests, key.input_tokens, key.output_tokens) == (2, 111, 20)
    assert key.last_used == unix(11.0)


def test_a_row_that_is_not_to_be_logged_is_counted(recorder: Recorder, account: Account) -> None:
    recorder.record(row(uses=[(account.id, 30.0)], logged=False))
    recorder.flush()
    db.session.refresh(account)
    assert (rows(), account.usage_count) == ([], 6)


def test_a_keys_month_begins_anew_and_what_comes_late_does_not_count_in_it(recorder: Recorder) -> None:
    key = ApiKey(name="k", key_hash="h", hint="hint")
    db.session.add(key)
    db.session.commit()
    seen = []
    for i, month in enumerate((1, 1, 2, 1, 2)):
        moment = datetime(2026, month, 3, tzinfo=UTC)
        recorder.record(row(f"req_{i}", key_id=key.id, time=moment, input_tokens=100, output_tokens=20))
        recorder.flush()
        db.session.refresh(key)
        seen.append((key.month, key.month_tokens))
    first, second = "2026-01", "2026-02"
    assert seen == [(first, 120), (first, 240), (second, 120), (second, 120), (second, 240)]


def cooling(account: Account, version: int = 0, **more: Any) -> AccountState:
    named = {"state": "cooling", "reason": "429", "until": 2e9, "error_count": 2, "is_valid": True}
    named |= {"was": "active", "time": 1e9}
    return AccountState(**{"account_id": account.id, "version": version, **named, **more})


def test_rows_are_in_the_statistics_once_logged_or_not(recorder: Recorder) -> None:
    recorder.record(row("req_1"))
    recorder.record(row("req_2", logged=False))
    recorder.flush()
    recorder.record(row("req_1"))
    recorder.flush()
    with db.engine.connect() as connection:
        assert [found["requests"] for found in statistics.answer(connection, "day")] == [2]


def test_a_state_is_written_and_counted(recorder: Recorder, account: Account) -> None:
    recorder.account_state(cooling(account))
    recorder.account_state(cooling(account, 1, state="active", reason=None, until=None, error_count=0))
    recorder.account_state(cooling(account, 2, state="invalid", reason="401", until=None, is_valid=False))
    recorder.flush()
    db.session.refresh(account)
    assert (account.state, account.state_reason, account.is_valid, account.state_version) == (
        "invalid",
        "401",
        False,
        3,
    )


def test_each_change_of_state_leaves_an_event(recorder: Recorder, account: Account) -> None:
    recorder.account_state(cooling(account))
    recorder.account_state(cooling(account, 1, was="cooling", error_count=3))
    recorder.account_state(cooling(account, 2, was="cooling", state="invalid", reason="401", until=None))
    recorder.flush()
    events = db.session.scalars(sa.select(AccountEvent).order_by(AccountEvent.id)).all()
    assert [(e.who, e.before, e.after, e.reason) for e in events] == [
        ("machine", "active", "cooling", "429"),
        ("machine", "cooling", "invalid", "401"),
    ]
    assert {(e.account_id, e.time) for e in events} == {(account.id, datetime.fromtimestamp(1e9, UTC))}


def test_of_two_workers_changes_the_newer_stays_whoever_writes_first(recorder: Recorder, account: Account) -> None:
    recorder.account_state(cooling(account, 1, state="invalid", reason="401", until=None))
    recorder.account_state(cooling(account, 0))
    recorder.flush()
    db.session.refresh(account)
    assert (account.state, account.state_version) == ("invalid", 2)


@pytest.mark.parametrize("until, kept", [(None, 2e9), (1.9e9, 2e9), (2.1e9, 2.1e9)])
def test_no_cooldown_is_lost_to_what_another_worker_counts(
    recorder: Recorder, account: Account, until: float | None, kept: float
) -> None:
    other = {"state": "cooling" if until else "active", "until": until, "error_count": 1}
    recorder.account_state(cooling(account, 7, **other))
    recorder.account_state(cooling(account, 7))
    recorder.flush()
    db.session.refresh(account)
    assert (account.state, account.state_until) == ("cooling", datetime.fromtimestamp(kept, UTC))
    assert account.state_version == (9 if kept == 2e9 else 8)


@pytest.mark.parametrize(
    "later, kept",
    [
        ({"state": "active", "until": None}, ("cooling", 2e9)),  # an error was counted
        ({"until": 1.9e9}, ("cooling", 2e9)),
        ({"until": 2.1e9}, ("cooling", 2.1e9)),
        ({"state": "active", "until": None, "was": "cooling"}, ("active", None)),  # it was taken back
        ({"state": "active", "until": None, "time": 2e9}, ("active", None)),  # it is over
        ({"state": "invalid", "until": None}, ("invalid", None)),
    ],
)
def test_a_cooldown_outlasts_what_another_worker_counted_and_writes_later(
    recorder: Recorder, account: Account, later: dict[str, Any], kept: tuple[str, float | None]
) -> None:
    recorder.account_state(cooling(account))
    recorder.account_state(cooling(account, 3, error_count=7, **later))
    recorder.flush()
    db.session.refresh(account)
    until = kept[1] and datetime.fromtimestamp(kept[1], UTC)
    assert (account.state, account.state_until, account.error_count) == (kept[0], until, 7)
    assert account.state_version == (5 if kept == ("cooling", 2e9) else 4)  # whoever knew 4 learns of it


@pytest.mark.parametrize("first, second", [(0, 3), (3, 0)])
def test_an_account_that_one_worker_took_out_stays_out_whatever_another_counted(
    recorder: Recorder, account: Account, first: int, second: int
) -> None:
    for version in (first, second):
        more = {"state": "active", "until": None} if version else {"state": "invalid", "until": None, "is_valid": False}
        recorder.account_state(cooling(account, version, **more))
    recorder.flush()
    db.session.refresh(account)
    assert (account.state, account.is_valid, account.state_version) == ("invalid", False, 5)


@pytest.mark.parametrize("reason, kept", [("failed 3 times: 500", "active"), (RATE_REASON, "cooling")])
def test_a_cooldown_that_comes_late_does_not_undo_that_another_worker_took_it_back(
    recorder: Recorder, account: Account, reason: str, kept: str
) -> None:
    back = {"state": "active", "until": None, "was": "cooling", "time": 1e9 + 0.5}  # the outage of its site was told
    recorder.account_state(cooling(account, 1, reason=None, **back))
    recorder.account_state(cooling(account, reason=reason))
    recorder.flush()
    db.session.refresh(account)
    assert account.state == kept  # what was for a limit, an outage does not lift


@pytest.mark.parametrize("known", [3, 9])  # 9: changes of the worker's own are still to be written
def test_a_persons_newer_change_wins(recorder: Recorder, account: Account, known: int) -> None:
    account.state_version = 3 + OVERTAKING
    db.session.commit()
    recorder.account_state(cooling(account, known))
    recorder.flush()
    db.session.refresh(account)
    assert (account.state, account.state_version) == ("active", 3 + OVERTAKING)


def test_the_machine_never_changes_what_a_person_disabled(recorder: Recorder, account: Account) -> None:
    account.state = "disabled"
    db.session.commit()
    recorder.account_state(cooling(account))
    recorder.flush()
    db.session.refresh(account)
    assert (account.state, account.state_version) == ("disabled", 0)


def test_what_the_database_does_not_take_is_kept(
    recorder: Recorder, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    working = db.engine
    monkeypatch.setattr(recorder, "_engine", sa.create_engine("sqlite:////nowhere/at/all.db"))
    for i in range(3):
        recorder.record(row(f"req_{i}"))
    recorder.account_state(cooling(account))
    recorder.flush()
    recorder.record(row("req_3", uses=[(account.id, 1.0)]))
    recorder.flush()
    monkeypatch.setattr(recorder, "_engine", working)
    recorder.flush()
    assert [entry.request_id for entry in rows()] == ["req_0", "req_1", "req_2", "req_3"]
    db.session.refresh(account)
    assert (account.usage_count, account.state) == (6, "cooling")


def test_what_accounts_went_through_in_an_outage_is_written_in_parts(
    recorder: Recorder, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[object] = []
    commit = recorder._commit
    monkeypatch.setattr(recorder, "_commit", lambda write: (begun.append(write), commit(write)))
    for version in range(0, 2000, 2):  # each request fails first
        recorder.account_state(cooling(account, version, was="cooling", error_count=1))
        recorder.account_state(cooling(account, version + 1, was="cooling", error_count=0))
    recorder.flush()
    assert len(begun) == 1  # nobody asks what the count was in between
    for version in range(2000, 2200):
        was, state = ("cooling", "active") if version % 2 == 0 else ("active", "cooling")
        recorder.account_state(cooling(account, version, was=was, state=state))
    recorder.flush()
    assert len(begun) == 5
    db.session.refresh(account)
    assert account.state_version == 2200
    assert db.session.scalar(sa.select(sa.func.count()).select_from(AccountEvent)) == 200


@pytest.mark.chaos
def test_256_mib_of_rows_wait_for_a_database_that_is_away(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    working = db.engine
    monkeypatch.setattr(recorder, "_engine", sa.create_engine("sqlite:////nowhere/at/all.db"))
    took = []
    while not recorder.log_dropped_total:
        began = time.perf_counter()
        recorder.began(row(f"req_{len(took)}"))
        recorder.record(row(f"req_{len(took)}", input_tokens=1, client_ip="192.0.2.1"))
        took.append((time.perf_counter() - began) * 1e6)
    waiting = sum(file.stat().st_size for file in (settings.data_dir / "spool").rglob("*"))
    monkeypatch.setattr(recorder, "_engine", working)
    began = time.perf_counter()
    recorder.flush()
    seconds = time.perf_counter() - began
    stored = db.session.scalar(sa.select(sa.func.count()).select_from(RequestLog)) or 0
    bars.report(
        11,
        spooled_mib=waiting / 2**20,
        rows=len(took),
        dropped=recorder.log_dropped_total,
        stored=stored,
        stored_in_s=seconds,
        row_p99_us=quantiles(took, n=100)[98],
    )
    assert waiting >= 255 * 2**20
    assert stored == len(took) - recorder.log_dropped_total


def test_a_row_that_no_database_takes_holds_up_no_other(recorder: Recorder) -> None:
    for i in range(5):
        recorder.record(row(f"req_{i}", status=None if i == 2 else 200))
    recorder.flush()
    assert [entry.request_id for entry in rows()] == ["req_0", "req_1", "req_3", "req_4"]
    assert recorder.log_dropped_total == 1


def test_rows_without_room_are_counted_and_said_once(
    recorder: Recorder, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("opus_api").addHandler(caplog.handler)
    (settings.data_dir / "spool").write_text("where the folder should be")
    for i in range(3):
        recorder.began(row(f"req_{i}"))
        recorder.record(row(f"req_{i}"))
    (settings.data_dir / "spool").unlink()
    recorder.record(row("req_3"))
    recorder.flush()
    assert [entry.request_id for entry in rows()] == ["req_3"]
    assert recorder.log_dropped_total == 3
    assert caplog.text.count("the request log has no room") == 1


def test_a_killed_workers_rows_are_stored_once_and_what_it_did_not_end_is_aborted(
    recorder: Recorder, account: Account, settings: Settings, tmp_path: Path
) -> None:
    dead = Spool(settings.data_dir / "spool")
    dead.began(row("req_0", client_ip="::1"))
    for i in range(1, 4):
        dead.began(row(f"req_{i}"))
        dead.ended(row(f"req_{i}", uses=[(account.id, 1.0)]))
    recorder.adopt()
    assert rows() == []  # it lives
    for descriptor in (dead._file, dead._lock):
        os.close(descriptor)
    shutil.copytree(dead._folder or "", tmp_path / "kept")
    recorder.adopt()
    assert [(entry.request_id, entry.outcome, entry.client_ip) for entry in rows()] == [
        *((f"req_{i}", "ok", None) for i in range(1, 4)),
        ("req_0", "aborted", "::1"),
    ]
    assert list((settings.data_dir / "spool").iterdir()) == []

    shutil.copytree(tmp_path / "kept", settings.data_dir / "spool" / "again")  # as if deleting had not come to pass
    recorder.adopt()
    db.session.refresh(account)
    assert (len(rows()), account.usage_count) == (4, 8)


def test_what_ran_when_the_worker_stopped_is_aborted_by_the_next(recorder: Recorder, settings: Settings) -> None:
    recorder.began(row("req_0"))
    recorder.began(row("req_1"))
    recorder.record(row("req_1"))
    recorder.stop()
    assert [entry.request_id for entry in rows()] == ["req_1"]
    recorder.adopt()
    assert [(entry.request_id, entry.outcome) for entry in rows()] == [("req_1", "ok"), ("req_0", "aborted")]


def test_a_stop_with_nothing_open_leaves_nothing(recorder: Recorder, settings: Settings) -> None:
    recorder.began(row())
    recorder.record(row())
    recorder.stop()
    assert list((settings.data_dir / "spool").iterdir()) == []


def test_the_writer_writes_each_second_and_a_state_at_once(recorder: Recorder, account: Account) -> None:
    recorder.start()
    gevent.sleep(0)
    begun = time.monotonic()
    recorder.record(row())
    recorder.account_state(cooling(account))
    while not rows() and time.monotonic() - begun < 3:
        gevent.sleep(0.01)
    assert time.monotonic() - begun < 0.5
    recorder.record(row("req_2"))
    while len(rows()) < 2 and time.monotonic() - begun < 5:
        gevent.sleep(0.01)
    assert 0.5 < time.monotonic() - begun < 2
    recorder.record(row("req_3"))
    recorder.stop()
    assert len(rows()) == 3


def test_the_same_on_postgresql(postgresql: str, tmp_path: Any) -> None:
    from flask_migrate import upgrade

    environment = {"DATA_DIR": str(tmp_path), "SECRET_KEY": "any", "DATABASE_URL": postgresql}
    app = create_app(config.load(tmp_path, environment))
    with app.app_context():
        upgrade()
        account = Account(provider="openai", name="one")
        key = ApiKey(name="k", key_hash="h", hint="hint")
        db.session.add_all([account, key])
        db.session.commit()
        recorder: Recorder = app.extensions["recorder"]
        for request_id in ("req_1", "req_1", "req_2"):
            recorder.record(row(request_id, key_id=key.id, input_tokens=1, output_tokens=2, uses=[(account.id, 10.0)]))
            recorder.flush()
        recorder.account_state(cooling(account))
        recorder.flush()
        assert len(rows()) == 2
        assert (account.usage_count, account.state, account.state_version) == (2, "cooling", 1)
        assert (key.requests, key.input_tokens, key.output_tokens) == (2, 2, 4)
        db.session.remove()
        db.engine.dispose()
