"""What a running gateway does while its database is away, its worker is killed, or its disk takes nothing.

Each test prints what it reached; the quick ones are the full ones of the chaos run at reduced length.
"""

import http.client
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from opus_api import config, create_app
from opus_api.config import ROOT
from opus_api.extensions import db
from tests.bars import report
from tests.chaos import servers
from tests.chaos.stage import install
from tests.fakes.upstream import Upstream
from tests.live import KEY, LOOPBACK, Gateway, body, gateway, installed, wait_until
from tests.processes import GUNICORN, clean, free_port, service

MESSAGES = "/v1/messages"
PAUSES = str(ROOT / "tests" / "fakes" / "hasty.conf.py")  # writes down where the hub stood still
DISK = str(ROOT / "tests" / "fakes" / "disk.conf.py")  # keeps what was taken to the disk


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    fake = Upstream()
    yield fake
    fake.stop()


@dataclass
class Clients:
    """Ask at a steady rate until the block ends. A client that got no answer counts as failed, not as acknowledged."""

    live: Gateway
    key: str = KEY
    acknowledged: dict[str, float] = field(default_factory=dict)  # request ids of complete answers -> their end
    statuses: list[tuple[float, int]] = field(default_factory=list)  # (monotonic seconds of the end, status or 0)
    longest: float = 0.0

    @contextmanager
    def asking(self, rate: float) -> Iterator[None]:
        stopping = threading.Event()

        def run(pool: ThreadPoolExecutor) -> None:
            while not stopping.wait(1 / rate):
                pool.submit(self._ask)

        with ThreadPoolExecutor(32) as pool:
            pacing = threading.Thread(target=run, args=(pool,))
            pacing.start()
            try:
                yield
            finally:
                stopping.set()
                pacing.join()

    def _ask(self) -> None:
        began, status = time.monotonic(), 0
        try:
            answer = self.live.post(MESSAGES, body("served"), key=self.key)
            status = answer.status
            if status == 200 and answer.json["type"] == "message":
                self.acknowledged[answer.headers["request-id"]] = time.monotonic()
        except (OSError, ValueError, http.client.HTTPException):  # the connection was cut
            pass
        ended = time.monotonic()
        self.longest = max(self.longest, ended - began)
        self.statuses.append((ended, status))

    def between(self, start: float, end: float = float("inf")) -> set[int]:
        return {status for when, status in self.statuses if start <= when <= end}


def logged(url: str) -> dict[str, str]:
    """request id -> outcome"""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = {row[0]: row[1] for row in connection.execute(sa.text("SELECT request_id, outcome FROM request_logs"))}
    engine.dispose()
    return found


def missing(url: str, clients: Clients, seconds: float = 10.0) -> int:
    """Acknowledged requests that have no row, once they have had their time."""
    give_up = time.monotonic() + seconds
    while (gone := len(set(clients.acknowledged) - logged(url).keys())) and time.monotonic() < give_up:
        time.sleep(0.2)
    return gone


# ---- PostgreSQL stops, or stands still


@contextmanager
def on_postgresql(migrated: Path, upstream: Upstream) -> Iterator[tuple[Gateway, servers.PostgreSQL, str]]:
    with servers.postgresql() as database, tempfile.TemporaryDirectory() as folder:
        settings = {"DATABASE_URL": database.url, "SECRET_KEY": "a secret key of these tests"}
        install({**settings, "DATA_DIR": folder})
        with gateway(migrated, PAUSES, **settings) as live:
            live.account("anthropic", upstream.url, models=["served"])
            live.api("GET", "/api/cookies")
            yield live, database, database.url.replace("postgresql://", "postgresql+psycopg2://")


OUTAGES: dict[str, tuple[str, str]] = {"frozen": ("freeze", "thaw"), "stopped": ("stop", "start")}


