"""What requests share while they run: standings, turns, requests in flight, bindings, windows. Behind one protocol.

Two engines keep it: the memory of the one worker (``memory.py``), or Redis for several (``redis_engine.py``).
Below ``services``, because sign-in is throttled and persons reset accounts through it, too.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from opus_api.config import ConfigError
from opus_api.state.rotation import Candidate
from opus_api.state.standing import Fleet
from opus_api.wire.errors import ApiError

NOTES = 200
NOTES_KEPT = 3600  # seconds


class StateUnavailable(ApiError):
    """Redis has been away for too long to go on with what this worker knew last."""

    def __init__(self) -> None:
        super().__init__(503, "api_error", "what the workers share is away, retry", {"retry-after": "5"})


class Held(NamedTuple):
    """A place that was taken: under each of these names one request is in flight."""

    account_id: int
    model: str
    counted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Charge:
    """``amount`` against ``limit`` per ``window`` seconds. One name has one window."""

    name: str
    window: float
    amount: float
    limit: float


class Refused(NamedTuple):
    """The first charge that does not fit, and in how many seconds it would (never: the whole window)."""

    charge: Charge
    wait: float


class Strikes(NamedTuple):
    """Failures under a name, and when the last one was (Unix seconds)."""

    times: int
    last: float


@dataclass(frozen=True, slots=True)
class Health:
    """``away`` in seconds: for so long the engine has been deciding with this worker's last view. 0: it is there."""

    engine: str  # memory | redis
    away: float = 0.0
    decides: bool = True  # its last view is not too old for that


def engine(redis_url: str) -> "State":
    """The one that the settings ask for. Raises ConfigError."""
    if not redis_url:
        from opus_api.state.memory import MemoryState

        return MemoryState()
    from opus_api.state.redis_engine import RedisState

    try:
        return RedisState(redis_url)
    except ValueError as error:
        raise ConfigError(f"REDIS_URL cannot be used ({error}); it must look like redis://host:6379/0.") from None


def answers(redis_url: str) -> bool:
    """Somebody is there. Raises ConfigError for an address that cannot be understood."""
    found = engine(redis_url)
    found.fleet()
    found.stop()
    return found.health().away == 0


class State(Protocol):
    """Every method is atomic, over all workers. The memory engine never switches greenlets, so neither do its callers
    there. What decides who may begin (``pick``, ``hold``, ``spend``) raises StateUnavailable when the engine is away
    for too long.

    ``gaps``: how often it may have forgotten what it was told once; ``on_gap`` is called at each.
    """

    gaps: int
    on_gap: Callable[[], None]

    def fleet(self) -> Fleet:
        """How every account stands."""
        ...

    def update(self, change: Callable[[Fleet], Fleet]) -> tuple[Fleet, Fleet]:
        """Replace the fleet by what ``change`` makes of it: (before, after). ``change`` is pure; it may be called
        again when another worker was quicker."""
        ...

    def seed(self, uses: Mapping[int, int]) -> None:
        """What accounts had been used before, by id; for those not known yet. Others than these are forgotten."""
        ...

    def pick(
        self, candidates: Sequence[Candidate], strategy: str, now: float, longest_trial: float = math.inf
    ) -> Held | None:
        """Choose by strategy among those that may be used now, and take a place there. When there are none, a trial
        that began ``longest_trial`` seconds ago, in whichever worker, keeps nobody out any more."""
        ...

    def release(self, held: Held) -> None: ...

    def in_flight(self, name: str) -> int:
        """Of living workers; ``aID`` for an account, else a name that was held."""
        ...

    def hold(self, name: str, cap: int) -> bool:
        """Take one of ``cap`` places under this name."""
        ...

    def let_go(self, name: str) -> None: ...

    def bind(self, conversation: str, account_id: int) -> None:
        """Remember who serves a conversation, for an hour after its last use."""
        ...

    def bound(self, conversation: str) -> int | None: ...

    def spend(self, charges: Sequence[Charge], now: float) -> Refused | None:
        """Take all charges or none. No window of any position ever holds more than its limit."""
        ...

    def settle(self, charge: Charge, when: float, amount: float) -> None:
        """What was charged at ``when`` has turned out to be ``amount``; 0 gives it back."""
        ...

    def used(self, name: str, window: float, now: float) -> float:
        """The sum of what was charged in the window that ends now."""
        ...

    def strike(self, name: str, now: float) -> Strikes:
        """Count a failure; forgotten an hour after the last one."""
        ...

    def strikes(self, name: str, now: float) -> Strikes: ...

    def forgive(self, name: str) -> None: ...

    def note(self, text: str) -> None:
        """Keep a line for a while: of all that were noted the last NOTES, no longer than NOTES_KEPT after the last."""
        ...

    def notes(self) -> Sequence[str]:
        """The newest first."""
        ...

    def health(self) -> Health: ...

    def start(self) -> None:
        """Begin to say that this worker lives."""
        ...

    def stop(self) -> None: ...


__all__ = ["Candidate", "Charge", "Fleet", "Health", "Held", "Refused", "State", "StateUnavailable", "Strikes"]
