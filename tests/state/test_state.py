"""What requests share: the same promises of both engines."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opus_api.state import NOTES, Charge, Held, State
from opus_api.state.memory import MemoryState
from opus_api.state.rotation import STRATEGIES, Candidate
from opus_api.state.standing import Breaker, Fleet, Standing
from opus_api.state.stored import dump, load
from tests.state.conftest import Clock

SITE = "openai https://here"


def candidates(*ids: int, cap: int = 0, model: str = "m") -> list[Candidate]:
    return [Candidate(id, 0, cap, model, SITE) for id in ids]


def stand(engine: State, id: int = 1, /, **fields: object) -> None:
    """Account ``id`` stands like this."""
    engine.update(lambda fleet: fleet.having(id, replace(Standing("openai", SITE), **fields)))  # type: ignore[arg-type]


def picked(state: State, ids: tuple[int, ...], clock: Clock, strategy: str = "round_robin") -> Held | None:
    return state.pick(candidates(*ids), strategy, clock.now)


# ---- who is next


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equals_are_used_equally(state: State, clock: Clock, strategy: str) -> None:
    counted: Counter[int] = Counter()
    held = [picked(state, (1, 2, 3, 4, 5, 6, 7), clock, strategy) for _ in range(700)]
    counted.update(one.account_id for one in held if one)
    assert set(counted.values()) == {100}
    assert [state.in_flight(f"a{id}") for id in counted] == [100] * 7
    for one in held:
        assert one
        state.release(one)
    assert [state.in_flight(f"a{id}") for id in counted] == [0] * 7


def test_priority_comes_before_the_turn(state: State, clock: Clock) -> None:
    ranked = [Candidate(1, 1), Candidate(2, 5), Candidate(3, 5)]
    found = [state.pick(ranked, "priority", clock.now) for _ in range(4)]
    assert [held.account_id for held in found if held] == [2, 3, 2, 3]


def test_least_used_goes_by_what_was_used_before(state: State, clock: Clock) -> None:
    state.seed({1: 10, 2: 7, 3: 9})
    found = [picked(state, (1, 2, 3), clock, "least_used") for _ in range(7)]
    assert [held.account_id for held in found if held] == [2, 2, 2, 3, 1, 2, 3]
    state.seed({1: 0, 2: 0, 3: 0, 4: 12})  # what is known already stays
    held = picked(state, (1, 2, 3, 4), clock, "least_used")
    assert held
    assert held.account_id != 4


def test_an_account_that_joins_is_next_and_one_that_was_away_takes_its_turn(state: State, clock: Clock) -> None:
    for _ in range(4):
        picked(state, (1, 2), clock)
    found = [picked(state, (1, 2, 3), clock) for _ in range(6)]
    assert [held.account_id for held in found if held] == [3, 1, 2, 3, 1, 2]


def test_nobody_can_be_picked_of_nobody(state: State, clock: Clock) -> None:
    assert state.pick([], "priority", clock.now) is None


def test_the_cap_on_concurrency_holds(state: State, clock: Clock) -> None:
    held = [state.pick(candidates(1, cap=3), "priority", clock.now) for _ in range(4)]
    assert [bool(one) for one in held] == [True, True, True, False]
    assert held[0]
    state.release(held[0])
    assert state.pick(candidates(1, cap=3), "priority", clock.now)


# ---- who may be used


@pytest.mark.parametrize("state_name", ["invalid", "disabled"])
def test_who_is_out_is_not_picked(state: State, clock: Clock, state_name: str) -> None:
    stand(state, state=state_name)
    assert picked(state, (1,), clock) is None
    held = picked(state, (1, 2), clock)
    assert held
    assert held.account_id == 2


def test_a_cooldown_ends_with_one_request_at_a_time(state: State, clock: Clock) -> None:
    stand(state, state="cooling", until=clock.now + 30)
    assert picked(state, (1,), clock) is None
    clock.now += 29.999
    assert picked(state, (1,), clock) is None
    clock.now += 0.001
    trial = picked(state, (1,), clock)
    assert trial
    assert picked(state, (1,), clock) is None
    state.release(trial)
    assert picked(state, (1,), clock)


def test_a_trial_that_takes_long_keeps_nobody_out_when_there_is_nobody_else(state: State, clock: Clock) -> None:
    stand(state, state="cooling", until=clock.now)
    stand(state, 2)

    def next_of(*ids: int) -> int | None:
        held = state.pick(candidates(*ids), "round_robin", clock.now, 3.0)
        return held.account_id if held else None

    trial = picked(state, (1,), clock)
    assert trial
    clock.now += 2.9
    assert next_of(1) is None
    clock.now += 0.1
    assert picked(state, (1,), clock) is None
    assert [next_of(1, 2), next_of(1, 2)] == [2, 2]
    assert next_of(1) == 1
    assert next_of(1) is None, "one more, which has as long"
    state.release(trial)
    assert next_of(1) is None
    clock.now += 3
    assert next_of(1) == 1
    assert state.in_flight("a1") == 2


def test_a_model_cools_alone(state: State, clock: Clock) -> None:
    stand(state, models_until={"m": clock.now + 5}, absent_until={"x y": clock.now + 9})
    assert picked(state, (1,), clock) is None
    assert state.pick(candidates(1, model="x y"), "priority", clock.now) is None
    assert state.pick(candidates(1, model="n"), "priority", clock.now)
    clock.now += 5
    assert [bool(picked(state, (1,), clock)) for _ in range(2)] == [True, True]


def test_an_open_breaker_lets_nobody_through_and_then_one(state: State, clock: Clock) -> None:
    state.update(lambda fleet: fleet.broken(SITE, Breaker(10, (1,), clock.now, clock.now + 10, 1)))
    assert picked(state, (1, 2), clock) is None
    assert state.pick([Candidate(3, site="elsewhere")], "priority", clock.now)
    clock.now += 10
    trial = picked(state, (1, 2), clock)
    assert trial
    assert picked(state, (1, 2), clock) is None
    state.release(trial)
    assert picked(state, (1, 2), clock)


def test_a_returning_account_gets_its_share_and_more_only_when_nobody_else_is_left(state: State, clock: Clock) -> None:
    stand(state, 1, slow_since=clock.now)
    found = [picked(state, (1, 2), clock) for _ in range(20)]
    assert Counter(held.account_id for held in found if held) == {1: 2, 2: 18}
    clock.now += 30
    found = [picked(state, (1, 2), clock) for _ in range(20)]
    assert state.in_flight("a1") == 11
    assert picked(state, (1,), clock)
    clock.now += 30
    found = [picked(state, (1, 2), clock) for _ in range(20)]
    assert state.in_flight("a1") > 20


# ---- standings


def test_the_fleet_is_what_was_made_of_it(state: State) -> None:
    assert state.fleet() == Fleet()
    stand(state, 1, reason="why", models_until={"m": 1.5})
    before, after = state.update(lambda fleet: fleet.having(2, Standing(version=7, until=2.25)))
    assert set(before.standings) == {1}
    assert state.fleet() == after
    assert after.standings[1].models_until == {"m": 1.5}
    assert after.standings[2] == Standing(version=7, until=2.25)


def test_what_changes_nothing_is_the_same_before_and_after(state: State) -> None:
    stand(state)
    before, after = state.update(lambda fleet: fleet)
    assert before is after


STANDINGS = st.builds(
    Standing,
    version=st.integers(-1, 9),
    state=st.sampled_from(["active", "cooling", "invalid", "disabled"]),
    reason=st.none() | st.text(max_size=9),
    until=st.none() | st.floats(0, 2e9),
    error_count=st.integers(0, 9),
    models_until=st.dictionaries(st.text(max_size=5), st.floats(0, 2e9), max_size=2),
)
BREAKERS = st.builds(Breaker, failures=st.integers(0, 9), accounts=st.tuples(st.integers()), until=st.floats(0, 2e9))


@given(
    st.builds(
        Fleet,
        st.dictionaries(st.integers(1, 2**62), STANDINGS, max_size=4),
        st.dictionaries(st.text(max_size=9), BREAKERS, max_size=2),
        st.integers(-1, 99),
    )
)
def test_a_fleet_comes_back_from_its_text(fleet: Fleet) -> None:
    assert load(dump(fleet)) == fleet


# ---- places of keys


def test_a_name_has_so_many_places(state: State) -> None:
    assert [state.hold("key 1", 2) for _ in range(3)] == [True, True, False]
    assert state.hold("key 2", 1)
    state.let_go("key 1")
    assert state.in_flight("key 1") == 1
    assert state.hold("key 1", 2)
    assert not state.hold("key 1", 2)


# ---- conversations


def test_a_binding_holds_for_an_hour_after_its_last_use(state: State, clock: Clock) -> None:
    assert state.bound("c") is None
    state.bind("c", 5)
    clock.now += 3599
    assert state.bound("c") == 5
    clock.now += 3599
    assert state.bound("c") == 5
    clock.now += 3600
    assert state.bound("c") is None


def test_bindings_are_bounded(state: State, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    for engine in ("memory", "redis_engine"):
        monkeypatch.setattr(f"opus_api.state.{engine}.MOST", 10)
    for n in range(30):
        clock.now += 1
        state.bind(f"c{n}", n)
    assert [n for n in range(30) if state.bound(f"c{n}") is not None] == list(range(20, 30))


# ---- windows


def charge(amount: float = 1, limit: float = 3, name: str = "k", window: float = 60) -> Charge:
    return Charge(name, window, amount, limit)


def test_what_does_not_fit_says_when_it_will(state: State, clock: Clock) -> None:
    for _ in range(3):
        assert state.spend([charge()], clock.now) is None
        clock.now += 10
    refused = state.spend([charge()], clock.now)
    assert refused
    assert (refused.charge, refused.wait) == (charge(), pytest.approx(30))
    clock.now += 29.99
    assert state.spend([charge()], clock.now)
    clock.now += 0.01
    assert state.spend([charge()], clock.now) is None
    assert state.used("k", 60, clock.now) == 3


def test_all_charges_are_taken_or_none(state: State, clock: Clock) -> None:
    both = [charge(name="a"), charge(5, 4, name="b")]
    refused = state.spend(both, clock.now)
    assert refused
    assert (refused.charge.name, refused.wait) == ("b", 60)  # it never fits
    assert state.used("a", 60, clock.now) == 0


def test_a_charge_is_settled_or_given_back(state: State, clock: Clock) -> None:
    state.spend([charge(100, 150)], clock.now)
    when, clock.now = clock.now, clock.now + 20
    state.spend([charge(30, 150)], clock.now)
    state.settle(charge(100, 150), when, 120)
    assert state.used("k", 60, clock.now) == 150
    state.settle(charge(30, 150), clock.now, 0)
    assert state.used("k", 60, clock.now) == 120
    clock.now += 41
    assert state.used("k", 60, clock.now) == 0
    state.settle(charge(100, 150), when, 500)  # too late to matter
    assert state.used("k", 60, clock.now) == 0


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.floats(0, 8), st.integers(1, 4)), max_size=60), name=st.uuids())
def test_no_window_of_any_position_holds_more_than_its_limit(
    state: State, steps: list[tuple[float, int]], name: object
) -> None:
    now, taken = 1_800_000_000.0, []
    for pause, amount in steps:
        now += pause
        if state.spend([Charge(str(name), 10, amount, 5)], now) is None:
            taken.append((now, amount))
        assert sum(a for at, a in taken if at > now - 10) <= 5


# ---- strikes


def test_strikes_add_up_until_forgiven_or_forgotten(state: State, clock: Clock) -> None:
    assert state.strikes("u", clock.now).times == 0
    assert [state.strike("u", clock.now).times for _ in range(3)] == [1, 2, 3]
    assert state.strikes("u", clock.now) == (3, clock.now)
    state.forgive("u")
    assert state.strike("u", clock.now).times == 1
    clock.now += 3600
    assert state.strikes("u", clock.now).times == 0
    assert state.strike("u", clock.now).times == 1


def test_names_with_strikes_are_bounded(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr("opus_api.state.memory.MOST", 10)
    memory = MemoryState(clock)
    for n in range(50):
        memory.strike(f"u{n}", clock.now)
    assert [n for n in range(50) if memory.strikes(f"u{n}", clock.now).times] == list(range(40, 50))


def test_the_engine_is_well(state: State) -> None:
    state.fleet()
    assert state.health().away == 0


# ---- notes


def test_the_last_notes_are_kept_for_an_hour_the_newest_first(state: State, clock: Clock) -> None:
    for number in range(NOTES + 5):
        state.note(str(number))
    assert list(state.notes()) == [str(number) for number in range(NOTES + 4, 4, -1)]
