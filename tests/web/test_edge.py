"""Slow clients, too many of them, bodies that are cut or hard to read: the edge of HTTP, with limits that a test can
wait for (tests/fakes/hasty.conf.py)."""

import json
import select
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests import bars
from tests.fakes.upstream import Asked, Reply, Upstream, after, spoken, streamed
from tests.live import HASTY, KEY, Gateway, body, gateway, unique, wait_until
from tests.raw import CHAT, COUNT, MESSAGES, answer, connected, ended_after, head, request, slow_ones, to_the_end

MIB = 2**20
MOST = 40  # in flight, of hasty.conf.py


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    fake = Upstream()
    yield fake
    fake.stop()


@pytest.fixture(scope="module")
def live(migrated: Path, upstream: Upstream) -> Iterator[Gateway]:
    with gateway(migrated, HASTY) as running:
        running.account("anthropic", upstream.url, "sk-up", models=["served"])
        yield running


# ---- slow clients


@pytest.mark.parametrize("path", [MESSAGES, CHAT, COUNT])
@pytest.mark.parametrize("framing", ["content-length: 5000", "transfer-encoding: chunked"])
def test_a_body_that_comes_too_slowly_is_a_408_and_the_end(live: Gateway, path: str, framing: str) -> None:
    began = time.monotonic()
    with connected(live.port) as sock:
        sock.sendall(head(path, framing))
        if "chunked" in framing:
            sock.sendall(b"1000\r\n")
        sock.settimeout(0.1)
        seen = b""
        while not seen.endswith(b"}"):
            sock.sendall(b" ")
            with suppress(TimeoutError):
                seen += sock.recv(65_536)
        assert 0.9 < time.monotonic() - began < 2
        got = answer(seen)
        assert got.error[::2] == (408, "The request body came too slowly.")
        assert got.headers["connection"] == "close"
    assert live.row(got)["status"] == 408 if path != COUNT else True


def test_a_body_may_take_a_second_for_every_16_kib_of_it(live: Gateway) -> None:
    sent = request(MESSAGES, body("served", "x" * 200_000))
    began = time.monotonic()
    with connected(live.port) as sock:
        for at in range(0, len(sent), 8000):
            sock.sendall(sent[at : at + 8000])
            time.sleep(0.06)
        assert time.monotonic() - began > 1.4, "the limit without a body is 1 s"
        assert sock.recv(65_536).startswith(b"HTTP/1.1 200")


def test_a_body_of_the_api_has_the_same_time(live: Gateway) -> None:
    with connected(live.port) as sock:
        sock.sendall(head("/api/auth/login", "content-length: 50") + b"{")
        assert answer(to_the_end(sock)).status == 408


def test_headers_that_come_too_slowly_end_the_connection(live: Gateway) -> None:
    began = time.monotonic()
    with connected(live.port) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert 1.8 < ended_after(sock, began) < 3


def flood(asked: Asked) -> Reply:
    """A stream that no buffer takes whole."""
    first, *rest = [step for step in spoken(asked).body if isinstance(step, bytes)]
    event = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
    return streamed([first, rest[0], *[event + b'"text":"%s"}}\n\n' % (b"x" * 60_000)] * 1000, *rest[1:]])


def test_little_is_kept_of_what_a_client_does_not_read(live: Gateway, upstream: Upstream) -> None:
    """The rest stays with the upstream: neither we nor the kernel take 60 MB for somebody who reads nothing."""
    model, sent = unique("flood"), []

    def counted(asked: Asked) -> Reply:
        steps = flood(asked).body
        return replace(streamed([]), body=(sent.append(step) or step for step in steps))

    live.account("anthropic", upstream.url, model, models=[model])
    upstream.answers[model] = counted
    with connected(live.port) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(request(MESSAGES, body(model, stream=True)))
        (asked,) = wait_until(lambda: upstream.of(model))
        wait_until(lambda: asked.gone_at)
    assert sum(map(len, sent)) < 6 * MIB, "of which the upstream's own side keeps up to 4"


