"""What becomes of live answers when the service is told to stop or to load itself anew."""

import http.client
import itertools
import signal
import socket
import sqlite3
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import bars
from tests.fakes.upstream import FOREVER, Asked, Reply, Upstream, refusing, spoken, streamed
from tests.gateway.conftest import Stage
from tests.live import KEY, LEADING, Answer, Gateway, body, gateway, read, wait_until
from tests.raw import CHAT, MESSAGES, answer, connected, head, request, to_the_end

STREAMED = {"anthropic": MESSAGES, "openai": CHAT}
SOON, LATER, NEVER = "soon", "later", "never"  # models: when their answers end


def unhurried(asked: Asked) -> Reply:
    """A stream of some 0.5 s (SOON), 3 s (LATER), or without end; a whole answer waits as long before it comes."""
    pause = {SOON: 0.05, LATER: 0.3, NEVER: FOREVER}[asked.model]
    reply = spoken(asked)
    if isinstance(reply.body, bytes):
        reply.before = [10 * pause]
        return reply
    steps = list(reply.body)
    return streamed([*steps[:3], *itertools.chain(*((pause, step) for step in steps[3:]))])


@contextmanager
def unhurried_stage(migrated: Path, upstream: Upstream, seconds: int) -> Iterator[Stage]:
    """With so many seconds to stop."""
    with gateway(migrated, GRACEFUL_TIMEOUT=str(seconds)) as running:
        upstream.answers |= dict.fromkeys((SOON, LATER, NEVER), unhurried)
        running.account("openai", f"{upstream.url}/v1", models=[SOON, LATER, NEVER])
        yield Stage(running, upstream)
        for model in (SOON, LATER, NEVER):
            upstream.answers.pop(model)


@pytest.fixture
def stoppable(migrated: Path, upstream: Upstream, request: pytest.FixtureRequest) -> Iterator[Stage]:
    with unhurried_stage(migrated, upstream, getattr(request, "param", 6)) as stage:
        yield stage


@pytest.fixture(scope="module")
def reloadable(migrated: Path, upstream: Upstream) -> Iterator[Stage]:
    """A reload leaves it running, for the next test as well."""
    with unhurried_stage(migrated, upstream, 6) as stage:
        yield stage


def streams(live: Gateway, models: list[str], pool: ThreadPoolExecutor) -> list[Any]:
    """Begun, in turn in both dialects; each comes to an Answer, read to the regular end of its chunks."""
    paths = itertools.cycle(STREAMED.values())
    begun = threading.Barrier(len(models) + 1)

    def one(model: str, path: str) -> tuple[str, Answer]:
        with live.streaming(model, path) as response:
            first = response.readline()
            begun.wait(60)
            headers = {name.lower(): value for name, value in response.getheaders()}
            return model, Answer(response.status, headers, first + response.read())

    running = [pool.submit(one, model, next(paths)) for model in models]
    begun.wait(60)
    return running


def end(found: Answer) -> str:
    """complete, or the type of the error that ended it."""
    last = found.events[-1]
    if last.get("type") == "message_stop" or "done" in last:
        return "complete"
    return str(last["error"]["type"])


def stopped(stoppable: Stage, count: int) -> None:
    """SIGTERM with ``count`` streams: a third soon done, a third in time, a third never. All end in their protocol."""
    models = [(SOON, LATER, NEVER)[n % 3] for n in range(count)]
    with ThreadPoolExecutor(count) as pool:
        running = streams(stoppable.gateway, models, pool)
        began = time.monotonic()
        stoppable.gateway.process.terminate()
        found = [future.result(60) for future in running]
    code = stoppable.gateway.process.wait(30)
    took = time.monotonic() - began
    ends = Counter((model, end(got)) for model, got in found)
    cut = {kind for model, kind in ends if model == NEVER}
    assert {kind for model, kind in ends if model != NEVER} == {"complete"}, ends
    assert cut <= {"overloaded_error", "server_error", "api_error"}, ends
    rows = stoppable.gateway.rows()
    bars.report(1, streams=count, complete_or_told=len(found) / count, rows=len(rows), stopped_in_s=took)
    assert code == 0
    assert len(rows) == count
    assert Counter(row["outcome"] for row in rows) == {
        "ok": sum(model != NEVER for model in models),
        "aborted": sum(model == NEVER for model in models),
    }
    assert took <= 8


