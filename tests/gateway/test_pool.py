"""What successes and failures mean for an account, and who may be used now."""

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_api.gateway.catalog import Target
from opus_api.gateway.pool import Lease, Outlook, Pool
from opus_api.models import OVERTAKING
from opus_api.services.snapshot import AccountValue
from opus_api.state.memory import MemoryState
from opus_api.state.standing import QUOTA_REASON, RATE_REASON, Standing
from opus_api.upstreams.base import Verdict
from tests.gateway.values import Notes, account, failure, snapshot

NOT_COUNTED = [Verdict.CLIENT, Verdict.LEARN, Verdict.RATE, Verdict.QUOTA, Verdict.NO_MODEL, Verdict.OVERLOADED]
COUNTED = [Verdict.AUTH, Verdict.TRANSIENT, Verdict.UNREACHABLE]


NOW = 1_800_000_000.0


class House:
    """A pool with its accounts, all of which serve the model "m"."""

    def __init__(self, *accounts: AccountValue, max_errors: int = 3):
        self.notes = Notes()
        self.uses: list[int] = []
        self.now = NOW
        self.state = MemoryState(lambda: self.now)
        self.pool = Pool(self.notes, max_errors, self.state, lambda: self.now)  # type: ignore[arg-type]
        self.accounts = accounts
        self.pool.adopt(snapshot(*accounts))

    @property
    def targets(self) -> list[Target]:
        return [Target(account.provider, "m", account) for account in self.accounts]

    def change(self, id: int, **fields: Any) -> None:
        """A person's change, as the next snapshot shows it."""
        changed = (replace(a, **fields) if a.id == id else a for a in self.accounts)
        self.accounts = tuple(changed)
        self.pool.adopt(snapshot(*self.accounts))

    def fail(self, id: int, verdict: Verdict, times: int = 1, **fields: Any) -> None:
        for _ in range(times):
            self.pool.failed(self.target(id), failure(verdict, **fields))

    def target(self, id: int, model: str = "m") -> Target:
        found = next(a for a in self.accounts if a.id == id)
        return Target(found.provider, model, found)

    def lease(self, strategy: str = "priority", without: tuple[int, ...] = ()) -> Lease | None:
        lease = self.pool.lease(self.targets, strategy, without)
        if lease and lease.target.account:
            self.uses.append(lease.target.account.id)
        return lease

    def leased(self, strategy: str = "priority") -> int | None:
        """The account that is next; it is given back."""
        lease = self.lease(strategy)
        if lease is None:
            return None
        lease.release()
        assert lease.target.account
        return lease.target.account.id

    def outlook(self) -> Outlook:
        return self.pool.outlook(self.targets)

    def standing(self, id: int = 1) -> Standing:
        return self.state.fleet().standings[id]


def shown(house: House, id: int = 1) -> tuple[str, str | None, int]:
    standing = house.standing(id)
    return standing.state, standing.reason, standing.error_count


# ---- what failures do


@pytest.mark.parametrize("verdict", COUNTED)
def test_counted_failures_in_a_row_take_an_account_out(verdict: Verdict) -> None:
    house = House(account(1), account(2))
    house.fail(1, verdict, times=2)
    assert shown(house) == ("active", None, 2)
    house.fail(1, verdict)
    expected = "invalid" if verdict is Verdict.AUTH else "cooling"
    assert (house.standing().state, house.standing().error_count) == (expected, 3)
    assert "it failed" in str(house.standing().reason)
    assert {house.leased() for _ in range(4)} == {2}


@pytest.mark.parametrize("verdict", NOT_COUNTED)
def test_other_failures_are_never_counted(verdict: Verdict) -> None:
    house = House(account(1), account(2))
    house.fail(1, verdict, times=10)
    assert house.standing().error_count == 0
    assert house.standing().state == ("cooling" if verdict in (Verdict.RATE, Verdict.QUOTA) else "active")


def cooled(house: House, *ids: int) -> None:
    for id in ids:
        house.fail(id, Verdict.RATE, retry_after=1.0)
    house.now += 1.5


