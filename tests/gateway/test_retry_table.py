"""The retry table, row by row, over real HTTP: both kinds of upstream, both dialects, streamed and not.

What follows a failure after the first content stands in ``test_failover.py``.
"""

import itertools
from typing import Any

import pytest

from tests.fakes.upstream import (
    CUT,
    RESET,
    Answer,
    Reply,
    after,
    error_first,
    json_error,
    refusing,
    streamed,
)
from tests.gateway.conftest import Stage
from tests.live import unique, wait_until
from tests.processes import free_port

HELLO = "Hello from the upstream."

# what the first account's upstream does -> (its state afterwards, failures counted); the client never sees it
FAULTS: dict[str, tuple[Answer, str, int]] = {
    "401": (refusing(401), "active", 1),
    "403": (refusing(403), "active", 1),
    "402": (refusing(402), "cooling", 0),
    "404": (refusing(404), "active", 0),
    "408": (refusing(408), "active", 1),
    "409": (refusing(409), "active", 1),
    "429": (refusing(429, retry_after="30"), "cooling", 0),
    "429 for credit": (refusing(429, "You exceeded your current quota"), "cooling", 0),
    "500": (refusing(500), "active", 1),
    "502 with a page": (Reply(502, b"<html>Bad gateway</html>", {"content-type": "text/html"}), "active", 1),
    "503": (refusing(503), "active", 1),
    "504": (refusing(504), "active", 1),
    "529": (refusing(529), "active", 0),
    "500 with 3 MB": (Reply(500, b"x" * 3_000_000), "active", 1),
    "a page with 200": (Reply(200, b"<!doctype html><html>", {"content-type": "text/html"}), "active", 1),
    "nothing with 200": (Reply(200, b""), "active", 1),
    "an empty stream": (streamed([]), "active", 1),
    "only comments": (streamed([b": waiting\n\n"] * 3), "active", 1),
    "wrong key with 200": (json_error(401), "active", 1),
    "JSON error with 200": (json_error(500), "active", 1),
    "overloaded with 200": (json_error(529), "active", 0),
    "rate limit with 200": (json_error(429), "cooling", 0),
    "error event first": (error_first(500), "active", 1),
    "overloaded event first": (error_first(529), "active", 0),
    "no JSON": (streamed([b"data: {nonsense\n\n"]), "active", 1),
    "another protocol": (streamed([b'data: {"hello": "world"}\n\n'] * 2), "active", 1),
    "cut before the head": (Reply(before=[CUT]), "active", 1),
    "reset before the head": (Reply(before=[RESET]), "active", 1),
    "cut after the head": (streamed([CUT]), "active", 1),
    "cut before content": (after(1, CUT), "active", 1),
    "ended before content": (after(1), "active", 1),
    "half an event": (streamed([b"event: message_start\ndata: {", CUT]), "active", 1),
    "broken framing": (Reply(200, b"zz\r\nx\r\n", {"transfer-encoding": "chunked"}, framing="raw"), "active", 1),
    "shorter than its length": (Reply(200, b"data: {}", {"content-length": "999"}, framing="close"), "active", 1),
    "a redirect": (Reply(307, b"", {"location": "http://127.0.0.1:1/"}), "active", 1),
    "a line of 17 MB": (streamed([b"data: " + b"x" * 2**20, *[b"x" * 2**20] * 16, b"\n\n"]), "active", 1),
    "429 without its last words": (Reply(429, [b"{", CUT], {"retry-after": "30"}), "cooling", 0),
    "429 in broken gzip": (Reply(429, b"no gzip", {"retry-after": "30", "content-encoding": "gzip"}), "cooling", 0),
    "402 without words": (Reply(402, [CUT]), "cooling", 0),
    "400 without words": (Reply(400, [CUT]), "active", 1),
    "broken gzip": (Reply(200, b"no gzip", {"content-encoding": "gzip"}), "active", 1),
}


# where the first account's upstream is not; nothing of a request can have been received there
def nowhere(stage: Stage) -> dict[str, str]:
    return {
        "no such name": "https://upstream.invalid",
        "nobody listens": f"http://127.0.0.1:{free_port()}",
        "no TLS": stage.upstream.url.replace("http:", "https:"),
    }


WAYS = tuple(itertools.product(("ask", "chat"), (True, False)))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_next_account_answers_and_the_client_sees_nothing(stage: Stage, kind: str, fault: str) -> None:
    """In every way: each has a first account of its own, all have the same second one."""
    answer, state, errors = FAULTS[fault]
    model = unique("failover")
    ways = {f"{model}-{way}-{stream}": (way, stream) for way, stream in WAYS}
    rows = [{"models": [name], "priority": 2} for name in ways]
    *firsts, second = stage.accounts(kind, answer, *rows, {"models": [f"{model}-*"], "priority": 1})
    stage.upstream.answers.pop(second["key"])
    for name, (way, stream) in ways.items():
        answered_by(second, stage, name, way, stream)
    expected = {first["id"]: (state, errors) for first in firsts} | {second["id"]: ("active", 0)}

    def left() -> dict[int, tuple[str, int]]:
        return {
            one["id"]: (one["state"], one["error_count"]) for one in stage.gateway.api("GET", "/api/cookies")["data"]
        }

    wait_until(lambda: expected.items() <= left().items())
    assert [len(stage.asked(first)) for first in firsts] == [1] * len(WAYS)
    assert len(stage.asked(second)) == len(WAYS)


def answered_by(second: dict[str, Any], stage: Stage, model: str, way: str, stream: bool) -> None:
    got = getattr(stage.gateway, way)(model, stream=stream)
    assert (got.status, got.text) == (200, HELLO), (way, stream)
    assert b"error" not in got.body
    stage.leaves(got, attempts=2, account_id=second["id"], outcome="ok", status=200)


@pytest.mark.parametrize("fault", ["no such name", "nobody listens", "no TLS"])
def test_a_server_that_can_not_be_reached_is_passed_over(stage: Stage, kind: str, fault: str, model: str) -> None:
    first = stage.account(kind, model, base_url=nowhere(stage)[fault], priority=2, models=[f"{model}-*"])
    second = stage.account(kind, model, priority=1, models=[f"{model}-*"])
    for way, stream in WAYS:
        stage.gateway.api("POST", f"/api/cookies/{first['id']}/reset")
        answered_by(second, stage, f"{model}-{way}-{stream}", way, stream)
        stage.gateway.until(first, state="active", error_count=1)
    stage.gateway.until(second, state="active", error_count=0)
    assert len(stage.asked(second)) == len(WAYS)


def test_a_model_that_a_server_lacks_is_asked_of_another_server_first(stage: Stage, model: str) -> None:
    lacking = [stage.account("openai", model, refusing(404), priority=3) for _ in range(2)]
    other = stage.account("anthropic", model, priority=1)
    assert stage.gateway.ask(model).text == HELLO
    assert [len(stage.asked(account)) for account in (*lacking, other)] == [1, 0, 1]


def test_every_request_of_this_module_left_its_row(stage: Stage) -> None:
    stage.see_what_was_left()
