"""Believable data for pictures of the console: a small team's month with one of everything. Nothing of it is real."""

import math
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa

from opus_api.extensions import db
from opus_api.models import Account, AccountEvent, ApiKey, Change, DeletedAccount, IpRule, ModelRule, Refusal, now
from opus_api.services import explanations, statistics
from opus_api.services.exchange_log import ExchangeLog
from opus_api.services.explanations import Try
from opus_api.services.request_log import BLANK, LOGS
from opus_api.upstreams.base import Credentials
from opus_api.wire import ids
from opus_api.wire.http import HttpRequest

DAYS = 30
DELETED = 90  # the id of an account
CLAUDE = ["claude-opus-4-5-20251101", "claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001"]
ASKED = ["claude-sonnet-4-5", "claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-5", "gpt-5", "qwen3-coder"]
NETWORK = "203.0.113."  # RFC 5737: for documentation
WRONG_KEY = "invalid x-api-key"
LIMITED = "This request would exceed your organization's rate limit of 400,000 input tokens per minute."


def fill() -> None:
    """Within an app context, into an empty installation."""
    random.seed(7)
    moment = now()
    db.session.add_all([*_accounts(moment), *_keys(moment), *_others(moment)])
    db.session.commit()
    for rows in _months(moment):
        with db.engine.begin() as connection:
            connection.execute(sa.insert(LOGS), rows)
            statistics.add(connection, rows)


def _account(provider: str, name: str, models: list[str], **more: Any) -> Account:
    used = {"usage_count": random.randint(300, 9000), "last_used": now() - timedelta(minutes=random.randint(1, 50))}
    known = {"listed_models": models, "last_validated": now() - timedelta(minutes=20), "listed_at": now()}
    return Account(
        **{"provider": provider, "name": name, "api_key": f"sk-made-up-{ids.random_base62(24)}"} | used | known | more
    )


def _accounts(moment: datetime) -> Iterator[Account]:
    yield _account("anthropic", "Studio", CLAUDE, priority=10)
    yield _account(
        "anthropic",
        "Studio, second workspace",
        CLAUDE,
        priority=10,
        state="cooling",
        state_reason=f"429: {LIMITED}",
        state_until=moment + timedelta(minutes=4),
        error_count=1,
    )
    yield _account(
        "openai",
        "OpenRouter",
        ["openai/gpt-5", "qwen/qwen3-coder"],
        priority=5,
        model_map={"gpt-5": "openai/gpt-5", "qwen3-coder": "qwen/qwen3-coder"},
    )
    yield _account(
        "openai",
        "Workstation under the desk",
        ["qwen3-coder:30b"],
        max_concurrency=2,
        base_url="http://192.168.1.20:11434/v1",
    )
    yield _account("morph", "Morph", ["morph-v3-fast", "morph-v3-large"])
    yield _account(
        "anthropic", "Last year's key", CLAUDE, state="invalid", is_valid=False, state_reason=WRONG_KEY, error_count=3
    )
    yield _account(
        "openai", "Trial at a vendor", ["deepseek-chat"], state="disabled", last_used=moment - timedelta(days=12)
    )


def _keys(moment: datetime) -> Iterator[ApiKey]:
    month = moment.strftime("%Y-%m")
    for name, limits, tokens in (
        ("Claude Code, laptop", {"rpm": 60, "monthly_tokens": 200_000_000}, 84_000_000),
        ("Cursor, team", {"rpm": 120, "itpm": 400_000, "concurrency": 8, "monthly_tokens": 500_000_000}, 471_000_000),
        ("Nightly evaluation", {"concurrency": 2}, 12_000_000),
        ("Cherry Studio, phone", {}, 3_000_000),
    ):
        yield ApiKey(
            name=name,
            key_hash=ids.random_base62(32),
            hint=ids.random_base62(4),
            limits=limits,
            requests=random.randint(200, 5000),
            input_tokens=tokens * 9 // 10,
            output_tokens=tokens // 10,
            month=month,
            month_tokens=tokens,
            last_used=moment - timedelta(minutes=random.randint(1, 300)),
            models=["claude-haiku-*"] if name.startswith("Cherry") else None,
            expires_at=moment + timedelta(days=20) if name.startswith("Nightly") else None,
        )
    yield ApiKey(name="Lost phone", key_hash="-", hint="x9Qf", revoked_at=moment - timedelta(days=9), requests=120)


