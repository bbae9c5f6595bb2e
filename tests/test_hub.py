"""The look at the hub from outside of it."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import gevent
import pytest
from gevent import monkey

from opus_api.hub import HubWatch

really_sleep = monkey.get_original("time", "sleep")


@contextmanager
def watching(limit: float) -> Iterator[None]:
    watch = HubWatch(limit)
    watch.start()
    try:
        yield
    finally:
        watch.stop()


def test_a_hub_that_stands_still_is_told_with_the_place(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("opus_api"), "propagate", True)
    with watching(1.0):
        gevent.sleep(1.2)
        assert not caplog.records, "waiting is not standing still"
        really_sleep(1.8)
        gevent.sleep(0.3)
    (told,) = {record.getMessage() for record in caplog.records if record.name == "opus_api.hub"}
    assert "blocked for more than 1 s" in told
    assert "really_sleep(1.8)" in told


def test_it_costs_next_to_nothing() -> None:
    with watching(1.0):
        before = time.process_time()
        gevent.sleep(1.0)
    assert time.process_time() - before < 0.02
