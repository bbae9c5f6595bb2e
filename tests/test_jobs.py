"""Jobs run at their times, in one process, and go on in another one when that dies."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import gevent
import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import upgrade

from opus_api import config, create_app, jobs
from opus_api.config import ROOT
from opus_api.extensions import db
from opus_api.jobs import Jobs
from opus_api.models import JobRun, now
from opus_api.services.jobs import Lease
from opus_api.services.upkeep import JOBS, Job, Means
from tests.live import LEADING, Gateway, installed, wait_until
from tests.processes import GUNICORN, clean, free_port


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "START_DELAY", 0.0)
    monkeypatch.setattr(jobs, "RENEW", 0.05)


Make = Callable[..., Jobs]


@pytest.fixture
def make(app: Flask) -> Iterator[Make]:
    """Makes what one worker has; several of them stand for several workers."""
    made: list[Jobs] = []

    def make(*wanted: Job) -> Jobs:
        made.append(Jobs(app, wanted))
        made[-1].start()
        return made[-1]

    yield make
    for found in made:
        found.stop()


def until(look: Callable[[], object], seconds: float = 5.0) -> None:
    give_up = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < give_up
        gevent.sleep(0.01)


def run_of(name: str) -> JobRun:
    db.session.rollback()
    return db.session.get_one(JobRun, name)


def outcome(name: str) -> str:
    db.session.rollback()
    found = db.session.get(JobRun, name)
    return (found and found.last_outcome) or ""


def test_a_job_runs_and_leaves_what_it_did_and_when_it_is_next(make: Make) -> None:
    make(Job("greet", 3600, lambda means: "said hello"))
    until(lambda: outcome("greet") == "ok: said hello")
    row = run_of("greet")
    assert row.last_run
    assert row.next_run - row.last_run == timedelta(hours=1)


def test_a_job_that_fails_is_one_line_and_the_others_go_on(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    def fail(means: Means) -> str:
        raise LookupError("no such\nthing")

    logging.getLogger("opus_api").addHandler(caplog.handler)
    make(Job("fail", 3600, fail), Job("other", 3600, lambda means: "done"))
    until(lambda: {outcome("fail"), outcome("other")}.isdisjoint({"", "running"}))
    logging.getLogger("opus_api").removeHandler(caplog.handler)
    assert outcome("fail").startswith("failed: LookupError: no such thing (fail, line ")
    assert outcome("other") == "ok: done"
    assert len([record for record in caplog.records if "fail" in record.getMessage()]) == 1


def test_one_leads_and_another_takes_over_at_once_when_it_stops(make: Make) -> None:
    ran: list[str] = []
    first, second = (make(Job("greet", 3600, lambda means: ran.append("x") or "")) for _ in range(2))
    until(lambda: ran)
    gevent.sleep(0.3)
    assert (first.is_leading, second.is_leading) == (True, False)
    first.stop()
    until(lambda: second.is_leading)
    gevent.sleep(0.5)
    assert ran == ["x"]  # it is due in an hour, whoever leads


def test_who_is_stopped_as_it_begins_to_lead_gives_that_back(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    begins: list[object] = []

    def slow(*arguments: object) -> None:
        begins.append(arguments)
        gevent.sleep(60)

    monkeypatch.setattr("opus_api.services.jobs.take_over", slow)
    found = make(Job("greet", 3600, lambda means: ""))
    until(lambda: begins)
    found.stop()
    assert Lease(db.engine, "jobs", 30).take()


def test_what_was_cut_off_is_due_again_and_never_runs_twice_at_once(make: Make) -> None:
    live: list[int] = []
    most: list[int] = []

    def slow(means: Means) -> str:
        live.append(1)
        most.append(len(live))
        try:
            gevent.sleep(0.6 if len(most) == 1 else 0)
        finally:
            live.pop()
        return "done"

    first, second = make(Job("slow", 3600, slow)), make(Job("slow", 3600, slow))
    until(lambda: live)
    assert outcome("slow") == "running"
    first.stop()
    assert not live  # it was ended, not left behind
    until(lambda: outcome("slow") == "ok: done")
    assert (second.is_leading, most) == (True, [1, 1])


def test_a_job_that_still_runs_is_not_begun_again(make: Make) -> None:
    begun: list[float] = []

    def slow(means: Means) -> str:
        begun.append(time.monotonic())
        gevent.sleep(0.5)
        return ""

    found = make(Job("slow", 0.0, slow))  # always due
    until(lambda: begun)
    for _ in range(20):
        found._task(Job("slow", 0.0, slow))()
    assert len(begun) == 1


def test_jobs_that_are_gone_leave_no_row_and_new_ones_get_one(make: Make) -> None:
    make(Job("old", 3600, lambda means: "")).stop()
    until(lambda: True)
    make(Job("new", 3600, lambda means: ""))
    until(lambda: outcome("new"))
    assert db.session.scalars(sa.select(JobRun.name)).all() == ["new"]


def test_jobs_rest_while_the_database_is_away(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    found = make(Job("greet", 3600, lambda means: ""))
    until(lambda: found.is_leading)
    working = found._lease._engine
    monkeypatch.setattr(found._lease, "_engine", sa.create_engine("sqlite:////nowhere/at/all.db"))
    until(lambda: not found.is_leading)
    monkeypatch.setattr(found._lease, "_engine", working)
    until(lambda: found.is_leading)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    environment = {"DATA_DIR": str(tmp_path), "SECRET_KEY": "any"}
    if request.param == "postgresql":
        environment["DATABASE_URL"] = request.getfixturevalue("postgresql")
    with create_app(config.load(tmp_path, environment)).app_context():
        upgrade()
        yield db.engine
        db.engine.dispose()


def test_a_lease_is_one_owners_until_it_ends_or_is_given_back(engine: sa.Engine) -> None:
    one, two = Lease(engine, "jobs", 0.3), Lease(engine, "jobs", 0.3)
    assert (one.take(), two.take(), one.take()) == (True, False, True)
    time.sleep(0.35)
    assert (two.take(), one.take()) == (True, False)
    one.give_back()  # not its own any more
    assert not one.take()
    two.give_back()
    assert one.take()


def test_a_lease_written_by_a_clock_that_was_wrong_does_not_last(engine: sa.Engine) -> None:
    one, two = Lease(engine, "jobs", 30), Lease(engine, "jobs", 30)
    one.take()
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE leases SET until = :until"), {"until": now() + timedelta(hours=1)})
    assert two.take()


# ---- processes

WORKER = """
import os, sys
import gevent.monkey; gevent.monkey.patch_all()
import gevent
from opus_api import create_app, jobs
from opus_api.services.upkeep import Job

