"""Several workers on one Redis, and what a worker does without it."""

import logging
import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from opus_api.state import Charge, StateUnavailable
from opus_api.state.redis_engine import RedisState
from opus_api.state.rotation import Candidate
from opus_api.state.standing import Standing
from tests.chaos.servers import Redis
from tests.live import wait_until
from tests.state.conftest import Clock

Worker = Callable[..., RedisState]

TWO = [Candidate(1), Candidate(2)]


def test_workers_take_turns(worker: Worker) -> None:
    one, other = worker(), worker()
    found = [each.pick(TWO, "round_robin", 0.0) for each in (one, one, other, one, other, other)]
    assert [held.account_id for held in found if held] == [1, 2, 1, 2, 1, 2]
    assert one.in_flight("a1") == other.in_flight("a1") == 3


def test_a_standing_of_one_worker_is_seen_by_the_other_at_once(worker: Worker, clock: Clock) -> None:
    one, other = worker(), worker()
    assert other.fleet().standings == {}
    one.update(lambda fleet: fleet.having(1, Standing(state="cooling", until=clock.now + 9)))
    held = other.pick(TWO, "round_robin", clock.now)
    assert held
    assert held.account_id == 2
    assert other.fleet() == one.fleet()


def test_a_long_trial_of_one_worker_does_not_shut_the_other_out(worker: Worker, clock: Clock) -> None:
    one, other = worker(clock=clock), worker(clock=clock)
    one.update(lambda fleet: fleet.having(1, Standing(state="cooling", until=clock.now)))
    trial = one.pick(TWO[:1], "priority", clock.now, 3.0)
    assert trial
    clock.now += 2.9
    assert other.pick(TWO[:1], "priority", clock.now, 3.0) is None
    clock.now += 0.1
    second = other.pick(TWO[:1], "priority", clock.now, 3.0)
    assert second
    one.release(trial)
    other.release(second)
    assert [one.in_flight("a1"), one.in_flight("t1")] == [0, 0]


def test_changes_of_two_workers_add_up(worker: Worker) -> None:
    one, other = worker(), worker()
    one.fleet()

    def counted(id: int) -> Callable[..., object]:
        return lambda fleet: fleet.having(id, Standing(error_count=1))

    other.update(counted(2))  # type: ignore[arg-type]
    one.update(counted(1))  # type: ignore[arg-type]
    assert set(other.fleet().standings) == {1, 2}


def test_the_places_of_a_worker_that_is_gone_are_free_within_two_seconds(worker: Worker) -> None:
    gone, other = worker(patience=1.5), worker(patience=1.5)
    assert gone.hold("key", 1)
    gone.pick(TWO[:1], "priority", 0.0)
    assert not other.hold("key", 1)
    began = time.monotonic()

    def free() -> bool:
        other.beat()
        return other.hold("key", 1)

    wait_until(free)
    assert time.monotonic() - began < 2
    assert other.in_flight("a1") == 0
    gone.beat()  # it had only been slow: what it holds counts again
    assert other.in_flight("a1") == 1


def test_a_worker_that_ends_leaves_nothing(worker: Worker) -> None:
    one, other = worker(), worker()
    one.hold("key", 1)
    one.stop()
    assert other.in_flight("key") == 0


