"""The engine of several workers: Redis, where one script does what has to happen in one step.

While Redis is away a worker goes on with its last view, in an engine of its own; for a minute, then nothing can be
decided any more. A worker says three times a second that it lives; the places of one that does not are free again.
"""

import json
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import gevent
import redis
from gevent.event import Event
from redis.backoff import NoBackoff
from redis.retry import Retry

from opus_api.state import (
    NOTES,
    NOTES_KEPT,
    Candidate,
    Charge,
    Fleet,
    Health,
    Held,
    Refused,
    StateUnavailable,
    Strikes,
    clock,
)
from opus_api.state.memory import FORGET_AFTER, MOST, MemoryState
from opus_api.state.rotation import STRATEGIES
from opus_api.state.standing import SLOW_START, SLOW_START_FULL, merged
from opus_api.state.stored import changed_gates, dump, load
from opus_api.state.windows import GRAIN

log = logging.getLogger(__name__)

T = TypeVar("T")

PREFIX = "opus:"
SCRIPT = Path(__file__).with_name("scripts.lua").read_text(encoding="utf-8")
TIMEOUT = 0.5  # seconds for Redis to answer, or it counts as away
TRIES = 100  # of one change, when other workers are quicker


class Forgotten(redis.RedisError):
    """Redis knows less than before: it was restarted or emptied. Like one that is away it is told at the next beat."""


