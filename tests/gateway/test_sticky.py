"""The turns of a conversation go to one account, whose prompt cache is warm; conversations are still spread."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from tests.fakes.upstream import refusing, spoken
from tests.gateway.conftest import Stage
from tests.live import Answer, wait_until

# how a client tells its conversations apart -> (path, headers, members) of the conversation with this number
Teller = tuple[str, Mapping[str, str], Mapping[str, Any]]
MESSAGES, COMPLETIONS = "/v1/messages", "/v1/chat/completions"


def told(how: str, number: int) -> Teller:
    return {
        "first message": (MESSAGES, {}, {}),
        "first message, OpenAI": (COMPLETIONS, {}, {}),
        "user": (MESSAGES, {}, {"metadata": {"user_id": f"user-{number}"}}),
        "session header": (MESSAGES, {"x-claude-code-session-id": f"session-{number}"}, {}),
        "prompt_cache_key": (COMPLETIONS, {}, {"prompt_cache_key": f"key-{number}"}),
    }[how]


def turn(stage: Stage, model: str, how: str, number: int, turns: int) -> Answer:
    """The turn after ``turns`` answers."""
    path, headers, members = told(how, number)
    begin = "Hi" if how == "user" else f"Hi, I am {number}"
    said = [{"role": "user", "content": begin}]
    for at in range(turns):
        said += [{"role": "assistant", "content": f"Answer {at}"}, {"role": "user", "content": f"Question {at}"}]
    if "session" in how or "key" in how:
        said = said[-1:]  # neither says anything of what was before
    got = stage.gateway.post(path, {"model": model, "max_tokens": 9, "messages": said, **members}, headers)
    assert got.status == 200, got.body
    return got


HOWS = ["first message", "first message, OpenAI", "user", "session header", "prompt_cache_key"]


@pytest.mark.parametrize("how", HOWS)
def test_every_turn_of_a_conversation_goes_where_its_first_went(stage: Stage, kind: str, model: str, how: str) -> None:
    accounts = [stage.account(kind, model) for _ in range(3)]
    who = {account["key"]: number for number, account in enumerate(accounts)}
    served: dict[int, list[int]] = {number: [] for number in range(6)}
    for turns in range(3):
        for number, serving in served.items():
            seen = len(stage.upstream.asked)
            turn(stage, model, how, number, turns)
            serving.append(who[stage.upstream.asked[seen].key])
    assert all(len(set(serving)) == 1 for serving in served.values()), served
    assert Counter(serving[0] for serving in served.values()) == {0: 2, 1: 2, 2: 2}, "first turns are rotated"


def asked(stage: Stage, *accounts: dict[str, Any]) -> list[int]:
    return [len(stage.asked(account)) for account in accounts]


def test_a_detour_does_not_change_where_the_conversation_belongs(stage: Stage, kind: str, model: str) -> None:
    first = stage.account(kind, model, [spoken, refusing(429, retry_after="60"), spoken], priority=2)
    second = stage.account(kind, model, priority=1)
    for turns, expected in ((0, [1, 0]), (1, [2, 1]), (2, [2, 2])):
        turn(stage, model, "first message", 1, turns)
        assert asked(stage, first, second) == expected
    stage.gateway.api("POST", f"/api/cookies/{first['id']}/reset")
    turn(stage, model, "first message", 1, 3)
    assert asked(stage, first, second) == [3, 2], "its cache is still warm"


def test_a_conversation_moves_for_good_when_its_account_can_not_return(stage: Stage, kind: str, model: str) -> None:
    first = stage.account(kind, model, priority=3)
    second, third = (stage.account(kind, model, priority=1) for _ in range(2))
    turn(stage, model, "first message", 1, 0)
    stage.change(first, state="disabled")
    for turns in (1, 2, 3):
        turn(stage, model, "first message", 1, turns)
    assert sorted(asked(stage, second, third)) == [0, 3]
    assert asked(stage, first) == [1]


def test_a_first_turn_is_rotated_whoever_began_alike(stage: Stage, kind: str, model: str) -> None:
    accounts = [stage.account(kind, model) for _ in range(3)]
    for _ in range(6):
        turn(stage, model, "first message", 1, 0)
    assert asked(stage, *accounts) == [2, 2, 2]


def test_it_can_be_switched_off(stage: Stage, model: str) -> None:
    accounts = [stage.account("openai", model) for _ in range(2)]
    stage.gateway.api("PUT", "/v2/settings", {"sticky": False})
    try:
        for turns in range(4):
            turn(stage, model, "session header", 1, turns)
        assert asked(stage, *accounts) == [2, 2]
    finally:
        stage.gateway.api("PUT", "/v2/settings", {"sticky": True})


def test_later_turns_are_counted_by_whether_their_cache_was_warm(stage: Stage, model: str) -> None:
    def counted(cache: str) -> float:
        told = stage.gateway.send("GET", "/metrics", key=None).body.decode()
        found = re.search(rf'^opus_later_turns_total{{cache="{cache}"}} (\S+)$', told, re.M)
        return float(found[1]) if found else 0.0

    stage.account("openai", model)
    before = counted("warm"), counted("cold")
    turn(stage, model, "first message", 0, 0)
    turn(stage, model, "first message", 0, 1)
    turn(stage, model, "first message", 1, 1)  # nobody knows its first turn
    wait_until(lambda: (counted("warm"), counted("cold")) == (before[0] + 1, before[1] + 1))
