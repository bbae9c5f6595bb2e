"""What one worker has in hand: requests, retries within their budget, and the line of those that wait for a place."""

from collections.abc import Collection, Hashable
from types import TracebackType

from gevent.event import Event

from opus_api.transport import Patience

# Envoy's retry budget: without one, an upstream in trouble gets three times the calls just then.
LEAST_RETRIES, RETRY_SHARE = 3, 0.2
LONGEST_WAIT = 1.5  # seconds in line
MOST_WAITING = 100  # who comes later is refused at once
RETRIES = "retries"  # the place in the budget; all other places are account ids


class Load:
    """One per worker. Nothing here switches greenlets, except ``Waiting.wait``."""

    def __init__(self) -> None:
        self.requests = 0  # in flight
        self.retries = 0  # those among them that ask upstream once more and have no content yet
        self._line: list[Waiting] = []  # who waits longest stands first

    def may_retry(self) -> bool:
        return self.retries < max(LEAST_RETRIES, RETRY_SHARE * self.requests)

    @property
    def is_full(self) -> bool:
        return len(self._line) >= MOST_WAITING

    def freed(self, place: Hashable) -> None:
        """A place is free: wakes who has waited longest for it."""
        for waiting in self._line:
            if waiting.wants(place):
                waiting.wake()
                return

    def line_up(self, places: Collection[Hashable]) -> "Waiting":
        """Wait for any of these places, within ``with``."""
        return Waiting(self._line, places)


class Permit:
    """The right to ask upstream once more; ended once, by ``release``."""

    __slots__ = ("_load",)

    def __init__(self, load: Load):
        self._load: Load | None = load
        load.retries += 1

    def release(self) -> None:
        load, self._load = self._load, None
        if load is not None:
            load.retries -= 1
            load.freed(RETRIES)


class Waiting:
    """Somebody in line."""

    __slots__ = ("_line", "_places", "_woken")

    def __init__(self, line: "list[Waiting]", places: Collection[Hashable]):
        self._line = line
        self._places = places
        self._woken = Event()

    def __enter__(self) -> "Waiting":
        self._line.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.remove(self)

    def wants(self, place: Hashable) -> bool:
        return place in self._places and not self._woken.is_set()

    def wake(self) -> None:
        self._woken.set()

    def wait(self, patience: Patience, seconds: float) -> None:
        """Until woken, ``seconds`` at most. Raises ClientGone."""
        with patience:
            self._woken.wait(seconds)
        self._woken.clear()
