"""Jobs at their times, in one worker: the one that holds the lease runs huey's consumer.

huey brings the tick of each minute, a queue and the greenlets that work it off. What is due stands in the database, so
the queue is in memory: a leader that dies takes nothing along, and nothing is ever unpickled that came from outside.
"""

import logging
import random
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import gevent
from flask import Flask
from gevent.lock import RLock
from huey import MemoryHuey
from huey.consumer import Consumer
from sqlalchemy.exc import SQLAlchemyError

from opus_api.extensions import db
from opus_api.services import exchange_log, jobs
from opus_api.services.upkeep import JOBS, Job, Means

log = logging.getLogger(__name__)
logging.getLogger("huey").setLevel(logging.CRITICAL)  # outcomes are ours to tell

START_DELAY = 30.0  # seconds at most, so that processes that start together do not ask providers together
LEASE, RENEW = 30.0, 10.0  # seconds
AT_ONCE = 2  # jobs: a long one does not keep the others waiting


class _Consumer(Consumer):  # type: ignore[misc]  # huey has no types
    def _set_signal_handlers(self) -> None:
        """gunicorn's stay."""


class Jobs:
    """One per worker."""

    def __init__(self, app: Flask, wanted: Iterable[Job] = JOBS):
        with app.app_context():
            self._engine = db.engine
        self._app = app
        self._jobs = tuple(wanted)
        self._means = Means(self._engine, app.extensions["accounts"], exchange_log.root(app.extensions["settings"]))
        self._lease = jobs.Lease(self._engine, "jobs", LEASE)
        self._running: set[str] = set()
        self._consumer: _Consumer | None = None
        self._leader: gevent.Greenlet[[], None] | None = None
        self._may_hold = False  # the lease
        self._stopping = RLock()

    def start(self) -> None:
        self._leader = gevent.spawn(self._lead)

    def stop(self) -> None:
        """End what runs here and let another process lead at once. Who comes second waits for the first."""
        with self._stopping:
            if self._leader is not None:
                self._leader.kill()
                self._leader = None
            self._step_down()
            if self._may_hold:
                self._give_back()

    def _give_back(self) -> None:
        self._may_hold = False
        try:
            self._lease.give_back()
        except SQLAlchemyError as error:
            log.warning("the lease for jobs ends by itself (%s)", type(error).__name__)

    @property
    def is_leading(self) -> bool:
        return self._consumer is not None

    # ---- leading

    def _lead(self) -> None:
        gevent.sleep(random.uniform(0, START_DELAY))
        while True:
            self._look()
            gevent.sleep(RENEW)

    def _look(self) -> None:
        """Lead when nobody does, go on leading, or stop: without the database there is nothing to be done."""
        try:
            self._may_hold = True  # until the database has said otherwise: it may be stopped while it asks
            held = self._may_hold = self._lease.take()
            if held and self._consumer is None:
                jobs.take_over(self._engine, self._jobs)
                self._consumer = self._begin()
        except SQLAlchemyError as error:
            held = False
            if self._consumer is not None:  # one line per outage
                log.warning("jobs rest: the database is away (%s)", type(error).__name__)
        if not held and self._consumer is not None:
            self._step_down()

    def _begin(self) -> _Consumer:
        queue = MemoryHuey("jobs", results=False)
        for job in self._jobs:
            queue.periodic_task(_each_minute, name=job.name)(self._task(job))
        # How often the queue is looked at; looking into memory costs microseconds.
        options = {"initial_delay": 0.2, "max_delay": 1.0, "scheduler_interval": 10}
        consumer = _Consumer(queue, workers=AT_ONCE, worker_type="greenlet", **options)
        consumer.start()
        return consumer

    def _step_down(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.stop()

    # ---- one job

    def _task(self, job: Job) -> Callable[[], None]:
        def run() -> None:
            if job.name in self._running:
                return
            self._running.add(job.name)
            try:
                self._run(job)
            finally:
                self._running.discard(job.name)

        return run

    def _run(self, job: Job) -> None:
        try:
            if jobs.begin(self._engine, job):
                jobs.end(self._engine, job, self._outcome(job))
        except SQLAlchemyError as error:
            log.warning("job %s could not be looked up or noted (%s)", job.name, type(error).__name__)

    def _outcome(self, job: Job) -> str:
        try:
            with self._app.app_context():
                return f"ok: {job.run(self._means)}"
        except Exception as error:  # whatever it is, the next run and the other jobs go on
            log.error("job %s failed: %s", job.name, _described(error))
            log.debug("job %s failed", job.name, exc_info=error)
            return f"failed: {_described(error)}"


def _each_minute(moment: datetime) -> bool:
    return True


def _described(error: Exception) -> str:
    """On one line, with the place where it was raised."""
    trace: Any = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" ({trace.tb_frame.f_code.co_name}, line {trace.tb_lineno})" if trace is not None else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}{place}"