def has_ended(sock: socket.socket) -> bool:
    """Whether the other side has closed, behind all that was not read yet."""
    poll = select.poll()
    poll.register(sock, 0)
    return bool(poll.poll(2000))


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_does_not_read_is_gone_after_a_while(live: Gateway, upstream: Upstream, stream: bool) -> None:
    model = unique("flood")
    live.account("anthropic", upstream.url, model, models=[model])
    upstream.answers[model] = flood if stream else lambda asked: spoken(asked, text="x" * 15 * MIB)
    with connected(live.port) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(request(MESSAGES, body(model, stream=stream)))
        began = time.monotonic()
        if stream:
            (asked,) = wait_until(lambda: upstream.of(model))
            assert 0.9 < wait_until(lambda: asked.gone_at) - began < 2.5
            assert live.row_of(model)["outcome"] == "client_gone"
        else:  # everything had come, so that it is done as far as we are concerned
            assert live.row_of(model)["outcome"] == "ok"
            time.sleep(1)
            assert has_ended(sock)
    assert live.ask("served").status == 200


def test_a_client_that_reads_slowly_gets_everything(live: Gateway, upstream: Upstream) -> None:
    model = unique("large")
    live.account("anthropic", upstream.url, model, models=[model])
    upstream.answers[model] = lambda asked: spoken(asked, text="x" * 12 * MIB)
    with connected(live.port) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        sock.sendall(request(MESSAGES, body(model)))
        began, seen = time.monotonic(), 0
        while seen < 12 * MIB:
            seen += len(sock.recv(128 * 1024))
            time.sleep(0.02)
        assert time.monotonic() - began > 1.1, "longer than one write may take"


def times(live: Gateway, count: int) -> list[float]:
    """Of requests one after another, in ms."""

    def one(_: int) -> float:
        began = time.monotonic()
        assert live.ask("served").status == 200
        return (time.monotonic() - began) * 1000

    return [one(n) for n in range(count)]


def test_slow_clients_do_not_slow_down_the_others(live: Gateway, upstream: Upstream) -> None:
    model = unique("flood")
    live.account("anthropic", upstream.url, model, models=[model])
    upstream.answers[model] = after(4, 60.0)
    alone = times(live, 150)
    slow = slow_ones(live.port, model, 60)
    try:
        beside = times(live, 150)
    finally:
        for sock, _ in slow:
            sock.close()
    before, with_them = (statistics.quantiles(found, n=100)[94] for found in (alone, beside))
    bars.report(4, slow=len(slow), p95_alone_ms=before, p95_beside_ms=with_them)
    assert statistics.median(beside) <= statistics.median(alone) * 2 + 10, (
        "10 % on a machine that has nothing else to do"
    )
    assert live.ask("served").status == 200


# ---- cut and broken bodies


@pytest.mark.parametrize("dialect", ["anthropic", "openai"])
@pytest.mark.parametrize("framing", ["content-length: 500", "transfer-encoding: chunked"])
def test_a_client_that_leaves_within_its_body_is_gone_not_wrong(live: Gateway, framing: str, dialect: str) -> None:
    cut = "outcome = 'client_gone' AND model = '' AND dialect = ? AND status = 400"
    before = len(live.rows(cut, dialect))
    with connected(live.port) as sock:
        sock.sendall(head(MESSAGES if dialect == "anthropic" else CHAT, framing) + b'10\r\n{"model":')
    wait_until(lambda: len(live.rows(cut, dialect)) > before)


@pytest.mark.parametrize("chunks", [b"zz\r\n{}\r\n0\r\n\r\n", b"-1\r\n\r\n", b"2\r\n{}XX\r\n0\r\n\r\n", b"1;\x01\r\n"])
@pytest.mark.parametrize("path", [MESSAGES, CHAT])
def test_broken_chunks_are_a_400_with_a_row(live: Gateway, path: str, chunks: bytes) -> None:
    with connected(live.port) as sock:
        sock.sendall(head(path, "transfer-encoding: chunked") + chunks)
        got = answer(to_the_end(sock))
    assert got.status == 400
    assert "HTTP framing" in got.json["error"]["message"]
    row = live.row(got)
    assert (row["status"], row["outcome"]) == (400, "client_error")


# ---- too many at once


def held(live: Gateway, upstream: Upstream, seconds: float) -> str:
    """A model whose answers take a while."""
    model = unique("held")
    live.account("anthropic", upstream.url, model, models=[model])
    upstream.answers[model] = lambda asked: Reply(**{**vars(spoken(asked)), "before": [seconds]})
    return model


def test_what_is_too_much_is_refused_at_once(live: Gateway, upstream: Upstream) -> None:
    model = held(live, upstream, 1.5)
    with ThreadPoolExecutor(MOST) as pool:
        running = [pool.submit(live.ask, model) for _ in range(MOST)]
        wait_until(lambda: len(upstream.of(model)) == MOST)
        took = []
        for _ in range(20):
            began = time.monotonic()
            got = live.ask(model)
            took.append((time.monotonic() - began) * 1000)
        assert got.error == (529, "overloaded_error", "too many requests at once, retry")
        assert got.headers["retry-after"] == "1"
        refused = live.chat(model)
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert live.send("GET", "/healthz").status == 200, "an operator gets through"
        assert {future.result(10).status for future in running} == {200}
    bars.report(15, refused_within_ms=max(took))
    assert statistics.median(took) <= 50
    assert live.row(got)["outcome"] == "gateway_error"
    assert live.ask(model).status == 200


