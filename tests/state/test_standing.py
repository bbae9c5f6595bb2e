"""What successes, failures, time and persons make of the accounts' standing."""

from dataclasses import replace

import pytest
from hypothesis import settings as limits
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from opus_api.models import OVERTAKING
from opus_api.state import standing
from opus_api.state.standing import OUT, OUTAGE, PASSING, Fleet, Standing, Stored
from opus_api.state.stored import dump, load
from opus_api.upstreams.base import Failure, Verdict

SITE, OTHER = "openai https://here", "openai https://there"
MODEL = "m"
NOW = 1_800_000_000.0

IDS = st.integers(1, 5)


def row(id: int, state: str = "active", version: int = 0, until: float | None = None) -> Stored:
    """Account 5 has a server of its own."""
    site = OTHER if id == 5 else SITE
    return Stored(id, "openai", site, version, state, None, until, 0)


def fleet(count: int = 4) -> Fleet:
    return standing.adopted(Fleet(), [row(id) for id in range(1, count + 1)], 1, NOW)


def failure(verdict: Verdict, retry_after: float | None = None, model_only: bool = False) -> Failure:
    return Failure(verdict, 500, "api_error", "it failed", retry_after, model_only)


def fail(found: Fleet, id: int, verdict: Verdict = Verdict.TRANSIENT, now: float = NOW, times: int = 1) -> Fleet:
    for _ in range(times):
        found = standing.failed(found, id, MODEL, failure(verdict), 3, now)
    return found


# ---- the breaker of a site


def test_a_site_where_nothing_succeeds_is_left_alone_and_its_accounts_keep_their_standing() -> None:
    found = fleet()
    for n in range(OUTAGE):
        assert not found.open_until(SITE)
        found = fail(found, n % 4 + 1)
    assert found.open_until(SITE) == NOW + 10
    assert [(s.state, s.error_count) for s in found.standings.values()] == [("active", 0)] * 4
    assert fail(found, 1, times=9) == found  # what still fails says nothing new


def test_what_failed_first_and_is_counted_last_belongs_to_the_same_outage() -> None:
    found = fleet()
    for now in (NOW + 0.002, NOW, NOW + 0.001):
        found = fail(found, 1, now=now)
    assert found.standings[1].state == "cooling"
    found = fail(found, 2, now=NOW + 0.1, times=OUTAGE - 3)
    assert found.open_until(SITE)
    assert found.standings[1].state == "active"


def test_each_failed_trial_doubles_the_time_up_to_a_minute() -> None:
    found, now, waits = fleet(1), NOW, []
    found = fail(found, 1, times=OUTAGE)
    for _ in range(5):
        waits.append(found.open_until(SITE) - now)
        now = found.open_until(SITE)
        found = fail(found, 1, now=now)
    assert waits == [10, 20, 40, 60, 60]


@pytest.mark.parametrize("good", [standing.succeeded, standing.answering])
def test_anything_that_works_closes_it(good: object) -> None:
    found = fail(fleet(1), 1, times=OUTAGE)
    assert good(found, 1, NOW + 9) == found  # type: ignore[operator]  # what began before it opened
    assert good(found, 1, NOW + 10).breakers == {}  # type: ignore[operator]


@pytest.mark.parametrize("verdict", [v for v in Verdict if v not in PASSING])
def test_an_answer_that_refuses_shows_that_the_site_works(verdict: Verdict) -> None:
    found = fail(fleet(), 1, times=OUTAGE - 1)
    assert fail(found, 2, verdict).breakers == {}


def test_one_accounts_own_trouble_is_not_its_sites() -> None:
    found = fail(fleet(), 1, times=50)
    assert not found.open_until(SITE)
    assert found.standings[1].state == "cooling"


def test_another_server_of_the_provider_is_another_site() -> None:
    found = fleet(5)
    for n in range(OUTAGE):
        found = fail(found, n % 4 + 1)
    assert found.open_until(SITE)
    assert not found.open_until(OTHER)


def test_overload_counts_for_the_site_alone() -> None:
    found = fail(fleet(1), 1, Verdict.OVERLOADED, times=OUTAGE - 1)
    assert found.standings[1] == fleet(1).standings[1]
    assert fail(found, 1, Verdict.OVERLOADED).open_until(SITE)


def test_an_outage_takes_back_only_what_it_did() -> None:
    found = fail(fleet(), 1, Verdict.QUOTA)
    found = standing.failed(found, 2, MODEL, failure(Verdict.AUTH), 3, NOW)
    for n in range(OUTAGE):
        found = fail(found, n % 3 + 2)
    states = [(s.state, s.error_count) for s in found.standings.values()]
    assert states == [("cooling", 0), ("active", 1), ("active", 0), ("active", 0)]


# ---- the way back


def test_a_trial_that_answers_is_back_and_begins_slowly() -> None:
    found = fail(fleet(), 1, Verdict.RATE)
    found = standing.answering(found, 1, NOW + 30)
    assert found.standings[1].state == "active"
    assert found.standings[1].slow_since == NOW + 30


