"""Bars 4 and 15: a thousand clients of one worker at once, slow ones or long streams. CROWD_SECONDS shortens these.

Upstream and clients are processes of their own. Requests come at a steady rate, so that their times tell how long
the gateway took and not how many it could have taken.
"""

import os
import select
import socket
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from opus_api.gateway.gateway import MOST_LIVE
from tests import bars
from tests.chaos.ledgers import Request, read_calls
from tests.chaos.oracle import violations
from tests.chaos.plan import GLOBS, Job
from tests.chaos.stage import ACCOUNTS, PATIENT, Stage, stage
from tests.raw import slow_ones

# ---- bar 15

SECONDS = int(os.environ.get("CROWD_SECONDS", "600"))
RAMP = 20.0  # seconds in which all of them come


def _job(n: int) -> Job:
    """Every place of every account is taken in the end."""
    provider, dialect = tuple(GLOBS)[n % 2], ("anthropic", "openai")[n // 2 % 2]
    return Job(n * RAMP / MOST_LIVE, f"q{n}", f"{provider}-chaos~q{n}~spread:{SECONDS}", dialect, "raw", stream=True)


@pytest.mark.chaos
def test_a_thousand_streams_run_for_ten_minutes(migrated: Path) -> None:
    with stage(migrated, places=MOST_LIVE // (len(GLOBS) * ACCOUNTS), **PATIENT) as run:
        jobs = [_job(n) for n in range(MOST_LIVE)]
        found = run.run(jobs, at_once=MOST_LIVE)
        (worker,) = run.monkey.workers()
        most_mib = psutil.Process(worker).memory_info().rss / 2**20
    errors = [request for request in found.requests if request.end != "complete"]
    lasted = sorted(request.ended - request.began for request in found.requests)
    bars.report(15, streams=len(found.requests), seconds=lasted[0], errors=len(errors), worker_mib=most_mib)
    assert errors == []
    assert violations(found) == []
    assert lasted[0] >= SECONDS
    assert most_mib <= 1024


LASTS = 10  # seconds of an answer while twice as many come as can be held
OVERLOADED = int(os.environ.get("CROWD_SECONDS", "60"))


@pytest.mark.chaos
def test_twice_as_many_as_it_can_hold_leave_what_it_can_hold(migrated: Path) -> None:
    rate = 2 * MOST_LIVE / LASTS
    jobs = [
        Job(n / rate, f"q{n}", f"anthropic-chaos~q{n}~spread:{LASTS}", "anthropic", "raw", stream=True)
        for n in range(round(rate * OVERLOADED))
    ]
    with stage(migrated, places=MOST_LIVE, **PATIENT) as run:
        found = run.swarm(jobs, at_once=2 * MOST_LIVE)
    refused = [request for request in found if request.status == 529]
    good = sum(request.end == "complete" and request.status == 200 for request in found)
    # The first answers end after LASTS; from then on places are free at the rate at which they were taken.
    goodput = good / (OVERLOADED / LASTS * MOST_LIVE)
    bars.report(
        15,
        overload="2 x",
        live=MOST_LIVE,
        asked=len(found),
        answered=good,
        refused=len(refused),
        goodput=goodput,
        refused_p50_ms=statistics.median(_ms(refused)),
        refused_p99_ms=p99(refused),
    )
    assert good + len(refused) == len(found)
    assert goodput >= 0.9
    assert statistics.median(_ms(refused)) <= 50


# ---- bar 4

RATE = 100  # requests a second of those that are not slow
SLOW = 900
SHOWN = 300  # so many slow ones can two cores show to be harmless, which hold the upstream and all clients as well
HEADS, BODIES, READS = 10, 30, 60  # seconds that slow ones have
JOBS_BEGUN = 35  # seconds after the start: by then its one leader was found and has looked at every job once
COMING = 9.0  # seconds in which the slow ones come; they are cut as far apart
SETTLED = COMING + 6  # seconds until all of them are connected and what they do not read fills their buffers


@pytest.mark.chaos
@pytest.mark.parametrize("size", [SHOWN, SLOW])
def test_slow_clients_do_not_slow_down_100_others_and_are_gone_in_time(migrated: Path, size: int) -> None:
    with stage(migrated, places=200, **PATIENT) as run, ThreadPoolExecutor(1) as pool:
        time.sleep(JOBS_BEGUN)
        alone = _steady(run, "before", 30)
        asking = pool.submit(_steady, run, "beside", READS + round(COMING))
        time.sleep(2)
        came = time.monotonic()
        slow = slow_ones(run.gateway.port, "anthropic-chaos~slow{}~flood:60", size, COMING)
        heads = max(_late(slow[: size // 3], HEADS))
        bodies = max(_late(slow[size // 3 : 2 * size // 3], BODIES))
        beside = asking.result()
        reads = _reads_late(run)
        for sock, _ in slow:
            sock.close()
        time.sleep(SETTLED)  # until their upstreams are gone as well
        alone = (*alone, *_steady(run, "after", 30))
    with_them = p99(request for request in beside if request.began > came + SETTLED)
    while_they_come = p99(request for request in beside if came < request.began <= came + SETTLED)
    bars.report(
        4,
        slow=size,
        others_per_second=RATE,
        p99_alone_ms=p99(alone),
        p99_beside_ms=with_them,
        p99_while_they_come_ms=while_they_come,
        heads_late_by_s=heads,
        bodies_late_by_s=bodies,
        reads_late_by_s=reads,
    )
    assert {request.end for request in (*alone, *beside)} == {"complete"}
    assert max(heads, bodies, reads) <= 1
    assert size > SHOWN or with_them <= p99(alone) * 1.1


def _steady(run: Stage, name: str, seconds: int) -> Sequence[Request]:
    """Short answers in turn whole and streamed, at RATE."""
    jobs = [
        Job(n / RATE, tag, "anthropic-chaos", "anthropic", "raw", stream=n % 2 == 0, prompt=f"anthropic-chaos~{tag}")
        for n, tag in ((n, f"{name}{n}") for n in range(RATE * seconds))
    ]
    return run.swarm(jobs, at_once=RATE)


def p99(requests: Iterable[Request]) -> float:
    """In ms."""
    return statistics.quantiles(_ms(requests), n=100)[98]


def _ms(requests: Iterable[Request]) -> list[float]:
    return [(one.ended - one.began) * 1000 for one in requests]


def _late(slow: Sequence[tuple[socket.socket, float]], limit: float) -> Iterator[float]:
    """Seconds after its limit that each was closed."""
    poll = select.poll()
    numbers = {sock.fileno(): began for sock, began in slow}
    for number in numbers:
        poll.register(number, select.POLLRDHUP)
    give_up = time.monotonic() + limit + 15
    while numbers and time.monotonic() < give_up:
        for number, _ in poll.poll(200):
            poll.unregister(number)
            yield time.monotonic() - numbers.pop(number) - limit
    assert not numbers, f"{len(numbers)} are still connected"


def _reads_late(run: Stage) -> float:
    """Seconds after its limit that the last one was given up, as its upstream saw it: no client learns that, it would
    have to read."""
    give_up = time.monotonic() + READS + 15
    while time.monotonic() < give_up:
        calls = [call for call in read_calls(run.folder / "calls") if call.tag.startswith("slow")]
        if calls and all(call.ended for call in calls):
            return max((call.ended or 0.0) - call.began for call in calls) - READS
        time.sleep(1)
    raise AssertionError("some are still answered")