def outage(live: Gateway, database: servers.PostgreSQL, url: str, how: str, seconds: float, rate: float) -> None:
    away, back = OUTAGES[how]
    known, unknown = Clients(live), Clients(live, "sk-nobody-0123456789")
    with known.asking(rate), unknown.asking(5):
        time.sleep(1.0)
        getattr(database, away)()
        gone = time.monotonic()
        time.sleep(seconds / 2)
        began = time.monotonic()
        admin = live.send("GET", "/api/cookies", headers={"authorization": f"Bearer {live._token[0]}"}, key=None)
        admin_took = time.monotonic() - began
        page = live.send("GET", "/login", key=None)
        time.sleep(max(0.0, gone + seconds - time.monotonic()))
        until = time.monotonic()
        getattr(database, back)()
        returned = time.monotonic()
        wait_until(lambda: live.send("GET", "/api/cookies", headers=_as_admin(live), key=None).status == 200, 5.0)
        wait_until(lambda: live.post(MESSAGES, body("served"), key="sk-nobody").status == 401, 5.0)
        recovery = time.monotonic() - returned
    lost = missing(url, known)
    failed = sum(status != 200 for _, status in known.statuses)
    report(
        12,
        postgresql=how,
        seconds=seconds,
        requests_per_second=rate,
        known_key_requests=len(known.statuses),
        failed=failed,
        longest_answer_ms=known.longest * 1000,
        recovery_s=recovery,
        rows_lost=lost,
        admin_503_after_s=admin_took,
    )
    assert (failed, lost) == (0, 0), live.output()
    assert len(known.statuses) > seconds * rate * 0.5
    assert unknown.between(gone + 2.5, until) == {503}
    assert unknown.between(0, gone + 2.5) <= {401, 503}
    assert (admin.status, admin.json["error"]["type"], admin_took < 7) == (503, "api_error", True)
    assert page.status in (200, 503)
    assert "Traceback" not in live.output()
    assert len(logged(url)) >= len(known.statuses)


def _as_admin(live: Gateway) -> dict[str, str]:
    return {"authorization": f"Bearer {live._token[0]}"}


def test_no_known_key_notices_that_the_database_is_away(migrated: Path, upstream: Upstream) -> None:
    with on_postgresql(migrated, upstream) as (live, database, url):
        for how in OUTAGES:
            outage(live, database, url, how, 4, 20)


@pytest.mark.chaos
@pytest.mark.parametrize("how", OUTAGES)
def test_no_known_key_notices_that_the_database_is_away_for_a_minute(
    migrated: Path, upstream: Upstream, how: str
) -> None:
    with on_postgresql(migrated, upstream) as (live, database, url):
        outage(live, database, url, how, 60, 50)


# ---- workers die


def workers_die(migrated: Path, upstream: Upstream, deaths: list[signal.Signals]) -> None:
    with gateway(migrated, GRACEFUL_TIMEOUT="4") as live:
        live.account("anthropic", upstream.url, models=["served"])
        clients = Clients(live)
        with clients.asking(40):
            for what in deaths:
                time.sleep(0.3)
                old = wait_until(lambda: psutil.Process(live.process.pid).children())
                os.kill(old[0].pid, what)
                wait_until(lambda: _answers(live), 20.0)
        lost = missing(f"sqlite:///{live.database}", clients)
        rows = logged(f"sqlite:///{live.database}")
        spools = live.folder / "spool"
        wait_until(lambda: len(list(spools.iterdir())) <= 1, 12.0)  # those of the dead were adopted
        report(
            11,
            kill_9=deaths.count(signal.SIGKILL),
            TERM=deaths.count(signal.SIGTERM),
            acknowledged=len(clients.acknowledged),
            acknowledged_rows_lost=lost,
            aborted_rows=sum(outcome == "aborted" for outcome in rows.values()),
        )
        assert lost == 0
        assert len(clients.acknowledged) > len(deaths) * 5


def _answers(live: Gateway) -> bool:
    try:
        return live.send("GET", "/healthz").status == 200
    except (OSError, http.client.HTTPException):  # nobody listens yet, or the one who did has died
        return False


def test_no_acknowledged_row_is_lost_with_a_worker(migrated: Path, upstream: Upstream) -> None:
    workers_die(migrated, upstream, [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])