@pytest.mark.parametrize("stoppable", [6], indirect=True)
def test_when_it_stops_every_stream_ends_in_its_protocol(stoppable: Stage) -> None:
    stopped(stoppable, 30)


@pytest.mark.chaos
@pytest.mark.parametrize("stoppable", [8], indirect=True)
def test_when_it_stops_200_streams_end_in_their_protocol(stoppable: Stage) -> None:
    stopped(stoppable, 200)


def test_when_it_stops_streams_do_not_wait_for_a_database_that_is_locked(migrated: Path) -> None:
    """Whoever leads the jobs gives that back first."""
    with gateway(migrated, LEADING, GRACEFUL_TIMEOUT="6") as live, closing(sqlite3.connect(live.database)) as other:
        wait_until(lambda: other.execute("SELECT owner FROM leases").fetchall())
        with live.streaming("practice/endless", messages=PRACTICE) as unfinished:
            assert unfinished.readline() == b"event: message_start\n"
            other.execute("BEGIN IMMEDIATE")
            live.process.terminate()
            told = unfinished.read()
        other.rollback()
    assert b"event: error\n" in told
    assert b"restarting" in told


@pytest.mark.parametrize("stoppable", [6], indirect=True)
def test_when_it_stops_everybody_is_told_and_nobody_holds_it_up(stoppable: Stage) -> None:
    """Whole answers that can not be given in time, and connections that only send, only stay, or ask once more."""
    live = stoppable.gateway
    stoppable.upstream.asked.clear()
    with (
        ThreadPoolExecutor(2) as pool,
        connected(live.port) as idle,
        connected(live.port) as sender,
        connected(live.port) as reader,
        closing(live.connection()) as curious,
        closing(live.connection()) as other,
        live.streaming("practice/endless", messages=PRACTICE) as unfinished,
    ):
        assert unfinished.readline() == b"event: message_start\n"
        waiting = [pool.submit(live.post, path, body(NEVER)) for path in (MESSAGES, CHAT)]
        wait_until(lambda: [asked.model for asked in stoppable.upstream.asked if asked.method == "POST"] == [NEVER] * 2)
        stays(idle)
        sender.sendall(head(MESSAGES, "content-length: 500") + b"{")
        reader.sendall(request(MESSAGES, body("practice/endless", stream=True)))
        reader.recv(1)
        for kept in (curious, other):
            kept.request("GET", "/ready")
            assert read(kept).json["status"] == "ready"
        began = time.monotonic()
        live.process.terminate()
        time.sleep(0.3)
        connections_close_and_it_is_not_ready(curious, other)
        whole_answers_are_errors([one.result(10) for one in waiting])
        assert answer(to_the_end(sender)).error == (529, "overloaded_error", RESTARTING)
        assert idle.recv(1) == b""
        rest = unfinished.read()  # to the regular end of the chunked body
        assert b'"type":"overloaded_error"' in rest.rpartition(b"event: error")[2]
        assert live.process.wait(10) == 0
        assert time.monotonic() - began < 8
    rows = live.rows()
    told = {(row["model"], row["dialect"], row["status"]) for row in rows}
    assert {("", "anthropic", 529), (NEVER, "anthropic", 529), (NEVER, "openai", 503)} <= told
    practice = [(row["outcome"], row["error_type"]) for row in rows if row["model"] == "practice/endless"]
    assert ("aborted", "overloaded_error") in practice
    assert len(practice) == 2


PRACTICE = [{"role": "user", "content": "[[practice:slow]] Hi"}]
RESTARTING = "the gateway is restarting, retry"


def stays(idle: socket.socket) -> None:
    """It has asked once, and has its answer."""
    idle.sendall(head("/healthz", method="GET"))
    seen = b""
    while b"}" not in seen:  # head and body may come apart
        seen += (piece := idle.recv(65_536))
        assert piece, seen
    assert b"200 OK" in seen


def connections_close_and_it_is_not_ready(
    connection: http.client.HTTPConnection, other: http.client.HTTPConnection
) -> None:
    connection.request("GET", "/ready")
    got = read(connection)
    assert (got.status, got.json["checks"]["worker"]) == (503, "stopping")
    assert got.headers["connection"] == "close"
    other.request("POST", MESSAGES, request(MESSAGES, body(SOON)).partition(b"\r\n\r\n")[2], {"x-api-key": KEY})
    got = read(other)
    assert (got.status, got.headers["connection"]) == (200, "close"), "what is asked on a kept connection is answered"


