"""Who may be used now: leases on accounts, and what their successes and failures mean for them."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from opus_api.gateway import rotation
from opus_api.gateway.catalog import Target
from opus_api.gateway.state import (
    MODEL_ABSENT,
    QUOTA_REASON,
    QUOTA_WAIT,
    RATE_BASE,
    RATE_CAP,
    RATE_REASON,
    SUSPENDED_REASON,
    TRANSIENT_BASE,
    TRANSIENT_CAP,
    Standing,
    jittered,
)
from opus_api.services.request_log import Recorder
from opus_api.services.snapshot import Snapshot
from opus_api.upstreams.base import Failure, Verdict


class Lease:
    """The use of one target for one attempt. Ends once, by ``release``."""

    __slots__ = ("_standing", "target")

    def __init__(self, target: Target, standing: Standing | None):
        self.target = target
        self._standing = standing

    def release(self) -> None:
        standing, self._standing = self._standing, None
        if standing is not None:
            standing.in_flight -= 1


@dataclass(frozen=True, slots=True)
class Outlook:
    """Why nobody can be leased now. ``wait`` in seconds until somebody may be; None: not before a person acts."""

    wait: float | None
    rate_only: bool  # everybody who will come back is cooling for rate or quota
    busy: bool = False  # somebody is only at its concurrency cap
    absent: bool = False  # nobody has the model


class Pool:
    """One per worker. Nothing here waits or switches greenlets, so a pick and its count are one step."""

    def __init__(self, recorder: Recorder, max_errors: int):
        self._recorder = recorder
        self._max_errors = max_errors
        self._standings: dict[int, Standing] = {}
        self._turn = 0
        self._seen: Snapshot | None = None

    def adopt(self, snapshot: Snapshot) -> None:
        """Take over what changed in the database; forget accounts that are gone."""
        if snapshot is self._seen:
            return
        self._seen = snapshot
        for account in snapshot.accounts:
            standing = self._standings.get(account.id)
            if standing is None:
                standing = self._standings[account.id] = Standing(account.id, uses=account.usage_count)
            standing.adopt(account)
        for gone in self._standings.keys() - {account.id for account in snapshot.accounts}:
            del self._standings[gone]

    def lease(self, targets: Sequence[Target], strategy: str, without: Iterable[int] = ()) -> Lease | None:
        """The next account by strategy among those that may be used now; None when there is none."""
        if targets and targets[0].account is None:
            return Lease(targets[0], None)
        now = time.time()
        free: dict[int, Target] = {}
        candidates = []
        for target in targets:
            standing = self._standing(target)
            if standing.account_id not in without and self._is_free(standing, target, now):
                free[standing.account_id] = target
                priority = target.account.priority if target.account else 0
                candidates.append(rotation.Candidate(standing.account_id, priority, standing.turn, standing.uses))
        if not candidates:
            return None
        chosen = rotation.pick(strategy, candidates).account_id
        return self._leased(free[chosen], now)

    def _leased(self, target: Target, now: float) -> Lease:
        standing = self._standing(target)
        self._turn += 1
        standing.turn = self._turn
        standing.in_flight += 1
        standing.uses += 1
        if standing.state == "cooling":  # its time is over
            standing.recovered()
            self._recorder.account_state(standing.change())
        self._recorder.account_used(standing.account_id, now)
        return Lease(target, standing)

    def _standing(self, target: Target) -> Standing:
        assert target.account is not None
        # An account that was deleted a moment ago still has a standing for the requests that know it.
        return self._standings.setdefault(target.account.id, Standing(target.account.id))

    @staticmethod
    def _is_free(standing: Standing, target: Target, now: float) -> bool:
        usable_at = standing.usable_at(target.model, now)
        cap = target.account.max_concurrency if target.account else 0
        return usable_at is not None and usable_at <= now and not (cap and standing.in_flight >= cap)

    def outlook(self, targets: Sequence[Target]) -> Outlook:
        now = time.time()
        moments = []
        rate_only, absent = True, False
        for target in targets:
            if target.account is None:
                continue
            standing = self._standing(target)
            usable_at = standing.usable_at(target.model, now)
            if usable_at is None:
                continue
            if standing.lacks(target.model, now):
                absent = True
                continue
            moments.append(usable_at)
            rate_only = rate_only and (standing.is_limited or target.model in standing.models_until)
        if not moments:
            return Outlook(None, rate_only=False, absent=absent)
        wait = min(moments) - now
        return Outlook(max(wait, 1.0), rate_only, busy=wait <= 0)

    # ---- what attempts tell

    def succeeded(self, target: Target) -> None:
        if target.account is None:
            return
        standing = self._standing(target)
        standing.times_in_a_row = 0
        if standing.error_count and standing.state == "active":
            standing.error_count = standing.auth_failures = 0
            self._recorder.account_state(standing.change())

    def failed(self, target: Target, failure: Failure) -> None:
        """Apply the retry table. The practice provider and who may not be used anyway are never touched."""
        if target.account is None:
            return
        standing = self._standing(target)
        if standing.state in ("disabled", "invalid"):
            return
        before = (standing.state, standing.until, standing.error_count)
        self._apply(standing, target, failure)
        if before != (standing.state, standing.until, standing.error_count):
            self._recorder.account_state(standing.change())

    def _apply(self, standing: Standing, target: Target, failure: Failure) -> None:
        match failure.verdict:
            case Verdict.RATE if failure.model_only:
                standing.models_until[target.model] = time.time() + (failure.retry_after or RATE_BASE)
            case Verdict.RATE if failure.retry_after or not standing.is_cooling:
                seconds = failure.retry_after or standing.backoff(RATE_BASE, RATE_CAP)
                standing.cool(seconds, RATE_REASON)
            case Verdict.QUOTA:
                standing.cool(failure.retry_after or QUOTA_WAIT, QUOTA_REASON)
            case Verdict.NO_MODEL:
                standing.absent_until[target.model] = time.time() + MODEL_ABSENT
            case Verdict.AUTH:
                standing.error_count += 1
                standing.auth_failures += 1
                if standing.auth_failures >= self._max_errors:
                    standing.state, standing.until, standing.is_valid = "invalid", None, False
                    standing.reason = f"credential refused {standing.auth_failures} times: {failure.message}"[:255]
            case Verdict.SUSPENDED:
                standing.state, standing.until, standing.is_valid = "invalid", None, False
                standing.reason = SUSPENDED_REASON
            case Verdict.TRANSIENT | Verdict.UNREACHABLE:
                standing.error_count += 1
                # What fails together with the one that began a cooldown says nothing new.
                passing = standing.error_count - standing.auth_failures
                if passing >= self._max_errors and not standing.is_cooling and self._has_deputy(target):
                    seconds = jittered(standing.backoff(TRANSIENT_BASE, TRANSIENT_CAP))
                    standing.cool(seconds, f"failed {standing.error_count} times: {failure.message}"[:255])

    def _has_deputy(self, target: Target) -> bool:
        """Another account of the provider is usable: the last one is never taken out for passing trouble."""
        assert self._seen is not None
        assert target.account is not None
        now = time.time()
        others = (a for a in self._seen.accounts if a.provider == target.provider and a.id != target.account.id)
        standings = (self._standings[a.id] for a in others if a.id in self._standings)
        return any((at := s.usable_at(target.model, now)) is not None and at <= now for s in standings)
