"""Tokens of Amazon Q accounts: renewed once for each version, committed before use, never lost or asked for twice."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import gevent
import pytest
from flask import Flask
from sqlalchemy.exc import OperationalError

from opus_api import config, create_app
from opus_api.config import ROOT
from opus_api.extensions import db
from opus_api.models import Account, now
from opus_api.services import oidc
from opus_api.services.oidc import Tokens
from opus_api.upstreams.base import Failure, Verdict
from tests import bars
from tests.fakes.amazonq import AmazonQ, Session
from tests.live import wait_until
from tests.processes import clean

PROCESSES, WAITERS = 4, 50


@pytest.fixture
def service() -> Iterator[AmazonQ]:
    service = AmazonQ()
    yield service
    service.stop()


@pytest.fixture
def environment(environment: dict[str, str], service: AmazonQ, tmp_path: Any) -> Iterator[dict[str, str]]:
    proxy, trusted = service.behind_proxy(tmp_path)
    yield {**environment, "HTTPS_PROXY": proxy.url, "UPSTREAM_CA_BUNDLE": str(trusted)}
    proxy.stop()


@pytest.fixture
def app(tmp_path: Any, environment: dict[str, str]) -> Iterator[Flask]:
    app = create_app(config.load(tmp_path, environment))
    with app.app_context():
        yield app
        db.session.remove()
        db.engine.dispose()


@pytest.fixture
def tokens(app: Flask) -> Tokens:
    return Tokens(db.engine, app.extensions["transport"])


@pytest.fixture
def session(service: AmazonQ) -> Session:
    return service.signed_in()


@pytest.fixture
def account(app: Flask, service: AmazonQ, session: Session) -> Account:
    """Signed in, its access token known and over."""
    account = app.extensions["accounts"].create(
        {
            "provider": "amazonq",
            "name": "q",
            "client_id": session.client_id,
            "client_secret": service.secret_of(session),
            "refresh_token": session.refresh_token,
        }
    )
    service.refreshed.clear()
    return account


def seen(account: Account) -> Any:
    db.session.expire_all()
    return oidc.credentials(account)


def refused(tokens: Tokens, account: Account) -> Failure:
    with pytest.raises(Failure) as caught:
        tokens.renewed(account.id, seen(account))
    db.session.expire_all()
    return caught.value


def test_a_new_account_fetches_its_first_access_token(account: Account, session: Session) -> None:
    assert (account.access_token, account.refresh_token) == (session.access_token, session.refresh_token)
    assert (account.state, account.token_version) == ("active", 1)
    assert account.listed_models is not None
    assert account.quota is not None
    assert account.quota["used"] == 12.4


def test_renewing_keeps_the_new_refresh_token_and_when_it_ends(
    tokens: Tokens, account: Account, session: Session
) -> None:
    found = tokens.renewed(account.id, seen(account))
    db.session.expire_all()
    assert found.access_token == account.access_token == session.access_token
    assert account.refresh_token == session.refresh_token
    assert account.token_version == found.token_version == 2
    assert account.lease_owner is None
    assert account.token_expires_at is not None
    assert account.token_refresh_at is not None
    left = (account.token_refresh_at - now()) / (account.token_expires_at - now())
    assert 0.7 < left < 0.9


def test_a_refresh_token_that_is_not_replaced_is_kept(service: AmazonQ, tokens: Tokens, account: Account) -> None:
    service.rotates = False
    before = account.refresh_token
    tokens.renewed(account.id, seen(account))
    db.session.expire_all()
    assert account.refresh_token == before


def test_who_comes_late_gets_what_others_fetched(service: AmazonQ, tokens: Tokens, account: Account) -> None:
    old = seen(account)
    first = tokens.renewed(account.id, old)
    assert tokens.renewed(account.id, old).access_token == first.access_token
    assert len(service.refreshed) == 1


def test_all_who_wait_in_one_process_share_one_renewal(service: AmazonQ, tokens: Tokens, account: Account) -> None:
    old = seen(account)
    waiting = {tokens.renew(account.id, old) for _ in range(50)}
    gevent.joinall(list(waiting))
    assert len(service.refreshed) == len(waiting) == 1


def test_a_dead_refresh_token_makes_the_account_invalid_at_once(
    session: Session, tokens: Tokens, account: Account
) -> None:
    session.dead = True
    assert refused(tokens, account).verdict is Verdict.AUTH
    assert (account.state, account.is_valid) == ("invalid", False)
    assert str(account.state_reason).startswith("sign in again: ")


def test_a_client_whose_time_is_over_is_not_tried(service: AmazonQ, tokens: Tokens, account: Account) -> None:
    account.oidc = {**(account.oidc or {}), "client_expires_at": 1_700_000_000}
    db.session.commit()
    asked = len(service.of("/token"))
    assert refused(tokens, account).verdict is Verdict.AUTH
    assert (account.state, len(service.of("/token"))) == ("invalid", asked)
    assert account.state_reason == "sign in again: the registration of this installation has ended"


def test_a_client_that_the_service_forgot_needs_a_new_sign_in(
    service: AmazonQ, session: Session, tokens: Tokens, account: Account
) -> None:
    service.clients[session.client_id] = (service.secret_of(session), 0.0)
    assert refused(tokens, account).verdict is Verdict.AUTH
    assert (account.state, "invalid_client" in str(account.state_reason)) == ("invalid", True)


@pytest.mark.parametrize("status, error", [(500, "server_error"), (400, "slow_down"), (503, "away")])
def test_a_sign_in_service_in_trouble_costs_no_account(
    service: AmazonQ, tokens: Tokens, account: Account, monkeypatch: pytest.MonkeyPatch, status: int, error: str
) -> None:
    service.token_errors = [(status, error)]
    assert refused(tokens, account).verdict is Verdict.UNREACHABLE
    assert (account.state, account.token_version) == ("active", 1)
    assert refused(tokens, account).verdict is Verdict.UNREACHABLE  # it rests for a moment
    assert len(service.of("/token")) == 2
    account.lease_until = now() - timedelta(seconds=1)
    db.session.commit()
    assert tokens.renewed(account.id, seen(account)).token_version == 2


def test_a_lease_of_a_process_that_died_ends(service: AmazonQ, tokens: Tokens, account: Account) -> None:
    account.lease_owner, account.lease_until = "dead", now() + timedelta(seconds=0.5)
    db.session.commit()
    began = now()
    assert tokens.renewed(account.id, seen(account)).token_version == 2
    assert now() - began >= timedelta(seconds=0.4)


def test_a_lease_that_a_wrong_clock_wrote_holds_nobody_up(tokens: Tokens, account: Account) -> None:
    account.lease_owner, account.lease_until = "dead", now() + timedelta(hours=1)
    db.session.commit()
    assert tokens.renewed(account.id, seen(account)).token_version == 2


def test_a_clock_that_is_set_forward_ends_no_lease(
    service: AmazonQ, tokens: Tokens, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.lease_owner, account.lease_until = "another", now() + timedelta(seconds=20)
    db.session.commit()
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + 3600)
    monkeypatch.setattr(oidc, "LONGEST_WAIT", 0.3)
    assert refused(tokens, account).verdict is Verdict.UNREACHABLE
    assert service.refreshed == []


def test_tokens_that_could_not_be_written_are_written_later_and_not_asked_for_again(
    service: AmazonQ, tokens: Tokens, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails, keep = [3], tokens._keep
    monkeypatch.setattr(oidc, "WRITE_AGAIN", 0.01)

    def failing(*arguments: Any) -> None:
        if fails[0]:
            fails[0] -= 1
            raise OperationalError("UPDATE", {}, Exception("the database is away"))
        keep(*arguments)

    monkeypatch.setattr(tokens, "_keep", failing)
    found = tokens.renewed(account.id, seen(account))
    db.session.expire_all()
    assert found.access_token == account.access_token
    assert (len(service.refreshed), service.reused, fails) == (1, [], [0])


def test_tokens_written_late_bring_an_account_back(tokens: Tokens, account: Account, session: Session) -> None:
    """Whoever took over the lease of the holder that could not write asked with the old token, and was refused."""
    tokens._refuse(account.id, 1, "The sign-in service answered 400: invalid_grant")
    db.session.expire_all()
    assert account.state == "invalid"
    tokens._keep(account.id, 1, oidc.Granted("aoa-late", "aor-late", 3600.0))
    db.session.expire_all()
    assert (account.state, account.access_token, account.refresh_token) == ("active", "aoa-late", "aor-late")


def test_a_person_who_edits_the_tokens_wins_over_a_renewal_under_way(
    app: Flask, tokens: Tokens, account: Account, session: Session
) -> None:
    app.extensions["accounts"].update(account.id, {"refresh_token": session.refresh_token, "access_token": "mine"})
    tokens._keep(account.id, 1, oidc.Granted("aoa-late", "aor-late", 3600.0))
    db.session.expire_all()
    assert "aoa-late" not in (account.access_token, account.refresh_token)


def test_tokens_near_their_end_are_renewed_in_the_background(
    app: Flask, service: AmazonQ, account: Account, session: Session
) -> None:
    assert app.extensions["accounts"].renew_due() == 0
    account.token_refresh_at = now() - timedelta(seconds=1)
    db.session.commit()
    assert app.extensions["accounts"].renew_due() == 1
    db.session.expire_all()
    assert account.access_token == session.access_token
    assert app.extensions["accounts"].renew_due() == 0


def test_a_suspended_account_is_invalid_for_good(app: Flask, service: AmazonQ, account: Account) -> None:
    service.suspended.add(str(account.access_token))
    app.extensions["accounts"].validate(account.id)
    db.session.expire_all()
    assert (account.state, account.state_reason) == ("invalid", "suspended")


@pytest.mark.parametrize("overlap", [True, False])
def test_a_process_killed_while_it_renews_holds_nobody_up(
    service: AmazonQ, tokens: Tokens, account: Account, environment: dict[str, str], overlap: bool
) -> None:
    """What it was granted is lost with it. Where the service takes the old token once more, the account is not."""
    account_id, asked = account.id, len(service.of("/token"))
    db.session.rollback()
    service.token_delay, service.overlap = 1.0, overlap
    command = [sys.executable, "-m", "tests.fakes.waiters", str(account_id), "1"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    with subprocess.Popen(command, env=clean(environment), **pipes) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("1\n")
        process.stdin.flush()
        wait_until(lambda: len(service.of("/token")) > asked, 10.0)
        process.kill()
    wait_until(lambda: service.refreshed, 10.0)  # granted, and nobody there to hear it
    service.token_delay = 0.0
    account = db.session.get_one(Account, account_id)
    assert account.lease_owner is not None
    account.lease_until = now()  # as it is half a minute later
    db.session.commit()
    if overlap:
        assert tokens.renewed(account_id, seen(account)).access_token == service.sessions[0].access_token
    else:
        assert refused(tokens, account).verdict is Verdict.AUTH
        assert str(account.state_reason).startswith("sign in again")


# ---- bar 10


def expiries(service: AmazonQ, account: Account, environment: dict[str, str], times: int) -> None:
    """Each time all waiters of all processes find the token over, and there is one renewal."""
    command = [sys.executable, "-m", "tests.fakes.waiters", str(account.id), str(WAITERS)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    processes = [subprocess.Popen(command, env=clean(environment), **pipes) for _ in range(PROCESSES)]
    service.token_delay = 0.05
    try:
        assert all(process.stdout.readline() == "ready\n" for process in processes)
        most = 0
        for version in range(1, times + 1):
            service.refreshed.clear()
            for process in processes:
                process.stdin.write(f"{version}\n")
                process.stdin.flush()
            got: Counter[str] = Counter()
            for process in processes:
                got.update(json.loads(process.stdout.readline()))
            assert got == {service.sessions[0].access_token: PROCESSES * WAITERS}
            most = max(most, len(service.refreshed))
        assert (most, service.reused) == (1, [])
        bars.report(10, expiries=times, waiters=PROCESSES * WAITERS, most_refreshes_per_version=most, dead_accounts=0)
    finally:
        for process in processes:
            process.stdin.close()
            process.stdout.close()
            process.wait(timeout=20)


def test_one_refresh_for_each_version_with_many_waiters_in_many_processes(
    service: AmazonQ, account: Account, environment: dict[str, str]
) -> None:
    db.session.rollback()
    expiries(service, account, environment, times=5)


@pytest.mark.chaos
def test_one_refresh_for_each_version_a_hundred_times(
    service: AmazonQ, account: Account, environment: dict[str, str]
) -> None:
    db.session.rollback()
    expiries(service, account, environment, times=100)
