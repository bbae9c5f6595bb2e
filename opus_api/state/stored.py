"""The fleet as text, and its gates as Redis keeps them."""

import json
from dataclasses import fields
from typing import Any

from opus_api.state.standing import Breaker, Fleet, Gate, Standing, gates

NEVER = 1e18  # Unix seconds that do not come

BLANK = {Standing: Standing(), Breaker: Breaker()}


def dump(fleet: Fleet) -> str:
    return json.dumps(
        {
            "standings": {account_id: _brief(standing) for account_id, standing in fleet.standings.items()},
            "breakers": {site: _brief(breaker) for site, breaker in fleet.breakers.items()},
            "snapshot": fleet.snapshot,
        },
        separators=(",", ":"),
    )


def load(text: str) -> Fleet:
    found = json.loads(text)
    return Fleet(
        {int(account_id): Standing(**values) for account_id, values in found["standings"].items()},
        {
            site: Breaker(**{**values, "accounts": tuple(values.get("accounts", ()))})
            for site, values in found["breakers"].items()
        },
        found["snapshot"],
    )


def _brief(value: Standing | Breaker) -> dict[str, Any]:
    """What differs from a blank one."""
    blank = BLANK[type(value)]
    found = {each.name: getattr(value, each.name) for each in fields(value)}
    return {name: kept for name, kept in found.items() if kept != getattr(blank, name)}


def changed_gates(before: Fleet, after: Fleet) -> tuple[list[str], dict[str, str]]:
    """The names of those that are no more, and those that are new or other than before."""
    old, new = gates(before), gates(after)
    return [name for name in old if name not in new], {n: _gate(g) for n, g in new.items() if old.get(n) != g}


def _gate(gate: Gate) -> str:
    return f"{min(gate.opens, NEVER)!r} {gate.trial:d} {gate.slow_since!r}"
