"""Which account is next."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_api.gateway.rotation import STRATEGIES, Candidate, pick

Turns = dict[int, int]


def picks(strategy: str, accounts: dict[int, tuple[int, int]], times: int) -> Counter[int]:
    """How often each of the accounts {id: (priority, uses)} is picked, one after another."""
    turns: Turns = dict.fromkeys(accounts, 0)
    uses = {id: used for id, (_, used) in accounts.items()}
    counted: Counter[int] = Counter(dict.fromkeys(accounts, 0))
    for turn in range(1, times + 1):
        candidates = [Candidate(id, priority, turns[id], uses[id]) for id, (priority, _) in accounts.items()]
        chosen = pick(strategy, candidates).account_id
        turns[chosen] = turn
        uses[chosen] += 1
        counted[chosen] += 1
    return counted


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(size=st.integers(1, 12), times=st.integers(0, 200))
def test_equals_are_used_equally(strategy: str, size: int, times: int) -> None:
    counted = picks(strategy, dict.fromkeys(range(size), (0, 0)), times)
    assert sum(counted.values()) == times
    assert max(counted.values()) - min(counted.values()) <= 1


@given(priorities=st.lists(st.integers(-3, 3), min_size=1, max_size=8), times=st.integers(1, 60))
def test_only_the_highest_priority_is_used_and_its_accounts_equally(priorities: list[int], times: int) -> None:
    counted = picks("priority", {id: (priority, 0) for id, priority in enumerate(priorities)}, times)
    best = [id for id, priority in enumerate(priorities) if priority == max(priorities)]
    assert {id for id, count in counted.items() if count} <= set(best)
    assert max(counted[id] for id in best) - min(counted[id] for id in best) <= 1


@given(priorities=st.lists(st.integers(-3, 3), min_size=1, max_size=8), times=st.integers(1, 60))
def test_round_robin_looks_at_no_priority(priorities: list[int], times: int) -> None:
    counted = picks("round_robin", {id: (priority, 0) for id, priority in enumerate(priorities)}, times)
    assert max(counted.values()) - min(counted.values()) <= 1


@given(used=st.lists(st.integers(0, 20), min_size=1, max_size=6), times=st.integers(1, 100))
def test_least_used_evens_out_what_was_used_before(used: list[int], times: int) -> None:
    counted = picks("least_used", {id: (0, uses) for id, uses in enumerate(used)}, times)
    totals = {id: used[id] + counted[id] for id in counted}
    picked = [total for id, total in totals.items() if counted[id]]
    assert max(picked) - min(totals.values()) <= 1


@given(st.lists(st.sampled_from(["join", "leave", "pick", "pick", "pick"]), max_size=150))
def test_rotation_is_exact_from_one_coming_or_going_to_the_next(steps: list[str]) -> None:
    turns: Turns = {0: 0}
    counted = Counter({0: 0})
    for turn, step in enumerate(steps, 1):
        if step == "pick":
            chosen = pick("round_robin", [Candidate(id, 0, at, 0) for id, at in turns.items()]).account_id
            turns[chosen] = turn
            counted[chosen] += 1
            assert max(counted.values()) - min(counted.values()) <= 1
            continue
        if step == "join":
            turns[turn] = 0
        elif len(turns) > 1:
            del turns[sorted(turns)[turn % len(turns)]]
        counted = Counter(dict.fromkeys(turns, 0))


@pytest.mark.parametrize("strategy, expected", [("priority", 2), ("round_robin", 3), ("least_used", 1)])
def test_each_strategy_looks_at_its_own_number(strategy: str, expected: int) -> None:
    candidates = [Candidate(1, 0, 7, 1), Candidate(2, 5, 9, 9), Candidate(3, 0, 2, 5)]
    assert pick(strategy, candidates).account_id == expected


@pytest.mark.parametrize("strategy, error", [("no such", KeyError), ("priority", ValueError)])
def test_no_strategy_and_no_candidates_are_errors(strategy: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        pick(strategy, [] if error is ValueError else [Candidate(1, 0, 0, 0)])