class RedisState:
    """``patience``: seconds after which a silent worker's places are free. ``last_view``: seconds that a worker goes
    on without Redis. Raises redis.RedisError for an address that cannot be understood."""

    def __init__(
        self,
        url: str,
        interval: float = 0.3,
        patience: float = 1.2,
        last_view: float = 60.0,
        clock: Callable[[], float] = clock.now,
    ) -> None:
        # Not tried again: a pick whose answer was lost would take two places.
        self._redis: Any = redis.Redis.from_url(
            url,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )
        self._script = self._redis.register_script(SCRIPT)
        self._worker = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
        self._interval, self._patience, self._last_view = interval, patience, last_view
        self._clock = clock
        self._own = MemoryState(clock)  # this worker's places, and its last view of everything
        self._revision = "0"
        self._away_since: float | None = time.monotonic()  # until the first beat
        self._told = Event()  # Redis knows what this worker knows, or is away
        self._told.set()
        self.gaps = 0
        self.on_gap: Callable[[], None] = lambda: None
        self._heart: gevent.Greenlet[[], None] | None = None

    # ---- accounts

    def fleet(self) -> Fleet:
        return self._ask(self._current, self._own.fleet)

    def update(self, change: Callable[[Fleet], Fleet]) -> tuple[Fleet, Fleet]:
        return self._ask(lambda: self._update(change), lambda: self._own.update(change))

    def _current(self) -> Fleet:
        known = self._revision  # another greenlet may know a newer one by the time that Redis has answered
        if self._redis.get(f"{PREFIX}revision") != self._revision_seen:
            revision, text = self._redis.mget(f"{PREFIX}revision", f"{PREFIX}fleet")
            if int(revision or 0) < int(known):
                raise Forgotten
            if int(revision or 0) >= int(self._revision):
                self._see(revision or "0", load(text) if text else Fleet())
        return self._own.fleet()

    @property
    def _revision_seen(self) -> str | None:
        return None if self._revision == "0" else self._revision

    def _see(self, revision: str, fleet: Fleet) -> None:
        self._revision = revision
        self._own.look(fleet)

    def _update(self, change: Callable[[Fleet], Fleet]) -> tuple[Fleet, Fleet]:
        for _ in range(TRIES):
            before = self._current()
            known = self._revision
            after = change(before)
            if after == before:
                return before, before
            gone, others = changed_gates(before, after)
            revision = self._run("replace", known, dump(after), json.dumps(gone), json.dumps(others))
            if revision:
                self._see(revision, after)
                return before, after
        raise redis.RedisError("others changed the accounts' standing all the time")

    def seed(self, uses: Mapping[int, int]) -> None:
        self._own.seed(uses)
        self._ask(lambda: self._run("seed", json.dumps(dict(uses))), lambda: None)

    def pick(
        self, candidates: Sequence[Candidate], strategy: str, now: float, longest_trial: float = math.inf
    ) -> Held | None:
        return self._decide(
            lambda: self._pick(candidates, strategy, now, longest_trial),
            lambda: self._own.pick(candidates, strategy, now, longest_trial),
        )

    def _pick(self, candidates: Sequence[Candidate], strategy: str, now: float, longest_trial: float) -> Held | None:
        known = json.dumps(candidates)  # each a list, in the order of its fields
        order = json.dumps(STRATEGIES[strategy])
        about = (self._worker, self._patience, SLOW_START, SLOW_START_FULL, self._revision, longest_trial)
        found = self._run("pick", known, order, now, *about)
        if not found:
            return None
        if found[0] < 0:
            raise Forgotten
        chosen = candidates[found[0]]
        held = Held(chosen.account_id, chosen.model, tuple(found[1]))
        self._own.took(held)
        return held

    # ---- places

    def release(self, held: Held) -> None:
        self._let_go(held.counted)

    def let_go(self, name: str) -> None:
        self._let_go((name,))

    def _let_go(self, names: Sequence[str]) -> None:
        """What Redis does not hear of now, it hears when it is back: then all places are counted anew."""
        self._told.wait()
        for name in names:
            self._own.let_go(name)
        if self._away_since is None:
            try:
                self._run("let_go", self._worker, *names)
            except redis.RedisError as error:
                self._told.wait()
                self._lost(error)

    def in_flight(self, name: str) -> int:
        return self._ask(lambda: int(self._run("count", name, self._patience)), lambda: self._own.in_flight(name))

    def hold(self, name: str, cap: int) -> bool:
        def shared() -> bool:
            if not self._run("hold", name, cap, self._worker, self._patience):
                return False
            self._own.occupy((name,))
            return True

        return self._decide(shared, lambda: self._own.hold(name, cap))

    # ---- conversations

    def bind(self, conversation: str, account_id: int) -> None:
        self._own.bind(conversation, account_id)
        arguments = (conversation, account_id, self._clock(), FORGET_AFTER, MOST)
        self._ask(lambda: self._run("bind", *arguments), lambda: None)

    def bound(self, conversation: str) -> int | None:
        def shared() -> int | None:
            found = self._run("bound", conversation, self._clock(), FORGET_AFTER)
            return int(found) if found else None

        return self._ask(shared, lambda: self._own.bound(conversation))

    # ---- limits

    def spend(self, charges: Sequence[Charge], now: float) -> Refused | None:
        def shared() -> Refused | None:
            known = json.dumps([(c.name, c.window, c.amount, c.limit) for c in charges])
            found = self._run("spend", known, now, GRAIN)
            if found:
                return Refused(charges[found[0]], float(found[1]))
            self._own.charge(charges, now)
            return None

        return self._decide(shared, lambda: self._own.spend(charges, now))

    def settle(self, charge: Charge, when: float, amount: float) -> None:
        self._own.settle(charge, when, amount)
        self._ask(lambda: self._run("settle", charge.name, when, amount - charge.amount), lambda: None)

    def used(self, name: str, window: float, now: float) -> float:
        return self._ask(lambda: float(self._run("used", name, window, now)), lambda: self._own.used(name, window, now))

    def strike(self, name: str, now: float) -> Strikes:
        own = self._own.strike(name, now)
        return self._ask(lambda: self._strikes(name, now, 1), lambda: own)

    def strikes(self, name: str, now: float) -> Strikes:
        return self._ask(lambda: self._strikes(name, now, 0), lambda: self._own.strikes(name, now))

    def _strikes(self, name: str, now: float, more: int) -> Strikes:
        times, last = self._run("strike", name, now, FORGET_AFTER, more)
        return Strikes(int(times or 0), float(last or 0.0))

    def forgive(self, name: str) -> None:
        self._own.forgive(name)
        self._ask(lambda: self._redis.delete(f"{PREFIX}strikes:{name}"), lambda: None)

    # ---- notes

    def note(self, text: str) -> None:
        def shared() -> None:
            name = f"{PREFIX}notes"
            with self._redis.pipeline() as pipe:
                pipe.lpush(name, text).ltrim(name, 0, NOTES - 1).expire(name, NOTES_KEPT).execute()

        self._ask(shared, lambda: self._own.note(text))

    def notes(self) -> Sequence[str]:
        return self._ask(lambda: list(self._redis.lrange(f"{PREFIX}notes", 0, -1)), self._own.notes)

    # ---- the engine

    def health(self) -> Health:
        if self._away_since is None:
            return Health("redis")
        away = max(time.monotonic() - self._away_since, 1e-3)
        return Health("redis", away, decides=away <= self._last_view)

    def start(self) -> None:
        self.beat()
        self._heart = gevent.spawn(self._live)

    def stop(self) -> None:
        if self._heart is not None:
            self._heart.kill()
        if self._away_since is None:
            try:
                self._run("leave", self._worker)
            except redis.RedisError as error:
                self._lost(error)
        self._redis.close()

    def _live(self) -> None:
        while True:
            gevent.sleep(self._interval)
            self.beat()

    def beat(self) -> None:
        """Say that this worker lives. When Redis is back, tell it what it may have missed."""
        away, known = self._away_since is not None, self._revision  # as in _current
        try:
            revision = self._beat(self._own.places(), away)
            if away or int(revision) < int(known):
                self._return()
            else:
                self._current()
        except redis.RedisError as error:
            self._lost(error)

    def _beat(self, places: Mapping[str, int], anew: bool) -> str:
        return str(self._run("beat", self._worker, self._patience, json.dumps(places), int(anew)))

    def _return(self) -> None:
        """Redis is there again, perhaps empty: what this worker found out meanwhile counts as well.

        Nothing begins or ends until all of it is told: what happened in between would be known here alone, and a place
        that was let go would stay taken.
        """
        self._told.clear()
        own = self._own.fleet()
        try:
            self._tell(own)
        except redis.RedisError:
            self._own.look(own)
            raise
        finally:
            self._told.set()

    def _tell(self, own: Fleet) -> None:
        seen, self._revision = self._revision, "-1"
        self._update(lambda shared: merged(shared, own, self._clock()))
        if uses := self._own.uses():
            self._run("seed", json.dumps(uses))
        self._beat(self._own.places(), anew=True)
        if seen != "0":
            log.warning("Redis is back")
            self.gaps += 1
            self.on_gap()
        self._away_since = None

    def _lost(self, error: redis.RedisError) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            log.warning("Redis is away (%s); going on with what was known", type(error).__name__)

    def _ask(self, shared: Callable[[], T], alone: Callable[[], T]) -> T:
        """Of Redis, or of this worker's last view."""
        if self._heart is None and self._away_since is not None:
            self.beat()  # a command's process has no heart
        self._told.wait()
        if self._away_since is None:
            try:
                return shared()
            except redis.RedisError as error:
                self._told.wait()  # it is back already, but does not know of this: it is told once more
                self._lost(error)
        return alone()

    def _decide(self, shared: Callable[[], T], alone: Callable[[], T]) -> T:
        """Who may begin. Raises StateUnavailable when the last view is too old for that."""

        def still() -> T:
            if not self.health().decides:
                raise StateUnavailable
            return alone()

        return self._ask(shared, still)

    def _run(self, name: str, *arguments: Any) -> Any:
        return self._script(keys=[PREFIX], args=[name, *(repr(a) if isinstance(a, float) else a for a in arguments)])
