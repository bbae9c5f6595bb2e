"""Guesses of passwords get slower and slower, per user and address; nobody is locked out for good."""

import pytest

from opus_api.services.login_throttle import LoginThrottle, source
from opus_api.state.memory import MemoryState
from opus_api.state.redis_engine import RedisState
from opus_api.wire.errors import RateLimited

HERE, THERE = "192.0.2.1", "192.0.2.2"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> LoginThrottle:
    return LoginThrottle(MemoryState(clock), clock)


def fail(throttle: LoginThrottle, times: int, user: str = "admin", ip: str = HERE) -> None:
    for _ in range(times):
        throttle.failed(user, ip)


def retry_after(throttle: LoginThrottle, user: str = "admin", ip: str = HERE) -> int:
    """Seconds until the next guess; 0: now."""
    try:
        throttle.admit(user, ip)
    except RateLimited as refusal:
        return int(refusal.headers["retry-after"])
    return 0


@pytest.mark.parametrize(
    "failures, seconds", [(0, 0), (4, 0), (5, 1), (6, 2), (7, 4), (10, 32), (13, 256), (14, 300), (1000, 300)]
)
def test_each_failure_after_the_fourth_doubles_the_wait(throttle: LoginThrottle, failures: int, seconds: int) -> None:
    fail(throttle, failures)
    assert retry_after(throttle) == seconds


def test_the_wait_ends(throttle: LoginThrottle, clock: Clock) -> None:
    fail(throttle, 6)
    clock.now += 1.9
    assert retry_after(throttle) == 1
    clock.now += 0.2
    assert retry_after(throttle) == 0


def test_success_forgives(throttle: LoginThrottle) -> None:
    fail(throttle, 5)
    throttle.succeeded("admin", HERE)
    fail(throttle, 4)
    assert retry_after(throttle) == 0


def test_others_do_not_wait(throttle: LoginThrottle) -> None:
    fail(throttle, 9)
    assert retry_after(throttle, ip=THERE) == 0
    assert retry_after(throttle, user="other") == 0
    assert retry_after(throttle, user="ADMIN") == 16


def test_everybody_together_has_a_hundred_attempts_a_minute(throttle: LoginThrottle, clock: Clock) -> None:
    for i in range(100):
        throttle.admit(f"user-{i}", HERE)
    assert retry_after(throttle, "one more") == 60
    clock.now += 60
    assert retry_after(throttle, "one more") == 0


def test_forty_guesses_an_hour_are_not_reached(throttle: LoginThrottle, clock: Clock) -> None:
    guesses, end = 0, clock.now + 3600
    while clock.now < end:
        if retry_after(throttle):
            clock.now += 1
        else:
            throttle.failed("admin", HERE)
            guesses += 1
    assert guesses <= 40


@pytest.mark.parametrize(
    "ip, same",
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_one_customer_is_one_source(ip: str, same: str) -> None:
    assert source(ip) == same


def test_a_name_may_be_anything(throttle: LoginThrottle) -> None:
    fail(throttle, 5, user="\ud800\0\n" * 99)
    assert retry_after(throttle, user="\ud800\0\n" * 99) == 1


def test_workers_count_together(redis_url: str, clock: Clock) -> None:
    engines = [RedisState(redis_url), RedisState(redis_url)]
    one, other = (LoginThrottle(engine, clock) for engine in engines)
    fail(one, 3)
    fail(other, 3)
    assert (retry_after(one), retry_after(other)) == (2, 2)
    one.succeeded("admin", HERE)
    assert retry_after(other) == 0
    for engine in engines:
        engine.stop()
