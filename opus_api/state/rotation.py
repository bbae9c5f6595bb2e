"""Which account answers next. Pure: what is known of the candidates in, one of them out.

``pick.lua`` says the same inside Redis; tests/state runs both against the same expectations.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from opus_api.state.standing import SLOW_START, SLOW_START_FULL, Gate


class Candidate(NamedTuple):
    """An account that could serve the request."""

    account_id: int
    priority: int = 0
    cap: int = 0  # requests at the same time; 0: as many as come
    model: str = ""
    site: str = ""


class Facts(NamedTuple):
    """What a rank is made of. ``turn`` counts up with each pick, so the lowest has waited longest."""

    crowded: int  # in its slow start with more than its share: only when nobody else is left
    prefer: int  # larger first
    turn: int
    uses: int  # so far, those in flight among them
    account_id: int


# strategy -> the facts that decide, in this order; the smallest is next. Waiting longest is exact round robin, also
# when accounts come and go: with n candidates each is picked once in n picks.
STRATEGIES: Mapping[str, tuple[str, ...]] = {
    "priority": ("prefer", "turn"),
    "round_robin": ("turn",),
    "least_used": ("uses",),
}


def rank(strategy: str, facts: Facts) -> tuple[int, ...]:
    """Raises KeyError for an unknown strategy."""
    return (facts.crowded, *(getattr(facts, name) for name in STRATEGIES[strategy]), facts.account_id)


class Choice(NamedTuple):
    candidate: Candidate
    counted: tuple[str, ...]  # the names under which the request counts while it is in flight


def choose(
    strategy: str,
    candidates: Sequence[Candidate],
    gates: Mapping[str, Gate],
    in_flight: Mapping[str, int],
    turns: Mapping[int, int],
    uses: Mapping[int, int],
    now: float,
) -> Choice | None:
    """The best of those that may be used now; None when there is none. Raises KeyError for an unknown strategy."""
    best: tuple[tuple[int, ...], Choice] | None = None
    for candidate in candidates:
        choice = _admitted(candidate, gates, in_flight, now)
        if choice is None:
            continue
        account_id = candidate.account_id
        crowded = int(_is_crowded(candidate, gates.get(str(account_id)), in_flight, now))
        facts = Facts(crowded, -candidate.priority, turns.get(account_id, 0), uses.get(account_id, 0), account_id)
        ranked = rank(strategy, facts)
        if best is None or ranked < best[0]:
            best = ranked, choice
    return best[1] if best else None


def _admitted(
    candidate: Candidate, gates: Mapping[str, Gate], in_flight: Mapping[str, int], now: float
) -> Choice | None:
    account_id, cap = candidate.account_id, candidate.cap
    if cap and in_flight.get(f"a{account_id}", 0) >= cap:
        return None
    counted = [f"a{account_id}"]
    for name in (str(account_id), f"{account_id} {candidate.model}", f"@{candidate.site}"):
        gate = gates.get(name)
        if gate is None:
            continue
        if gate.opens > now or (gate.trial and in_flight.get(f"t{name}", 0)):
            return None
        if gate.trial:
            counted.append(f"t{name}")
    return Choice(candidate, tuple(counted))


def trials_of(counted: Iterable[str]) -> tuple[str, ...]:
    """The names, among those under which a request counts, that say that it only tries: one at a time."""
    return tuple(name for name in counted if name.startswith("t"))


def _is_crowded(candidate: Candidate, gate: Gate | None, in_flight: Mapping[str, int], now: float) -> bool:
    if gate is None or not gate.slow_since:
        return False
    return in_flight.get(f"a{candidate.account_id}", 0) >= share(candidate.cap, now - gate.slow_since)


def share(cap: int, seconds: float) -> float:
    """Requests at the same time, so long after an account came back: from a tenth to all."""
    if seconds >= SLOW_START:
        return math.inf
    return max(1, math.floor((cap or SLOW_START_FULL) * (0.1 + 0.9 * max(seconds, 0.0) / SLOW_START)))