def _others(moment: datetime) -> Iterator[Any]:
    yield ModelRule(pattern="small", target="claude-haiku-4-5")
    yield IpRule(cidr="198.51.100.24/32", reason="guesses keys", expires_at=moment + timedelta(days=6))
    yield IpRule(cidr="2001:db8:77::/64", reason="asks for /wp-login.php all day")
    minute = int(moment.timestamp()) // 60
    for minutes, ip, count in ((1, "198.51.100.24", 1204), (9, "203.0.113.77", 61), (200, "2001:db8:4::1", 7)):
        yield Refusal(minute=minute - minutes, client_ip=ip, status=401, requests=count)
    for hours, what, before, after in (
        (3, "rotationStrategy", "priority", "least_used"),
        (3, "rotationStrategy", "least_used", "priority"),
        (50, "logRetentionDays", 30, 60),
        (70, "block 198.51.100.24/32", None, {"reason": "guesses keys", "expires_at": None}),
        (140, "apiKey", None, None),
        (216, "key Lost phone", "live", "revoked"),
    ):
        yield Change(who="admin", what=what, before=before, after=after, created_at=moment - timedelta(hours=hours))
    yield DeletedAccount(
        id=DELETED,
        provider="anthropic",
        name="Contractor",
        deleted_by="admin",
        deleted_at=moment - timedelta(days=4),
        kept="{}",
    )
    for minutes, before, after in ((1, "active", "cooling"), (300, "cooling", "active")):
        reason, time = f"429: {LIMITED}" if after == "cooling" else None, moment - timedelta(minutes=minutes)
        yield AccountEvent(account_id=2, who="machine", before=before, after=after, reason=reason, time=time)


# --- Requests ---------------------------------------------------------------------------------------------------------


def _months(moment: datetime) -> Iterator[list[dict[str, Any]]]:
    """A day at a time, busier in working hours and on working days."""
    for day in range(DAYS, -1, -1):
        rows = [row for hour in range(24) for row in _hour(moment - timedelta(days=day, hours=hour))]
        yield sorted(rows, key=lambda row: row["time"])


def _hour(end: datetime) -> Iterator[dict[str, Any]]:
    busy = 1 + 9 * math.exp(-(((end.hour - 14) / 4.5) ** 2)) * (0.35 if end.weekday() > 4 else 1)
    for _ in range(int(random.gauss(busy, busy / 4))):
        yield _request(end - timedelta(seconds=random.uniform(1, 3600)))


def _request(when: datetime) -> dict[str, Any]:
    model, fate = random.choice(ASKED), random.random()
    is_claude = model.startswith("claude")
    first, prompt = int(random.lognormvariate(6.7, 0.5)), int(random.lognormvariate(8.5, 1.2))
    cached = int(prompt * random.random()) if is_claude else 0
    row = {
        **BLANK,
        "request_id": ids.request_id(),
        "time": when,
        "key_id": random.choice((2, 2, 3, 3, 3, 4, 5)),
        "account_id": random.choice((1, 1, 2)) if is_claude else 3,
        "provider": "anthropic" if is_claude else "openai",
        "dialect": "anthropic" if is_claude else "openai",
        "model": model,
        "upstream_model": next((name for name in CLAUDE if name.startswith(model)), f"openai/{model}"),
        "upstream_request_id": f"req_{ids.random_base62(24)}",
        "stream": random.random() < 0.9,
        "status": 200,
        "outcome": "ok",
        "attempts": 1,
        "input_tokens": prompt - cached,
        "cache_read_input_tokens": cached,
        "output_tokens": int(random.lognormvariate(6, 1)),
        "first_token_ms": first,
        "duration_ms": first + int(random.lognormvariate(8, 0.9)),
        "client_ip": f"{NETWORK}{random.randint(2, 40)}",
    }
    return row | _fate(fate, row)