def test_a_trial_that_takes_long_keeps_nobody_else_out() -> None:
    house = House(account(1))
    cooled(house, 1)
    first = house.lease()
    assert first
    assert house.lease() is None
    house.now += 2.9
    assert house.lease() is None
    house.now += 0.2
    second = house.lease()
    assert second
    assert house.lease() is None, "one more, which has as long"
    first.release()
    assert house.lease() is None
    assert house.state.in_flight("a1") == 1
    second.release()
    assert house.leased() == 1
    assert house.state.places() == {}


def test_a_slow_trial_stays_the_only_one_while_another_account_is_well() -> None:
    house = House(account(1, priority=2), account(2))
    cooled(house, 1)
    trial = house.lease()
    house.now += 60
    assert {house.leased() for _ in range(3)} == {2}
    assert trial
    trial.release()


def test_a_trial_that_has_passed_is_over_however_long_its_answer_is() -> None:
    house = House(account(1))
    cooled(house, 1)
    long = house.lease()
    assert long
    house.pool.answering(long.target)
    long.end_trial()
    cooled(house, 1)
    assert house.leased() == 1
    assert house.state.places() == {"a1": 1}
    long.release()
    assert house.state.places() == {}


def test_who_knew_an_account_that_is_gone_is_not_sent_there() -> None:
    house = House(account(1), account(2))
    known = house.targets
    house.pool.adopt(snapshot(account(2)))
    leases = [house.pool.lease(known, "round_robin") for _ in range(3)]
    assert [lease and lease.target.account and lease.target.account.id for lease in leases] == [2] * 3
    house.pool.failed(known[0], failure(Verdict.RATE))
    assert house.pool.lease(known[:1], "round_robin") is None


@pytest.mark.parametrize("verdict", [*COUNTED, Verdict.RATE, Verdict.QUOTA, Verdict.SUSPENDED])
def test_what_a_credential_met_says_nothing_about_the_next_one(verdict: Verdict) -> None:
    house = House(account(1), account(2))
    old = house.target(1)
    house.change(1, credentials=replace(house.accounts[0].credentials, api_key="sk-new"), state_version=1000)
    for _ in range(3):
        house.pool.failed(old, failure(verdict))
    assert shown(house) == ("active", None, 0)
    lease = house.pool.lease([old], "round_robin")
    assert lease
    assert lease.target == house.target(1), "by the new one"
    lease.release()
    house.fail(1, Verdict.RATE)
    assert house.standing().state == "cooling"


def test_a_worker_that_does_not_know_the_newest_credentials_counts_no_refused_one() -> None:
    house = House(account(1), account(2))
    other = Pool(house.notes, 3, house.state, lambda: house.now)  # type: ignore[arg-type]
    other.adopt(replace(snapshot(*house.accounts), version=2))
    house.fail(1, Verdict.AUTH, times=3)
    assert shown(house) == ("active", None, 0)
    house.pool.adopt(replace(snapshot(*house.accounts), version=2))
    house.fail(1, Verdict.AUTH, times=3)
    assert house.standing().state == "invalid"


def test_a_suspended_account_is_out_at_once() -> None:
    house = House(account(1), account(2))
    house.fail(1, Verdict.SUSPENDED)
    assert (house.standing().state, house.standing().reason, house.standing().until) == ("invalid", "suspended", None)
    assert {house.leased() for _ in range(4)} == {2}


@pytest.mark.parametrize("most, failures", [(1, 1), (2, 2), (5, 5)])
def test_how_many_failures_is_a_setting(most: int, failures: int) -> None:
    house = House(account(1), account(2), max_errors=most)
    house.fail(1, Verdict.AUTH, times=failures - 1)
    assert house.standing().state == "active"
    house.fail(1, Verdict.AUTH)
    assert (house.standing().state, house.standing().is_valid) == ("invalid", False)


@pytest.mark.parametrize("verdict", COUNTED)
def test_any_success_begins_the_count_anew(verdict: Verdict) -> None:
    house = House(account(1), account(2))
    for _ in range(5):
        house.fail(1, verdict, times=2)
        house.pool.succeeded(house.target(1))
        assert shown(house) == ("active", None, 0)


