"""What a key and an address may use: reserved before a request runs, settled to the truth when it ends.

Minutes slide, so no minute of any position holds more than its limit; a month is the calendar's, in UTC.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from opus_api.services.ip_rules import source
from opus_api.services.snapshot import KeyValue
from opus_api.services.values import month_of, rfc3339
from opus_api.state import Charge, Refused, State, StateUnavailable, clock
from opus_api.wire.errors import ApiError, RateLimited
from opus_api.wire.request import Call

MINUTE, MONTH = 60.0, 32 * 86_400.0  # seconds; MONTH: longer than any
LONG_WAIT = 300.0  # seconds after which a client's own retries cannot help
OUTPUT_ESTIMATE = 4096  # tokens reserved for an answer that may be longer

REQUESTS, INPUT, OUTPUT, MONTHLY, CONCURRENCY = "rpm", "itpm", "otpm", "monthly_tokens", "concurrency"
UNITS = {
    REQUESTS: "requests per minute",
    INPUT: "input tokens per minute",
    OUTPUT: "output tokens per minute",
    MONTHLY: "tokens per month",
}
ANTHROPIC_NAMES = {REQUESTS: "requests", INPUT: "input-tokens", OUTPUT: "output-tokens"}


@dataclass(frozen=True, slots=True)
class Spent:
    """What a request has really used. ``requests`` is 0 for one that was turned away without work."""

    requests: int = 0
    input_tokens: int = 0  # without those read from a cache, as Anthropic limits them
    output_tokens: int = 0
    tokens: int = 0  # of all kinds


@dataclass(frozen=True, slots=True)
class Grant:
    """What one request holds; ``Limits.settle`` gives back what it did not use."""

    at: float
    charges: Mapping[str, Charge]
    place: str  # the name under which it counts as running, "" when that is not limited
    headers: Mapping[str, str]


class Limits:
    """One per worker; exact over all of them as far as ``state`` is."""

    def __init__(self, state: State, now: Callable[[], float] = clock.now):
        self._state = state
        self._now = now
        self._seeded: dict[tuple[int, str], int] = {}  # key and window: gaps of the state when it was told

    def admit(self, key: KeyValue, call: Call) -> Grant | None:
        """Reserve what the call may need, all or nothing; None for a key without limits.

        ``call.input_estimate`` must be set. Raises RateLimited, StateUnavailable.
        """
        return self._admit(key, call, self._now()) if key.limits else None

    def settle(self, grant: Grant, spent: Spent) -> None:
        """Once, when the request has ended. What cannot be given back now ages out by itself."""
        truth = {
            REQUESTS: spent.requests,
            INPUT: spent.input_tokens,
            OUTPUT: spent.output_tokens,
            MONTHLY: spent.tokens,
        }
        try:
            if grant.place:
                self._state.let_go(grant.place)
            for kind, charge in grant.charges.items():
                if truth[kind] != charge.amount:
                    self._state.settle(charge, grant.at, truth[kind])
        except StateUnavailable:
            return

    def admit_address(self, ip: str, most: int, minutes: int) -> None:
        """One more request of this address. Raises RateLimited, StateUnavailable."""
        charge = Charge(f"ip{minutes}:{source(ip)}", minutes * MINUTE, 1, most)
        if refused := self._state.spend([charge], self._now()):
            raise _refusal("Too many requests from your address; try again later.", refused.wait)

    def used(self, key: KeyValue) -> dict[str, int]:
        """How much of each limit the key has taken by now; of requests that run, what is reserved for them.

        Raises StateUnavailable.
        """
        now, found = self._now(), {}
        for kind in key.limits:
            if kind == CONCURRENCY:
                found[kind] = self._state.in_flight(_place(key))
                continue
            name, window = _name(key, kind), MINUTE
            if kind == MONTHLY:
                name, window = _month_name(key, now), MONTH
                self._seed(key, name, now)
            found[kind] = math.ceil(self._state.used(name, window, now))
        return found

    # ---- one key

    def _admit(self, key: KeyValue, call: Call, now: float) -> Grant:
        place = self._place(key)
        try:
            charges = self._reserve(key, call, now)
            return Grant(now, charges, place, self._headers(key, call.dialect, now))
        except ApiError:
            if place:
                self._state.let_go(place)
            raise

    def _reserve(self, key: KeyValue, call: Call, now: float) -> dict[str, Charge]:
        charges = _charges(key, call, now)
        if MONTHLY in charges:
            self._seed(key, charges[MONTHLY].name, now)
        if refused := self._state.spend(list(charges.values()), now):
            raise _over_limit(charges, refused, self._headers(key, call.dialect, now), now)
        return charges

    def _place(self, key: KeyValue) -> str:
        cap, place = key.limits.get(CONCURRENCY), _place(key)
        if not cap:
            return ""
        if not self._state.hold(place, cap):
            raise _refusal(_sentence(cap, "requests at the same time"), 1.0)
        return place

    def _seed(self, key: KeyValue, name: str, now: float) -> None:
        """A state that has just begun knows nothing of the month: whoever is first tells it, which only works once."""
        gaps = self._state.gaps
        if self._seeded.get((key.id, name)) == gaps:
            return
        known = key.month_tokens if name.endswith(str(key.month)) else 0
        once = Charge(f"{name}:seed", MONTH, 1, 1)
        self._state.spend([once, Charge(name, MONTH, known, 1e18)], now)
        self._seeded[key.id, name] = gaps

    def _headers(self, key: KeyValue, dialect: str, now: float) -> dict[str, str]:
        """How much is left, by the names that SDKs of this dialect read."""
        left = {}
        for kind in ANTHROPIC_NAMES:
            if limit := key.limits.get(kind):
                used = self._state.used(_name(key, kind), MINUTE, now)
                left[kind] = (limit, max(0, math.floor(limit - used)), MINUTE if used else 0.0)
        return _anthropic(left, now) if dialect == "anthropic" else _openai(left)


Left = Mapping[str, tuple[int, int, float]]  # by kind: limit, what remains, seconds until all of it is back


def _anthropic(left: Left, now: float) -> dict[str, str]:
    headers = {}
    for kind, (limit, remaining, wait) in left.items():
        name = f"anthropic-ratelimit-{ANTHROPIC_NAMES[kind]}"
        headers[f"{name}-limit"] = str(limit)
        headers[f"{name}-remaining"] = str(remaining)
        headers[f"{name}-reset"] = rfc3339(datetime.fromtimestamp(math.ceil(now + wait), UTC)) or ""
    return headers


def _openai(left: Left) -> dict[str, str]:
    """It has one count of tokens: of ours the one that is nearer to its end."""
    tokens = sorted((left[kind] for kind in (INPUT, OUTPUT) if kind in left), key=lambda entry: entry[1])
    headers = {}
    for name, found in (("requests", left.get(REQUESTS)), ("tokens", next(iter(tokens), None))):
        if found:
            headers[f"x-ratelimit-limit-{name}"] = str(found[0])
            headers[f"x-ratelimit-remaining-{name}"] = str(found[1])
            headers[f"x-ratelimit-reset-{name}"] = "1m0s" if found[2] else "0s"
    return headers


def _place(key: KeyValue) -> str:
    return f"key{key.id}"


def _name(key: KeyValue, kind: str) -> str:
    return f"{_place(key)}:{kind}"


def _month_name(key: KeyValue, now: float) -> str:
    return f"{_name(key, MONTHLY)}:{month_of(now)}"


def _charges(key: KeyValue, call: Call, now: float) -> dict[str, Charge]:
    """What to reserve. An answer may be as long as the client allows, as far as that is an honest guess."""
    asked = next((call.body[name] for name in ("max_tokens", "max_completion_tokens") if call.body.get(name)), None)
    output = min(asked, OUTPUT_ESTIMATE) if isinstance(asked, int) else OUTPUT_ESTIMATE
    amounts = {REQUESTS: 1, INPUT: call.input_estimate, OUTPUT: output}
    limits = key.limits
    charges = {
        # A long answer is only a guess: let it be tried when nothing else runs.
        kind: Charge(_name(key, kind), MINUTE, min(amount, limits[kind]) if kind == OUTPUT else amount, limits[kind])
        for kind, amount in amounts.items()
        if limits.get(kind)
    }
    if most := limits.get(MONTHLY):
        charges[MONTHLY] = Charge(_month_name(key, now), MONTH, call.input_estimate + output, most)
    return charges


def _over_limit(charges: Mapping[str, Charge], refused: Refused, headers: Mapping[str, str], now: float) -> RateLimited:
    kind = next(kind for kind, charge in charges.items() if charge.name == refused.charge.name)
    limit, amount = charges[kind].limit, charges[kind].amount
    sentence = _sentence(int(limit), UNITS[kind])
    if kind == MONTHLY:
        return _refusal(sentence, _until_next_month(now), headers)
    if amount > limit:
        return RateLimited(f"{sentence} It needs about {amount:.0f}.", {**headers, "x-should-retry": "false"})
    return _refusal(sentence, refused.wait, headers)


def _sentence(limit: int, unit: str) -> str:
    return f"This request would exceed your API key's limit of {limit} {unit}."


def _refusal(sentence: str, wait: float, headers: Mapping[str, str] | None = None) -> RateLimited:
    said = {**(headers or {}), "retry-after": str(max(1, math.ceil(wait)))}
    if wait > LONG_WAIT:
        said["x-should-retry"] = "false"
    return RateLimited(sentence, said)


def _until_next_month(now: float) -> float:
    moment = datetime.fromtimestamp(now, UTC)
    year, month = moment.year + moment.month // 12, moment.month % 12 + 1
    return datetime(year, month, 1, tzinfo=UTC).timestamp() - now
