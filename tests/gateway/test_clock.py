"""What a clock means that is set by an hour, forward or back, while the gateway runs: nothing (bar 9, and more)."""

import itertools
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import bars
from tests.fakes.upstream import Asked, Reply, Upstream, refusing, spoken, streamed
from tests.gateway.conftest import Stage
from tests.live import body, gateway, unique, wait_until
from tests.raw import MESSAGES

HOUR = 3600.0
COOLDOWN = 2  # seconds
SHIFTED = "tests/fakes/shifted.conf.py"
SLOWLY = [{"role": "user", "content": "[[practice:slow]] Hi"}]


@dataclass
class Clock:
    path: Path

    def set(self, seconds: float) -> None:
        """So far from the true time it is from now on."""
        with self.path.open("r+b") as file:
            file.write(struct.pack("d", seconds))


@dataclass
class Shifted(Stage):
    """A gateway whose clock can be set."""

    @property
    def clock(self) -> Clock:
        return Clock(self.gateway.folder / "shift")


@pytest.fixture(scope="module")
def shifted(migrated: Path, upstream: Upstream) -> Iterator[Shifted]:
    with gateway(migrated, SHIFTED, GRACEFUL_TIMEOUT="3") as running:
        yield Shifted(running, upstream)


def slowly(asked: Asked) -> Reply:
    """A stream of some three seconds."""
    first, *steps = spoken(asked).body
    return streamed([first, *itertools.chain(*((0.3, step) for step in steps))])


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
def test_a_clock_that_is_set_ends_no_cooldown_and_no_stream_and_locks_nobody_out(
    shifted: Shifted, model: str, jump: float
) -> None:
    live, talking = shifted.gateway, unique("model")
    shifted.clock.set(0)
    cooling = shifted.account("anthropic", model, [refusing(429, retry_after=str(COOLDOWN)), spoken])
    speaking = shifted.account("anthropic", talking, slowly)
    limited = live.api("POST", "/api/keys", {"name": unique("key"), "limits": {"rpm": 1}})["key"]
    wait_until(lambda: live.post(MESSAGES, body("practice/practice"), key=limited).status == 200)
    with ThreadPoolExecutor(2) as pool:
        stream, waiting = pool.submit(live.ask, talking, stream=True), pool.submit(live.ask, model)
        wait_until(lambda: shifted.asked(speaking) and shifted.asked(cooling))
        time.sleep(0.2)
        shifted.clock.set(jump)
        waits = int(live.post(MESSAGES, body("practice/practice"), key=limited).headers["retry-after"])
        told = stream.result(20)
        assert waiting.result(20).status == 200
    first, second = (call.at for call in shifted.asked(cooling))
    bars.report(9, clock_set_by_s=jump, cooldown_s=COOLDOWN, back_after_s=second - first, key_waits_s=waits)
    assert COOLDOWN <= second - first <= COOLDOWN + 1
    assert 0 < waits <= 60
    assert told.kinds[-1] == "message_stop"
    assert 1000 <= live.row(told)["duration_ms"] <= 10_000


def test_a_clock_that_is_set_back_does_not_keep_a_service_from_ending(shifted: Shifted) -> None:
    """The last one: the service is gone then."""
    running = shifted.gateway
    shifted.clock.set(0)
    with running.streaming("practice/endless", messages=SLOWLY) as stream:
        assert stream.readline() == b"event: message_start\n"
        began = time.monotonic()
        running.process.terminate()
        time.sleep(0.3)
        shifted.clock.set(-HOUR)
        assert b"overloaded_error" in stream.read()
    assert running.process.wait(10) == 0
    assert time.monotonic() - began < 5
