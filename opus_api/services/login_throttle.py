"""Slowing down guesses of passwords. In memory: one process signs people in, and a restart forgives."""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from opus_api.services.ip_rules import source
from opus_api.wire.errors import RateLimited

FREE_FAILURES = 5  # then 1 s, 2 s, 4 s …
LONGEST = 300.0  # seconds; never for good, or anybody could lock anybody out
PER_MINUTE = 100  # attempts of all users together
FORGET_AFTER = 3600.0  # seconds after the last failure
MOST = 10_000  # (user, address) pairs remembered


@dataclass(slots=True)
class _Failures:
    count: int
    last: float
    open_at: float


class LoginThrottle:
    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._failures: dict[tuple[str, str], _Failures] = {}
        self._attempts: deque[float] = deque()

    def admit(self, username: str, ip: str) -> None:
        """Call before a password is looked at. Raises RateLimited with ``retry-after``."""
        now = self._clock()
        failures = self._failures.get(self._key(username, ip))
        if failures and failures.open_at > now:
            raise _wait(failures.open_at - now)
        while self._attempts and self._attempts[0] <= now - 60:
            self._attempts.popleft()
        if len(self._attempts) >= PER_MINUTE:
            raise _wait(self._attempts[0] + 60 - now)
        self._attempts.append(now)

    def failed(self, username: str, ip: str) -> None:
        now = self._clock()
        self._forget_old(now)
        failures = self._failures.setdefault(self._key(username, ip), _Failures(0, now, now))
        failures.count += 1
        failures.last = now
        if failures.count >= FREE_FAILURES:
            failures.open_at = now + min(2.0 ** min(failures.count - FREE_FAILURES, 16), LONGEST)

    def succeeded(self, username: str, ip: str) -> None:
        self._failures.pop(self._key(username, ip), None)

    def _key(self, username: str, ip: str) -> tuple[str, str]:
        return username.lower()[:200], source(ip)

    def _forget_old(self, now: float) -> None:
        if len(self._failures) < MOST:
            return
        self._failures = {key: f for key, f in self._failures.items() if f.last > now - FORGET_AFTER}
        for key in sorted(self._failures, key=lambda key: self._failures[key].last)[: len(self._failures) - MOST + 1]:
            del self._failures[key]


def _wait(seconds: float) -> RateLimited:
    whole = max(1, math.ceil(seconds))
    return RateLimited(f"Too many attempts to sign in; try again in {whole} s.", {"retry-after": str(whole)})
