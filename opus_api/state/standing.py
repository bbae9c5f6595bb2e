"""How every account stands, as plain values, and what each event makes of them. Pure: times come from the caller.

All accounts are one value, the Fleet, so that rules over several of them (the last usable one stays, a provider's
outage is nobody's fault) are decided in one atomic step, whichever engine keeps it. Times are Unix seconds, because
they are stored and shown.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from opus_api.upstreams.base import Failure, Verdict

RATE_BASE, RATE_CAP = 30.0, 300.0  # seconds; doubled each time in a row
TRANSIENT_BASE, TRANSIENT_CAP = 30.0, 300.0
QUOTA_BASE, QUOTA_CAP = 3600.0, 86_400.0
RATE_REASON, QUOTA_REASON = "rate limit reached", "quota or credit used up"
SUSPENDED_REASON = "suspended"  # only a person brings such an account back
MODEL_ABSENT = 600.0
MOST_MODELS = 100  # of one account that are remembered to be at their limit, and as many that it lacks
LAG = 500  # changes that two workers may count apart; a person's is further ahead (models.OVERTAKING)
LONGEST = 31 * 86_400.0  # no stored deadline is believed beyond this
STALE = 60 * 10**9  # nanoseconds by which a slow worker's snapshot may be behind
SLOW_START = 60.0  # seconds after a return in which an account gets more and more
SLOW_START_FULL = 20  # what a full share is for an account without a cap of its own
OUTAGE = 10  # failures of a site in a row that open its breaker
OUTAGE_BASE, OUTAGE_CAP = 10.0, 60.0

OUT = ("invalid", "disabled")
# Says nothing about the account when everybody else of the provider fails as well.
PASSING = (Verdict.TRANSIENT, Verdict.UNREACHABLE, Verdict.OVERLOADED)


@dataclass(frozen=True, slots=True)
class Standing:
    """One account. ``cooling`` whose time has come is half-open: one request tries it."""

    provider: str = ""
    site: str = ""  # the server it speaks to: those of one site go down together
    version: int = -1  # of the account's row: counts changes of state, whoever made them
    state: str = "active"  # active | cooling | invalid | disabled
    reason: str | None = None
    until: float | None = None
    since: float = 0.0  # when the machine began this cooldown; 0: it did not
    error_count: int = 0
    auth_failures: int = 0  # those among them that refused the credential
    times_in_a_row: int = 0  # cooldowns without a success in between
    slow_since: float = 0.0  # when it came back; 0: it was never away
    models_until: Mapping[str, float] = field(default_factory=dict)  # model at its limit -> not before
    absent_until: Mapping[str, float] = field(default_factory=dict)  # model that the upstream lacks -> not before

    @property
    def is_valid(self) -> bool:
        return self.state != "invalid"

    @property
    def is_limited(self) -> bool:
        """It cools because it has used up what it may use, not because something is wrong."""
        return self.reason in (RATE_REASON, QUOTA_REASON)

    def is_cooling(self, now: float) -> bool:
        return self.state == "cooling" and (self.until or 0.0) > now

    def is_half_open(self, now: float) -> bool:
        return self.state == "cooling" and not self.is_cooling(now)

    def usable_at(self, model: str) -> float | None:
        """From when on it may serve this model; None: not before a person acts."""
        if self.state in OUT:
            return None
        cooling = (self.until or 0.0) if self.state == "cooling" else 0.0
        return max(cooling, self.models_until.get(model, 0.0), self.absent_until.get(model, 0.0))

    def lacks(self, model: str, now: float) -> bool:
        return self.absent_until.get(model, 0.0) > now


@dataclass(frozen=True, slots=True)
class Breaker:
    """One site's trouble. There is one only while its last answer was a failure."""

    failures: int = 0  # in a row: nothing has succeeded since the first of them
    accounts: tuple[int, ...] = ()  # whose they were
    since: float = 0.0  # when the first one was
    until: float = 0.0  # open until then, half-open from then on; 0: closed
    times: int = 0  # opened in a row


