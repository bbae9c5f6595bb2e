"""The snapshot holds what the hot path needs, and follows every change."""

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import gevent
import pytest
import sqlalchemy as sa
from flask import Flask
from gevent.event import Event
from sqlalchemy.orm import Session

from opus_api import crypto
from opus_api.extensions import db
from opus_api.models import Account, ApiKey, ModelRule, RequestLog, Setting, User
from opus_api.services import api_keys, model_rules, snapshot
from opus_api.services import settings as saved
from opus_api.services.settings import Installation
from opus_api.services.snapshot import Snapshot, Snapshots, load
from tests.bars import report


@pytest.fixture
def snapshots(app: Flask) -> Iterator[Snapshots]:
    found: Snapshots = app.extensions["snapshots"]
    yield found
    found.stop()


def account(**columns: object) -> Account:
    return Account(**{"provider": "openai", "name": "one", "api_key": "sk-1", **columns})


def add(row: object) -> None:
    db.session.add(row)
    db.session.commit()


def elsewhere() -> Session:
    """A session of another process: what is committed here raises no event that our snapshots see."""
    return Session(db.engine)


def test_an_accounts_options_are_complete(snapshots: Snapshots) -> None:
    add(account(options={"vision": False}, learned_options={"stream_options": False, "vision": True}))
    options = snapshots.current().accounts[0].credentials.options
    assert options["vision"] is False  # set by a person
    assert options["stream_options"] is False  # learned
    assert options["parallel_tool_calls"] is True  # the provider's default


@pytest.mark.parametrize(
    "base_url, used", [(None, "https://api.openai.com/v1"), ("https://here.example/v1", "https://here.example/v1")]
)
def test_the_base_url_is_the_providers_unless_set(snapshots: Snapshots, base_url: str | None, used: str) -> None:
    add(account(base_url=base_url))
    assert snapshots.current().accounts[0].credentials.base_url == used


def test_values_are_plain(snapshots: Snapshots) -> None:
    until = datetime(2030, 1, 1, tzinfo=UTC)
    add(account(models=["gpt-*"], listed_models=["gpt-5"], state="cooling", state_until=until, priority=5))
    value = snapshots.current().accounts[0]
    assert (value.models, value.listed_models) == (("gpt-*",), ("gpt-5",))
    assert (value.state, value.state_until, value.priority) == ("cooling", until.timestamp(), 5)
    assert value.credentials.api_key == "sk-1"
    assert "sk-1" not in repr(value)


