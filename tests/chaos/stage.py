"""One run: a gateway, the fault server, the swarm and the monkey together, and the ledgers they leave."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from opus_api.config import ROOT
from tests.chaos import ledgers, servers
from tests.chaos.ledgers import Ledgers
from tests.chaos.monkey import Monkey
from tests.chaos.plan import GLOBS, Act, Job
from tests.gateway.conftest import BASE
from tests.live import CONF, KEY, PASSWORD, Gateway, gateway
from tests.processes import FLASK, clean, run

PLACES = 16  # an account's cap, unless a test wants another
ACCOUNTS = 5  # of each provider

# Little patience, so that a run of seconds meets every limit.
SETTINGS = {
    "UPSTREAM_CONNECT_TIMEOUT": "2",
    "UPSTREAM_FIRST_EVENT_TIMEOUT": "2",
    "UPSTREAM_IDLE_TIMEOUT": "2",
    "UPSTREAM_TOTAL_TIMEOUT": "8",
    "PING_INTERVAL": "1",
    "GRACEFUL_TIMEOUT": "8",
}

# As much as a new installation has.
PATIENT = {
    "UPSTREAM_FIRST_EVENT_TIMEOUT": "300",
    "UPSTREAM_IDLE_TIMEOUT": "120",
    "UPSTREAM_TOTAL_TIMEOUT": "900",
    "PING_INTERVAL": "15",
}


@dataclass
class Stage:
    gateway: Gateway
    folder: Path
    database_url: str
    monkey: Monkey
    shared: bool
    accounts: dict[str, int] = field(default_factory=dict)  # credential -> id
    runs: int = 0
    places: int = PLACES

    @property
    def secrets(self) -> list[str]:
        return [KEY, PASSWORD, *self.accounts]

    def run(self, jobs: Sequence[Job], acts: Sequence[Act] = (), at_once: int = 200) -> Ledgers:
        """Let the swarm and the monkey loose; what everybody wrote down, once all has ended."""
        requests = self.swarm(jobs, at_once, acts)
        lost = self._places_lost()
        calls = ledgers.read_calls(self.folder / "calls")
        rows = self._rows_of(requests)
        return Ledgers(
            requests=requests,
            calls=tuple(call for call in calls if not call.tag.startswith("place-")),
            rows=tuple(rows),
            done=tuple(self.monkey.done),
            told_after=0.0 if self.shared else 1.5,
            accounts=self.accounts,
            secrets_in=tuple(self._where_secrets_are()),
            places_lost=lost,
        )

    def swarm(self, jobs: Sequence[Job], at_once: int, acts: Sequence[Act] = ()) -> tuple[ledgers.Request, ...]:
        self.runs += 1
        plan, ledger = self.folder / f"plan{self.runs}", self.folder / f"requests{self.runs}"
        told = {"port": self.gateway.port, "key": KEY, "secrets": self.secrets, "at_once": at_once}
        plan.write_text(json.dumps({**told, "jobs": [asdict(job) for job in jobs]}))
        command = [sys.executable, "-m", "tests.chaos.swarm", plan, ledger]
        process = subprocess.Popen(command, cwd=ROOT, env=clean({}), stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == b"started\n"
            with self.monkey.loose(acts):
                assert process.wait() == 0
        return ledgers.read_requests(ledger)

    def _places_lost(self) -> int:
        """How many places the accounts do not have any more: each is taken once, all at the same time.

        Accounts that cool are set free first, so that only leases can be what is missing.
        """
        time.sleep(1.0)
        self.gateway.api("POST", "/v2/accounts/reset")
        time.sleep(1.1)  # until every worker has seen it
        jobs = [
            Job(0.0, tag, f"{provider}-chaos~{tag}~hold:1500", "anthropic", "raw", stream=True)
            for provider in GLOBS
            for tag in (f"place-{provider}-{self.runs}-{n}" for n in range(self.places * ACCOUNTS))
        ]
        return sum(request.end != "complete" for request in self.swarm(jobs, len(jobs)))

    def _rows_of(self, requests: Sequence[ledgers.Request]) -> list[Mapping[str, Any]]:
        """The rows of the log, once those of all answered requests are there, or have had their time."""
        engine = sa.create_engine(self.database_url)
        wanted = {request.request_id for request in requests if request.request_id}

        def rows() -> list[Mapping[str, Any]]:
            with engine.connect() as connection:
                found = connection.execute(sa.text("SELECT * FROM request_logs ORDER BY id")).mappings().all()
            return [dict(row) for row in found if "~place-" not in row["model"]]

        give_up = time.monotonic() + 5
        found = rows()
        while wanted - {row["request_id"] for row in found} and time.monotonic() < give_up:
            time.sleep(0.2)
            found = rows()
        engine.dispose()
        return found

    def _where_secrets_are(self) -> Iterator[str]:
        secrets = [secret.encode() for secret in self.secrets]
        places = {"the log": self.gateway.log.read_bytes(), **self._database_bytes(), **self._pages()}
        return (name for name, data in places.items() if any(secret in data for secret in secrets))

    def _database_bytes(self) -> dict[str, bytes]:
        if self.database_url.startswith("sqlite"):
            return {path.name: path.read_bytes() for path in self.gateway.folder.glob("*.db*")}
        engine = sa.create_engine(self.database_url)
        metadata = sa.MetaData()
        metadata.reflect(engine)
        with engine.connect() as connection:
            found = {name: repr(connection.execute(sa.select(t)).all()).encode() for name, t in metadata.tables.items()}
        engine.dispose()
        return found

    def _pages(self) -> dict[str, bytes]:
        """What an administrator is shown."""
        return {path: json.dumps(self.gateway.api("GET", path)).encode() for path in ("/api/cookies", "/v2/accounts")}


@contextmanager
def stage(
    migrated: Path, shared: bool = False, conf: str = CONF, places: int = PLACES, **settings: str
) -> Iterator[Stage]:
    """In memory on SQLite, or, ``shared``, two workers on Redis and PostgreSQL. ``places`` of each account."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="opus-chaos-")))
        database = stack.enter_context(servers.postgresql()) if shared else None
        redis = stack.enter_context(servers.redis_server()) if shared else None
        environment = {**SETTINGS, **settings}
        if database is not None and redis is not None:
            environment |= {"WEB_CONCURRENCY": "2", "REDIS_URL": redis.url, "DATABASE_URL": database.url}
            environment |= {"SECRET_KEY": "a secret key of the chaos tests"}
            install({**environment, "DATA_DIR": str(folder)})
        upstream = stack.enter_context(fault_server(folder / "calls"))
        live = stack.enter_context(gateway(migrated, conf, **environment))
        url = (
            database.url.replace("postgresql://", "postgresql+psycopg2://")
            if database
            else f"sqlite:///{live.database}"
        )
        sqlite = None if database else live.database
        found = Stage(live, folder, url, Monkey(live.process.pid, sqlite, database, redis), shared, places=places)
        for provider, models in GLOBS.items():
            for n in range(ACCOUNTS):
                fields = {"base_url": upstream + BASE[provider], "max_concurrency": places, "models": models}
                account = live.account(provider, key=f"sk-chaos-{provider}-0123456789-{n}", **fields)
                found.accounts[account["key"]] = account["id"]
        time.sleep(1.1)  # until every worker knows them
        yield found


def install(environment: Mapping[str, str]) -> None:
    """The tables, the key and the administrator, as ``tests.live.installed`` makes them on SQLite."""
    for words, stdin in (
        (("db", "upgrade"), ""),
        (("keys", "create", "client", "--value", KEY), ""),
        (("users", "create", "admin", "--password-stdin"), PASSWORD),
    ):
        done = run([*FLASK, *words], environment, stdin)
        assert done.returncode == 0, done.stderr


@contextmanager
def fault_server(ledger: Path) -> Iterator[str]:
    """Its address."""
    command = [sys.executable, "-m", "tests.chaos.faultd", ledger]
    process = subprocess.Popen(command, cwd=ROOT, env=clean({}), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def in_short(found: Ledgers) -> dict[str, Any]:
    """Figures for whoever looks at a run."""
    ends = [request.end for request in found.requests]
    times = sorted(request.ended - request.began for request in found.requests if request.end == "complete")
    return {
        "requests": len(ends),
        "calls": len(found.calls),
        **{end: ends.count(end) for end in sorted(set(ends))},
        "median_ms": round(times[len(times) // 2] * 1000) if times else 0,
        "acts": len(found.done),
    }