@dataclass(frozen=True, slots=True)
class Fleet:
    """All accounts by id, and the breakers of their sites."""

    standings: Mapping[int, Standing] = field(default_factory=dict)
    breakers: Mapping[str, Breaker] = field(default_factory=dict)
    snapshot: int = -1  # version of the newest snapshot that was taken over

    def having(self, account_id: int, standing: Standing) -> "Fleet":
        if self.standings.get(account_id) == standing:
            return self
        return replace(self, standings={**self.standings, account_id: standing})

    def broken(self, site: str, breaker: Breaker | None) -> "Fleet":
        if self.breakers.get(site) == breaker:
            return self
        others = {name: kept for name, kept in self.breakers.items() if name != site}
        return replace(self, breakers={**others, site: breaker} if breaker else others)

    def open_until(self, site: str) -> float:
        breaker = self.breakers.get(site)
        return breaker.until if breaker else 0.0


# ---- what may be picked


class Gate(NamedTuple):
    """What keeps requests from an account, a model of it, or a site. Nothing does where there is none."""

    opens: float
    trial: bool = False  # once open, only one request at a time
    slow_since: float = 0.0


def gates(fleet: Fleet) -> dict[str, Gate]:
    """By ``ID``, ``ID MODEL`` and ``@SITE``."""
    return dict(_gates(fleet))


def _gates(fleet: Fleet) -> Iterator[tuple[str, Gate]]:
    for account_id, standing in fleet.standings.items():
        if standing.state in OUT:
            yield str(account_id), Gate(math.inf)
        elif standing.state == "cooling":
            yield str(account_id), Gate(standing.until or 0.0, trial=True)
        elif standing.slow_since:
            yield str(account_id), Gate(0.0, slow_since=standing.slow_since)
        for model in {**standing.models_until, **standing.absent_until}:
            until = max(standing.models_until.get(model, 0.0), standing.absent_until.get(model, 0.0))
            yield f"{account_id} {model}", Gate(until)
    for site, breaker in fleet.breakers.items():
        if breaker.until:
            yield f"@{site}", Gate(breaker.until, trial=True)


# ---- what attempts tell


def succeeded(fleet: Fleet, account_id: int, now: float) -> Fleet:
    """A whole answer came: nothing counts against the account or its site any more."""
    fleet = answering(fleet, account_id, now)
    standing = fleet.standings.get(account_id)
    if standing is None or standing.state != "active":
        return fleet
    return fleet.having(account_id, replace(standing, error_count=0, auth_failures=0, times_in_a_row=0))


def answering(fleet: Fleet, account_id: int, now: float) -> Fleet:
    """Content came: whoever was tried has passed, the account and its site. Its slow start begins."""
    standing = fleet.standings.get(account_id)
    if standing is None:
        return fleet
    fleet = _alive(fleet, standing.site, now)
    if not standing.is_half_open(now):  # what began before a cooldown does not end it
        return fleet
    back = replace(standing, state="active", reason=None, until=None, since=0.0, slow_since=now)
    return fleet.having(account_id, back)


def failed(
    fleet: Fleet, account_id: int, model: str, failure: Failure, max_errors: int, now: float, jitter: float = 1.0
) -> Fleet:
    """One attempt's failure. ``max_errors`` in a row take an account out; ``jitter`` stretches a cooldown for passing
    trouble, so that accounts cooled together do not return together.

    Who may not be used anyway is never touched.
    """
    standing = fleet.standings.get(account_id)
    if standing is None or standing.state in OUT:
        return fleet
    if failure.verdict in PASSING:
        return _struggling(fleet, account_id, model, failure, max_errors, now, jitter)
    fleet = _alive(fleet, standing.site, now)
    return fleet.having(account_id, _refused(standing, model, failure, max_errors, now))


