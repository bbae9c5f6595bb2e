import json
from typing import Any

import pytest

from opus_api.dialects import openai
from opus_api.wire.messages import unfold
from tests import grammar

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "content": [],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 5, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 2, "output_tokens": 7},
}
TEXT = {"type": "text", "text": "Hi"}
USE = {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}
USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 7,
    "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 0},
}


def rendered(tools: Any = None, **message: Any) -> dict[str, Any]:
    call = openai.parse({**BODY, "tools": tools}, {})
    answer: dict[str, Any] = json.loads(openai.render(call, {**MESSAGE, **message}))
    return answer


def streamed(tools: Any = None, usage: bool = True, **message: Any) -> list[Any]:
    body = {**BODY, "stream": True, "stream_options": {"include_usage": usage}, "tools": tools}
    return grammar.chunks(openai.Encoder(openai.parse(body, {})).encode(unfold({**MESSAGE, **message})))


def test_a_completion_has_every_member() -> None:
    answer = rendered(content=[TEXT, TEXT])
    assert answer.pop("created") > 1_700_000_000
    assert answer == {
        "id": "chatcmpl-msg_1",
        "object": "chat.completion",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "HiHi", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }


PAGE = {"type": "web_search_result_location", "url": "https://x", "title": "X", "cited_text": "x"}


def cited(start: int, end: int) -> dict[str, Any]:
    place = {"start_index": start, "end_index": end, "title": "X", "url": "https://x"}
    return {"type": "url_citation", "url_citation": place}


CONTENT: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "nothing": ([], {"content": None}),
    "thinking": (
        [{"type": "thinking", "thinking": "a", "signature": "s"}, TEXT],
        {"content": "Hi", "reasoning_content": "a"},
    ),
    "hidden thinking": ([{"type": "redacted_thinking", "data": "x"}, TEXT], {"content": "Hi"}),
    "tools": (
        [TEXT, USE, {**USE, "id": "u", "input": {}}],
        {
            "content": "Hi",
            "tool_calls": [
                {"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
                {"id": "u", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            ],
        },
    ),
    "server tools": (
        [
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
            {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
            TEXT,
        ],
        {"content": "Hi"},
    ),
    "pages that were cited": (
        [TEXT, {**TEXT, "citations": [PAGE, {"type": "char_location"}]}, {**TEXT, "citations": [PAGE]}],
        {"content": "HiHiHi", "annotations": [cited(2, 4), cited(4, 6)]},
    ),
}


@pytest.mark.parametrize("content, expected", CONTENT.values(), ids=CONTENT)
def test_blocks_become_members_of_the_message(content: list[Any], expected: dict[str, Any]) -> None:
    message = rendered(content=content)["choices"][0]["message"]
    assert message == {"role": "assistant", "refusal": None, **expected}


@pytest.mark.parametrize("content, expected", CONTENT.values(), ids=CONTENT)
def test_the_stream_says_what_the_completion_says(content: list[Any], expected: dict[str, Any]) -> None:
    said: dict[str, Any] = {"content": ""}
    calls: dict[int, dict[str, Any]] = {}
    for chunk in streamed(content=content)[:-2]:
        delta = chunk["choices"][0]["delta"]
        for name in ("content", "reasoning_content"):
            if name in delta:
                said[name] = said.get(name, "") + delta[name]
        if "annotations" in delta:
            assert said.setdefault("annotations", delta["annotations"]) is delta["annotations"]  # they come once
        for call in delta.get("tool_calls", []):
            known = calls.setdefault(call["index"], {**call, "function": {**call["function"], "arguments": ""}})
            known["function"]["arguments"] += call["function"]["arguments"]
    assert said == {name: value or "" for name, value in expected.items() if name != "tool_calls"}
    assert [{k: v for k, v in call.items() if k != "index"} for call in calls.values()] == expected.get(
        "tool_calls", []
    )


def test_a_stream_has_one_head_a_role_first_and_its_end_last() -> None:
    chunks = streamed(content=[TEXT])
    heads = {tuple(chunk[name] for name in ("id", "object", "created", "model")) for chunk in chunks[:-1]}
    assert len(heads) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-3]["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert (chunks[-2]["choices"], chunks[-2]["usage"], chunks[-1]) == ([], USAGE, "[DONE]")


def test_usage_comes_only_to_those_who_asked() -> None:
    assert not any("usage" in chunk for chunk in streamed(usage=False, content=[TEXT])[:-1])


@pytest.mark.parametrize(
    "input, text",
    [({"input": "free"}, "free"), ({}, "{}"), ({"input": 7}, '{"input":7}'), ({"other": "x"}, '{"other":"x"}')],
)
def test_a_custom_tool_gets_its_free_text_back(input: Any, text: str) -> None:
    tools = [{"type": "custom", "custom": {"name": "f"}}]
    expected = {"id": "t", "type": "custom", "custom": {"name": "f", "input": text}}
    content = [{**USE, "input": input}]
    assert rendered(tools, content=content)["choices"][0]["message"]["tool_calls"] == [expected]
    deltas = [chunk["choices"][0]["delta"] for chunk in streamed(tools, content=content)[:-2]]
    assert [delta["tool_calls"] for delta in deltas if "tool_calls" in delta] == [[{"index": 0, **expected}]]


def test_free_text_that_is_no_json_passes_as_it_is() -> None:
    call = openai.parse({**BODY, "tools": [{"type": "custom", "custom": {"name": "f"}}]}, {})
    events = unfold({**MESSAGE, "content": [USE]})
    events[2]["delta"]["partial_json"] = "*** patch"
    assert '"input":"*** patch"' in openai.Encoder(call).encode(events).decode()
