"""The engine of the one worker: plain values in its memory. Nothing here waits, so each method is one step."""

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from opus_api.state import NOTES, NOTES_KEPT, Candidate, Charge, Fleet, Health, Held, Refused, Strikes, clock, rotation
from opus_api.state.standing import gates
from opus_api.state.windows import Window

V = TypeVar("V")

FORGET_AFTER = 3600.0  # seconds without use, of bindings and strikes
MOST = 100_000  # bindings, windows and names with strikes remembered, of each


class MemoryState:
    gaps = 0

    def __init__(self, clock: Callable[[], float] = clock.now) -> None:
        self._clock = clock
        self._fleet = Fleet()
        self._gates = gates(self._fleet)
        self._in_flight: Counter[str] = Counter()
        self._tried: dict[str, float] = {}  # place of a trial -> when the last one began
        self._turns: dict[int, int] = {}
        self._turn = 0
        self._uses: dict[int, int] = {}
        self._bindings: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._windows: OrderedDict[str, Window] = OrderedDict()
        self._strikes: OrderedDict[str, Strikes] = OrderedDict()
        self._notes: deque[str] = deque(maxlen=NOTES)
        self._noted = 0.0
        self.on_gap: Callable[[], None] = lambda: None  # there is none

    # ---- accounts

    def fleet(self) -> Fleet:
        return self._fleet

    def update(self, change: Callable[[Fleet], Fleet]) -> tuple[Fleet, Fleet]:
        before = self._fleet
        self._fleet = change(before)
        if self._fleet is not before:
            self._gates = gates(self._fleet)
        return before, self._fleet

    def seed(self, uses: Mapping[int, int]) -> None:
        self._uses = {i: self._uses.get(i, used) for i, used in uses.items()}
        self._turns = {i: turn for i, turn in self._turns.items() if i in uses}

    def pick(
        self, candidates: Sequence[Candidate], strategy: str, now: float, longest_trial: float = math.inf
    ) -> Held | None:
        choice = self._choice(candidates, strategy, now, self._in_flight)
        if choice is None and any(now - since >= longest_trial for since in self._tried.values()):
            slow = {name for name, since in self._tried.items() if now - since >= longest_trial}
            in_flight = {name: count for name, count in self._in_flight.items() if name not in slow}
            choice = self._choice(candidates, strategy, now, in_flight)
        if choice is None:
            return None
        held = Held(choice.candidate.account_id, choice.candidate.model, choice.counted)
        self.took(held)
        return held

    def _choice(
        self, candidates: Sequence[Candidate], strategy: str, now: float, in_flight: Mapping[str, int]
    ) -> rotation.Choice | None:
        return rotation.choose(strategy, candidates, self._gates, in_flight, self._turns, self._uses, now)

    def _count(self, account_id: int) -> None:
        self._turn += 1
        self._turns[account_id] = self._turn
        self._uses[account_id] = self._uses.get(account_id, 0) + 1

    # ---- places

    def release(self, held: Held) -> None:
        for name in held.counted:
            self.let_go(name)

    def in_flight(self, name: str) -> int:
        return self._in_flight.get(name, 0)

    def hold(self, name: str, cap: int) -> bool:
        if self._in_flight.get(name, 0) >= cap:
            return False
        self._in_flight[name] += 1
        return True

    def let_go(self, name: str) -> None:
        self._in_flight[name] -= 1
        if self._in_flight[name] <= 0:
            del self._in_flight[name]
            self._tried.pop(name, None)

    # ---- conversations

    def bind(self, conversation: str, account_id: int) -> None:
        _put(self._bindings, conversation, (account_id, self._clock()))

    def bound(self, conversation: str) -> int | None:
        account_id, used = self._bindings.get(conversation, (None, 0.0))
        if account_id is None or used <= self._clock() - FORGET_AFTER:
            return None
        self.bind(conversation, account_id)
        return account_id

    # ---- limits

    def spend(self, charges: Sequence[Charge], now: float) -> Refused | None:
        for charge in charges:
            window = self._windows.get(charge.name) or Window(charge.window)
            if wait := window.wait(charge.amount, charge.limit, now):
                return Refused(charge, wait)
        self.charge(charges, now)
        return None

    def settle(self, charge: Charge, when: float, amount: float) -> None:
        window = self._windows.get(charge.name)
        if window is not None:
            window.correct(when, amount - charge.amount)

    def used(self, name: str, window: float, now: float) -> float:
        found = self._windows.get(name)
        return found.used(now) if found else 0.0

    def strike(self, name: str, now: float) -> Strikes:
        strikes = Strikes(self.strikes(name, now).times + 1, now)
        _put(self._strikes, name, strikes)
        return strikes

    def strikes(self, name: str, now: float) -> Strikes:
        found = self._strikes.get(name)
        return found if found and found.last > now - FORGET_AFTER else Strikes(0, 0.0)

    def forgive(self, name: str) -> None:
        self._strikes.pop(name, None)

    # ---- notes

    def note(self, text: str) -> None:
        self._notes.appendleft(text)
        self._noted = self._clock()

    def notes(self) -> Sequence[str]:
        return list(self._notes) if self._noted > self._clock() - NOTES_KEPT else []

    # ---- as the last view of another engine

    def look(self, fleet: Fleet) -> None:
        """The fleet as it is elsewhere."""
        self.update(lambda _: fleet)

    def took(self, held: Held) -> None:
        """A place that was chosen elsewhere."""
        self._count(held.account_id)
        self.occupy(held.counted)

    def occupy(self, names: Sequence[str]) -> None:
        self._in_flight.update(names)
        self._tried |= dict.fromkeys(rotation.trials_of(names), self._clock())

    def places(self) -> dict[str, int]:
        return dict(self._in_flight)

    def uses(self) -> dict[int, int]:
        return dict(self._uses)

    def charge(self, charges: Sequence[Charge], now: float) -> None:
        """What was let through elsewhere."""
        for charge in charges:
            window = self._windows.get(charge.name) or Window(charge.window)
            window.add(charge.amount, now)
            _put(self._windows, charge.name, window)

    # ---- the engine

    def health(self) -> Health:
        return Health("memory")

    def start(self) -> None:
        """Nobody else needs to know."""

    def stop(self) -> None:
        """Nothing outlives the worker."""


def _put(known: OrderedDict[str, V], name: str, value: V) -> None:
    """The least recently used is forgotten when there is no room."""
    known[name] = value
    known.move_to_end(name)
    if len(known) > MOST:
        known.popitem(last=False)
