from typing import Any

import pytest

from opus_api.wire.errors import InvalidRequest
from opus_api.wire.turns import check_turns, turns


def call(*ids: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": "f", "input": {}} for id in ids]}


def result(*ids: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id} for id in ids]}


USER = {"role": "user", "content": "Go"}
SYSTEM = {"role": "system", "content": "Mid."}
DONE = {"role": "assistant", "content": "Done."}


def test_neighbours_of_one_role_are_one_turn_and_blocks_keep_their_paths() -> None:
    conversation = turns([USER, {"role": "user", "content": [{"type": "text", "text": "on"}]}, SYSTEM, SYSTEM, DONE])
    assert [turn.role for turn in conversation] == ["user", "system", "system", "assistant"]
    assert [at for at, _ in conversation[0].blocks] == [("messages", 0, "content", 0), ("messages", 1, "content", 0)]


@pytest.mark.parametrize(
    "messages",
    [
        [USER, call("a", "b"), result("b", "a"), DONE],
        [USER, call("a", "b"), result("a"), result("b"), DONE],
        [USER, call("a"), result("a"), SYSTEM, DONE],
        [USER, call("a"), result("a"), call("a"), result("a")],
        [DONE, USER],
    ],
)
def test_calls_that_are_answered_pass(messages: list[dict[str, Any]]) -> None:
    check_turns(turns(messages))


UNANSWERED = (
    "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each `tool_use` block "
    "must have a corresponding `tool_result` block in the next message."
)
MISPLACED = "{}: `{}` blocks can only be in `{}` messages"
IMAGE = {"type": "image", "source": {"type": "url", "url": "https://x"}}
UNEXPECTED = (
    "{}: unexpected `tool_use_id` found in `tool_result` blocks: {}. Each `tool_result` block must have a "
    "corresponding `tool_use` block in the previous message."
)


@pytest.mark.parametrize(
    "messages, message",
    [
        ([USER, call("a", "b")], UNANSWERED.format("a, b")),
        ([USER, call("a", "b"), result("a"), DONE], UNANSWERED.format("b")),
        ([USER, call("a"), USER], UNANSWERED.format("a")),
        ([USER, call("a"), SYSTEM, result("a")], UNANSWERED.format("a")),
        ([USER, call("a"), result("a", "x")], UNEXPECTED.format("messages.2.content.1", "x")),
        ([result("a")], UNEXPECTED.format("messages.0.content.0", "a")),
        ([{**call("a"), "role": "user"}], MISPLACED.format("messages.0.content.0", "tool_use", "assistant")),
        ([USER, {**result("a"), "role": "assistant"}], MISPLACED.format("messages.1.content.0", "tool_result", "user")),
        ([USER, {"role": "system", "content": [IMAGE]}], MISPLACED.format("messages.1.content.0", "image", "user")),
        ([USER, call("a"), result("a"), DONE, result("a")], UNEXPECTED.format("messages.4.content.0", "a")),
    ],
)
def test_what_stands_where_it_may_not_is_refused_in_the_api_s_words(
    messages: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_turns(turns(messages))
    assert caught.value.message == message
