"""Bar 15: as many streams as one worker takes, for ten minutes. CROWD_SECONDS makes it shorter."""

import os
from pathlib import Path

import psutil
import pytest

from opus_api.gateway.gateway import MOST_LIVE
from tests import bars
from tests.chaos.oracle import violations
from tests.chaos.plan import GLOBS, Job
from tests.chaos.stage import ACCOUNTS, stage

SECONDS = int(os.environ.get("CROWD_SECONDS", "600"))
RAMP = 20.0  # seconds in which all of them come
# What a new installation has: the stage's own patience is for runs of seconds.
SETTINGS = {
    "UPSTREAM_FIRST_EVENT_TIMEOUT": "300",
    "UPSTREAM_IDLE_TIMEOUT": "120",
    "UPSTREAM_TOTAL_TIMEOUT": "900",
    "PING_INTERVAL": "15",
}


def _job(n: int) -> Job:
    """Every place of every account is taken in the end."""
    provider, dialect = tuple(GLOBS)[n % 2], ("anthropic", "openai")[n // 2 % 2]
    return Job(n * RAMP / MOST_LIVE, f"q{n}", f"{provider}-chaos~q{n}~spread:{SECONDS}", dialect, "raw", stream=True)


@pytest.mark.chaos
def test_a_thousand_streams_run_for_ten_minutes(migrated: Path) -> None:
    with stage(migrated, places=MOST_LIVE // (len(GLOBS) * ACCOUNTS), **SETTINGS) as run:
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
