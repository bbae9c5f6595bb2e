"""How much room a row of the request log takes, its indexes included: retention by size counts on it."""

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from flask import Flask

from opus_api.extensions import db
from opus_api.services.explanations import Try, trace
from opus_api.services.request_log import BLANK, LOGS
from opus_api.services.retention import ROW_SIZE

ROWS = 5000
TRIES = (Try("openai", 1, 429, "rate", 120, "Rate limit reached for tokens per min"), Try("openai", 3, 200, "ok", 800))
ROW = {
    "dialect": "anthropic",
    "provider": "anthropic",
    "stream": True,
    "status": 200,
    "outcome": "ok",
    "model": "claude-sonnet-4-5-20250929",
    "upstream_model": "claude-sonnet-4-5-20250929",
    "attempts": 1,
    "input_tokens": 12_345,
    "output_tokens": 678,
    "first_token_ms": 900,
    "duration_ms": 12_000,
}


def row(number: int) -> dict[str, Any]:
    """Every tenth has something to tell besides."""
    names = {"request_id": f"req_{secrets.token_hex(12)}", "upstream_request_id": f"req_011C{secrets.token_hex(10)}"}
    who = {"key_id": number % 5, "account_id": number % 9, "client_ip": f"203.0.113.{number % 250}"}
    when = {"time": datetime(2026, 1, 2, tzinfo=UTC) + timedelta(seconds=number)}
    return {**BLANK, **ROW, **names, **who, **when, "trace": None if number % 10 else trace(TRIES, "")}


def test_a_row_stays_under_600_bytes(app: Flask) -> None:
    def size() -> int:
        db.session.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)"))
        db.session.rollback()
        return Path(str(db.engine.url.database)).stat().st_size

    before = size()
    with db.engine.begin() as connection:
        connection.execute(sa.insert(LOGS), [row(number) for number in range(ROWS)])
    assert 200 < (size() - before) / ROWS < ROW_SIZE
