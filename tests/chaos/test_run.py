"""Everything at once: clients that leave, upstreams that fail, and a gateway whose ledgers must fit together."""

import os
from pathlib import Path

from tests.chaos.oracle import violations
from tests.chaos.plan import acts, jobs
from tests.chaos.stage import in_short, stage

SEED = int(os.environ.get("CHAOS_SEED", "1"))
LOCKS = [("lock", 0.4), ("lock", 1.0)]


def test_ledgers_fit_together_after_seconds_of_trouble(migrated: Path) -> None:
    with stage(migrated) as run:
        found = run.run(jobs(SEED, seconds=8, rate=40, sdk=0.0), acts(SEED, 8, LOCKS, every=2))
    wrong = violations(found)
    assert not wrong, f"CHAOS_SEED={SEED}: {in_short(found)}\n" + "\n".join(wrong)
