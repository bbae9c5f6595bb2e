"""What a generation of the anthropic SDK makes of a gateway, as JSON. Arguments: address, key, name of the run."""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import anthropic

URL, KEY, RUN = sys.argv[1:]
KINDS = {"anthropic": "told-claude", "openai": "told-gpt", "practice": "practice/told"}
WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
THINK = {"type": "enabled", "budget_tokens": 1024}


def client(key: str = KEY, retries: int = 0) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=URL, api_key=key, max_retries=retries)


sdk = client()


def ask(model: str, prompt: str = "Hi", **more: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 2000, "messages": [{"role": "user", "content": prompt}], **more}


def told(message: Any) -> dict[str, Any]:
    usage = message.usage
    return {
        "text": "".join(block.text for block in message.content if block.type == "text"),
        "blocks": [block.type for block in message.content],
        "model": message.model,
        "stop": message.stop_reason,
        "usage": [usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens],
    }


def streamed(**body: Any) -> Any:
    with sdk.messages.stream(**body) as stream:
        return stream.get_final_message()


def raw_events(model: str) -> list[str]:
    """The kinds of events, each run of the same kind once; what the SDK does not show (ping) aside."""
    kinds: list[str] = []
    with sdk.messages.create(**ask(model), stream=True) as stream:
        for event in stream:
            if not kinds or kinds[-1] != event.type:
                kinds.append(event.type)
    return kinds


def tool_loop(model: str, say: Callable[..., Any]) -> dict[str, Any]:
    messages: list[Any] = [{"role": "user", "content": 'Use get_weather for "Paris".'}]
    calls, stops = [], []
    while True:
        reply = say(**ask(model, messages=messages, tools=[WEATHER]))
        stops.append(reply.stop_reason)
        asked = [block for block in reply.content if block.type == "tool_use"]
        if not asked:
            return {"calls": calls, "stops": stops, "text": told(reply)["text"]}
        calls += [[block.name, block.input] for block in asked]
        results = [{"type": "tool_result", "tool_use_id": block.id, "content": "It is sunny."} for block in asked]
        messages += [{"role": "assistant", "content": reply.content}, {"role": "user", "content": results}]


def runner(model: str) -> str:
    """The SDK's own tool loop."""

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """Weather of a city"""
        return f"It is sunny in {city}."

    body = ask(model, 'Use get_weather for "Paris".')
    try:
        return told(sdk.beta.messages.tool_runner(**body, tools=[get_weather]).until_done())["text"]
    except anthropic.APIError as raised:
        return str(raised)


def thought(message: Any) -> dict[str, Any]:
    first = message.content[0]
    return {"thinking": first.thinking, "signed": isinstance(first.signature, str), "then": told(message)["text"]}


async def several(model: str) -> list[str]:
    async with anthropic.AsyncAnthropic(base_url=URL, api_key=KEY, max_retries=0) as many:

        async def one() -> str:
            async with many.messages.stream(**ask(model)) as stream:
                return told(await stream.get_final_message())["text"]

        return list(await asyncio.gather(*(one() for _ in range(5))))


def error(call: Callable[[], Any]) -> dict[str, Any]:
    try:
        call()
    except anthropic.APIError as raised:
        inner = (raised.body or {}).get("error", {}) if isinstance(raised.body, dict) else {}
        return {
            "class": type(raised).__name__,
            "status": getattr(raised, "status_code", None),
            "type": inner.get("type"),
            "message": inner.get("message"),
            "request_id": (getattr(raised, "request_id", None) or "").startswith("req_"),
        }
    return {"class": None}


def waiting(call: Callable[[], Any]) -> dict[str, Any]:
    began = time.monotonic()
    return {**error(call), "seconds": time.monotonic() - began}


facts: dict[str, Any] = {
    "version": anthropic.__version__,
    "whole": {kind: told(sdk.messages.create(**ask(model))) for kind, model in KINDS.items()},
    "streamed": {kind: told(streamed(**ask(model))) for kind, model in KINDS.items()},
    "events": {kind: raw_events(model) for kind, model in KINDS.items()},
    "several": asyncio.run(several("told-claude")),
    "tools": {kind: tool_loop(model, sdk.messages.create) for kind, model in KINDS.items()},
    "streamed tools": {kind: tool_loop(model, streamed) for kind, model in KINDS.items()},
    "runner": {kind: runner(model) for kind, model in KINDS.items()},
    "thinking": {kind: thought(sdk.messages.create(**ask(model, thinking=THINK))) for kind, model in KINDS.items()},
    "streamed thinking": {kind: thought(streamed(**ask(model, thinking=THINK))) for kind, model in KINDS.items()},
    "beta": told(sdk.beta.messages.create(**ask(f"beta-{RUN}"), betas=["context-1m-2025-08-07"])),
    "counted": sdk.messages.count_tokens(model="told-claude", messages=ask("told-claude")["messages"]).input_tokens,
    "beta counted": sdk.beta.messages.count_tokens(
        model="told-claude", messages=ask("told-claude")["messages"]
    ).input_tokens,
    "models": [model.id for model in sdk.models.list(limit=2)],
    "model": sdk.models.retrieve("told-claude").id,
    "request id": sdk.messages.create(**ask("told-claude"))._request_id,
    "errors": {
        "wrong key": error(lambda: client("sk-wrong-0123456789").messages.create(**ask("told-claude"))),
        "unknown model": error(lambda: sdk.messages.create(**ask("nobody-knows-it"))),
        "unknown model in the list": error(lambda: sdk.models.retrieve("nobody-knows-it")),
        "wrong value": error(lambda: sdk.messages.create(**ask("told-claude", max_tokens=-1))),
        "too long for the upstream": error(lambda: sdk.messages.create(**ask("long-claude"))),
        "too long for the other upstream": error(lambda: sdk.messages.create(**ask("long-gpt"))),
        "too large": error(lambda: sdk.messages.create(**ask("told-claude", "x" * (33 * 2**20)))),
        "rate": error(lambda: sdk.messages.create(**ask("practice/told", "[[practice:429]]"))),
        "overloaded": error(lambda: sdk.messages.create(**ask("practice/told", "[[practice:529]]"))),
        "overloaded, streaming": error(lambda: streamed(**ask("practice/told", "[[practice:529]]"))),
        "nobody left": error(lambda: sdk.messages.create(**ask("gone-model"))),
    },
    "broken": {
        "cut by practice": error(lambda: streamed(**ask("practice/told", "[[practice:cut]]"))),
        "garbage of practice": error(lambda: streamed(**ask("practice/told", "[[practice:garbage]]"))),
        "cut": error(lambda: streamed(**ask("cut-claude"))),
        "cut, the other upstream": error(lambda: streamed(**ask("cut-gpt"))),
        "overloaded": error(lambda: streamed(**ask("dies-claude"))),
        "overloaded, the other upstream": error(lambda: streamed(**ask("dies-gpt"))),
    },
    "retries": {
        "waited": waiting(lambda: client(retries=1).messages.create(**ask(f"practice/{RUN}", "[[practice:429]]"))),
        "recovered": told(client(retries=1).messages.create(**ask(f"shaky-{RUN}"))),
        "gave up": error(lambda: client(retries=2).messages.create(**ask(f"gone-{RUN}"))),
    },
}
json.dump(facts, sys.stdout)
