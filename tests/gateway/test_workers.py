"""Bars 2 and 9, over several workers on one Redis: what one takes along that is killed, and how a cooldown holds."""

import http.client
import itertools
import json
import os
import signal
import sqlite3
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import bars
from tests.chaos.servers import Redis
from tests.fakes import formats
from tests.fakes.upstream import Asked, Reply, Upstream, refused, spoken, streamed
from tests.gateway.conftest import Stage
from tests.live import KEY, Gateway, body, gateway, unique, wait_until


@pytest.fixture(scope="module")
def stage(migrated: Path, upstream: Upstream, redis_server: Redis) -> Iterator[Stage]:
    with gateway(migrated, WEB_CONCURRENCY="4", REDIS_URL=redis_server.apart(1)) as running:
        yield Stage(running, upstream)


def children(live: Gateway) -> list[psutil.Process]:
    return psutil.Process(live.process.pid).children()  # type: ignore[no-any-return]


def clients_of(worker: psutil.Process, live: Gateway) -> set[int]:
    """The local ports of the clients that are connected to this worker."""
    found = worker.net_connections("tcp")
    return {one.raddr.port for one in found if one.raddr and one.laddr.port == live.port}


def until_every_worker_serves(stage: Stage, model: str) -> None:
    """Each learns of a new account within a second; before the first one, practice answers to every name."""

    def statuses(name: str) -> set[int]:
        return {stage.gateway.send("GET", f"/v1/models/{name}").status for _ in range(20)}

    time.sleep(1.1)
    wait_until(lambda: statuses("nobody") == {404} and statuses(model) == {200})


# ---- bar 9: a cooldown holds


def cooldown_holds(stage: Stage, count: int, seconds: int) -> None:
    """``count`` requests meet a limit together: one is told ``seconds``, all others then 1 s. Until that is over nobody
    may ask that account again, whichever worker has the request; then one may."""
    live, model = stage.gateway, unique("cooling")
    come, told = threading.Barrier(count), threading.Event()
    turns = itertools.count()
    first_at: list[float] = []

    def limited(asked: Asked) -> Reply:
        turn = next(turns)
        if turn >= count:
            return spoken(asked)
        come.wait(60)
        if turn == 0:
            first_at.append(time.monotonic())
            told.set()
            return refused(429, asked, retry_after=str(seconds))
        told.wait(60)
        return replace(refused(429, asked, retry_after="1"), before=[0.3])

    cooling = stage.account("anthropic", model, limited, priority=2)
    stage.account("anthropic", model, priority=1)
    until_every_worker_serves(stage, model)
    with ThreadPoolExecutor(count) as pool:
        asking = [pool.submit(live.ask, model) for _ in range(count)]
        wait_until(lambda: first_at, 60)
        serving = sum(bool(clients_of(worker, live)) for worker in children(live))
        met = Counter(future.result(60).status for future in asking)
        over = first_at[0] + seconds
        until = _cools_until(live, cooling)
        while time.monotonic() < over - 0.3:
            met.update(answer.status for answer in pool.map(lambda _: live.ask(model), range(10)))
            time.sleep(0.1)  # more of them would only keep the processor busy
    inside = [asked.at - first_at[0] for asked in stage.asked(cooling)[count:] if asked.at < over]
    wait_until(lambda: live.ask(model).status == 200 and len(stage.asked(cooling)) > count)
    back = stage.asked(cooling)[count].at - over
    bars.report(
        9,
        workers=len(children(live)),
        workers_that_met_it=serving,
        at_once=count,
        cooldown_s=seconds,
        then_told_s=1,
        requests=met.total(),
        failed=met.total() - met[200],
        inside=len(inside),
        shortened_by_s=max(0.0, over - until),
        back_after_s=back,
    )
    assert serving >= 2
    assert set(met) == {200}
    assert inside == []
    assert until >= over - 0.05
    assert back >= 0


def _cools_until(live: Gateway, account: dict[str, Any]) -> float:
    """In monotonic seconds, of what a restart would remember; the API tells whole seconds only."""
    with closing(sqlite3.connect(live.database, timeout=5)) as connection:
        query = "SELECT state_until FROM accounts WHERE id = ?"
        ((until,),) = connection.execute(query, (account["id"],))
    return datetime.fromisoformat(until).replace(tzinfo=UTC).timestamp() - time.time() + time.monotonic()


def test_a_cooldown_holds_in_every_worker_and_is_not_shortened(stage: Stage) -> None:
    cooldown_holds(stage, count=30, seconds=3)


@pytest.mark.chaos
def test_a_cooldown_of_half_a_minute_holds_in_every_worker_and_is_not_shortened(stage: Stage) -> None:
    cooldown_holds(stage, count=100, seconds=30)


# ---- bar 2: a worker is killed


@dataclass
class Held:
    """One stream of a client that asks again whenever its stream was cut. Times are monotonic seconds."""

    port: int = 0
    since: float = 0.0  # the first content of the present stream; 0: there is none
    cuts: list[int] = field(default_factory=list)  # the ports of those that were cut
    refusals: set[int] = field(default_factory=set)  # statuses
    said: list[str] = field(default_factory=list)
    request_id: str = ""  # of the complete one

    def until_complete(self, live: Gateway, model: str) -> None:
        while not self.request_id:
            self.since = 0.0
            with closing(live.connection(60)) as connection:
                try:
                    self._read(connection, model)
                except (OSError, http.client.HTTPException):
                    self.cuts.append(self.port)

    def _read(self, connection: http.client.HTTPConnection, model: str) -> None:
        connection.connect()
        self.port, self.said = connection.sock.getsockname()[1], []
        headers = {"content-type": "application/json", "x-api-key": KEY}
        connection.request("POST", "/v1/messages", json.dumps(body(model, stream=True)), headers)
        response = connection.getresponse()
        if response.status != 200:
            self.refusals.add(response.status)
            time.sleep(0.1)
            return
        ended = ""
        for line in response:
            event = json.loads(line[6:]) if line.startswith(b"data: ") else {}
            ended = event.get("type", "") or ended
            if event.get("type") == "content_block_delta":
                self.said.append(event["delta"]["text"])
                self.since = self.since or time.monotonic()
        if response.length or ended != "message_stop":
            raise http.client.IncompleteRead(b"")
        self.request_id = response.getheader("request-id", "")


