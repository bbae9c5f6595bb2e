"""One request on its way, where no upstream can be made to behave so."""

import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from opus_api.config import Settings
from opus_api.dialects import anthropic
from opus_api.gateway.catalog import Catalog
from opus_api.gateway.conversation import identify
from opus_api.gateway.dispatch import Dispatch, Worker
from opus_api.gateway.load import Load
from opus_api.gateway.pool import Pool
from opus_api.gateway.stream import Answer
from opus_api.state.memory import MemoryState
from opus_api.upstreams.base import Failure, Verdict
from tests.fakes import formats
from tests.gateway.values import Notes, account, snapshot

U, A = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


class Broken:
    """A transport with a mistake in it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def exchange(self, request: Any, *_: Any) -> Any:
        self.asked.append(request.headers["x-api-key"])
        raise ZeroDivisionError


class Spoken:
    """The exchange of an upstream that answers."""

    status = 200
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed

    def open(self) -> Iterator[bytes]:
        yield from ()

    def chunks(self) -> Iterator[bytes]:
        yield from formats.anthropic.stream(formats.Said(), {})

    def no_total_limit(self, seconds: float) -> None: ...
    def last_event_came(self, wait: float = 0.0) -> None: ...
    def close(self) -> None: ...


class Speaking:
    """A transport to upstreams that answer."""

    def exchange(self, *_: Any) -> Any:
        return Spoken()


class Refusing:
    """A transport to upstreams of which the first is over its quota."""

    def __init__(self) -> None:
        self.asked = 0

    def exchange(self, *_: Any) -> Any:
        self.asked += 1
        if self.asked == 1:
            raise Failure(Verdict.RATE, 429, "rate_limit_error", "sk-secret words", upstream_status=429)
        return Spoken()


class House:
    """Two accounts, and a worker in front of them."""

    def __init__(self, transport: Any):
        self.accounts = snapshot(*(account(id, "anthropic", models=("m",)) for id in (1, 2)))
        self.notes = Notes()
        self.pool = Pool(self.notes, 3, MemoryState())  # type: ignore[arg-type]
        self.pool.adopt(self.accounts)
        self.worker = Worker(self.pool, transport, Load(), lambda *_: None)  # type: ignore[arg-type,return-value]

    def dispatch(self, *messages: Any, stream: bool = True) -> Dispatch:
        body = {"model": "m", "max_tokens": 5, "stream": stream, "messages": list(messages)}
        targets = Catalog(self.accounts, practice_only=False).resolve("m").targets
        call = anthropic.parse(body, {})
        return Dispatch(call, targets, self.worker, Settings(), identify(call, ""))


@pytest.mark.parametrize("stream", [True, False])
def test_a_mistake_of_our_own_is_no_reason_to_ask_anybody_else(stream: bool) -> None:
    transport = Broken()
    house = House(transport)
    answer = Answer(house.dispatch(U, stream=stream), "req_1", 15.0, lambda _: None)
    with pytest.raises(ZeroDivisionError):
        answer.begin() if stream else answer.whole()
    answer.close()
    assert len(transport.asked) == 1
    assert (house.notes.states, house.worker.load.requests) == ([], 0)


class Lingering(Spoken):
    """Its upstream says all, and does not hang up."""

    def chunks(self) -> Iterator[bytes]:
        yield from super().chunks()
        yield b""


def test_no_ping_follows_the_end_however_slowly_the_client_reads() -> None:
    transport = Speaking()
    transport.exchange = lambda *_: Lingering()  # type: ignore[method-assign]
    answer = Answer(House(transport).dispatch(U), "req_1", 0.01, lambda _: None)
    answer.begin()
    read = b""
    for data in answer:
        read += data
        time.sleep(0.02)
    assert read.rstrip().rpartition(b"event: ")[2].startswith(b"message_stop")


def test_it_is_known_whether_a_turn_found_its_cache_warm() -> None:
    house = House(Speaking())

    def warm(*messages: Any) -> bool | None:
        dispatch = house.dispatch(*messages)
        assert b"".join(data for data, _ in dispatch.pieces())
        return dispatch.warm

    assert warm(U, A, U) is False, "nothing is remembered of it"
    assert warm(U) is None, "a first turn has no turn before it"
    assert warm(U, A, U) is True
    assert warm(U, A, U, A, U) is True


def test_the_debug_log_has_a_line_per_try_that_failed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "opus_api.gateway.dispatch")
    dispatch = House(Refusing()).dispatch(U)
    assert b"".join(data for data, _ in dispatch.pieces())
    (line,) = caplog.messages
    first = dispatch.uses[0][0]
    assert line.startswith(f"try 1 failed: anthropic, account {first}, model m, rate (429) after ")
    assert "secret" not in line  # what an upstream says may hold anything