@pytest.mark.parametrize(
    "verdict, fields, seconds, reason",
    [
        (Verdict.RATE, {"retry_after": 7.0}, 7, RATE_REASON),
        (Verdict.RATE, {}, 30, RATE_REASON),
        (Verdict.QUOTA, {"retry_after": 90.0}, 90, QUOTA_REASON),
        (Verdict.QUOTA, {}, 3600, QUOTA_REASON),
    ],
)
def test_a_limit_cools_as_long_as_the_upstream_says(
    verdict: Verdict, fields: dict[str, float], seconds: float, reason: str
) -> None:
    house = House(account(1))
    house.fail(1, verdict, **fields)
    assert shown(house) == ("cooling", reason, 0)
    assert house.standing().until == pytest.approx(house.now + seconds, abs=1)


def test_rate_limits_in_a_row_cool_for_longer_and_longer() -> None:
    house = House(account(1))
    waits = []
    for _ in range(6):
        house.fail(1, Verdict.RATE)
        waits.append(round(house.standing().until - house.now))  # type: ignore[operator]
        house.now = house.standing().until + 1  # type: ignore[operator]
    assert waits == [30, 60, 120, 240, 300, 300]
    house.pool.succeeded(house.target(1))
    house.fail(1, Verdict.RATE)
    assert house.standing().until == pytest.approx(house.now + 30, abs=1)


def test_trouble_in_a_row_cools_for_longer_and_longer_within_a_fifth() -> None:
    house = House(account(1), account(2))
    for expected in (30, 60, 120, 240, 300, 300):
        house.fail(1, Verdict.TRANSIENT, times=3)
        assert house.standing().until == pytest.approx(house.now + expected, rel=1e-9, abs=0.2 * expected + 1)
        house.now = house.standing().until + 1  # type: ignore[operator]


@pytest.mark.parametrize("verdict", [Verdict.RATE, Verdict.TRANSIENT])
def test_what_fails_together_cools_once(verdict: Verdict) -> None:
    house = House(account(1), account(2))
    house.fail(1, verdict, times=50)
    assert house.standing().until == pytest.approx(house.now + 30, abs=7)


@pytest.mark.parametrize("verdict", Verdict)
def test_an_invalid_account_stays_invalid_whatever_its_last_requests_tell(verdict: Verdict) -> None:
    house = House(account(1, state="invalid"), account(2))
    house.fail(1, verdict, times=5)
    house.pool.succeeded(house.target(1))
    assert house.standing().state == "invalid"


@given(st.lists(st.floats(1, 1000), min_size=1, max_size=8))
def test_a_shorter_wait_never_shortens_a_longer_one(waits: list[float]) -> None:
    house = House(account(1))
    for wait in waits:
        house.fail(1, Verdict.RATE, retry_after=wait)
    assert house.standing().until == pytest.approx(house.now + max(waits), abs=1)


@pytest.mark.parametrize("verdict", [Verdict.TRANSIENT, Verdict.UNREACHABLE])
def test_the_last_usable_account_of_a_provider_is_not_taken_out_for_trouble(verdict: Verdict) -> None:
    house = House(account(1), account(2, state="disabled"), account(3, "anthropic"))
    house.fail(1, verdict, times=10)
    assert house.standing().state == "active"


def test_the_last_account_is_taken_out_for_its_credential_and_for_limits() -> None:
    for verdict, state in ((Verdict.AUTH, "invalid"), (Verdict.RATE, "cooling"), (Verdict.QUOTA, "cooling")):
        house = House(account(1))
        house.fail(1, verdict, times=3)
        assert house.standing().state == state


@pytest.mark.parametrize("verdict", Verdict)
def test_a_persons_disabled_is_never_changed(verdict: Verdict) -> None:
    house = House(account(1, state="disabled"), account(2))
    house.fail(1, verdict, times=10)
    assert shown(house) == ("disabled", None, 0)
    assert house.notes.states == []


@pytest.mark.parametrize("verdict", Verdict)
def test_practice_leaves_no_trace(verdict: Verdict) -> None:
    house = House()
    target = Target("practice", "m", None)
    house.pool.failed(target, failure(verdict))
    house.pool.succeeded(target)
    lease = house.pool.lease([target], "priority")
    assert lease
    lease.release()
    assert house.notes.states == []