def _fate(fate: float, row: dict[str, Any]) -> dict[str, Any]:
    """Most requests go well, some only at the second account, a few not at all."""
    if fate < 0.03 and row["provider"] == "anthropic":
        return _answered_by_another(row)
    if fate < 0.04:
        return {"outcome": "client_gone", "output_tokens": 40}
    if fate < 0.055:
        return _refused(row)
    return _nobody_left(row) if fate < 0.07 else {}


RATE = Try("anthropic", 2, 429, "rate", 312, LIMITED)
NOTHING: dict[str, Any] = {"output_tokens": 0, "first_token_ms": None}


def _answered_by_another(row: dict[str, Any]) -> dict[str, Any]:
    times = {name: row[name] + RATE.ms for name in ("first_token_ms", "duration_ms")}
    tries = [RATE, Try("anthropic", 1, 200, "ok", row["duration_ms"])]
    return {"account_id": 1, "attempts": 2, "trace": explanations.trace(tries, ""), **times}


def _refused(row: dict[str, Any]) -> dict[str, Any]:
    said = "max_tokens: 64001 > 64000, which is the maximum allowed number of output tokens"
    trace = explanations.trace([Try(row["provider"], row["account_id"], 400, "client", 90, said)], said)
    ended = {"status": 400, "outcome": "client_error", "error_type": "invalid_request_error", "duration_ms": 96}
    return {**NOTHING, **ended, "trace": trace}


def _nobody_left(row: dict[str, Any]) -> dict[str, Any]:
    down = Try(row["provider"], row["account_id"], 529, "overloaded", 640, "Overloaded")
    trace = explanations.trace([down, down, RATE], "Overloaded", int(row["time"].timestamp()) + 30)
    ended = {"status": 529, "outcome": "upstream_error", "error_type": "overloaded_error", "duration_ms": 1592}
    return {**NOTHING, **ended, "attempts": 3, "trace": trace}


# --- What debug mode keeps --------------------------------------------------------------------------------------------

JSON_TYPE, STREAM_TYPE = {"content-type": "application/json"}, {"content-type": "text/event-stream"}
QUESTION = (
    b'{"model":"claude-sonnet-4-5","max_tokens":1024,"stream":true,"messages":[{"role":"user","content":"Hello"}]}'
)
REFUSED = b'{"type":"error","error":{"type":"rate_limit_error","message":"' + LIMITED.encode() + b'"}}'
ANSWER = b"""event: message_start
data: {"type":"message_start","message":{"id":"msg_made_up","role":"assistant","content":[]}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello! How can I help?"}}

event: message_stop
data: {"type":"message_stop"}
"""


def keep(folder: Path, request_id: str) -> None:
    """The exchange of a request that the second account answered, as debug mode keeps it in ``folder``."""
    log = ExchangeLog(folder)
    log.until = math.inf
    recording = log.begin(request_id)
    assert recording is not None
    recording.client_in("POST", "/v1/messages", [("x-api-key", ids.random_base62(40)), *JSON_TYPE.items()], QUESTION)
    sent = HttpRequest("POST", "https://api.anthropic.com/v1/messages", JSON_TYPE, QUESTION)
    for status, headers, body in ((429, JSON_TYPE, REFUSED), (200, STREAM_TYPE, ANSWER)):
        came = SimpleNamespace(status=status, headers=headers, body=lambda body=body: iter([body]), close=lambda: None)
        watched = recording.upstream(came, sent, {}, Credentials())
        list(watched.body())
        watched.close()
    recording.client_out(200, STREAM_TYPE.items(), ANSWER)
    recording.close({})
