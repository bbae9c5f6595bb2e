"""Slowing down guesses of passwords and keys, whichever worker is asked. What is counted is forgotten after an hour."""

import hashlib
import math
from collections.abc import Callable

from opus_api.services.ip_rules import source
from opus_api.state import Charge, State, Strikes, clock
from opus_api.wire.errors import Phrase, RateLimited

FREE_FAILURES = 5  # then 1 s, 2 s, 4 s …
LONGEST = 300.0  # seconds; never for good, or anybody could lock anybody out
ATTEMPT = Charge("sign-ins", 60.0, 1, 100)  # of all users together
SHOWN_KEY = Charge("keys shown", 60.0, 1, 300)  # on /my, by everybody together


class LoginThrottle:
    def __init__(self, state: State, now: Callable[[], float] = clock.now, attempt: Charge = ATTEMPT):
        self._state = state
        self._now = now
        self._attempt = attempt

    def admit(self, username: str, ip: str) -> None:
        """Call before a password is looked at. Raises RateLimited with ``retry-after``, StateUnavailable."""
        now = self._now()
        opens = _opens(self._state.strikes(_name(username, ip), now))
        if opens > now:
            raise _wait(opens - now)
        if refused := self._state.spend([self._attempt], now):
            raise _wait(refused.wait)

    def failed(self, username: str, ip: str) -> None:
        self._state.strike(_name(username, ip), self._now())

    def succeeded(self, username: str, ip: str) -> None:
        self._state.forgive(_name(username, ip))


def _name(username: str, ip: str) -> str:
    """Short and plain, whatever was typed as a name."""
    typed = f"{username.lower()[:200]}\n{source(ip)}".encode("utf-8", "surrogatepass")
    return f"sign-in {hashlib.sha256(typed).hexdigest()}"


def _opens(failures: Strikes) -> float:
    if failures.times < FREE_FAILURES:
        return 0.0
    return failures.last + min(2.0 ** min(failures.times - FREE_FAILURES, 16), LONGEST)


def _wait(seconds: float) -> RateLimited:
    whole = max(1, math.ceil(seconds))
    return RateLimited(Phrase("Too many attempts; try again in %(n)s s.", n=whole), {"retry-after": str(whole)})
