"""Everything at once: clients that leave, upstreams that fail, workers that die, and ledgers that must fit together.

CHAOS_SEED draws another run, CHAOS_SECONDS makes the full ones shorter.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from opus_api.config import ROOT
from tests.chaos.oracle import violations
from tests.chaos.plan import acts, jobs
from tests.chaos.stage import Stage, in_short, stage

SEED = int(os.environ.get("CHAOS_SEED", "1"))
SECONDS = float(os.environ.get("CHAOS_SECONDS", "600"))

LOCKS = [("lock", 0.4), ("lock", 1.0)]
WORKERS = [("kill", 0.0), ("term", 0.0), ("hup", 0.0)]
RESULTS = ROOT / "test-results" / "chaos.json"  # the ledgers of the last run in which something did not fit

SERVERS = [("stop database", 5.0), ("freeze database", 5.0), ("stop redis", 3.0), ("freeze redis", 3.0)]


def trouble(run: Stage, seconds: float, rate: float, what: list[tuple[str, float]], every: float, sdk: float) -> None:
    found = run.run(jobs(SEED, seconds, rate, sdk=sdk), acts(SEED, seconds, what, every))
    told = f"CHAOS_SEED={SEED} for {seconds:.0f} s: {in_short(found)}"
    print(told)
    wrong = violations(found)
    if wrong:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(asdict(found), default=str))
    assert not wrong, "\n".join([told, *wrong])


def test_ledgers_fit_together_after_seconds_of_trouble(migrated: Path) -> None:
    with stage(migrated) as run:
        trouble(run, 8, 40, LOCKS, every=2, sdk=0.0)


@pytest.mark.chaos
def test_ledgers_fit_together_after_minutes_of_trouble_in_memory(migrated: Path) -> None:
    with stage(migrated) as run:
        trouble(run, SECONDS, 30, LOCKS + WORKERS, every=6, sdk=0.3)


@pytest.mark.chaos
def test_ledgers_fit_together_after_minutes_of_trouble_on_two_workers(migrated: Path) -> None:
    """On Redis and PostgreSQL, which stop and freeze, too."""
    with stage(migrated, shared=True) as run:
        trouble(run, SECONDS, 30, WORKERS + SERVERS, every=8, sdk=0.3)