def test_an_answer_that_began_before_the_cooldown_does_not_end_it() -> None:
    found = fail(fleet(), 1, Verdict.RATE)
    assert standing.succeeded(found, 1, NOW + 29) == found


def test_a_trial_that_fails_cools_for_longer() -> None:
    found = fail(fleet(), 1, times=3)
    until = found.standings[1].until
    assert until == NOW + 30
    found = fail(found, 1, now=until)
    assert found.standings[1].until == until + 60


# ---- what the database says


def test_a_deadline_beyond_all_reason_is_not_believed() -> None:
    found = standing.adopted(Fleet(), [row(1, "cooling", until=NOW + 9e9)], 1, NOW)
    assert found.standings[1].until == NOW + standing.LONGEST


def test_a_slow_workers_snapshot_changes_nothing_but_one_from_before_the_clock_was_set_does() -> None:
    hour = 3600 * 10**9
    found = standing.adopted(Fleet(), [row(1), row(2)], 10 * hour, NOW)
    assert standing.adopted(found, [row(1)], 10 * hour - 1, NOW) == found
    assert set(standing.adopted(found, [row(1)], 9 * hour, NOW).standings) == {1}


def test_a_person_who_heals_an_account_gives_its_site_another_chance() -> None:
    found = fail(fleet(1), 1, times=OUTAGE)
    assert standing.adopted(found, [row(1, version=1000)], 2, NOW).breakers == {}