def numbered(go: threading.Event, pause: float) -> Any:
    """A stream of 1, 2, 3 … until ``go``, and its regular end."""

    def steps(asked: Asked) -> Iterator[Any]:
        regular = [step for step in spoken(asked).body if isinstance(step, bytes)]
        first = next(n for n, step in enumerate(regular) if b"content_block_delta" in step)
        last = next(n for n, step in enumerate(regular) if b"content_block_stop" in step)
        yield from regular[:first]
        for number in itertools.count(1):
            delta = {"type": "text_delta", "text": f"{number} "}
            yield formats.event({"type": "content_block_delta", "index": 0, "delta": delta})
            if go.is_set():
                break
            yield pause
        yield from regular[last:]

    return lambda asked: replace(streamed([]), body=steps(asked))


@dataclass(frozen=True)
class Death:
    ports: set[int]  # of the clients that had been connected to it
    answered_after: float  # seconds until a new request was answered
    free_after: float  # until the first whose stream was cut had another: before, there was no place
    back_after: float  # until all of them had


def kill_one(stage: Stage, streams: list[Held]) -> Death:
    """The worker with the most of these streams."""
    live = stage.gateway
    ours = {held.port for held in streams}
    by_worker = {worker.pid: clients_of(worker, live) & ours for worker in children(live)}
    victim = max(by_worker, key=lambda pid: len(by_worker[pid]))
    cut = [held for held in streams if held.port in by_worker[victim]]
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    answered = _answered(live) - killed
    wait_until(lambda: all(held.since > killed for held in cut), 20)
    back = [held.since - killed for held in cut] or [0.0]
    return Death(by_worker[victim], answered, min(back), max(back))


def _answered(live: Gateway) -> float:
    """When a request was answered that asked until it was."""
    while True:
        try:
            if live.ask("practice/x").status == 200:
                return time.monotonic()
        except (OSError, http.client.HTTPException):
            time.sleep(0.01)


def workers_are_killed(stage: Stage, count: int, kills: int, pause: float) -> list[Death]:
    """``count`` streams that fill their account, while one of four workers is killed again and again."""
    live, model, go = stage.gateway, unique("killed"), threading.Event()
    stage.account("anthropic", model, numbered(go, pause), max_concurrency=count)
    until_every_worker_serves(stage, model)
    streams, deaths = [Held() for _ in range(count)], []
    with ThreadPoolExecutor(count) as pool:
        running = [pool.submit(held.until_complete, live, model) for held in streams]
        try:
            for _ in range(kills):
                wait_until(lambda: all(held.since for held in streams) and len(children(live)) == 4, 30)
                deaths.append(kill_one(stage, streams))
            wait_until(lambda: all(held.since for held in streams), 30)
        finally:
            go.set()
        [future.result(60) for future in running]
    died = set().union(*(death.ports for death in deaths))
    cuts = [port for held in streams for port in held.cuts]
    others = [port for port in cuts if port not in died]
    torn = [held for held in streams if held.said != [f"{n} " for n in range(1, len(held.said) + 1)]]
    lost = _rows_lost(live, {held.request_id for held in streams})
    wait_until(lambda: len(_aborted(live, model)) >= len(cuts), 15)  # once what the dead have left was adopted
    bars.report(
        2,
        workers=4,
        kills=kills,
        streams=count,
        cut_with_their_worker=len(cuts),
        cut_of_others=len(others),
        answered_within_s=max(death.answered_after for death in deaths),
        places_free_p50_s=statistics.median(death.free_after for death in deaths),
        places_free_within_s=max(death.free_after for death in deaths),
        all_back_within_s=max(death.back_after for death in deaths),
        acknowledged_rows_lost=lost,
        aborted_rows=len(_aborted(live, model)),
    )
    assert (others, torn, lost) == ([], [], 0)
    assert cuts, "somebody was connected to those that died"
    assert set().union(*(held.refusals for held in streams)) <= {529}, "only for want of a place"
    return deaths


def _aborted(live: Gateway, model: str) -> list[dict[str, Any]]:
    return live.rows("model = ? AND outcome = 'aborted'", model)


def _rows_lost(live: Gateway, acknowledged: set[str]) -> int:
    give_up = time.monotonic() + 10
    while (gone := len(acknowledged - {row["request_id"] for row in live.rows()})) and time.monotonic() < give_up:
        time.sleep(0.2)
    return gone


def test_a_worker_that_is_killed_takes_only_its_own_streams_along(stage: Stage) -> None:
    workers_are_killed(stage, count=20, kills=2, pause=0.2)


@pytest.mark.chaos
def test_100_workers_that_are_killed_take_only_their_own_streams_along(stage: Stage) -> None:
    deaths = workers_are_killed(stage, count=200, kills=100, pause=1.0)
    assert max(death.answered_after for death in deaths) <= 1
    assert max(death.free_after for death in deaths) <= 2
