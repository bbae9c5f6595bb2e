"""What the log's questions and the console's pages cost with many rows on SQLite: `make logs` prints each.

Rows are written as the service writes them, statistics included, spread over 30 days.
"""

import argparse
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from flask import Flask

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from opus_api import config, create_app, startup
from opus_api.extensions import db
from opus_api.models import Account
from opus_api.services import api_keys, logs, statistics, users
from opus_api.services.overview import PERIODS
from opus_api.services.request_log import BLANK, LOGS
from opus_api.services.settings import installation

LIMIT = 300.0  # milliseconds, for any question and any page with a million rows
PASSWORD = "correct horse battery"
DAYS = 30
BATCH = 5000
MODELS = ("claude-sonnet-4.5", "claude-haiku-4.5", "claude-opus-4.5", "gpt-5", "morph-v3-fast")
NOW = datetime.now(UTC)


def row(number: int, of: int) -> dict[str, Any]:
    """One row like those of real traffic."""
    failed = random.random() < 0.03
    return {
        **BLANK,
        "request_id": f"req_{number:020d}{random.getrandbits(16):04x}",
        "time": NOW - timedelta(days=DAYS) * (1 - number / of),
        "key_id": random.randint(1, 8),
        "account_id": random.randint(1, 10),
        "provider": "openai",
        "dialect": random.choice(("anthropic", "openai")),
        "model": random.choice(MODELS),
        "upstream_model": "gpt-5",
        "upstream_request_id": f"req_{random.getrandbits(80):x}",
        "stream": True,
        "status": random.choice((400, 429, 502, 529)) if failed else 200,
        "outcome": "upstream_error" if failed else "ok",
        "error_type": "api_error" if failed else None,
        "attempts": 1,
        "input_tokens": random.randint(100, 50_000),
        "output_tokens": random.randint(1, 4000),
        "first_token_ms": random.randint(200, 3000),
        "duration_ms": int(random.lognormvariate(8, 1)),
        "client_ip": f"10.0.{random.randint(0, 3)}.{random.randint(1, 250)}",
    }


def fill(engine: sa.Engine, rows: int) -> None:
    for first in range(0, rows, BATCH):
        batch = [row(number, rows) for number in range(first, min(first + BATCH, rows))]
        with engine.begin() as connection:
            connection.execute(sa.insert(LOGS), batch)
            statistics.add(connection, batch)


def questions() -> dict[str, Callable[[sa.Connection], Any]]:
    """Every filter alone, the pairs that share no index, the pages far back, and all statistics."""
    week, odd = NOW - timedelta(days=7), NOW - timedelta(days=20, minutes=17)
    wanted = {
        "newest": logs.Filter(),
        "key": logs.Filter(key=3),
        "key that has none": logs.Filter(key=999),
        "account": logs.Filter(account=3),
        "model": logs.Filter(model="gpt-5"),
        "model that has none": logs.Filter(model="gpt-4"),
        "status": logs.Filter(status=502),
        "status that has none": logs.Filter(status=418),
        "key and model that never met": logs.Filter(key=3, model="gpt-4"),
        "key and status": logs.Filter(key=3, status=529),
        "common key and status that never met": logs.Filter(key=3, status=404),
        "all four": logs.Filter(key=3, account=4, model="gpt-5", status=502),
        "a week of long ago": logs.Filter(start=odd, end=odd + timedelta(days=7)),
        "outcome": logs.Filter(outcome="upstream_error"),
        "outcome that has none": logs.Filter(outcome="aborted"),
    }
    found: dict[str, Callable[[sa.Connection], Any]] = {
        f"rows: {name}": lambda connection, w=one: logs.page(connection, w, 1000) for name, one in wanted.items()
    }
    deep = logs._cursor(odd, 10**9)
    found["rows: a page far back"] = lambda connection: logs.page(connection, logs.Filter(), 1000, deep)
    found["rows: a page far back of a key"] = lambda connection: logs.page(connection, logs.Filter(key=3), 1000, deep)
    for by in statistics.BY:
        found[f"stats by {by}"] = lambda connection, b=by: statistics.answer(connection, b)
        found[f"stats by {by} of a week"] = lambda connection, b=by: statistics.answer(connection, b, week, NOW)
    return found


def pages(app: Flask, request_id: str) -> dict[str, Callable[[], Any]]:
    """Every page of the console that needs no name in its address, and those whose cost depends on what is asked."""
    client = app.test_client()
    shown = client.get("/login").text
    token = re.search(r'name="csrf_token"[^>]*value="([^"]+)', shown)
    assert token
    client.post("/login", data={"csrf_token": token[1], "username": "bench", "password": PASSWORD})
    rules = (rule for rule in app.url_map.iter_rules() if rule.endpoint.partition(".")[0].endswith("_pages"))
    plain = {rule.rule for rule in rules if "GET" in (rule.methods or ()) and not rule.arguments}
    asked = {f"/dashboard?period={period}" for period in PERIODS}
    asked |= {"/logs?key=3&status=529", "/logs?model=gpt-4", "/keys/3/edit", "/cookies/3/edit", f"/logs/{request_id}"}

    def look(path: str) -> Any:
        answer = client.get(path)
        assert answer.status_code in (200, 302), (path, answer.status)

    return {f"page {path}": partial(look, path) for path in sorted(plain | asked)}


def installed(folder: str, rows: int) -> Flask:
    """An installation with one person, ten accounts, eight keys and so many rows."""
    settings = config.load(Path(folder), {"DATA_DIR": folder})
    with create_app(settings).app_context():
        startup.migrate(settings)
        pepper = installation(db.session()).pepper
        users.add("bench", PASSWORD, must_change=False)
        for n in range(8):
            api_keys.create(pepper, {"name": f"key {n}"})
        db.session.add_all(Account(provider="openai", name=f"account {n}", api_key=f"sk-{n}") for n in range(10))
        db.session.commit()
        began = time.monotonic()
        fill(db.engine, rows)
        print(f"{rows} rows in {time.monotonic() - began:.0f} s")
    return create_app(settings)


def took(ask: Callable[[], Any]) -> float:
    """Milliseconds, at the second time: templates are compiled once."""
    ask()
    began = time.monotonic()
    ask()
    return (time.monotonic() - began) * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    random.seed(1)
    with tempfile.TemporaryDirectory() as folder:
        app = installed(folder, options.rows)
        with app.app_context():
            found = {}
            with db.engine.connect() as connection:
                for name, ask in questions().items():
                    found[name] = took(partial(ask, connection))
            request_id = db.session.scalar(sa.select(LOGS.c.request_id).order_by(LOGS.c.time.desc()).limit(1))
        looks = pages(app, str(request_id))
        for name, look in looks.items():
            found[name] = took(look)
    for name, ms in found.items():
        print(f"{ms:7.1f} ms  {name}")
    worst = max(found.values())
    print(f"slowest {worst:.0f} ms, bound {LIMIT:.0f} ms")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
