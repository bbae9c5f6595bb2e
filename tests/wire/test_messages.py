from typing import Any

import pytest

from opus_api.wire.messages import Folder, FoldError, MessageWriter, Usage, counter, fold, unfold
from tests import grammar

START = {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": []}}
TEXT = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
STOP = {"type": "message_stop"}


def delta(index: Any, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def kinds(writer: MessageWriter) -> list[str]:
    return [event["type"] for event in writer.take()]


# ---- the writer


def test_nothing_is_written_before_there_is_content() -> None:
    writer = MessageWriter("m", 10)
    writer.text("")
    writer.tool_json("")
    writer.thinking("")
    assert writer.take() == []
    writer.text("Hi")
    assert kinds(writer) == ["message_start", "ping", "content_block_start", "content_block_delta"]


def test_every_order_of_content_obeys_the_grammar() -> None:
    writer = MessageWriter("m", 10)
    for _ in range(2):
        writer.thinking("a")
        writer.text("b")
        writer.tool("", "f")
        writer.tool_json('{"a":1}')
        writer.tool("id", "g")
    writer.finish("end_turn", Usage(1, 2, 3, 4))
    events = writer.take()
    grammar.check_events(events)
    assert [block["type"] for block in fold(events)["content"]] == ["thinking", "text", "tool_use", "tool_use"] * 2


def test_thinking_is_left_out_when_nobody_asked_for_it() -> None:
    writer = MessageWriter("m", 10, thinking_wanted=False)
    writer.thinking("a")
    assert writer.take() == []


@pytest.mark.parametrize(
    "told, tools, reason",
    [
        ("end_turn", 0, "end_turn"),
        ("end_turn", 1, "tool_use"),
        ("tool_use", 0, "end_turn"),
        ("max_tokens", 1, "max_tokens"),
        ("refusal", 0, "refusal"),
        ("stop_sequence", 0, "stop_sequence"),
        ("stop_sequence", 1, "tool_use"),
    ],
)
def test_tools_that_were_called_decide_the_stop_reason(told: str, tools: int, reason: str) -> None:
    writer = MessageWriter("m", 10)
    for _ in range(tools):
        writer.tool("", "f")
    writer.finish(told, Usage(), "END")
    end = writer.take()[-2]["delta"]
    assert end["stop_reason"] == reason
    assert end["stop_sequence"] == ("END" if reason == "stop_sequence" else None)
    assert ("stop_details" in end) == (reason == "refusal")


# ---- folding


@pytest.mark.parametrize(
    "events, problem",
    [
        ([], "ended early"),
        ([START], "ended early"),
        ([TEXT], "before message_start"),
        ([{"type": "message_delta", "delta": {}}], "before message_start"),
        ([START, delta(0, type="text_delta", text="x")], "block 0 was never started"),
        ([START, TEXT, delta(-1, type="text_delta", text="x")], "block -1"),
        ([START, TEXT, delta(True, type="text_delta", text="x")], "malformed"),
        ([START, TEXT, delta(0, type="text_delta")], "malformed"),
        ([START, TEXT, delta(0, type="text_delta", text=7)], "malformed"),
        ([START, TEXT, delta(0)], "malformed"),
        ([START, {"type": "content_block_stop", "index": 3}], "block 3"),
        ([{"type": "message_start", "message": "m"}], "malformed"),
        ([{"type": "message_start"}], "malformed"),
        ([{}], "malformed"),
        ([START, {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use"}}], "malformed"),
        ([START, {"type": "message_delta", "delta": {"stop_reason": 7}}], "malformed"),
        ([START, {"type": "message_delta", "delta": {}, "usage": "much"}], "malformed"),
    ],
)
def test_events_that_make_no_message_are_refused(events: list[dict[str, Any]], problem: str) -> None:
    with pytest.raises(FoldError, match=problem):
        fold(events)


def test_unknown_events_blocks_and_deltas_pass() -> None:
    block = {"type": "new_block", "data": [1]}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "container": {"id": "c"}}, "usage": None}
    events = [
        START,
        {"type": "new_event"},
        {"type": "content_block_start", "index": 0, "content_block": block},
        delta(0, type="new_delta", x=1),
        {"type": "content_block_stop", "index": 0},
        {**end, "context_management": {"applied_edits": []}},
        STOP,
    ]
    message = fold(events)
    assert message["content"] == [block]
    assert message["container"] == {"id": "c"}
    assert message["context_management"] == {"applied_edits": []}


def test_a_folder_never_changes_the_events() -> None:
    start = {"type": "message_start", "message": {"content": [{"type": "text", "text": "old"}], "usage": None}}
    folder = Folder()
    for event in [start, TEXT, delta(0, type="text_delta", text="x"), STOP]:
        folder.feed(event)
    assert folder.message()["content"] == [{"type": "text", "text": "x"}]
    assert start["message"]["content"] == [{"type": "text", "text": "old"}]
    assert TEXT["content_block"]["text"] == ""  # type: ignore[index]


def test_citations_gather_in_their_block() -> None:
    citations = [delta(0, type="citations_delta", citation={"n": n}) for n in (1, 2)]
    assert fold([START, TEXT, *citations, STOP])["content"][0]["citations"] == [{"n": 1}, {"n": 2}]


def test_usage_of_the_end_overwrites_and_what_it_leaves_out_stays() -> None:
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 9, "cache_read_input_tokens": 3}}}
    end = {"type": "message_delta", "delta": {}, "usage": {"input_tokens": 99, "output_tokens": 5, "speed": None}}
    assert fold([start, end, STOP])["usage"] == {"input_tokens": 99, "cache_read_input_tokens": 3, "output_tokens": 5}


def test_unfolding_and_folding_give_the_message_back() -> None:
    message = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "thinking", "thinking": "a", "signature": "s"},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "text", "text": "Hi"},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}, "caller": {"type": "direct"}},
            {"type": "tool_use", "id": "u", "name": "g", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": Usage(1, 2, 3, 4).as_dict(),
    }
    events = unfold(message)
    grammar.check_events(events)
    assert fold(events) == message


# ---- counters


@pytest.mark.parametrize("value", [None, True, "7", -1, 2**60, float("nan"), float("inf"), [], {}])
def test_what_is_no_counter_is_none(value: Any) -> None:
    assert counter(value) is None
    usage = Usage(input_tokens=7, thinking_tokens=3)
    usage.update({"input_tokens": value, "output_tokens_details": {"thinking_tokens": value}})
    assert (usage.input_tokens, usage.thinking_tokens) == (7, 3)


@pytest.mark.parametrize("details", [None, "x", [], 7])
def test_usage_survives_odd_details(details: Any) -> None:
    Usage().update({"output_tokens_details": details})
