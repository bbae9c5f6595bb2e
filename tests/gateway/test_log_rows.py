"""What the log says of answers that did not end as they should: as the client saw them, and what they cost."""

import json
import socket
from typing import Any

import pytest

from opus_api.gateway import tokens
from tests.fakes.upstream import CUT, FOREVER, Asked, Reply, Step, refusing, spoken
from tests.gateway.conftest import Stage
from tests.live import KEY, Answer, body, wait_until

SENTENCES = tuple(f"In chapter {number} the hero walks on, and says little. " for number in range(60))
STORY = "".join(SENTENCES)
PATHS = {"anthropic": "/v1/messages", "openai": "/v1/chat/completions"}


def interrupted(*end: Step) -> Any:
    """A long story whose last words never come."""

    def answer(asked: Asked) -> Reply:
        reply = spoken(asked, text=SENTENCES)
        assert not isinstance(reply.body, bytes)
        reply.body = [*reply.body[: len(reply.body) // 2], *end]
        return reply

    return answer


@pytest.mark.parametrize("dialect", PATHS)
def test_a_status_is_the_one_that_the_client_saw(stage: Stage, kind: str, model: str, dialect: str) -> None:
    stage.account(kind, model, refusing(401))
    got = stage.gateway.post(PATHS[dialect], body(model))
    assert got.status == {"anthropic": 529, "openai": 503}[dialect]
    row = stage.gateway.row(got)
    assert (row["status"], row["outcome"], row["error_type"]) == (got.status, "upstream_error", "overloaded_error")


def about_right(estimated: int, text: str, model: str) -> bool:
    return 0.6 < estimated / tokens.estimate_text(text, model) < 1.6


@pytest.mark.parametrize("dialect", PATHS)
def test_an_answer_that_was_cut_costs_what_was_said(stage: Stage, kind: str, model: str, dialect: str) -> None:
    stage.account(kind, model, interrupted(CUT))
    got = stage.gateway.post(PATHS[dialect], body(model, stream=True))
    assert STORY.startswith(got.text)
    assert len(got.text) > 500
    row = stage.gateway.row(got)
    assert (row["status"], row["outcome"], row["estimated"]) == (200, "upstream_cut", 1)
    assert about_right(row["output_tokens"], got.text, model), (row["output_tokens"], len(got.text))


def leaving(stage: Stage, path: str, model: str, after: bytes) -> bytes:
    """A client that hangs up once it has seen ``after``: what it saw."""
    sent = json.dumps(body(model, stream=True)).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\nContent-Length: {len(sent)}\r\n\r\n"
    seen = b""
    with socket.create_connection(("127.0.0.1", stage.gateway.port), timeout=10) as client:
        client.sendall(head.encode() + sent)
        while after not in seen:
            seen += client.recv(65_536)
    return seen


@pytest.mark.parametrize("dialect", PATHS)
def test_a_client_that_leaves_has_had_what_it_was_sent(stage: Stage, kind: str, model: str, dialect: str) -> None:
    stage.account(kind, model, interrupted(FOREVER))
    seen = leaving(stage, PATHS[dialect], model, b"chapter 20")
    row = stage.gateway.row_of(model)
    assert (row["status"], row["outcome"], row["error_type"], row["estimated"]) == (200, "client_gone", None, 1)
    assert about_right(row["output_tokens"], Answer(200, {"content-type": "text/event-stream"}, seen).text, model)


def test_a_client_that_left_before_there_was_a_status_is_a_499(stage: Stage, kind: str, model: str) -> None:
    account = stage.account(kind, model, Reply(before=[FOREVER]))
    with socket.create_connection(("127.0.0.1", stage.gateway.port)) as client:
        sent = json.dumps(body(model, stream=True)).encode()
        head = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\nContent-Length: {len(sent)}\r\n\r\n"
        client.sendall(head.encode() + sent)
        wait_until(lambda: stage.asked(account))
    row = stage.gateway.row_of(model)
    assert (row["status"], row["outcome"], row["output_tokens"]) == (499, "client_gone", 0)
