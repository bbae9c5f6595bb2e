"""Each invariant can fail: a ledger in which all is well, and what the oracle says once one thing in it is wrong."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.ledgers import Call, Done, Ledgers, Request
from tests.chaos.oracle import violations

WORDS = "q1.1.0 q1.1.1 q1.1.2 q1.1.3 q1.1.4 q1.1.5 "
REQUEST = Request(
    *("q1", "chaos~q1", "anthropic", "raw", True),
    began=10.0,
    ended=11.0,
    end="complete",
    status=200,
    request_id="req_1",
    text=WORDS,
    output_tokens=7,
)
CALL = Call(1, "q1", 1, "ok", "sk-a", began=10.1, input_tokens=5, output_tokens=7, ended=10.9)
ROW = {
    "request_id": "req_1",
    "model": "chaos~q1",
    "outcome": "ok",
    "attempts": 1,
    "account_id": 3,
    "input_tokens": 5,
    "output_tokens": 7,
}
LIMIT = Call(2, "q2", 1, "limit:2", "sk-a", began=5.0, input_tokens=1, output_tokens=1, retry_after=2, ended=5.1)
REFUSED = replace(REQUEST, tag="q2", model="chaos~q2", request_id="req_2", end="error", text="", began=5.0, ended=5.1)
REFUSED_ROW = {**ROW, "request_id": "req_2", "model": "chaos~q2", "outcome": "upstream_error"}
KILL = Done("kill", 10.5, 10.5)
FINE = Ledgers((REQUEST, REFUSED), (CALL, LIMIT), (ROW, REFUSED_ROW), accounts={"sk-a": 3, "sk-b": 4})


def request(**changes: Any) -> Ledgers:
    return replace(FINE, requests=(replace(REQUEST, **changes), REFUSED))


def call(**changes: Any) -> Ledgers:
    return replace(FINE, calls=(replace(CALL, **changes), LIMIT))


def row(**changes: Any) -> Ledgers:
    return replace(FINE, rows=({**ROW, **changes}, REFUSED_ROW))


# The same account is chosen again after its 429 was known.
EARLY = replace(call(began=6.9), requests=(replace(REQUEST, began=6.0), REFUSED))


def test_a_ledger_in_which_all_is_well_has_no_violation() -> None:
    assert violations(FINE) == []


@pytest.mark.parametrize(
    "ledgers, said",
    [
        (replace(FINE, rows=(REFUSED_ROW,)), "I1 q1: 0 rows"),
        (replace(FINE, rows=(ROW, ROW, REFUSED_ROW)), "I1 q1: 2 rows"),
        (row(request_id="req_9"), "I1 q1: its row has another request id"),
        (replace(FINE, requests=(REQUEST,)), "I1 chaos~q2: a row without a request"),
        (replace(FINE, rows=(ROW, REFUSED_ROW, {**ROW, "request_id": "req_8", "model": ""})), "I1 : a row without"),
        (row(attempts=2), "I2 q1: 2 attempts, 1 calls"),
        (row(account_id=4), "I2 q1: its row names another account than the last call"),
        (request(text=WORDS.replace("q1.1.3", "q1.2.3")), "I3 q1: not the words of one call"),
        (request(text=WORDS.replace("q1.1.3 ", "")), "I3 q1: complete with 5 of 6 words"),
        (request(text=WORDS.replace("q1.1", "q1.2")), "I3 q1: words that no call has said"),
        (request(text=WORDS.replace("q1.1.2", "q1.1.1")), "I3 q1: not the words of one call"),
        (
            replace(call(began=6.9), requests=(replace(REQUEST, began=6.0), REFUSED)),
            "I4 q1: 0.20 s before the end of the cooldown that q2 met",
        ),
        (call(ended=12.1), "I5 q1: the upstream was let go after 1.1 s"),
        (call(ended=None), "I5 q1: the upstream was let go never"),
        (replace(FINE, places_lost=2), "I5 2 places of accounts are still taken"),
        (request(leaked=True), "I6 q1: a secret in the answer"),
        (replace(FINE, secrets_in=("the log",)), "I6 a secret in the log"),
        (request(end="cut", text=""), "I7 q1: cut"),
        (request(end="unended"), "I7 q1: unended"),
        (request(end="hung"), "I7 q1: hung"),
        (request(end="refused"), "I7 q1: refused"),
        (row(input_tokens=6), "I8 q1: the row has (6, 7), the upstream said (5, 7)"),
        (request(output_tokens=8), "I8 q1: the client was told 8, not 7"),
    ],
)
def test_each_invariant_can_fail(ledgers: Ledgers, said: str) -> None:
    assert [sentence for sentence in violations(ledgers) if sentence.startswith(said)]


@pytest.mark.parametrize(
    "excused",
    [
        lambda: call(began=7.1),  # the cooldown is over
        lambda: replace(call(began=6.0), requests=(replace(REQUEST, began=5.0), REFUSED)),  # chosen before that
        lambda: replace(call(began=6.0, account="sk-b"), rows=({**ROW, "account_id": 4}, REFUSED_ROW)),
        lambda: replace(EARLY, done=(Done("stop redis", 4.0, 6.0),)),
        lambda: replace(EARLY, told_after=1.5, done=(Done("hup", 4.0, 4.0),)),  # by the other worker
        lambda: replace(row(outcome="client_gone", attempts=2), requests=(replace(REQUEST, end="left"), REFUSED)),
        lambda: replace(FINE, calls=(CALL,), rows=(ROW, {**REFUSED_ROW, "model": ""})),  # refused with its body unread
        lambda: replace(request(end="dropped", text="", request_id="", ended=10.6), done=(KILL,)),
    ],
)
def test_what_cannot_be_known_is_not_held_against_the_gateway(excused: Callable[[], Ledgers]) -> None:
    assert violations(excused()) == []
