"""Snapshots made of values, for what the gateway does without a database."""

from collections.abc import Mapping
from typing import Any

from opus_api.services.ip_rules import Blocked
from opus_api.services.request_log import AccountState
from opus_api.services.snapshot import AccountValue, Snapshot
from opus_api.upstreams import UPSTREAMS
from opus_api.upstreams.base import Credentials, Failure, Verdict


def account(id: int = 1, provider: str = "openai", **fields: Any) -> AccountValue:
    upstream = UPSTREAMS[provider]
    options = {option.name: option.default for option in upstream.options}
    blank: dict[str, Any] = {
        "name": f"account-{id}",
        "credentials": Credentials("sk-x", upstream.default_base_url, options),
        "models": None,
        "listed_models": None,
        "model_map": {},
        "priority": 0,
        "max_concurrency": 0,
        "proxy": "",
        "state": "active",
        "state_reason": None,
        "state_until": None,
        "state_version": 0,
        "error_count": 0,
        "usage_count": 0,
        "created_at": 1_700_000_000.0,
        "last_used": None,
    }
    return AccountValue(id=id, provider=provider, **{**blank, **fields})


def snapshot(*accounts: AccountValue, rules: Mapping[str, str] | None = None, seen: bool | None = None) -> Snapshot:
    """``seen``: an account of a real provider has existed at some time."""
    return Snapshot(
        version=1,
        keys={},
        accounts=accounts,
        rules=rules or {},
        settings={},
        blocked=Blocked(()),
        real_account_seen=bool(accounts) if seen is None else seen,
        installation_id="",
        pepper=b"",
        secrets=frozenset(),
    )


def failure(verdict: Verdict, **fields: Any) -> Failure:
    return Failure(verdict, 500, "api_error", "it failed", **fields)


class Notes:
    """What the gateway wants to have recorded."""

    def __init__(self) -> None:
        self.states: list[AccountState] = []

    def account_state(self, change: AccountState) -> None:
        self.states.append(change)
