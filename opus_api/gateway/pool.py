"""Who may be used now: leases on accounts, and what their successes and failures mean for them."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from opus_api.gateway.catalog import Target
from opus_api.services.request_log import AccountState, Recorder
from opus_api.services.snapshot import AccountValue, Snapshot
from opus_api.state import Candidate, Fleet, Held, State, clock, standing
from opus_api.state.rotation import trials_of
from opus_api.upstreams.base import Failure, Verdict

# What only speaks of the credential that was presented.
CREDENTIAL = (Verdict.AUTH, Verdict.SUSPENDED)
# Seconds for which all others are refused while one request tries who was away: an answer without streaming shows
# nothing until it is whole, which may take minutes.
LONGEST_TRIAL = 3.0


class Lease:
    """The use of one target for one attempt. Ends once, by ``release``."""

    __slots__ = ("_held", "_pool", "target")

    def __init__(self, target: Target, pool: "Pool", held: Held | None):
        self.target = target
        self._pool = pool
        self._held = held

    def release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._pool.released(held)

    def end_trial(self) -> None:
        """Whoever was only tried has passed."""
        held = self._held
        if held is not None and (trials := trials_of(held.counted)):
            self._held = held._replace(counted=tuple(name for name in held.counted if name not in trials))
            self._pool.released(held._replace(counted=trials))


@dataclass(frozen=True, slots=True)
class Outlook:
    """Why nobody can be leased now. ``wait`` in seconds until somebody may be; None: not before a person acts."""

    wait: float | None
    rate_only: bool  # everybody who will come back is cooling for rate or quota
    busy: bool = False  # somebody is only at its concurrency cap
    absent: bool = False  # nobody has the model
    down: bool = False  # the providers of all of them do not answer: waiting is no use


class Pool:
    """One per worker, over the state that all share. With the state in memory nothing here switches greenlets."""

    def __init__(self, recorder: Recorder, max_errors: int, state: State, now: Callable[[], float] = clock.now):
        self._recorder = recorder
        self.max_errors = max_errors
        self._state = state
        self._now = now
        self._seen: Snapshot | None = None
        self._accounts: Mapping[int, AccountValue] = {}  # those of ``_seen``

    def adopt(self, snapshot: Snapshot) -> None:
        """Take over what changed in the database; forget accounts that are gone."""
        if snapshot is self._seen:
            return
        now = self._now()
        rows = [_stored(account) for account in snapshot.accounts]
        self._state.update(lambda fleet: standing.adopted(fleet, rows, snapshot.version, now))
        self._state.seed({account.id: account.usage_count for account in snapshot.accounts})
        self._seen, self._accounts = snapshot, {account.id: account for account in snapshot.accounts}

    def lease(
        self, targets: Sequence[Target], strategy: str, without: Iterable[int] = (), prefer: int | None = None
    ) -> Lease | None:
        """``prefer`` if it may be used now, else the next account by strategy; None when there is none."""
        if targets and targets[0].account is None:
            return Lease(targets[0], self, None)
        now = self._now()
        found = (self._as_it_is(t, t.account) for t in targets if t.account and t.account.id not in without)
        free = {(t.account.id, t.model): t for t in found if t and t.account}
        candidates = [_candidate(target) for target in free.values()]
        preferred = [candidate for candidate in candidates if candidate.account_id == prefer]
        held = self._state.pick(preferred, strategy, now) if preferred else None
        held = held or (self._state.pick(candidates, strategy, now, LONGEST_TRIAL) if candidates else None)
        if held is None:
            return None
        return Lease(free[held.account_id, held.model], self, held)

    def _as_it_is(self, target: Target, account: AccountValue) -> Target | None:
        """With the credential that its account has by now; None when the account is gone."""
        if self._is_current(account):
            return target
        known = self._accounts.get(account.id)
        return replace(target, account=known) if known and known.provider == target.provider else None

    def _is_current(self, account: AccountValue) -> bool:
        """Since its request began it was neither deleted nor given another credential."""
        known = self._accounts.get(account.id)
        return known is account or (known is not None and _credential(known) == _credential(account))

    def released(self, held: Held) -> None:
        self._state.release(held)

    def outlook(self, targets: Sequence[Target]) -> Outlook:
        """Called when none of these could be leased."""
        now, fleet = self._now(), self._state.fleet()
        moments = []
        rate_only, absent, down = True, False, True
        for target in targets:
            stands = fleet.standings.get(target.account.id) if target.account else None
            usable_at = stands.usable_at(target.model) if stands else None
            if stands is None or usable_at is None:
                continue
            if stands.lacks(target.model, now):
                absent = True
                continue
            open_until = fleet.open_until(stands.site)
            moments.append(max(usable_at, open_until))
            down = down and bool(open_until)
            rate_only = rate_only and not open_until and (stands.is_limited or target.model in stands.models_until)
        if not moments:
            return Outlook(None, rate_only=False, absent=absent)
        wait = min(moments) - now
        return Outlook(max(wait, 1.0), rate_only, busy=wait <= 0 and not down, down=down)

    # ---- conversations

    def bind(self, conversation: str, account_id: int) -> None:
        """Its next turns prefer this account."""
        self._state.bind(conversation, account_id)

    def bound(self, conversation: str) -> int | None:
        return self._state.bound(conversation)

    # ---- what attempts tell. The practice provider has no account, so nothing is remembered of it.

    def succeeded(self, target: Target) -> None:
        self._apply(target, standing.succeeded)

    def answering(self, target: Target) -> None:
        """Content comes: who was only tried is back with that, not with the end of a long answer."""
        self._apply(target, standing.answering)

    def failed(self, target: Target, failure: Failure) -> None:
        if target.account is not None and not self._is_current(target.account):
            return  # says nothing about the credential that the account has by now
        jitter = random.uniform(0.8, 1.2)
        known = self._seen.version if self._seen else 0

        def change(fleet: Fleet, account_id: int, now: float) -> Fleet:
            if failure.verdict in CREDENTIAL and standing.is_behind(fleet, known):
                return fleet  # another worker may know a newer credential
            return standing.failed(fleet, account_id, target.model, failure, self.max_errors, now, jitter)

        self._apply(target, change)

    def _apply(self, target: Target, change: Callable[[Fleet, int, float], Fleet]) -> None:
        """Change the fleet, and have what changed written down."""
        if target.account is None:
            return
        account_id, now = target.account.id, self._now()
        before, after = self._state.update(lambda fleet: standing.numbered(fleet, change(fleet, account_id, now)))
        for each in standing.changed(before, after):
            self._recorder.account_state(_written(each, before, after, now))


def _written(account_id: int, before: Fleet, after: Fleet, now: float) -> AccountState:
    old, new = before.standings[account_id], after.standings[account_id]
    return AccountState(
        account_id, new.state, new.reason, new.until, new.error_count, new.is_valid, old.version, old.state, now
    )


def _candidate(target: Target) -> Candidate:
    account = target.account
    assert account is not None
    return Candidate(account.id, account.priority, account.max_concurrency, target.model, site(account))


def _credential(account: AccountValue) -> tuple[str, str]:
    """What a person replaces it by; access tokens are renewed all the time."""
    return account.credentials.api_key, account.credentials.base_url


def site(account: AccountValue) -> str:
    """The server that an account speaks to: what goes down, goes down for all accounts there."""
    address = urlsplit(account.credentials.base_url)
    return f"{account.provider} {address.scheme}://{address.netloc}"


def _stored(account: AccountValue) -> standing.Stored:
    return standing.Stored(
        account.id,
        account.provider,
        site(account),
        account.state_version,
        account.state,
        account.state_reason,
        account.state_until,
        account.error_count,
    )
