"""What the service does by itself, from time to time. A job is one function and one line of ``JOBS``."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine, select

from opus_api.extensions import db
from opus_api.models import Account, ProbeSeries, now
from opus_api.services import deleted_accounts, exchange_log, retention, saved_settings
from opus_api.services.accounts import Accounts
from opus_api.upstreams import UPSTREAMS

MINUTE, HOUR = 60.0, 3600.0

# An account whose credential was refused is asked again this long after; then a person has to act.
PROBED_AFTER = (timedelta(minutes=5), timedelta(minutes=30), timedelta(minutes=120))
NEVER_PROBED = "suspended"  # in the reason: asking again makes it no better


@dataclass(frozen=True, slots=True)
class Means:
    """What jobs work with, besides the session of the app context that they run in."""

    engine: Engine
    accounts: Accounts
    exchanges: Path  # what debug mode keeps


@dataclass(frozen=True, slots=True)
class Job:
    """``run`` returns what it did in a few words; whatever it raises is its outcome."""

    name: str
    every: float  # seconds; a minute at least
    run: Callable[[Means], str]


def validate_accounts(means: Means) -> str:
    """Ask about every account that may be used; the same answer brings the list of its models."""
    accounts = [account for account in means.accounts.all() if account.state in ("active", "cooling")]
    result = means.accounts.validate_all(accounts)
    return f"{result['valid']} accounts valid, {result['invalid']} invalid"


def look_at_new_accounts(means: Means) -> str:
    """Those that were saved many at once, or while their provider was away."""
    since = now() - timedelta(hours=1)
    new = [account for account in means.accounts.all() if account.last_validated is None and account.created_at > since]
    means.accounts.look_at([account for account in new if account.state == "active"], MINUTE / 2)
    return f"{len(new)} new accounts"


def probe_invalid_accounts(means: Means) -> str:
    due = [account.id for account in _due(now())]
    result = means.accounts.validate_all([means.accounts.get(account_id) for account_id in due])
    _count(due)
    return f"{result['valid']} accounts healed, {result['invalid']} still invalid"


def refresh_tokens(means: Means) -> str:
    return f"{means.accounts.renew_due()} accounts renewed"


def purge_logs(means: Means) -> str:
    old = retention.purge_logs(means.engine, saved_settings.log_days())
    return f"{old + retention.shrink_logs(means.engine, saved_settings.log_mib())} rows deleted"


def purge_refusals(means: Means) -> str:
    return f"{retention.purge_refusals(means.engine, saved_settings.log_days())} counts deleted"


def purge_account_events(means: Means) -> str:
    return f"{retention.purge_account_events(means.engine, saved_settings.log_days())} rows deleted"


def purge_deleted_accounts(means: Means) -> str:
    return f"{retention.purge_deleted_accounts(means.engine, deleted_accounts.DAYS)} accounts erased"


def purge_sessions(means: Means) -> str:
    return f"{retention.purge_sessions(means.engine)} sessions deleted"


def purge_done_calls(means: Means) -> str:
    return f"{retention.purge_done_calls(means.engine)} replies deleted"


def purge_ip_rules(means: Means) -> str:
    return f"{retention.purge_ip_rules(means.engine)} blocks deleted"


def end_debug_log(means: Means) -> str:
    return "switched off" if saved_settings.end_debug_log() else "nothing to do"


def purge_exchanges(means: Means) -> str:
    return f"{exchange_log.prune(means.exchanges)} exchanges deleted"


JOBS = (
    Job("validate_accounts", HOUR, validate_accounts),
    Job("look_at_new_accounts", MINUTE, look_at_new_accounts),
    Job("probe_invalid_accounts", MINUTE, probe_invalid_accounts),
    Job("refresh_tokens", MINUTE, refresh_tokens),
    Job("purge_logs", HOUR, purge_logs),
    Job("purge_refusals", HOUR, purge_refusals),
    Job("purge_account_events", HOUR, purge_account_events),
    Job("purge_deleted_accounts", HOUR, purge_deleted_accounts),
    Job("purge_sessions", HOUR, purge_sessions),
    Job("purge_ip_rules", HOUR, purge_ip_rules),
    Job("purge_done_calls", HOUR, purge_done_calls),
    Job("end_debug_log", MINUTE, end_debug_log),
    Job("purge_exchanges", HOUR, purge_exchanges),
)


def _due(moment: datetime) -> list[Account]:
    """Invalid accounts whose next probe has come. A change by anybody else begins an account's series anew."""
    known = {series.account_id: series for series in db.session.scalars(select(ProbeSeries))}
    due = []
    for account in db.session.scalars(select(Account).where(Account.state == "invalid")):
        series = known.pop(account.id, None)
        if account.provider not in UPSTREAMS or NEVER_PROBED in (account.state_reason or "").lower():
            continue
        if series is None or series.state_version != account.state_version:
            fresh = ProbeSeries(account_id=account.id, state_version=account.state_version, since=moment, made=0)
            db.session.merge(fresh)
        elif series.made < len(PROBED_AFTER) and moment >= series.since + PROBED_AFTER[series.made]:
            due.append(account)
    for healed in known.values():
        db.session.delete(healed)
    db.session.commit()
    return due


def _count(probed: list[int]) -> None:
    for account_id in probed:
        series, account = db.session.get(ProbeSeries, account_id), db.session.get(Account, account_id)
        if series is not None and account is not None:
            series.made += 1
            series.state_version = account.state_version
    db.session.commit()
