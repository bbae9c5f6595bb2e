"""Nothing is kept of a request that has ended: memory, open files, greenlets. `make soak` runs this.

SOAK_REQUESTS changes how many: the first half warms up, the second half is measured. What is remembered of
conversations is bounded by 5,000 here instead of 100,000 (some 30 MiB), so that it is full early.
"""

import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests import bars
from tests.chaos.plan import jobs, of_one_model
from tests.chaos.stage import Stage, stage
from tests.live import wait_until

REQUESTS = int(os.environ.get("SOAK_REQUESTS", "200000"))
BATCH = max(REQUESTS // 20, 500)
MIB = 2**20


@dataclass(frozen=True)
class Held:
    """By the worker, while nothing runs."""

    mib: float
    files: int
    greenlets: int


def held(run: Stage) -> Held:
    time.sleep(12.0)  # connections that clients have left open are closed after 10 s
    count = run.gateway.folder / "greenlets"
    seen = count.stat().st_mtime_ns
    wait_until(lambda: count.stat().st_mtime_ns != seen and count.read_text())
    worker = psutil.Process(run.monkey.workers()[0])
    return Held(worker.memory_info().rss / MIB, worker.num_fds(), int(count.read_text()))


@pytest.mark.soak
def test_nothing_is_kept_of_requests_that_have_ended(migrated: Path) -> None:
    found: list[Held] = []
    with stage(migrated, conf="tests/fakes/counted.conf.py") as run:
        workers = run.monkey.workers()
        for n in range(REQUESTS // BATCH):
            drawn = jobs(n, seconds=BATCH, rate=1, trouble=0.02, leaving=0.1, sdk=0.0)
            run.swarm([of_one_model(job, n) for job in drawn], at_once=50)
            found.append(held(run))
            print(found[-1])
        assert run.monkey.workers() == workers  # nobody was replaced
    warm, later = found[: len(found) // 2], found[len(found) // 2 :]
    done = [BATCH * n / 100_000 for n in range(len(later))]
    slope = statistics.linear_regression(done, [one.mib for one in later]).slope
    # At their lowest: how many connections to upstreams are kept for the next request differs from moment to moment.
    files = min(one.files for one in later) - min(one.files for one in warm)
    greenlets = later[-1].greenlets - later[0].greenlets
    bars.report(
        14, requests=BATCH * len(found), mib_per_100000=slope, fds=files, greenlets=greenlets, mib=later[-1].mib
    )
    assert slope <= 4
    assert files <= 2
    assert greenlets <= 0