jobs.START_DELAY, jobs.LEASE, jobs.RENEW = 0.0, 1.5, 0.2
def note(word):
    with open(sys.argv[1], "a") as file:
        file.write(f"{word} {os.getpid()}\\n")
def slow(means):
    note("begin"); gevent.sleep(1.0); note("end"); return ""
app = create_app()
jobs.Jobs(app, [Job("slow", 3600, slow)]).start()
gevent.sleep(60)
"""


def test_another_process_goes_on_when_the_leader_is_killed(tmp_path: Path, environment: dict[str, str]) -> None:
    notes = tmp_path / "notes"
    notes.touch()
    command = [sys.executable, "-c", WORKER, str(notes)]
    workers = [subprocess.Popen(command, cwd=ROOT, env=clean(environment)) for _ in range(2)]
    try:
        begun = wait_until(lambda: notes.read_text().split(), 20)
        os.kill(int(begun[1]), signal.SIGKILL)
        killed = time.monotonic()
        lines = wait_until(lambda: (text := notes.read_text().splitlines()) and len(text) >= 3 and text, 10)
        took = time.monotonic() - killed
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    other = next(worker.pid for worker in workers if worker.pid != int(begun[1]))
    assert lines == [f"begin {begun[1]}", f"begin {other}", f"end {other}"]
    assert took < 5  # the lease, a look, the job


def test_the_service_runs_its_jobs_tells_of_them_and_still_stops_when_asked(migrated: Path, tmp_path: Path) -> None:
    port = free_port()
    data = Path(shutil.copytree(installed(migrated), tmp_path / "data"))
    environment = {"DATA_DIR": str(data), "PORT": str(port), "GRACEFUL_TIMEOUT": "5"}
    process = subprocess.Popen(
        [*GUNICORN[:-1], LEADING, "wsgi:app"], cwd=ROOT, env=clean(environment), stderr=subprocess.DEVNULL
    )
    found = Gateway(f"http://127.0.0.1:{port}", port, data, environment, process, tmp_path / "log")
    try:
        wait_until(lambda: _answers(found), 30)
        rows = wait_until(lambda: all_done(found.api("GET", "/v2/jobs")["data"]), 20)
    finally:
        begun = time.monotonic()
        assert found.stop() == 0
    assert time.monotonic() - begun < 4
    assert {row["name"] for row in rows} == {job.name for job in JOBS}
    assert all(set(row) == {"name", "last_run", "last_outcome", "next_run"} for row in rows)


def _answers(found: Gateway) -> bool:
    try:
        return found.send("GET", "/healthz").status == 200
    except OSError:
        return False


def all_done(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return rows if rows and all((row["last_outcome"] or "").startswith("ok: ") for row in rows) else []


def test_jobs_are_for_people_who_are_signed_in(client: FlaskClient, api: FlaskClient, make: Make) -> None:
    assert client.get("/v2/jobs").status_code == 401
    make(Job("greet", 3600, lambda means: ""))
    until(lambda: outcome("greet"))
    answer = api.get("/v2/jobs").json
    assert answer
    assert (answer["total"], answer["data"][0]["name"]) == (1, "greet")
