"""What the golden streams leave out: pieces that are not of their type. None may raise anything but Failure."""

import contextlib
import time
from typing import Any

import pytest

from opus_api.upstreams.base import Credentials, Failure
from opus_api.upstreams.chat_stream import ChatDecoder
from opus_api.wire.messages import FoldError, MessageWriter, fold
from tests import grammar

ODD: list[Any] = [None, True, 7, -1, 1.5, "x", "", [], ["x"], [None], [[]], {}, {"x": 1}]


def decoder(think_tags: bool = False) -> ChatDecoder:
    writer = MessageWriter("m", 10)
    return ChatDecoder(writer, {}, [], Credentials(options={"think_tags": think_tags}), mends=True)


def delta(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta}]}


def call(**call: Any) -> dict[str, Any]:
    return delta(tool_calls=[{"index": 0, **call}])


FINISH = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def message(*chunks: Any) -> dict[str, Any]:
    decoding = decoder()
    for chunk in (*chunks, FINISH):
        decoding.chunk(chunk)
    decoding.finish()
    events = decoding._writer.take()
    grammar.check_events(events)
    return fold(events)


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize(
    "place",
    [
        lambda odd: {"choices": odd},
        lambda odd: {"choices": [odd]},
        lambda odd: {"choices": [{"index": odd, "delta": {}}]},
        lambda odd: {"choices": [{"delta": odd}]},
        lambda odd: {"choices": [{"message": odd}]},
        lambda odd: {"choices": [], "usage": odd},
        lambda odd: {"choices": [], "usage": {"prompt_tokens": odd, "prompt_tokens_details": odd}},
        lambda odd: {"choices": [{"delta": {}, "finish_reason": odd}]},
        lambda odd: {"choices": [{"delta": {}, "finish_reason": "stop", "stop_reason": odd}]},
        lambda odd: delta(content=odd),
        lambda odd: delta(content=[odd]),
        lambda odd: delta(content=[{"type": odd, "text": odd}]),
        lambda odd: delta(content=[{"type": "thinking", "thinking": odd}]),
        lambda odd: delta(content=[{"type": "thinking", "thinking": [odd]}]),
        lambda odd: delta(reasoning_content=odd),
        lambda odd: delta(reasoning=odd),
        lambda odd: delta(reasoning_details=odd),
        lambda odd: delta(reasoning_details=[{"text": odd}]),
        lambda odd: delta(refusal=odd),
        lambda odd: delta(tool_calls=odd),
        lambda odd: delta(tool_calls=[odd]),
        lambda odd: delta(tool_calls=[{"index": odd, "id": "a", "function": {"name": "f"}}]),
        lambda odd: call(id=odd, function={"name": "f"}),
        lambda odd: call(id="a", function={"name": "f", "arguments": odd}),
        lambda odd: delta(function_call={"name": "f", "arguments": odd}),
    ],
)
def test_a_piece_of_a_wrong_type_is_no_crash(place: Any, odd: Any) -> None:
    with contextlib.suppress(Failure, FoldError):  # a nameless tool, arguments that are no JSON
        assert message(place(odd))["type"] == "message"


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_a_tool_call_without_a_usable_name_is_a_failure(odd: Any) -> None:
    if isinstance(odd, str) and odd:
        return
    with pytest.raises(Failure, match="without a name"):
        message(call(id="a", function={"name": odd, "arguments": "{}"}))


@pytest.mark.parametrize("chunk", [None, 7, "x", [], [{}]])
def test_a_chunk_that_is_no_object_is_a_failure(chunk: Any) -> None:
    with pytest.raises(Failure, match="upstream sent invalid JSON"):
        decoder().chunk(chunk)


def test_tags_are_looked_for_in_text_only() -> None:
    decoding = decoder(think_tags=True)
    for chunk in (delta(content="<thi"), call(id="a", function={"name": "f", "arguments": "{}"}), FINISH):
        decoding.chunk(chunk)
    decoding.finish()
    content = fold(decoding._writer.take())["content"]
    assert [block["type"] for block in content] == ["text", "tool_use"]
    assert content[0]["text"] == "<thi"


def test_an_unfinished_thought_is_thinking_to_its_end() -> None:
    decoding = decoder(think_tags=True)
    for chunk in (delta(content="<think>a</thin"), FINISH):
        decoding.chunk(chunk)
    decoding.finish()
    assert [block["thinking"] for block in fold(decoding._writer.take())["content"]] == ["a</thin"]


def test_many_pieces_of_interleaved_calls_take_linear_time() -> None:
    began = time.process_time()
    decoding = decoder()
    for index in (0, 1):
        decoding.chunk(delta(tool_calls=[{"index": index, "id": f"call_{index}", "function": {"name": "f"}}]))
    decoding.chunk(delta(tool_calls=[{"index": i, "function": {"arguments": '{"a":["'}} for i in (0, 1)]))
    for _ in range(20_000):
        decoding.chunk(
            delta(tool_calls=[{"index": i, "function": {"arguments": "some text, some text "}} for i in (0, 1)])
        )
    decoding.chunk(delta(tool_calls=[{"index": i, "function": {"arguments": '"]}'}} for i in (0, 1)]))
    decoding.chunk(FINISH)
    decoding.finish()
    content = fold(decoding._writer.take())["content"]
    assert content[0]["input"] == content[1]["input"]
    assert time.process_time() - began < 3
