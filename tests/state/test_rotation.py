"""Which account is next."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_api.state.rotation import STRATEGIES, Candidate, Facts, choose, rank, share

Turns = dict[int, int]


def pick(strategy: str, accounts: dict[int, int], turns: Turns, uses: dict[int, int]) -> int:
    """The next of the accounts {id: priority}."""
    candidates = [Candidate(id, priority) for id, priority in accounts.items()]
    choice = choose(strategy, candidates, {}, {}, turns, uses, 0.0)
    assert choice
    return choice.candidate.account_id


def picks(strategy: str, accounts: dict[int, tuple[int, int]], times: int) -> Counter[int]:
    """How often each of the accounts {id: (priority, uses)} is picked, one after another."""
    turns: Turns = {}
    priorities = {id: priority for id, (priority, _) in accounts.items()}
    uses = {id: used for id, (_, used) in accounts.items()}
    counted: Counter[int] = Counter(dict.fromkeys(accounts, 0))
    for turn in range(1, times + 1):
        chosen = pick(strategy, priorities, turns, uses)
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
            chosen = pick("round_robin", dict.fromkeys(turns, 0), turns, {})
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
    turns, uses = {1: 7, 2: 9, 3: 2}, {1: 1, 2: 9, 3: 5}
    assert pick(strategy, {1: 0, 2: 5, 3: 0}, turns, uses) == expected


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_whoever_has_more_than_its_share_in_its_slow_start_comes_last(strategy: str) -> None:
    crowded, other = Facts(1, -9, 0, 0, 1), Facts(0, 0, 99, 99, 2)
    assert rank(strategy, other) < rank(strategy, crowded)


def test_no_such_strategy_is_an_error() -> None:
    with pytest.raises(KeyError):
        pick("no such", {1: 0}, {}, {})


@pytest.mark.parametrize(
    "cap, seconds, places",
    [(0, 0, 2), (0, 30, 11), (0, 59, 19), (100, 0, 10), (100, 30, 55), (3, 0, 1), (100, 60, float("inf"))],
)
def test_the_share_of_a_returning_account_grows_from_a_tenth_to_all(cap: int, seconds: float, places: float) -> None:
    assert share(cap, seconds) == places
