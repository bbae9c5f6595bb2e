"""Sliding windows: what was charged when, summed up over the last seconds. Values without IO.

Charges that come within a hundredth of the window are kept as one, at the time of the latest: never too much is let
through, and one name takes a hundred entries at most.
"""

from collections import deque
from dataclasses import dataclass, field

GRAIN = 100


@dataclass(slots=True)
class Entry:
    began: float
    time: float
    amount: float


@dataclass(slots=True)
class Window:
    seconds: float
    entries: deque[Entry] = field(default_factory=deque)

    def used(self, now: float) -> float:
        while self.entries and self.entries[0].time <= now - self.seconds:
            self.entries.popleft()
        return sum(entry.amount for entry in self.entries)

    def wait(self, amount: float, limit: float, now: float) -> float:
        """Seconds until ``amount`` fits; 0: now. What never fits waits for the whole window."""
        excess = self.used(now) + amount - limit
        if excess <= 0:
            return 0.0
        for entry in self.entries:
            excess -= entry.amount
            if excess <= 0:
                return entry.time + self.seconds - now
        return self.seconds

    def add(self, amount: float, now: float) -> None:
        last = self.entries[-1] if self.entries else None
        if last is not None and now - last.began < self.seconds / GRAIN:
            last.time = max(last.time, now)
            last.amount += amount
        else:
            self.entries.append(Entry(now, now, amount))

    def correct(self, when: float, difference: float) -> None:
        """Change what was charged at ``when``, if that still counts."""
        for entry in self.entries:
            if entry.began <= when <= entry.time:
                entry.amount = max(entry.amount + difference, 0.0)
                return
