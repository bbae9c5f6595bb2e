"""What is due, who may do it, and what came of it. ``opus_api/jobs.py`` does it; the jobs are in ``upkeep.py``."""

import os
import secrets
import socket
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError

from opus_api.extensions import db
from opus_api.models import JobRun, now
from opus_api.models import Lease as LeaseRow
from opus_api.services.upkeep import Job
from opus_api.services.values import rfc3339

RUNS, LEASES = (cast(sa.Table, model.__table__) for model in (JobRun, LeaseRow))

RUNNING = "running"


class Lease:
    """A name that one process at a time holds. One that dies holds it for ``seconds`` more.

    A row of the database, on PostgreSQL too: its advisory locks would be kept for as long as a process that was stopped
    or hangs, and do not pass through poolers of connections.
    """

    def __init__(self, engine: Engine, name: str, seconds: float):
        self._engine = engine
        self._name = name
        self._seconds = timedelta(seconds=seconds)
        self.owner = f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"

    def take(self) -> bool:
        """Take it, or keep it for longer. Raises SQLAlchemyError."""
        moment = now()
        values = {"owner": self.owner, "until": moment + self._seconds}
        # An end further away than any lease is long was written by a clock that was wrong.
        free = (LEASES.c.until <= moment) | (LEASES.c.until > moment + 2 * self._seconds)
        mine = LEASES.c.owner == self.owner
        try:
            with self._engine.begin() as connection:
                taken = sa.update(LEASES).where(LEASES.c.name == self._name, mine | free).values(values)
                if connection.execute(taken).rowcount:
                    return True
                if connection.scalar(select(LEASES.c.name).where(LEASES.c.name == self._name)):
                    return False
                connection.execute(sa.insert(LEASES).values(name=self._name, **values))
                return True
        except IntegrityError:  # another process was the first to take it at all
            return False

    def give_back(self) -> None:
        """Raises SQLAlchemyError."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(LEASES).where(LEASES.c.name == self._name, LEASES.c.owner == self.owner))


def take_over(engine: Engine, jobs: Iterable[Job]) -> None:
    """A new leader's first step: rows for new jobs, none for those that are gone; what its predecessor left running is
    due again. Raises SQLAlchemyError."""
    names, moment = {job.name for job in jobs}, now()
    with engine.begin() as connection:
        connection.execute(sa.delete(RUNS).where(RUNS.c.name.not_in(names)))
        known = set(connection.scalars(select(RUNS.c.name)))
        for name in sorted(names - known):
            connection.execute(sa.insert(RUNS).values(name=name, next_run=moment))
        cut = sa.update(RUNS).where(RUNS.c.last_outcome == RUNNING)
        connection.execute(cut.values(last_outcome="failed: the process that ran it ended", next_run=moment))


def begin(engine: Engine, job: Job) -> bool:
    """Whether it is due; then it counts as running from now on. Raises SQLAlchemyError."""
    moment = now()
    until_next = timedelta(seconds=job.every)
    # Further away than the job's own distance: the clock was wrong, or the distance was longer.
    due = (RUNS.c.next_run <= moment) | (RUNS.c.next_run > moment + until_next)
    with engine.begin() as connection:
        begun = sa.update(RUNS).where(RUNS.c.name == job.name, due)
        values = {"last_run": moment, "last_outcome": RUNNING, "next_run": moment + until_next}
        return bool(connection.execute(begun.values(values)).rowcount)


def end(engine: Engine, job: Job, outcome: str) -> None:
    """Raises SQLAlchemyError."""
    with engine.begin() as connection:
        connection.execute(sa.update(RUNS).where(RUNS.c.name == job.name).values(last_outcome=outcome[:255]))


def every() -> Sequence[JobRun]:
    """In the session of the current app context."""
    return db.session.scalars(select(JobRun).order_by(JobRun.name)).all()


def as_json(run: JobRun) -> dict[str, Any]:
    """The job of the JSON API. ``last_outcome`` begins with ``ok``, ``failed`` or ``running``."""
    return {
        "name": run.name,
        "last_run": rfc3339(run.last_run),
        "last_outcome": run.last_outcome,
        "next_run": rfc3339(run.next_run),
    }
