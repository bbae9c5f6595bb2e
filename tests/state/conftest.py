"""Both engines, for tests of what they promise alike."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from opus_api.state import State
from opus_api.state.memory import MemoryState
from opus_api.state.redis_engine import RedisState


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "redis"])
def state(request: pytest.FixtureRequest, clock: Clock) -> Iterator[State]:
    if request.param == "memory":
        yield MemoryState(clock)
        return
    engine = request.getfixturevalue("worker")(clock=clock)
    yield engine


@pytest.fixture
def worker(redis_url: str) -> Iterator[Callable[..., RedisState]]:
    """Makes further workers on the same Redis. They beat when a test says so."""
    workers: list[RedisState] = []

    def make(**options: Any) -> RedisState:
        # Tests beat by hand, so places outlive the seconds that a busy machine may take.
        workers.append(RedisState(redis_url, **{"patience": 30.0, **options}))
        workers[-1].beat()
        return workers[-1]

    yield make
    for each in workers:
        each.stop()
