"""Which account answers next. Pure: what is known of the candidates in, one of them out."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Candidate(NamedTuple):
    """An account that may be used now. ``turn`` counts up with each pick, so the lowest has waited longest."""

    account_id: int
    priority: int
    turn: int
    load: int  # uses so far, those in flight among them


Rank = Callable[[Candidate], tuple[int, ...]]

# strategy -> the candidate with the smallest rank is next. Waiting longest is exact round robin, also when accounts
# come and go: with n candidates each is picked once in n picks.
STRATEGIES: Mapping[str, Rank] = {
    "priority": lambda c: (-c.priority, c.turn, c.account_id),
    "round_robin": lambda c: (c.turn, c.account_id),
    "least_used": lambda c: (c.load, c.account_id),
}


def pick(strategy: str, candidates: Sequence[Candidate]) -> Candidate:
    """Raises KeyError for an unknown strategy and ValueError for no candidates."""
    return min(candidates, key=STRATEGIES[strategy])
