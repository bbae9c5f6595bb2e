"""Bar 8: whose turn it is stays exact over several workers, also while accounts join and leave."""

import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from opus_api.config import ROOT
from opus_api.state.memory import MemoryState
from opus_api.state.rotation import Candidate
from tests.bars import report
from tests.processes import clean

WORKERS, GREENLETS = 4, 25
TEN = tuple(range(1, 11))
# Who may be picked, interval after interval: three join, and three others leave.
INTERVALS = (TEN, (*TEN, 11, 12, 13), (1, 2, 3, 4, 5, 6, 7, 11, 12, 13), TEN)


@dataclass(frozen=True)
class Picked:
    counts: Counter[int]
    ms: list[float]
    bare_ms: list[float]

    @property
    def spread(self) -> int:
        return max(self.counts.values()) - min(self.counts.values())


Pick = Callable[..., Picked]


@contextmanager
def workers(redis_url: str) -> Iterator[Pick]:
    """Processes that pick at the same time; what all of them picked together."""
    command = [sys.executable, "-m", "tests.fakes.pickers", redis_url, str(GREENLETS)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    processes = [subprocess.Popen(command, env=clean({}), **pipes) for _ in range(WORKERS)]

    def pick(accounts: Sequence[int], picks: int, rate: float = 0.0, keep: bool = False) -> Picked:
        told = {"accounts": accounts, "picks": picks, "rate": rate / WORKERS, "keep": keep}
        for process in processes:
            process.stdin.write(json.dumps(told) + "\n")
            process.stdin.flush()
        found = [json.loads(process.stdout.readline()) for process in processes]
        counts: Counter[int] = Counter(dict.fromkeys(accounts, 0))
        for each in found:
            counts.update({int(account_id): times for account_id, times in each["counts"].items()})
        return Picked(counts, *([took for each in found for took in each[name]] for name in ("ms", "bare_ms")))

    try:
        assert all(process.stdout.readline() == "ready\n" for process in processes)
        yield pick
    finally:
        for process in processes:
            process.stdin.close()
            process.stdout.close()
            process.wait(timeout=20)


def p99(found: Sequence[float]) -> float:
    return statistics.quantiles(found, n=100)[98]


def turns_are_exact(redis_url: str, picks: int, seconds: float) -> float:
    """``picks`` in all as fast as workers can, then as many as requests of a gateway for some seconds, a busy one and a
    very busy one: the p99 of these, in ms above what Redis took for a PING."""
    each = picks // (WORKERS * GREENLETS * len(INTERVALS))
    with workers(redis_url) as pick:
        # One more for each greenlet, so that the accounts do not divide the picks.
        hasty = [pick(accounts, each + 1 + turn) for turn, accounts in enumerate(INTERVALS)]
        steady, crowded = (pick(TEN, max(1, int(rate * seconds) // (WORKERS * GREENLETS)), rate=rate) for rate in RATES)
        burst = pick(TEN, 1, keep=True)
    found = [took for interval in hasty for took in interval.ms]
    report(
        8,
        workers=WORKERS,
        at_once=WORKERS * GREENLETS,
        picks=len(found) + len(steady.ms) + len(crowded.ms),
        spread=max(interval.spread for interval in (*hasty, steady, crowded)),
        burst_of_100_on_10_in_flight_each=max(burst.counts.values()),
        **{
            f"{name}{of}_at_{rate}_per_second": value(took)
            for rate, one in zip(RATES, (steady, crowded), strict=True)
            for name, took in (("", one.ms), ("bare_", one.bare_ms))
            for of, value in (("p50_ms", statistics.median), ("p99_ms", p99))
        },
        p99_ms_as_fast_as_they_can=p99(found),
    )
    assert [interval.spread <= 1 for interval in (*hasty, steady, crowded)] == [True] * (len(INTERVALS) + 2)
    assert set(burst.counts.values()) == {WORKERS * GREENLETS // len(TEN)}
    return max(p99(one.ms) - p99(one.bare_ms) for one in (steady, crowded))


RATES = (100, 400)  # a second, of all workers together; 400 are more requests than two cores can serve


def test_turns_are_exact_over_four_workers(redis_url: str) -> None:
    turns_are_exact(redis_url, picks=2000, seconds=0.5)


@pytest.mark.chaos
def test_turns_are_exact_over_100000_picks_of_four_workers(redis_url: str) -> None:
    assert turns_are_exact(redis_url, picks=100_000, seconds=20) <= 1


def test_in_the_memory_of_the_one_worker_a_pick_takes_microseconds() -> None:
    state, candidates, took = MemoryState(), [Candidate(account_id) for account_id in TEN], []
    for _ in range(5000):
        began = time.perf_counter()
        held = state.pick(candidates, "round_robin", 0.0)
        took.append((time.perf_counter() - began) * 1000)
        assert held
        state.release(held)
    report(8, workers=1, picks=len(took), p50_ms=statistics.median(took), p99_ms=p99(took))
    assert statistics.median(took) <= 1
