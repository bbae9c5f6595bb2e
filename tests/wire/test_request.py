from typing import Any

import pytest

from opus_api.dialects import anthropic, openai
from opus_api.wire.request import Call

MESSAGES = [{"role": "user", "content": "Hello"}]


def test_conversion_waits_until_it_is_needed_and_happens_once() -> None:
    conversions = []

    def convert(call: Call) -> dict[str, Any]:
        conversions.append(call)
        return {}

    call = Call("openai", "m", False, {}, convert)
    assert conversions == []
    assert call.canonical() is call.canonical()
    assert conversions == [call]


def test_a_warning_is_told_once() -> None:
    call = anthropic.parse({"model": "m", "max_tokens": 1, "messages": MESSAGES}, {})
    call.warn("top_k")
    call.warn("top_k")
    assert call.warnings == ["top_k"]


@pytest.mark.parametrize(
    "thinking, wanted",
    [
        (None, False),
        ({"type": "disabled"}, False),
        ({"type": "enabled", "budget_tokens": 1024}, True),
        ({"type": "adaptive"}, True),
    ],
)
def test_thinking_is_for_anthropic_clients_that_ask(thinking: Any, wanted: bool) -> None:
    body = {"model": "m", "max_tokens": 2000, "messages": MESSAGES, "thinking": thinking}
    assert anthropic.parse(body, {}).thinking_wanted is wanted


def test_openai_clients_always_get_thinking() -> None:
    assert openai.parse({"model": "m", "messages": MESSAGES}, {}).thinking_wanted


def test_a_prompt_can_be_forgotten_while_its_answer_is_written() -> None:
    tools = [{"type": "custom", "custom": {"name": "patch"}}]
    call = openai.parse({"model": "m", "messages": MESSAGES, "tools": tools}, {})
    call.forget_prompt()
    assert "messages" not in call.body
    openai.Encoder(call)  # the answer still knows the custom tools
