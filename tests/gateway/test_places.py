"""What happens at the concurrency cap of the accounts: a short line instead of a refusal."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes.upstream import Asked, Reply, spoken
from tests.gateway.conftest import Stage
from tests.live import Answer, wait_until

HELLO = "Hello from the upstream."


def timed(stage: Stage, model: str, stream: bool) -> tuple[Answer, float]:
    began = time.monotonic()
    return stage.gateway.ask(model, stream=stream), time.monotonic() - began


@pytest.mark.parametrize("stream", [True, False])
def test_who_finds_no_place_gets_the_next_that_comes_free(stage: Stage, kind: str, model: str, stream: bool) -> None:
    def slow(asked: Asked) -> Reply:
        reply = spoken(asked)
        reply.before = [0.3]
        return reply

    account = stage.account(kind, model, slow, max_concurrency=1)
    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(lambda _: timed(stage, model, stream), range(3)))
    assert [got.text for got, _ in answers] == [HELLO] * 3
    for earlier, later in itertools.pairwise(stage.asked(account)):
        assert earlier.ended_at is not None
        assert -0.01 < later.at - earlier.ended_at < 0.5, "never two at a time, and the next as soon as one has ended"


def test_nobody_waits_in_line_for_longer_than_two_seconds(stage: Stage, model: str) -> None:
    go = threading.Event()

    def held(asked: Asked) -> Reply:
        reply = spoken(asked)
        reply.before = [go]
        return reply

    account = stage.account("openai", model, held, max_concurrency=1)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(stage.gateway.ask, model)
        wait_until(lambda: stage.asked(account))
        got, seconds = timed(stage, model, True)
        go.set()
        assert first.result().text == HELLO
    assert got.error == (529, "overloaded_error", "no upstream account available")
    assert got.headers["retry-after"] == "1"
    assert 1.4 <= seconds < 2.0
    assert len(stage.asked(account)) == 1