def test_twice_as_much_as_it_can_take_leaves_what_it_can_take(live: Gateway, upstream: Upstream) -> None:
    model = held(live, upstream, 0.5)

    most = MOST / 0.5  # answers a second
    start = time.monotonic() + 0.2

    def ask(n: int) -> tuple[int, float]:
        time.sleep(max(0.0, start + n / (2 * most) - time.monotonic()))
        began = time.monotonic()
        return live.ask(model).status, time.monotonic() - began

    with ThreadPoolExecutor(100) as pool:
        found = list(pool.map(ask, range(400)))
    took = time.monotonic() - start
    good = sum(status == 200 for status, _ in found)
    refusals = [took * 1000 for status, took in found if status == 529]
    goodput = good / ((took - 0.5) * most)  # the first ones need half a second
    bars.report(15, overload="2 x", goodput=goodput, refused_median_ms=statistics.median(refusals))
    assert good + len(refusals) == len(found)
    assert goodput >= 0.5, "90 % on a machine that has nothing else to do, which `make chaos` asks for"


# ---- what would stop the hub


def pauses(live: Gateway) -> list[int]:
    """Of the hub, above 20 ms."""
    time.sleep(0.05)
    return [int(line) for line in (live.folder / "pauses").read_text().split()]


def in_text(text: str) -> bytes:
    return json.dumps(body("served")).replace('"Hi"', text, 1).encode()


LARGE: dict[str, Callable[[], bytes]] = {
    "text": lambda: in_text(f'"{"x" * 31 * MIB}"'),
    "other letters": lambda: in_text(f'"{"é" * 15 * MIB}"'),
    "escapes": lambda: in_text('"' + r"\n" * 15 * MIB + '"'),
    "commas in text": lambda: in_text('"' + "1," * 15 * MIB + '"'),
    "half an emoji": lambda: in_text('"' + "x" * 7 * MIB + r'\ud83d"'),
    "numbers": lambda: in_text("[" + "0," * 15 * MIB + "0]"),
    "lists": lambda: in_text("[" + "[]," * 10 * MIB + "0]"),
    "objects": lambda: in_text("[" + '{"a":{}},' * 3 * MIB + "0]"),
    "names": lambda: in_text("{" + ",".join(f'"k{n}":0' for n in range(2 * MIB)) + "}"),
    "as many values as may be": lambda: in_text("[" + '{"a":0},' * 80_000 + "0]"),
    "no JSON at its end": lambda: in_text(f'"{"x" * 31 * MIB}"')[:-1],
    "no JSON at all": lambda: b"\xff" * 31 * MIB,
}


@pytest.mark.parametrize("kind", LARGE)
def test_no_body_stops_the_hub(live: Gateway, kind: str) -> None:
    sent = LARGE[kind]()
    before = len(pauses(live))
    got = live.post(MESSAGES, sent)
    assert got.status in (200, 400)
    longest = max(pauses(live)[before:], default=20)
    bars.report(13, body=kind, MiB=len(sent) / MIB, longest_pause_ms=longest)
    assert longest < 400, "100 ms on a machine that has nothing else to do"


def test_counting_the_tokens_of_a_megabyte_does_not_stop_the_hub(live: Gateway) -> None:
    before = len(pauses(live))
    words = " ".join(str(n * 7919 % 100_003) for n in range(170_000))
    assert live.post(COUNT, body("served", words[:MIB])).status == 200
    longest = max(pauses(live)[before:], default=20)
    bars.report(13, tokens_of_MiB=1, longest_pause_ms=longest)
    assert longest < 250


def test_signing_in_does_not_stop_the_hub(live: Gateway) -> None:
    before = len(pauses(live))
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda n: live.post("/api/auth/login", {"username": f"u{n}", "password": "no"}), range(10)))
    longest = max(pauses(live)[before:], default=20)
    bars.report(13, logins=10, longest_pause_ms=longest)
    assert longest < 250


def test_nothing_of_this_stands_in_the_log(live: Gateway) -> None:
    assert "Traceback" not in live.output()
    assert KEY not in live.output()
