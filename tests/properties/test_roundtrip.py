"""A conversation that goes Anthropic -> OpenAI -> Anthropic says the same."""

import json
from typing import Any

from hypothesis import given

from tests.golden.pipeline import Exchange
from tests.properties.given import conversations

TOOLS = [{"name": name, "input_schema": {"type": "object", "properties": {}}} for name in ("f", "g")]


def turns(messages: list[dict[str, Any]]) -> list[tuple[str, str, list[Any], list[Any]]]:
    """Per message: role, text, calls, and results in the order of the calls they answer."""
    told = []
    order: list[str] = []
    for message in messages:
        blocks = message["content"]
        calls = [(b["id"], b["name"], b["input"]) for b in blocks if b["type"] == "tool_use"]
        results = [(b["tool_use_id"], b["content"]) for b in blocks if b["type"] == "tool_result"]
        # Parts stay parts or become one string; either way the words are the same.
        joint = "" if message["role"] == "assistant" else "\n\n"
        text = joint.join(b["text"] for b in blocks if b["type"] == "text")
        told.append((message["role"], text, calls, sorted(results, key=lambda result: order.index(result[0]))))
        order = [id for id, _, _ in calls]
    return told


@given(messages=conversations())
def test_there_and_back_keeps_what_was_said(messages: list[dict[str, Any]]) -> None:
    there = Exchange()
    body = {"model": "m", "max_tokens": 9, "messages": messages, "tools": TOOLS}
    chat = json.loads(there.request(there.parse(body)).body or b"")
    back = Exchange(dialect="openai", provider="anthropic")
    again = json.loads(back.request(back.parse(chat)).body or b"")
    assert turns(again["messages"]) == turns(messages)
    assert again["tools"] == TOOLS
    assert (again["max_tokens"], "system" in again) == (9, False)