# ---- any order of events


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.fleet = fleet(5)
        self.snapshot = 1

    def become(self, after: Fleet) -> Fleet:
        """Returns what was before."""
        before, self.fleet = self.fleet, standing.numbered(self.fleet, after)
        for id in before.standings:
            old, new = before.standings[id], self.fleet.standings[id]
            assert new.version - old.version == (id in standing.changed(before, self.fleet))
            assert (old.state == "disabled") <= (new == old)
            assert (old.state == "invalid") <= (new.state == "invalid")
        return before

    def usable(self, found: Fleet) -> set[int]:
        return {i for i, s in found.standings.items() if (at := s.usable_at(MODEL)) is not None and at <= self.now}

    @rule(seconds=st.sampled_from([0.1, 1, 10, 30, 61, 400, 4000]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(id=IDS)
    def an_answer_ends_well(self, id: int) -> None:
        before = self.become(standing.succeeded(self.fleet, id, self.now))
        if before.standings[id].is_cooling(self.now):
            assert self.fleet.standings[id] == before.standings[id]

    @rule(id=IDS, verdict=st.sampled_from(PASSING), times=st.integers(1, 12), jitter=st.floats(0.8, 1.2))
    def trouble_passes(self, id: int, verdict: Verdict, times: int, jitter: float) -> None:
        for _ in range(times):
            after = standing.failed(self.fleet, id, MODEL, failure(verdict), 3, self.now, jitter)
            before = self.become(after)
            assert bool(self.usable(before)) <= bool(self.usable(self.fleet)), "the pool was emptied"
            for i, old in before.standings.items():
                assert (self.fleet.standings[i].state == "invalid") <= (old.state == "invalid")
                if old.is_cooling(self.now) and old.is_limited:
                    assert self.fleet.standings[i].until == old.until

    @rule(
        id=IDS,
        verdict=st.sampled_from([v for v in Verdict if v not in PASSING]),
        wait=st.none() | st.floats(0.5, 9000),
        model_only=st.booleans(),
    )
    def it_is_refused(self, id: int, verdict: Verdict, wait: float | None, model_only: bool) -> None:
        after = standing.failed(self.fleet, id, MODEL, failure(verdict, wait, model_only), 3, self.now)
        before = self.become(after)
        old, new = before.standings[id], self.fleet.standings[id]
        if old.is_cooling(self.now) and new.state == "cooling":
            assert (new.until or 0) >= (old.until or 0), "a cooldown was shortened"
        if verdict in (Verdict.RATE, Verdict.QUOTA) and wait and old.state not in OUT:
            assert (new.usable_at(MODEL) or 0) >= self.now + wait, "a wait was not kept"

    @rule(id=IDS, state=st.sampled_from(["active", "disabled"]))
    def a_person_switches(self, id: int, state: str) -> None:
        self.snapshot += 1
        rows = [row(i, s.state, s.version, s.until) for i, s in self.fleet.standings.items()]
        rows[id - 1] = row(id, state, self.fleet.standings[id].version + 1000)
        self.fleet = standing.adopted(self.fleet, rows, self.snapshot, self.now)
        assert self.fleet.standings[id].state == state

    @invariant()
    def it_makes_sense(self) -> None:
        for found in self.fleet.standings.values():
            assert 0 <= found.auth_failures <= found.error_count
            assert (found.state == "cooling") == (found.until is not None)
            assert found.times_in_a_row >= 0
        assert all(b.until <= self.now + standing.OUTAGE_CAP for b in self.fleet.breakers.values())
        assert load(dump(self.fleet)) == self.fleet


TestLife = Life.TestCase
TestLife.settings = limits(max_examples=60, stateful_step_count=40, deadline=None)


def test_what_was_found_apart_is_put_together() -> None:
    shared = Fleet({1: Standing(version=3), 2: Standing(version=5, state="invalid")}, {}, 4)
    own = Fleet({1: Standing(version=4, state="cooling", until=9.0), 2: Standing(version=5), 3: Standing()}, {}, 3)
    found = standing.merged(shared, own, 8.0)
    assert [(i, s.state, s.version) for i, s in sorted(found.standings.items())] == [
        (1, "cooling", 4),
        (2, "invalid", 5),
        (3, "active", -1),
    ]
    assert found.snapshot == 4
    longer = replace(own, standings={1: Standing(version=3, until=1.0)})
    assert standing.merged(shared, longer, 8.0).standings[1].until == 1.0


COOLING = Standing(version=3, state="cooling", until=9.0, reason="429", since=1.0, times_in_a_row=2)


@pytest.mark.parametrize(
    "one, other, kept",
    [
        (COOLING, Standing(version=5), ("cooling", 9.0, 5)),
        (COOLING, Standing(version=5, state="cooling", until=8.5), ("cooling", 9.0, 5)),
        (COOLING, Standing(version=5, state="cooling", until=9.5), ("cooling", 9.5, 5)),
        (COOLING, Standing(version=5, state="invalid"), ("invalid", None, 5)),
        (replace(COOLING, until=7.0), Standing(version=5), ("active", None, 5)),  # it is over
        (COOLING, Standing(version=903), ("active", None, 903)),  # a person's
        (Standing(version=3, state="invalid"), Standing(version=5), ("invalid", None, 5)),
        (Standing(version=3, state="invalid"), Standing(version=1003), ("active", None, 1003)),
    ],
)
def test_apart_nothing_that_keeps_requests_away_is_lost_to_what_the_other_counted(
    one: Standing, other: Standing, kept: tuple[str, float | None, int]
) -> None:
    for shared, own in ((one, other), (other, one)):
        found = standing.merged(Fleet({1: shared}), Fleet({1: own}), 8.0).standings[1]
        assert (found.state, found.until, found.version) == kept


def test_apart_no_model_at_its_limit_is_forgotten() -> None:
    one = Fleet({1: Standing(models_until={"m": 9.0}, absent_until={"x": 9.0})})
    other = Fleet({1: Standing(version=1, models_until={"m": 8.5, "n": 9.0})})
    for shared, own in ((one, other), (other, one)):
        found = standing.merged(shared, own, 8.0).standings[1]
        assert (found.models_until, found.absent_until) == ({"m": 9.0, "n": 9.0}, {"x": 9.0})


@pytest.mark.parametrize("until, kept", [(NOW + 9, NOW + 9), (NOW + 5, NOW + 8), (None, NOW + 8)])
def test_of_two_cooldowns_that_two_workers_count_as_the_same_change_the_longer_is_learnt(
    until: float | None, kept: float
) -> None:
    own = Standing("openai", SITE, 4, "cooling", "429", NOW + 8, times_in_a_row=2)
    found = standing.adopted(Fleet({1: own}, {}, 1), [row(1, "cooling", 4, until)], 1, NOW).standings[1]
    assert (found.until, found.times_in_a_row) == (kept, 2)


@pytest.mark.parametrize("version, kept", [(4, {"m": NOW + 9}), (3 + OVERTAKING, {})])
def test_another_workers_change_of_an_account_tells_nothing_of_its_models_but_a_persons_does(
    version: int, kept: dict[str, float]
) -> None:
    own = Standing("openai", SITE, 3, models_until={"m": NOW + 9}, absent_until={"m": NOW + 9})
    found = standing.adopted(Fleet({1: own}, {}, 1), [row(1, version=version)], 1, NOW).standings[1]
    assert (found.models_until, found.absent_until) == (kept, kept)


# ---- names of models, which clients make up


@pytest.mark.parametrize("verdict, model_only", [(Verdict.NO_MODEL, False), (Verdict.RATE, True)])
def test_of_made_up_models_the_last_hundred_are_remembered(verdict: Verdict, model_only: bool) -> None:
    found = fleet(1)
    for n in range(300):
        found = standing.failed(found, 1, f"m{n}", failure(verdict, 600, model_only), 3, NOW + n)
    known = {**found.standings[1].absent_until, **found.standings[1].models_until}
    assert set(known) == {f"m{n}" for n in range(200, 300)}
    assert len(standing.gates(found)) == 100


def test_a_model_that_was_just_learnt_is_remembered_among_a_hundred_that_last_longer() -> None:
    found = fleet(1)
    for n in range(100):
        found = standing.failed(found, 1, f"m{n}", failure(Verdict.RATE, 600, True), 3, NOW)
    found = standing.failed(found, 1, "soon over", failure(Verdict.RATE, 60, True), 3, NOW)
    known = found.standings[1].models_until
    assert len(known) == 100
    assert known["soon over"] == NOW + 60