def test_an_account_of_an_unknown_provider_is_left_out_with_a_line(
    snapshots: Snapshots, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("opus_api").addHandler(caplog.handler)
    add(account(provider="of-tomorrow"))
    assert snapshots.current().accounts == ()
    assert "has no provider 'of-tomorrow'" in caplog.text


def test_keys_are_found_by_their_hash_until_revoked(app: Flask, snapshots: Snapshots) -> None:
    owner: Installation = app.extensions["installation"]
    key, value = api_keys.create(owner.pepper, {"name": "one", "override": True})
    snapshot = snapshots.current()
    assert snapshot.keys[crypto.keyed_hash(snapshot.pepper, value)].override is True
    api_keys.revoke(key)
    assert snapshots.current().keys == {}


def test_a_thousand_accounts_are_loaded_without_holding_others_up(snapshots: Snapshots) -> None:
    secret = "sk-" + "x" * 100
    db.session.add_all(
        account(name=str(i), api_key=secret, proxy=f"http://user:{secret}@proxy.example", access_token=secret, oidc={})
        for i in range(1000)
    )
    db.session.commit()
    ours: list[float] = []  # processor seconds of this thread; how long the machine lets it wait is no matter of ours
    pauses: list[float] = []

    def tick() -> None:
        worked, last = time.thread_time(), time.perf_counter()
        while True:
            gevent.sleep(0.001)
            ours.append(time.thread_time() - worked)
            pauses.append(time.perf_counter() - last)
            worked, last = time.thread_time(), time.perf_counter()

    ticking = gevent.spawn(tick)
    gevent.sleep(0.01)
    ours.clear()
    pauses.clear()
    assert len(snapshots.current().accounts) == 1000
    gevent.sleep(0.01)
    ticking.kill()
    report(13, longest_pause_ms_while_1000_accounts_are_read=max(ours) * 1000)
    assert max(ours) < 0.25, "30 ms, and what a machine that four tests share takes longer for the same work"
    assert max(pauses) < 1.0, "it waits for nothing that takes its time"


def test_rules_keep_their_order(snapshots: Snapshots) -> None:
    for pattern in ("z-*", "a-*", "m-*"):
        model_rules.put(pattern, "openai/x")
    assert list(snapshots.current().rules) == ["z-*", "a-*", "m-*"]


def test_settings_hold_what_a_person_saved_and_nothing_of_ours(snapshots: Snapshots) -> None:
    saved.put("rotationStrategy", "least_used")
    db.session.commit()
    snapshot = snapshots.current()
    assert snapshot.settings == {"rotationStrategy": "least_used"}
    assert snapshot.real_account_seen is False
    assert len(snapshot.installation_id) == 36


def test_without_a_change_the_same_snapshot_comes_without_a_query(snapshots: Snapshots) -> None:
    first = snapshots.current()
    queries: list[str] = []
    sa.event.listen(db.engine, "before_cursor_execute", lambda *arguments: queries.append(arguments[2]))
    assert snapshots.current() is first
    assert queries == []


@pytest.mark.parametrize(
    "row",
    [
        account,
        lambda: ApiKey(name="k", key_hash="h", hint="hint"),
        lambda: ModelRule(pattern="a", target="b"),
        lambda: Setting(key="rotationStrategy", value="priority"),
    ],
)
def test_a_change_of_this_process_is_seen_at_once(snapshots: Snapshots, row: object) -> None:
    seen = snapshots.current()
    entry = row()  # type: ignore[operator]
    add(entry)
    assert snapshots.current() is not seen
    seen = snapshots.current()
    db.session.delete(entry)
    db.session.commit()
    assert snapshots.current() is not seen


def test_what_a_snapshot_does_not_hold_changes_nothing(snapshots: Snapshots) -> None:
    seen = snapshots.current()
    add(User(username="somebody", password_hash="x"))
    add(
        RequestLog(
            request_id="r", time=datetime.now(UTC), dialect="openai", model="m", stream=False, status=200, outcome="ok"
        )
    )
    db.session.rollback()
    assert snapshots.current() is seen


def test_a_change_that_was_rolled_back_changes_nothing(snapshots: Snapshots) -> None:
    seen = snapshots.current()
    db.session.add(account())
    db.session.flush()
    db.session.rollback()
    db.session.commit()
    assert snapshots.current() is seen


def test_a_change_of_another_process_is_seen_within_a_second(snapshots: Snapshots) -> None:
    snapshots.start()
    with db.engine.begin() as connection:
        connection.execute(sa.insert(ModelRule).values(pattern="a", target="b"))
        connection.execute(sa.update(Setting).where(Setting.key == saved.VERSION).values(value=1))
    begun = time.monotonic()
    while not snapshots.current().rules and time.monotonic() - begun < 3:
        gevent.sleep(0.05)
    assert snapshots.current().rules == {"a": "b"}
    assert time.monotonic() - begun < 1.5


def test_what_changed_while_a_worker_was_starting_is_known_when_it_serves(snapshots: Snapshots) -> None:
    db.session.add(account())
    db.session.commit()
    snapshots.start()
    snapshots.watch_closely(60.0)
    with db.engine.begin() as connection:  # by the worker before
        connection.execute(sa.update(Account).values(state="cooling", state_version=Account.state_version + 1))
    gevent.sleep(0)  # what has waited for the start to end runs
    assert [one.state for one in snapshots.current().accounts] == ["cooling"]


def test_an_accounts_state_that_could_not_be_read_is_read_at_the_next_look(
    snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(account())
    snapshots.watch_closely(60.0)
    snapshots.refresh()
    with db.engine.begin() as connection:
        connection.execute(sa.update(Account).values(state="cooling", state_version=Account.state_version + 1))

    def fail(session: Session) -> Snapshot:
        raise sa.exc.OperationalError("", {}, Exception())

    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "load", fail)
        snapshots.refresh()
    assert [one.state for one in snapshots.current().accounts] == ["active"]
    snapshots.refresh()
    assert [one.state for one in snapshots.current().accounts] == ["cooling"]


def test_nobody_waits_for_a_database_that_stands_still_while_it_is_read_anew(
    snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = snapshots.current()
    with db.engine.begin() as connection:
        connection.execute(sa.insert(ModelRule).values(pattern="a", target="b"))
        connection.execute(sa.update(Setting).where(Setting.key == saved.VERSION).values(value=1))
    frozen = Event()

    def load_later(session: Session) -> Snapshot:
        frozen.wait()
        return load(session)

    monkeypatch.setattr(snapshot, "load", load_later)
    looking = gevent.spawn(snapshots.refresh)
    gevent.sleep(0)
    with gevent.Timeout(3):
        for _ in range(50):  # the first may wait half a second
            assert snapshots.current() is last
    frozen.set()
    looking.join()
    assert snapshots.current().rules == {"a": "b"}


def test_what_others_change_while_it_is_being_read_is_read_as_well(
    snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(account())
    snapshots.current()

    def load_and_miss_it(session: Session) -> Snapshot:
        monkeypatch.setattr(snapshot, "load", load)
        loaded = load(session)
        with db.engine.begin() as connection:
            connection.execute(sa.update(Account).values(usage_count=5))
        snapshots.renew()
        return loaded

    monkeypatch.setattr(snapshot, "load", load_and_miss_it)
    snapshots.renew()
    snapshots.current()
    assert snapshots.current().accounts[0].usage_count == 5


def test_every_change_bumps_the_version_in_its_own_transaction(app: Flask) -> None:
    with elsewhere() as session:
        before = load(session).version
        session.add(account())
        session.flush()
        assert load(session).version != before
        session.rollback()
        assert load(session).version == before


def test_while_the_database_is_away_the_last_one_is_served(
    snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(account())
    last = snapshots.current()
    saved.changes.count += 1  # something changed, and then the database went away
    monkeypatch.setattr(snapshots, "_engine", sa.create_engine("sqlite:////nowhere/at/all.db"))
    assert snapshots.current() is last
    assert snapshots.current() is last
    with pytest.raises(sa.exc.OperationalError):
        snapshots.refresh()


def test_what_changes_no_version_is_read_anew_when_somebody_says_so(
    snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(account())
    snapshots.current()
    with elsewhere() as session:
        session.execute(sa.update(Account).values(usage_count=5))
        session.commit()
    assert snapshots.current().accounts[0].usage_count == 0
    snapshots.renew()
    last = snapshots.current()
    assert last.accounts[0].usage_count == 5
    monkeypatch.setattr(snapshots, "_engine", sa.create_engine("sqlite:////nowhere/at/all.db"))
    with pytest.raises(sa.exc.OperationalError):
        snapshots.refresh()
    monkeypatch.setattr(snapshots, "_reload", lambda: pytest.fail("a request waits for the database"))
    snapshots.renew()
    assert snapshots.current() is last


def test_it_is_stale_while_the_database_is_away_or_silent_and_ends_after_a_day(
    snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = snapshots.current()
    assert not snapshots.is_stale
    monkeypatch.setattr(Snapshots, "PROMPT", 0.0)
    with snapshots._asking(1.0):  # a look has no answer yet
        assert snapshots.is_stale
    assert not snapshots.is_stale
    working = snapshots._engine
    monkeypatch.setattr(snapshots, "_engine", sa.create_engine("sqlite:////nowhere/at/all.db"))
    with pytest.raises(sa.exc.OperationalError):
        snapshots.refresh()
    assert snapshots.is_stale
    assert snapshots.current() is last
    monkeypatch.setattr(Snapshots, "LONGEST_OUTAGE", 0.0)
    with pytest.raises(sa.exc.SQLAlchemyError, match="away for a day"):
        snapshots.current()
    monkeypatch.setattr(snapshots, "_engine", working)
    snapshots.refresh()
    assert not snapshots.is_stale
    assert snapshots.current() is last