@pytest.mark.parametrize(
    "verdict, fields, seconds",
    [(Verdict.RATE, {"model_only": True, "retry_after": 20.0}, 20), (Verdict.NO_MODEL, {}, 600)],
)
def test_what_concerns_one_model_leaves_the_others_usable(
    verdict: Verdict, fields: dict[str, Any], seconds: float
) -> None:
    house = House(account(1))
    house.fail(1, verdict, **fields)
    assert house.leased() is None
    assert house.pool.lease([house.target(1, "another")], "priority")
    assert shown(house) == ("active", None, 0)
    assert house.standing().usable_at("m") == pytest.approx(house.now + seconds, abs=1)


# ---- what is written


def test_each_change_is_recorded_with_the_version_it_knew() -> None:
    house = House(account(1, state_version=7), account(2))
    house.fail(1, Verdict.AUTH, times=4)
    known = [(change.version, change.state, change.error_count, change.is_valid) for change in house.notes.states]
    assert known == [(7, "active", 1, True), (8, "active", 2, True), (9, "invalid", 3, False)]


@pytest.mark.parametrize("verdict", [Verdict.CLIENT, Verdict.LEARN, Verdict.OVERLOADED, Verdict.NO_MODEL])
def test_what_changes_nothing_is_not_recorded(verdict: Verdict) -> None:
    house = House(account(1))
    house.fail(1, verdict)
    house.pool.succeeded(house.target(1))
    assert house.notes.states == []


def test_a_cooldown_that_is_over_is_written_with_the_next_success() -> None:
    house = House(account(1, state="cooling", state_reason="x", state_until=NOW - 1, state_version=3))
    assert house.leased() == 1
    assert house.notes.states == []
    house.pool.succeeded(house.target(1))
    (change,) = house.notes.states
    assert (change.state, change.reason, change.until, change.version) == ("active", None, None, 3)


# ---- what the database says


@pytest.mark.parametrize("state", ["cooling", "invalid", "disabled"])
def test_a_restart_remembers_who_may_not_be_used(state: str) -> None:
    until = NOW + 60 if state == "cooling" else None
    house = House(account(1, state=state, state_reason="why", state_until=until))
    assert house.leased() is None
    assert shown(house)[:2] == (state, "why")


def test_a_persons_change_is_taken_over() -> None:
    house = House(account(1), account(2))
    house.fail(1, Verdict.AUTH, times=3)
    assert house.standing().state == "invalid"
    house.change(1, state="active", state_version=house.standing().version + 1)
    assert shown(house) == ("active", None, 0)
    house.change(1, state="disabled", state_version=house.standing().version + 1)
    assert {house.leased() for _ in range(4)} == {2}


def test_an_older_view_of_the_database_changes_nothing() -> None:
    house = House(account(1, state_version=4), account(2))
    house.fail(1, Verdict.RATE)
    house.change(1, priority=1)  # a new snapshot, read before our change was written
    assert house.standing().state == "cooling"
    assert {house.leased() for _ in range(4)} == {2}


def test_a_persons_disabled_is_seen_although_our_own_changes_are_not_written_yet() -> None:
    house = House(account(1, state_version=4), account(2))
    house.fail(1, Verdict.AUTH, times=2)  # two changes on their way: versions 5 and 6
    house.change(1, state="disabled", state_version=5)  # which the person's has overtaken
    assert {house.leased() for _ in range(4)} == {2}


def test_a_reset_clears_what_was_remembered_of_single_models() -> None:
    house = House(account(1))
    house.fail(1, Verdict.NO_MODEL)
    assert house.leased() is None
    house.change(1, state="active", state_version=house.standing().version + OVERTAKING)
    assert house.leased() == 1


def test_an_account_that_is_gone_is_forgotten() -> None:
    house = House(account(1), account(2))
    lease = house.lease()
    assert lease
    house.accounts = (account(2),)
    house.pool.adopt(snapshot(*house.accounts))
    lease.release()
    assert set(house.state.fleet().standings) == {2}
    assert house.leased() == 2


# ---- who is next