def _refused(standing: Standing, model: str, failure: Failure, max_errors: int, now: float) -> Standing:
    """The provider works and says no to this account."""
    match failure.verdict:
        case Verdict.RATE if failure.model_only:
            until = now + (failure.retry_after or RATE_BASE)
            return replace(standing, models_until=_later(standing.models_until, model, until, now))
        case Verdict.RATE if failure.retry_after or not standing.is_cooling(now):
            seconds = failure.retry_after or _backoff(standing, RATE_BASE, RATE_CAP)
            return _cooled(standing, seconds, RATE_REASON, now)
        case Verdict.QUOTA if failure.retry_after or not standing.is_cooling(now):
            seconds = failure.retry_after or _backoff(standing, QUOTA_BASE, QUOTA_CAP)
            return _cooled(standing, seconds, QUOTA_REASON, now)
        case Verdict.NO_MODEL:
            return replace(standing, absent_until=_later(standing.absent_until, model, now + MODEL_ABSENT, now))
        case Verdict.AUTH:
            return _unauthorized(standing, failure, max_errors)
        case Verdict.SUSPENDED:
            return replace(standing, state="invalid", reason=SUSPENDED_REASON, until=None, since=0.0)
    return standing


def _unauthorized(standing: Standing, failure: Failure, max_errors: int) -> Standing:
    failures = standing.auth_failures + 1
    counted = replace(standing, error_count=standing.error_count + 1, auth_failures=failures)
    if failures < max_errors:
        return counted
    reason = f"credential refused {failures} times: {failure.message}"[:255]
    return replace(counted, state="invalid", reason=reason, until=None, since=0.0)


def _struggling(
    fleet: Fleet, account_id: int, model: str, failure: Failure, max_errors: int, now: float, jitter: float
) -> Fleet:
    """Passing trouble: of the account, or of its whole site when nothing there succeeds any more."""
    standing = fleet.standings[account_id]
    breaker = fleet.breakers.get(standing.site, Breaker(since=now))
    if breaker.until > now:
        return fleet  # what fails together with those who opened it says nothing new
    failing = tuple(sorted({*breaker.accounts, account_id}))
    # With Redis, what failed a moment earlier may be counted later.
    breaker = replace(breaker, failures=breaker.failures + 1, accounts=failing, since=min(breaker.since, now))
    if breaker.until or _is_outage(fleet, standing.site, breaker):
        return _outage(fleet, standing.site, breaker, now)
    fleet = fleet.broken(standing.site, breaker)
    if failure.verdict is Verdict.OVERLOADED:
        return fleet
    counted = replace(standing, error_count=standing.error_count + 1)
    passing = counted.error_count - counted.auth_failures
    if standing.is_cooling(now) or not (standing.is_half_open(now) or passing >= max_errors):
        return fleet.having(account_id, counted)
    if not _has_deputy(fleet, account_id, model, now):  # the last one of a provider is never taken out for trouble
        return fleet.having(account_id, replace(counted, state="active", reason=None, until=None, since=0.0))
    seconds = _backoff(standing, TRANSIENT_BASE, TRANSIENT_CAP) * jitter
    reason = f"failed {counted.error_count} times: {failure.message}"[:255]
    return fleet.having(account_id, _cooled(counted, seconds, reason, now))


def _is_outage(fleet: Fleet, site: str, breaker: Breaker) -> bool:
    """Nothing succeeds, and that is not one account's own trouble: half of those in service fail, at least two."""
    if breaker.failures < OUTAGE:
        return False
    in_service = {i for i, s in fleet.standings.items() if s.site == site and s.state not in OUT}
    limited = {i for i in in_service if fleet.standings[i].is_limited} - set(breaker.accounts)
    size = len(in_service - limited)
    return len(breaker.accounts) >= min(size, max(2, math.ceil(size / 2)))


