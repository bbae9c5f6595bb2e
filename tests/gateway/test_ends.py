"""How answers end where upstreams and clients do not end as they should."""

import json
import socket
from typing import Any

import psutil
import pytest

from tests.fakes.upstream import FOREVER, Asked, Reply, refused, spoken
from tests.gateway.conftest import Stage
from tests.live import KEY, Gateway, body, unique, wait_until

HELLO = "Hello from the upstream."


def never_hanging_up(asked: Asked) -> Reply:
    """A whole answer, after which the connection stays open and silent."""
    reply = spoken(asked)
    reply.body = [*reply.body, FOREVER]
    return reply


@pytest.mark.parametrize("kind", ["anthropic", "openai"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("dialect", ["anthropic", "openai"])
def test_an_answer_that_is_complete_is_one_although_its_upstream_never_hangs_up(
    stage: Stage, kind: str, dialect: str, stream: bool
) -> None:
    if kind == dialect:
        stream = True  # a whole JSON answer has no last event: there the end of the body is the end
    model = unique("model")
    account = stage.account(kind, model, never_hanging_up)
    got = (stage.gateway.ask if dialect == "anthropic" else stage.gateway.chat)(model, stream=stream)
    assert (got.status, got.text) == (200, HELLO)
    assert b'"error"' not in got.body
    assert len(stage.asked(account)) == 1
    assert stage.gateway.row(got)["outcome"] == "ok"


def waiting(live: Gateway, model: str, more: bytes) -> socket.socket:
    """A client that has asked, and has sent ``more`` although it has no answer yet."""
    sent = json.dumps(body(model, stream=True)).encode()
    head = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\nContent-Length: {len(sent)}\r\n\r\n"
    client = socket.create_connection(("127.0.0.1", live.port))
    client.sendall(head.encode() + sent)
    client.sendall(more)
    return client


@pytest.mark.parametrize(
    "more", [b"\r\n", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["a stray line", "a request"]
)
def test_a_client_that_has_sent_more_is_seen_leaving_all_the_same(stage: Stage, more: bytes) -> None:
    model = unique("model")

    def silent(asked: Asked) -> Reply:
        reply = spoken(asked)
        reply.before = [FOREVER]
        return reply

    account = stage.account("openai", model, silent)
    client = waiting(stage.gateway, model, more)
    asked: Any = wait_until(lambda: stage.asked(account))[0]
    client.close()
    wait_until(lambda: asked.gone_at, 1.0)
    assert stage.gateway.row_of(model)["outcome"] == "client_gone"


def test_a_client_that_left_while_it_queued_costs_no_upstream_call(stage: Stage) -> None:
    model = unique("model")
    account = stage.account("anthropic", model)
    assert stage.gateway.ask(model).status == 200  # a connection is at hand: sending would take no time
    sent = json.dumps(body(model, stream=True)).encode()
    workers = psutil.Process(stage.gateway.process.pid).children()
    for worker in workers:
        worker.suspend()
    with socket.create_connection(("127.0.0.1", stage.gateway.port)) as client:
        head = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\nContent-Length: {len(sent)}\r\n\r\n"
        client.sendall(head.encode() + sent)
    for worker in workers:
        worker.resume()
    rows = wait_until(lambda: len(found := stage.gateway.rows("model = ?", model)) == 2 and found)
    assert [row["outcome"] for row in rows] == ["ok", "client_gone"]
    assert len(stage.asked(account)) == 1


def test_a_refused_credential_is_counted_apart_from_passing_trouble(stage: Stage) -> None:
    model = unique("model")
    statuses = iter([500, 500, 401])

    def failing(asked: Asked) -> Reply:
        return refused(next(statuses, 401), asked)

    account = stage.account("openai", model, failing)
    stage.gateway.ask(model)
    assert stage.gateway.until(account, error_count=3)["state"] == "active"
