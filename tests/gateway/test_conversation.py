"""Which conversation a request belongs to: the same on its first turn and on every later one."""

import time
from typing import Any

import pytest

from opus_api.dialects import anthropic, openai
from opus_api.gateway.conversation import Conversation, identify
from opus_api.wire.request import Call

U1, A1, U2 = ({"role": role, "content": text} for role, text in (("user", "Hi"), ("assistant", "Hello"), ("user", "?")))
BLOCK = {"type": "text", "text": "Hi"}
MARKED = {**BLOCK, "cache_control": {"type": "ephemeral"}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 50}}


def call(messages: list[Any], dialect: str = "anthropic", session: str = "", **more: Any) -> Call:
    body = {"model": "m", "max_tokens": 5, "messages": messages, **more}
    made: Call = (anthropic if dialect == "anthropic" else openai).parse(body, {})
    made.session = session
    return made


def known(
    messages: list[Any], dialect: str = "anthropic", session: str = "", owner: str = "1", **more: Any
) -> Conversation:
    return identify(call(messages, dialect, session, **more), owner)


FIRST = known([U1])

# what later turns look like -> the conversation is the one that began with U1
LATER: dict[str, Conversation] = {
    "one answer": known([U1, A1, U2]),
    "many answers": known([U1, A1, U2, A1, U2]),
    "another system prompt": known([U1, A1, U2], system="It is 12:01"),
    "a list of one text": known([{"role": "user", "content": [BLOCK]}, A1, U2]),
    "a cache mark": known([{"role": "user", "content": [MARKED]}, A1, U2]),
    "other tools and settings": known([U1, A1, U2], temperature=1, stream=True),
    "the other dialect": known([U1, A1, U2], "openai"),
    "its system message": known([{"role": "system", "content": "It is 12:01"}, U1, A1, U2], "openai"),
}


@pytest.mark.parametrize("later", LATER.values(), ids=LATER)
def test_a_later_turn_has_the_name_of_the_first(later: Conversation) -> None:
    assert later.name == FIRST.name
    assert FIRST.is_first_turn
    assert not later.is_first_turn


OTHER: dict[str, Conversation] = {
    "it began otherwise": known([{"role": "user", "content": "Ho"}, A1, U2]),
    "it began with two messages": known([U1, U2, A1, U2]),
    "another user of the client": known([U1, A1, U2], metadata={"user_id": "u"}),
    "another API key": known([U1, A1, U2], owner="2"),
    "a session": known([U1, A1, U2], session="s"),
    "an image": known([{"role": "user", "content": [BLOCK, IMAGE]}, A1, U2]),
}


@pytest.mark.parametrize("other", OTHER.values(), ids=OTHER)
def test_other_conversations_have_other_names(other: Conversation) -> None:
    assert other.name != FIRST.name


def test_a_session_id_names_a_conversation_whatever_is_said_in_it() -> None:
    turns = [
        known([U1], session="s"),
        known([U2, A1, U1], session="s"),
        known([U2], session="s", prompt_cache_key="k"),
        known([U1], session="s", metadata={"user_id": "u"}),
    ]
    assert len({turn.name for turn in turns}) == 1
    assert not any(turn.is_first_turn for turn in turns), "what is bound to it is looked up from its first turn on"


def test_without_the_header_the_prompt_cache_key_is_the_session_id() -> None:
    turns = [known([U1], "openai", prompt_cache_key="k"), known([U2, A1, U1], "openai", prompt_cache_key="k")]
    assert len({turn.name for turn in turns}) == 1
    assert turns[0].name != known([U1], "openai", prompt_cache_key="l").name


def test_the_user_tells_apart_who_begins_alike() -> None:
    def of(user: str, *messages: Any) -> str:
        return known(list(messages), metadata={"user_id": user}).name

    assert of("a", U1) == of("a", U1, A1, U2) != of("b", U1)


@pytest.mark.parametrize(
    "more",
    [
        {"metadata": None},
        {"metadata": {"user_id": 7}},
        {"metadata": []},
        {"prompt_cache_key": ["x"]},
        {"prompt_cache_key": ""},
    ],
    ids=str,
)
def test_odd_identities_are_none(more: dict[str, Any]) -> None:
    odd = call([U1])
    odd.body.update(more)
    assert identify(odd, "1").name == FIRST.name


def test_models_have_caches_of_their_own() -> None:
    other = call([U1, A1, U2])
    other.model = "n"
    assert identify(other, "1").name != FIRST.name


def test_long_messages_are_told_apart_and_not_hashed_whole() -> None:
    def long(word: str, at: int) -> Any:
        text = "x" * 20_000_000
        return {"role": "user", "content": text[:at] + word + text[at:]}

    assert known([long("a", 0)]).name != known([long("b", 0)]).name
    assert known([long("a", 20_000_000)]).name != known([long("b", 20_000_000)]).name
    huge = call([long("a", 5)])
    began = time.perf_counter()
    identify(huge, "1")
    assert time.perf_counter() - began < 0.02
