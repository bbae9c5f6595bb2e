"""What requests share while they run: turns, requests in flight, cooldowns. In the memory of the one worker."""

import random
import time
from dataclasses import dataclass, field

from opus_api.services.request_log import AccountState
from opus_api.services.snapshot import AccountValue

RATE_BASE, RATE_CAP = 30.0, 300.0  # seconds; doubled each time in a row
TRANSIENT_BASE, TRANSIENT_CAP = 30.0, 300.0
QUOTA_WAIT = 3600.0
RATE_REASON, QUOTA_REASON = "rate limit reached", "quota or credit used up"
SUSPENDED_REASON = "suspended"  # only a person brings such an account back
MODEL_ABSENT = 600.0


@dataclass(slots=True)
class Standing:
    """One account as this worker knows it. Times are Unix seconds, because they are stored and shown."""

    account_id: int
    version: int = -1
    state: str = "active"
    reason: str | None = None
    until: float | None = None
    error_count: int = 0
    auth_failures: int = 0  # those among them that refused the credential
    is_valid: bool = True
    uses: int = 0
    in_flight: int = 0
    turn: int = 0
    times_in_a_row: int = 0  # cooldowns without a success in between
    models_until: dict[str, float] = field(default_factory=dict)  # model at its limit -> not before
    absent_until: dict[str, float] = field(default_factory=dict)  # model that the upstream does not know -> not before

    def adopt(self, account: AccountValue) -> None:
        """Take over the database's view when it is newer than ours, or as new: then a person changed it meanwhile.

        Only a person disables and enables, so that is taken over also while changes of ours are still to be written.
        """
        if account.state_version < self.version and "disabled" not in (account.state, self.state):
            return
        if account.state_version > self.version or (account.state == "active" and self.state != "active"):
            self.models_until.clear()
            self.absent_until.clear()
            self.times_in_a_row = 0
        self.version = account.state_version
        self.state, self.reason, self.until = account.state, account.state_reason, account.state_until
        self.error_count = account.error_count
        self.auth_failures = min(self.auth_failures, self.error_count)
        self.is_valid = account.state != "invalid"

    def usable_at(self, model: str, now: float) -> float | None:
        """From when on it may serve this model; None: not before a person acts."""
        if self.state in ("invalid", "disabled"):
            return None
        cooling = (self.until or 0.0) if self.state == "cooling" else 0.0
        return max(cooling, self.models_until.get(model, 0.0), self.absent_until.get(model, 0.0))

    def lacks(self, model: str, now: float) -> bool:
        return self.absent_until.get(model, 0.0) > now

    @property
    def is_cooling(self) -> bool:
        return self.state == "cooling" and self.until is not None and self.until > time.time()

    @property
    def is_limited(self) -> bool:
        """It cools because it has used up what it may use, not because something is wrong."""
        return self.reason in (RATE_REASON, QUOTA_REASON)

    def cool(self, seconds: float, reason: str) -> None:
        """A later end extends a cooldown; an earlier one never shortens it."""
        until = time.time() + seconds
        if self.state == "cooling" and self.until and self.until >= until:
            return
        self.state, self.until, self.reason = "cooling", until, reason
        self.times_in_a_row += 1

    def backoff(self, base: float, cap: float) -> float:
        return min(base * 2.0 ** min(self.times_in_a_row, 10), cap)

    def recovered(self) -> None:
        self.state, self.until, self.reason = "active", None, None

    def change(self) -> AccountState:
        """What is to be written; counts as a new version."""
        known = self.version
        self.version += 1
        return AccountState(
            self.account_id, self.state, self.reason, self.until, self.error_count, self.is_valid, known
        )


def jittered(seconds: float) -> float:
    """±20 %, so that accounts cooled together do not return together."""
    return seconds * random.uniform(0.8, 1.2)
