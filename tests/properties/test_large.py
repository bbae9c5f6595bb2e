"""Whoever holds a key may send 32 MB: the time it takes grows with the size, not faster."""

import time
from typing import Any

import pytest

from opus_api.upstreams import practice
from tests.golden.pipeline import Exchange

MANY = 20_000
USER = {"role": "user", "content": "x"}
USES = [{"type": "tool_use", "id": f"t{n}", "name": "f", "input": {}} for n in range(MANY)]
RESULTS = [{"type": "tool_result", "tool_use_id": f"t{n}", "content": "x"} for n in reversed(range(MANY))]
CALLS = [{"id": f"t{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for n in range(MANY)]
FUNCTION = [
    {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}},
    {"role": "function", "name": "f", "content": "x"},
]

ANTHROPIC: dict[str, list[Any]] = {
    "many calls": [USER, {"role": "assistant", "content": USES}, {"role": "user", "content": RESULTS}],
    "many turns": [USER, {"role": "assistant", "content": "y"}] * MANY,
    "many users": [USER] * MANY,
    "many system messages": [USER, *[{"role": "system", "content": "x" * 100}] * MANY],
    "many reminders": [{"role": "user", "content": "<system-reminder>" * MANY}],
    "many blocks": [{"role": "user", "content": [{"type": "text", "text": "x"}] * MANY}],
}
OPENAI: dict[str, list[Any]] = {
    "many calls": [
        USER,
        {"role": "assistant", "content": None, "tool_calls": CALLS},
        *({"role": "tool", "tool_call_id": f"t{n}", "content": "x"} for n in reversed(range(MANY))),
    ],
    "many turns": [USER, {"role": "assistant", "content": "y"}] * MANY,
    "many system messages": [
        USER,
        *[{"role": "system", "content": "x" * 100}] * MANY,
        {"role": "user", "content": "y"},
    ],
    "many functions": [USER, *(FUNCTION * (MANY // 2))],
}
CASES = [pytest.param("anthropic", messages, id=name) for name, messages in ANTHROPIC.items()]
CASES += [pytest.param("openai", messages, id=f"openai {name}") for name, messages in OPENAI.items()]


@pytest.mark.parametrize("provider", ["anthropic", "openai", "practice"])
@pytest.mark.parametrize("dialect, messages", CASES)
def test_a_large_conversation_takes_time_in_proportion(dialect: str, messages: list[Any], provider: str) -> None:
    options = {"single_system": True} if provider == "openai" else {}
    exchange = Exchange(dialect=dialect, provider=provider, options=options)
    began = time.process_time()
    call = exchange.parse({"model": "claude-haiku-4-5", "max_tokens": 9, "stream": True, "messages": messages})
    request = exchange.request(call)
    if provider == "practice":
        next(iter(practice.reply(request).script))
    assert time.process_time() - began < 2