@pytest.mark.parametrize("strategy", ["priority", "round_robin", "least_used"])
@given(size=st.integers(1, 7), times=st.integers(0, 80), hold=st.booleans())
def test_equals_are_used_equally_also_while_they_are_busy(strategy: str, size: int, times: int, hold: bool) -> None:
    house = House(*(account(id) for id in range(1, size + 1)))
    for _ in range(times):
        lease = house.lease(strategy)
        assert lease
        if not hold:
            lease.release()
    counted = Counter(house.uses)
    assert max(counted.values(), default=0) - min((counted[a.id] for a in house.accounts), default=0) <= 1


@given(st.lists(st.sampled_from(["lease", "lease", "release first", "release last"]), max_size=80))
def test_least_used_is_exact_however_long_answers_take(steps: list[str]) -> None:
    house = House(*(account(id) for id in range(1, 5)))
    held: list[Lease] = []
    for step in steps:
        if step == "lease":
            lease = house.lease("least_used")
            assert lease
            held.append(lease)
        elif held:
            held.pop(0 if step == "release first" else -1).release()
    counted = [Counter(house.uses)[a.id] for a in house.accounts]
    assert max(counted) - min(counted) <= 1


def test_least_used_goes_by_what_was_used_before_the_start() -> None:
    house = House(account(1, usage_count=10), account(2, usage_count=7), account(3, usage_count=9))
    assert [house.leased("least_used") for _ in range(7)] == [2, 2, 2, 3, 1, 2, 3]


def test_priority_falls_back_to_the_next_one_when_the_first_cools() -> None:
    house = House(account(1, priority=10), account(2, priority=5), account(3, priority=5))
    assert [house.leased() for _ in range(3)] == [1, 1, 1]
    house.fail(1, Verdict.RATE)
    assert sorted(house.leased() for _ in range(4)) == [2, 2, 3, 3]  # type: ignore[type-var]


def test_accounts_that_were_tried_already_are_left_out() -> None:
    house = House(account(1), account(2))
    lease = house.lease(without=(1,))
    assert lease
    assert lease.target.account
    assert lease.target.account.id == 2
    assert house.lease(without=(1, 2)) is None


def test_the_cap_on_concurrency_holds() -> None:
    house = House(account(1, max_concurrency=2), account(2, max_concurrency=1))
    held = [house.lease() for _ in range(3)]
    assert all(held)
    assert house.lease() is None
    assert house.outlook() == Outlook(wait=1.0, rate_only=False, busy=True)
    held[0].release()  # type: ignore[union-attr]
    assert house.lease()
    assert house.lease() is None


def test_releasing_twice_frees_one_place() -> None:
    house = House(account(1, max_concurrency=1))
    lease = house.lease()
    assert lease
    lease.release()
    lease.release()
    assert house.state.in_flight("a1") == 0


# ---- the outlook when nobody may be used


@pytest.mark.parametrize(
    "happened, wait, rate_only",
    [
        ([(Verdict.RATE, 40.0), (Verdict.RATE, 20.0)], 20, True),
        ([(Verdict.QUOTA, 40.0), (Verdict.RATE, 60.0)], 40, True),
        ([(Verdict.AUTH, None), (Verdict.RATE, 20.0)], 20, True),
        ([(Verdict.AUTH, None), (Verdict.AUTH, None)], None, False),
    ],
)
def test_the_outlook_is_the_soonest_return(
    happened: list[tuple[Verdict, float | None]], wait: float | None, rate_only: bool
) -> None:
    house = House(account(1), account(2), max_errors=1)
    for id, (verdict, seconds) in zip(itertools.count(1), happened, strict=False):
        house.fail(id, verdict, retry_after=seconds)
    assert house.lease() is None
    outlook = house.outlook()
    assert outlook.rate_only == rate_only
    assert outlook.wait == (pytest.approx(wait, abs=1) if wait else None)


def test_a_limit_is_still_known_as_one_after_a_restart() -> None:
    until = NOW + 20
    house = House(account(1, state="cooling", state_reason=RATE_REASON, state_until=until))
    assert house.outlook().rate_only


def test_a_model_that_is_absent_is_no_limit() -> None:
    house = House(account(1), account(2))
    for id in (1, 2):
        house.fail(id, Verdict.NO_MODEL)
    assert house.outlook() == Outlook(wait=None, rate_only=False, absent=True)
