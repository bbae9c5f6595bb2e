"""Clients that leave at random points while the upstream says nothing: how soon each upstream is free again."""

import random
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests import bars
from tests.fakes.upstream import FOREVER, Asked, Reply, after, streamed
from tests.gateway.conftest import Stage
from tests.live import body, unique, wait_until
from tests.raw import CHAT, MESSAGES, connected, request

PLACES: list[Any] = [
    lambda asked: Reply(before=[FOREVER]),
    lambda asked: streamed([FOREVER]),
    after(1, FOREVER),
    after(5, FOREVER),
]


def left(stage: Stage, count: int) -> None:
    """``count`` clients, up to 20 at a time; each has a model of its own, so that its request is known upstream."""
    prefix = unique("leaver")
    stage.account("openai", f"{prefix}-*")
    leaving = random.Random(7)
    plans = [(n, leaving.choice(PLACES), leaving.choice((MESSAGES, CHAT)), leaving.random()) for n in range(count)]

    came: dict[str, Asked] = {}  # by model

    def one(plan: Any) -> Asked:
        n, place, path, wait = plan
        model = f"{prefix}-{n}"

        def answer(asked: Asked) -> Reply:
            came[model] = asked
            return place(asked)  # type: ignore[no-any-return]

        stage.upstream.answers[model] = answer
        with connected(stage.gateway.port, 30) as sock:
            sock.sendall(request(path, body(model, stream=wait < 0.8)))
            asked = wait_until(lambda: came.get(model), 20)
            time.sleep(wait)
            asked.left_at = time.monotonic()
        return asked  # type: ignore[no-any-return]

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(one, plans))
    freed = [(wait_until(lambda asked=asked: asked.gone_at, 10) - asked.left_at) * 1000 for asked in found]
    p50, p99 = statistics.median(freed), statistics.quantiles(freed, n=100)[98]
    bars.report(3, clients=count, freed=len(freed) / count, p50_ms=p50, p99_ms=p99)
    rows = wait_until(lambda: _rows(stage, prefix, count))
    assert {row["outcome"] for row in rows} == {"client_gone"}
    assert p50 <= (50 if count >= 1000 else 150), "beside other tests everything takes longer"
    assert p99 <= 250, "100 ms on a machine that has nothing else to do"


def _rows(stage: Stage, prefix: str, count: int) -> list[dict[str, Any]]:
    rows = stage.gateway.rows("model LIKE ?", f"{prefix}-%")
    return rows if len(rows) == count else []


def test_whoever_leaves_frees_the_upstream(stage: Stage) -> None:
    left(stage, 100)


@pytest.mark.chaos
def test_1000_who_leave_free_their_upstreams(stage: Stage) -> None:
    left(stage, 1000)