def whole_answers_are_errors(answers: list[Answer]) -> None:
    assert [got.status for got in answers] == [529, 503]
    assert {got.json["error"]["message"] for got in answers} == {RESTARTING}
    assert {got.headers["retry-after"] for got in answers} == {"1"}


# ---- reload


def reloaded(stoppable: Stage, hups: int, count: int, rate: float) -> None:
    """Streams and a steady flow of requests while the service is told ``hups`` times to load itself anew."""
    live, failed, took = stoppable.gateway, [], []
    over = threading.Event()

    def flow(_: int) -> None:
        while not over.is_set():
            began = time.monotonic()
            try:
                got = live.ask(SOON if rate < 10 else "practice/x")
                if got.status != 200:
                    failed.append(got)
            except OSError as error:
                failed.append(error)
            took.append((time.monotonic() - began) * 1000)
            time.sleep(max(0.0, 4 / rate - (time.monotonic() - began)))

    with ThreadPoolExecutor(count + 4) as pool:
        running = streams(live, [LATER] * count, pool)
        flowing = [pool.submit(flow, n) for n in range(4)]
        time.sleep(1)
        quiet = len(took)
        for _ in range(hups):
            live.process.send_signal(signal.SIGHUP)
            time.sleep(2.5)
        ends = Counter(end(future.result(60)[1]) for future in running)
        over.set()
        [future.result(10) for future in flowing]
    p99 = statistics.quantiles(took[quiet:], n=100)[98] if len(took) - quiet > 10 else max(took)
    bars.report(1, hups=hups, streams=count, requests=len(took), failed=len(failed), ends=dict(ends), p99_ms=p99)
    assert ends == {"complete": count}
    assert failed == []


def test_a_reload_fails_no_request_and_cuts_no_stream(reloadable: Stage) -> None:
    reloaded(reloadable, hups=1, count=20, rate=40)


def test_what_the_old_worker_learns_of_an_account_the_new_one_knows_as_well(reloadable: Stage, model: str) -> None:
    limited = Reply(429, b"{}", {"retry-after": "30"}, before=[2.5])
    first = reloadable.account("openai", model, [limited, spoken], priority=9)
    second = reloadable.account("openai", model)
    with ThreadPoolExecutor(1) as pool:
        old = pool.submit(reloadable.gateway.ask, model)
        wait_until(lambda: reloadable.asked(first))
        reloadable.gateway.process.send_signal(signal.SIGHUP)
        assert old.result(20).status == 200
    time.sleep(1)
    for _ in range(3):
        assert reloadable.gateway.ask(model).status == 200
    assert [len(reloadable.asked(account)) for account in (first, second)] == [1, 4]


def test_what_the_new_worker_learns_of_an_account_the_old_one_knows_as_well(reloadable: Stage, model: str) -> None:
    later = threading.Event()
    slow = Reply(500, b"{}", before=[later])
    first = reloadable.account("openai", model, [slow, refusing(500)], priority=9)
    second = reloadable.account("openai", model, [refusing(429, retry_after="30"), spoken], priority=5)
    third = reloadable.account("openai", model)
    master = psutil.Process(reloadable.gateway.process.pid)
    before = master.children()
    with ThreadPoolExecutor(1) as pool:
        old = pool.submit(reloadable.gateway.ask, model)
        wait_until(lambda: reloadable.asked(first))
        master.send_signal(signal.SIGHUP)
        wait_until(lambda: any(is_served_by(new, reloadable) for new in set(master.children()) - set(before)))
        assert reloadable.gateway.ask(model).status == 200
        time.sleep(1)
        later.set()
        assert old.result(20).status == 200
    assert [len(reloadable.asked(account)) for account in (first, second, third)] == [2, 1, 2]


def is_served_by(worker: psutil.Process, stage: Stage) -> bool:
    with closing(stage.gateway.connection()) as connection:
        connection.connect()
        port = connection.sock.getsockname()[1]
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        return port in {one.raddr.port for one in worker.net_connections("tcp") if one.raddr}


@pytest.mark.chaos
@pytest.mark.parametrize("stoppable", [20], indirect=True)
def test_five_reloads_with_200_streams_and_50_requests_a_second_fail_none(stoppable: Stage) -> None:
    reloaded(stoppable, hups=5, count=200, rate=50)