def _outage(fleet: Fleet, site: str, breaker: Breaker, now: float) -> Fleet:
    """The site is down: nobody is sent there for a while, and what it did to the accounts' standing is taken back."""
    until = now + min(OUTAGE_BASE * 2.0 ** min(breaker.times, 10), OUTAGE_CAP)
    fleet = fleet.broken(site, replace(breaker, until=until, times=breaker.times + 1))
    for account_id, standing in list(fleet.standings.items()):
        if standing.site == site and standing.state not in OUT:
            fleet = fleet.having(account_id, _absolved(standing, breaker.since))
    return fleet


def _absolved(standing: Standing, since: float) -> Standing:
    blameless = replace(standing, error_count=standing.auth_failures)
    if standing.state != "cooling" or standing.is_limited or standing.since < since:
        return blameless
    times = max(standing.times_in_a_row - 1, 0)
    return replace(blameless, state="active", reason=None, until=None, since=0.0, times_in_a_row=times)


def _alive(fleet: Fleet, site: str, now: float) -> Fleet:
    """Something at the site works. While its breaker is open, that is only what began before."""
    return fleet if fleet.open_until(site) > now else fleet.broken(site, None)


def _has_deputy(fleet: Fleet, account_id: int, model: str, now: float) -> bool:
    provider = fleet.standings[account_id].provider
    others = (s for i, s in fleet.standings.items() if i != account_id and s.provider == provider)
    return any(_usable(fleet, other, model, now) for other in others)


def _usable(fleet: Fleet, standing: Standing, model: str, now: float) -> bool:
    at = standing.usable_at(model)
    return at is not None and max(at, fleet.open_until(standing.site)) <= now


def _cooled(standing: Standing, seconds: float, reason: str, now: float) -> Standing:
    """A later end extends a cooldown; an earlier one never shortens it."""
    until = now + seconds
    if not standing.is_cooling(now):
        times = standing.times_in_a_row + 1
        return replace(
            standing, state="cooling", until=until, reason=reason, since=now, times_in_a_row=times, slow_since=0.0
        )
    if (standing.until or 0.0) >= until:
        return standing
    return replace(standing, until=until, reason=reason)


def _backoff(standing: Standing, base: float, cap: float) -> float:
    return min(base * 2.0 ** min(standing.times_in_a_row, 10), cap)


def _later(untils: Mapping[str, float], model: str, until: float, now: float) -> dict[str, float]:
    """Of MOST_MODELS at most: clients make names up, and all of them travel at each change. The first to end go."""
    others = [(at, name) for name, at in untils.items() if at > now and name != model]
    room = MOST_MODELS - 1  # the one that was just learnt stays, however soon it ends
    kept = {name: at for at, name in sorted(others)[-room:]}
    return kept | {model: max(until, untils.get(model, 0.0))}


# ---- what the database and persons say


@dataclass(frozen=True, slots=True)
class Stored:
    """An account's row, as far as its standing is concerned."""

    account_id: int
    provider: str
    site: str
    version: int
    state: str
    reason: str | None
    until: float | None
    error_count: int


def adopted(fleet: Fleet, rows: Iterable[Stored], snapshot: int, now: float) -> Fleet:
    """Take over what changed in the database; forget accounts that are gone.

    ``snapshot``: its version, in Unix nanoseconds. One that is a little older than what is known was read before, by a
    slower worker, and changes nothing; one that is much older tells that the clock was set back.
    """
    if is_behind(fleet, snapshot):
        return fleet
    known = {row.account_id: row for row in rows}
    standings = {i: _adopt(fleet.standings.get(i, Standing()), row, now) for i, row in known.items()}
    sites = {standing.site for standing in standings.values()}
    # Somebody else looked at the account or healed it: its site gets a new chance as well.
    healed = {s.site for i, s in standings.items() if s.state == "active" and i in fleet.standings
              and s.version > fleet.standings[i].version}  # fmt: skip
    breakers = {site: kept for site, kept in fleet.breakers.items() if site in sites - healed}
    if (standings, breakers) == (fleet.standings, fleet.breakers):
        return fleet if snapshot == fleet.snapshot else replace(fleet, snapshot=snapshot)
    return Fleet(standings, breakers, snapshot)