@pytest.mark.chaos
@pytest.mark.parametrize("deaths", [[signal.SIGKILL] * 200, [signal.SIGTERM] * 50], ids=["kill", "term"])
def test_no_acknowledged_row_is_lost_with_many_workers(
    migrated: Path, upstream: Upstream, deaths: list[signal.Signals]
) -> None:
    workers_die(migrated, upstream, deaths)


# ---- the power fails


def test_a_loss_of_power_takes_a_second_of_rows_and_nothing_that_was_saved(migrated: Path, upstream: Upstream) -> None:
    with gateway(migrated, DISK) as live:
        live.account("anthropic", upstream.url, models=["served"])
        clients = Clients(live)
        with clients.asking(40):
            time.sleep(2.5)
            saved = live.account("openai", upstream.url, models=["saved"])["id"]
            for process in (live.process, *psutil.Process(live.process.pid).children()):
                process.kill()
            cut = time.monotonic()
        left = _on_the_disk(live.folder)
        environment = {**live.environment, "DATA_DIR": str(left), "PORT": str(free_port())}
        url = f"sqlite:///{left / 'opus.db'}"
        with service([*GUNICORN, "wsgi:app"], environment):
            wait_until(lambda: len(list(left.glob("spool/*"))) <= 1)  # that of the dead worker was adopted
        rows = logged(url)
        lost = len(clients.acknowledged.keys() - rows.keys())
        last = max((cut - ended for name, ended in clients.acknowledged.items() if name not in rows), default=0.0)
        report(
            11, power="lost", acknowledged=len(clients.acknowledged), acknowledged_rows_lost=lost, of_the_last_s=last
        )
        assert last <= 1.2  # each second, and what a disk takes
        assert len(rows) > 40
        with closing(sqlite3.connect(left / "opus.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("SELECT count(*) FROM accounts WHERE id = ?", [saved]).fetchone() == (1,)


def _on_the_disk(folder: Path) -> Path:
    """A data folder as it is found after the loss: what was deleted is gone, all else is as it was last taken there."""
    found, disk = folder.with_name("found"), folder.with_name("disk")
    shutil.copytree(folder, found, ignore=shutil.ignore_patterns("*.db-wal", "*.db-shm", "spool"))
    for path in (path for path in disk.rglob("*") if path.is_file()):
        place = path.relative_to(disk)
        if (folder / place).exists():
            (found / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, found / place)
    return found


# ---- SQLite's one write lock


WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
until = time.monotonic() + float(sys.argv[2])
while time.monotonic() < until:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE settings SET updated_at = updated_at")
    connection.execute("COMMIT")
    time.sleep(0.005)
"""


def locked_outside(migrated: Path, upstream: Upstream, times: int, seconds: float) -> None:
    with gateway(migrated, PAUSES) as live:
        account = live.account("anthropic", upstream.url, models=["served"])
        clients, edits = Clients(live), []
        before = (live.folder / "pauses").read_text()
        with clients.asking(30):
            for turn in range(times):
                with closing(sqlite3.connect(live.database, timeout=10, isolation_level=None)) as other:
                    other.execute("BEGIN IMMEDIATE")
                    release_at = time.monotonic() + seconds
                    with ThreadPoolExecutor(3) as editors:  # who writes waits for its turn

                        def edit(n: int, turn: int = turn) -> int:
                            path = f"/api/cookies/{account['id']}"
                            return live.send("PUT", path, {"priority": turn + n}, _as_admin(live), key=None).status

                        asked = [editors.submit(edit, n) for n in range(3)]
                        time.sleep(release_at - time.monotonic())
                        other.execute("ROLLBACK")
                        edits += [one.result() for one in asked]
            command = [sys.executable, "-c", WRITER, str(live.database), str(min(seconds * times, 20.0))]
            writers = [subprocess.Popen(command) for _ in range(8)]
            assert [writer.wait() for writer in writers] == [0] * 8
        pauses = [int(line) for line in (live.folder / "pauses").read_text()[len(before) :].split()]
        lost = missing(f"sqlite:///{live.database}", clients)
        report(
            13,
            sqlite_locked_outside_s=seconds,
            times=times,
            then_outside_writers=8,
            longest_pause_ms=max(pauses, default=20),
            requests=len(clients.statuses),
            failed=sum(status != 200 for _, status in clients.statuses),
            told_locked=sum(status != 200 for status in edits),
            rows_lost=lost,
        )
        assert clients.between(0) == {200}
        assert set(edits) == {200}
        assert lost == 0
        assert max(pauses, default=20) < 250, "60 ms on a machine that has nothing else to do"


def test_a_lock_of_another_process_stops_nobody(migrated: Path, upstream: Upstream) -> None:
    locked_outside(migrated, upstream, 1, 1.5)


@pytest.mark.chaos
def test_twenty_locks_of_another_process_stop_nobody(migrated: Path, upstream: Upstream) -> None:
    locked_outside(migrated, upstream, 20, 3.0)


# ---- the disk takes nothing


def test_on_a_full_disk_requests_go_on_and_what_was_dropped_is_said(migrated: Path, upstream: Upstream) -> None:
    with gateway(migrated) as live:
        live.account("anthropic", upstream.url, models=["served"])
        (worker,) = psutil.Process(live.process.pid).children()
        clients = Clients(live)
        with clients.asking(30):
            time.sleep(1.0)
            hard = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)[1]
            # No file may grow beyond what one line of the log takes: neither the spool nor the database takes a row.
            resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (400, hard))
            full = time.monotonic()
            time.sleep(2.0)
            resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (hard, hard))
            room = time.monotonic()
            time.sleep(1.5)
        during = sum(full + 0.1 < when < room for when, _ in clients.statuses)
        rows = wait_until(lambda: _settled(live, clients))
        dropped = len(clients.acknowledged) - len(set(clients.acknowledged) & rows)
        report(11, disk_full_s=2, requests=len(clients.statuses), failed=0, rows_dropped=dropped, served_while=during)
        assert clients.between(0) == {200}
        assert 0 < during * 0.8 <= dropped <= during + 15
        assert live.output().count("has no room") == 1
        assert "Traceback" not in live.output()


def _settled(live: Gateway, clients: Clients) -> set[str] | None:
    """The rows, once the last acknowledged one is among them."""
    rows = set(logged(f"sqlite:///{live.database}"))
    return rows if next(reversed(clients.acknowledged)) in rows else None


@pytest.fixture(scope="module")
def served_folder(migrated: Path, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the account that answers."""
    folder = Path(shutil.copytree(installed(migrated), tmp_path_factory.mktemp("served") / "data"))
    settings = config.load(folder, {"DATA_DIR": str(folder), "ALLOW_PRIVATE_UPSTREAMS": LOOPBACK})
    with create_app(settings).app_context() as context:
        fields = {"provider": "anthropic", "name": "one", "api_key": "sk-up", "base_url": upstream.url}
        context.app.extensions["accounts"].create({**fields, "models": ["served"]})
        db.session.remove()
        db.engine.dispose()
    return folder


@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full", pytest.param("2>&1 | true", marks=pytest.mark.chaos)])
def test_standard_error_that_takes_nothing_fails_no_request(tmp_path: Path, served_folder: Path, stderr: str) -> None:
    folder, port = Path(shutil.copytree(served_folder, tmp_path / "data")), free_port()
    environment = {"DATA_DIR": str(folder), "PORT": str(port), "ALLOW_PRIVATE_UPSTREAMS": LOOPBACK}
    environment |= {"LOG_LEVEL": "debug", "DEBUG_MODE": "1", "GRACEFUL_TIMEOUT": "5"}
    command = f'exec "$0" "$@" {stderr}' if "|" not in stderr else f'"$0" "$@" {stderr}'
    process = subprocess.Popen(
        ["/bin/sh", "-c", command, *GUNICORN, "-c", "gunicorn.conf.py", "wsgi:app"],
        cwd=ROOT, env=clean(environment), stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    live = Gateway(f"http://127.0.0.1:{port}", port, folder, environment, process, tmp_path / "log")
    try:
        wait_until(lambda: _answers(live), 20.0)
        for bad in (False, True, False):
            status = live.post(MESSAGES, b"{" if bad else body("served")).status
            assert status == (400 if bad else 200)
        wait_until(lambda: len(live.rows()) == 3)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