def test_without_redis_a_worker_goes_on_with_its_last_view_and_then_cannot_decide(
    worker: Worker, redis_server: Redis, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    one = worker(last_view=1.0, clock=clock)
    one.update(lambda fleet: fleet.having(1, Standing(state="cooling", until=clock.now + 9)))
    one.bind("c", 2)
    assert one.spend([Charge("k", 60, 1, 2)], clock.now) is None
    redis_server.stop()
    try:
        with caplog.at_level(logging.WARNING):
            held = [one.pick(TWO, "round_robin", clock.now) for _ in range(3)]
        assert [each.account_id for each in held if each] == [2, 2, 2]  # the cooldown is still known
        assert one.bound("c") == 2
        assert one.spend([Charge("k", 60, 1, 2)], clock.now) is None
        assert one.spend([Charge("k", 60, 1, 2)], clock.now)
        assert one.health().away > 0
        assert one.health().decides
        assert len(caplog.records) == 1  # one line per outage
        one._heart = object()  # type: ignore[assignment]  # it beats, but nobody listens
        time.sleep(1.1)
        with pytest.raises(StateUnavailable):
            one.pick(TWO, "round_robin", clock.now)
        assert not one.health().decides
        one._heart = None
    finally:
        redis_server.start()
    one.beat()
    assert one.health().away == 0
    assert one.in_flight("a2") == 3  # what was taken meanwhile counts
    assert one.fleet().standings[1].state == "cooling"  # also in a Redis that had forgotten everything


def test_what_two_workers_found_out_meanwhile_counts(worker: Worker, redis_server: Redis) -> None:
    one, other = worker(), worker()
    one.update(lambda fleet: fleet.having(1, Standing(version=1)).having(2, Standing(version=1)))
    other.fleet()
    redis_server.stop()
    try:
        one.update(lambda fleet: fleet.having(1, Standing(version=2, state="invalid")))
        other.update(lambda fleet: fleet.having(2, Standing(version=3, state="cooling", until=9.0)))
    finally:
        redis_server.start()
    one.beat()
    other.beat()
    found = one.fleet().standings
    assert (found[1].state, found[2].state) == ("invalid", "cooling")


def test_a_cooldown_met_without_redis_holds_when_it_is_back_whatever_the_other_worker_counted(
    worker: Worker, redis_server: Redis, clock: Clock
) -> None:
    one, other = worker(clock=clock), worker(clock=clock)
    one.update(lambda fleet: fleet.having(1, Standing(version=1)).having(2, Standing(version=1)))
    other.fleet()
    redis_server.stop()
    try:
        cooling = Standing(version=2, state="cooling", until=clock.now + 30)
        one.update(lambda fleet: fleet.having(1, cooling))
        other.update(lambda fleet: fleet.having(1, Standing(version=3, error_count=2)))
    finally:
        redis_server.start()
    for each in (one, other):
        each.beat()
    held = [each.pick(TWO, "round_robin", clock.now) for each in (one, other)]
    assert [each.account_id for each in held if each] == [2, 2]


def test_a_redis_that_forgot_everything_and_learnt_as_much_anew_is_not_taken_for_what_was_known(
    worker: Worker, redis_server: Redis, clock: Clock
) -> None:
    one, other = worker(clock=clock), worker(clock=clock)
    one.update(lambda fleet: fleet.having(1, Standing(version=1)))
    one.update(lambda fleet: fleet.having(2, Standing(version=1)))
    other.beat()
    one._redis.flushdb()
    one.beat()
    one.update(lambda fleet: fleet.having(1, Standing(version=2, state="invalid")))
    other.beat()
    assert other.fleet() == one.fleet()
    other.update(lambda fleet: fleet.having(1, Standing(version=1002)))  # healed by hand
    held = [each.pick(TWO[:1], "priority", clock.now) for each in (one, other)]
    assert [each and each.account_id for each in held] == [1, 1]


def test_a_redis_that_hangs_costs_half_a_second_once(worker: Worker, redis_server: Redis) -> None:
    one = worker()
    one._heart = object()  # type: ignore[assignment]  # it beats elsewhere
    redis_server.freeze()
    try:
        began = time.monotonic()
        for _ in range(50):
            assert one.pick(TWO, "round_robin", 0.0)
        assert time.monotonic() - began < 1.0
    finally:
        one._heart = None
        redis_server.thaw()
    one.beat()
    assert one.health().away == 0


def test_a_place_that_is_let_go_while_redis_is_told_is_free(
    worker: Worker, redis_server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = worker()
    one.update(lambda fleet: fleet.having(1, Standing()))
    assert one.hold("key", 1)
    one._heart = object()  # type: ignore[assignment]  # it beats when this test says so
    redis_server.stop()
    one.fleet()
    redis_server.start()
    run = one._run

    def slowly(*arguments: Any) -> Any:
        gevent.sleep(0.05)  # others go on meanwhile, as in a worker
        return run(*arguments)

    monkeypatch.setattr(one, "_run", slowly)
    leaving = gevent.spawn_later(0.075, one.let_go, "key")
    one.beat()
    leaving.join()
    one._heart = None
    assert one.in_flight("key") == 0


def test_a_redis_that_restarted_between_two_beats_ends_no_cooldown(
    worker: Worker, redis_server: Redis, clock: Clock
) -> None:
    one = worker(clock=clock)
    for look in (lambda: one.pick(TWO, "round_robin", clock.now), one.fleet):
        one.update(lambda fleet: fleet.having(1, Standing(state="cooling", until=clock.now + 9)))
        one._heart = object()  # type: ignore[assignment]  # it beats later
        redis_server.stop()
        redis_server.start()
        look()
        held = [one.pick(TWO, "round_robin", clock.now) for _ in range(3)]
        one._heart = None
        assert [each.account_id for each in held if each] == [2, 2, 2]
        assert one.fleet().standings[1].state == "cooling"
        assert worker(clock=clock).fleet().standings[1].state == "cooling"


def test_what_a_worker_changes_while_redis_answers_is_not_taken_for_something_that_redis_forgot(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = worker(), worker()
    one.fleet()
    for place, name in ((one, "_beat"), (one._redis, "mget")):
        other.update(lambda fleet, name=name: fleet.having(2, Standing(error_count=len(name))))  # so that one looks
        answers = getattr(place, name)

        def answer_late(*arguments: Any, place: Any = place, name: str = name, answers: Any = answers) -> Any:
            answer = answers(*arguments)
            monkeypatch.setattr(place, name, answers)
            one.update(lambda fleet: fleet.having(1, Standing(error_count=len(fleet.standings))))
            return answer

        monkeypatch.setattr(place, name, answer_late)
        one.beat()
    assert (one.gaps, one.health().away, caplog.text) == (0, 0, "")
    assert one.fleet() == other.fleet()
    assert one.fleet().standings[1].error_count == 2