def is_behind(fleet: Fleet, snapshot: int) -> bool:
    """Another worker has read a newer snapshot than this."""
    return 0 < fleet.snapshot - snapshot < STALE


def _adopt(standing: Standing, row: Stored, now: float) -> Standing:
    """Take over the database's view when it is newer than ours, or as new: then somebody else changed it meanwhile.

    Only a person disables and enables, so that is taken over also while changes of ours are still to be written.
    """
    standing = replace(standing, provider=row.provider, site=row.site)
    if row.version < standing.version and "disabled" not in (row.state, standing.state):
        return standing
    until = None if row.until is None else min(row.until, now + LONGEST)
    if row.version <= standing.version and row.state == standing.state:
        is_longer = row.version == standing.version and until is not None and until > (standing.until or 0.0)
        return replace(standing, until=until, reason=row.reason) if is_longer else standing  # another worker's cooldown
    found = Standing(row.provider, row.site, row.version, row.state, row.reason, until, error_count=row.error_count)
    if row.version - standing.version >= LAG:
        return found
    # Another worker's change: the row says nothing of models.
    return replace(found, models_until=standing.models_until, absent_until=standing.absent_until)


def merged(shared: Fleet, own: Fleet, now: float) -> Fleet:
    """After a time apart: of each account the view with more changes; where both have as many, the stricter. But
    nothing that keeps requests away is lost to what the other one counted meanwhile."""
    standings = {i: _joined(own.standings[i], s, now) if i in own.standings else s
                 for i, s in {**own.standings, **shared.standings}.items()}  # fmt: skip
    return Fleet(standings, {**own.breakers, **shared.breakers}, max(own.snapshot, shared.snapshot))


def _joined(own: Standing, shared: Standing, now: float) -> Standing:
    older, newer = sorted((shared, own), key=_weight)
    if newer.state in OUT or newer.version - older.version >= LAG:
        return newer
    if older.state == "invalid":  # the machine itself never takes that back
        return replace(older, version=newer.version)
    newer = replace(
        newer,
        models_until=_latest(newer.models_until, older.models_until),
        absent_until=_latest(newer.absent_until, older.absent_until),
    )
    if not older.is_cooling(now) or (newer.is_cooling(now) and (newer.until or 0.0) >= (older.until or 0.0)):
        return newer
    cooled = replace(newer, state="cooling", until=older.until, reason=older.reason, since=older.since, slow_since=0.0)
    return replace(cooled, times_in_a_row=max(older.times_in_a_row, newer.times_in_a_row))


def _latest(one: Mapping[str, float], other: Mapping[str, float]) -> Mapping[str, float]:
    return {model: max(one.get(model, 0.0), other.get(model, 0.0)) for model in {**one, **other}}


def _weight(standing: Standing) -> tuple[int, bool, float]:
    return standing.version, standing.state in OUT, standing.until or 0.0


def numbered(before: Fleet, after: Fleet) -> Fleet:
    """The machine's change, with the next version for each account whose row it concerns."""
    for account_id in changed(before, after):
        standing = after.standings[account_id]
        after = after.having(account_id, replace(standing, version=standing.version + 1))
    return after


def changed(before: Fleet, after: Fleet) -> list[int]:
    """The accounts whose rows have to be written."""
    if before.standings is after.standings:
        return []
    return [i for i, s in after.standings.items() if i in before.standings and _row(before.standings[i]) != _row(s)]


def _row(standing: Standing) -> tuple[str, str | None, float | None, int]:
    return standing.state, standing.reason, standing.until, standing.error_count
