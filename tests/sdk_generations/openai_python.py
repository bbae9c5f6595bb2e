"""What a generation of the openai SDK makes of a gateway, as JSON. Arguments: address, key, name of the run."""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import openai

URL, KEY, RUN = sys.argv[1:]
KINDS = {"anthropic": "told-claude", "openai": "told-gpt", "practice": "practice/told"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def client(key: str = KEY, retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(base_url=URL + "/v1", api_key=key, max_retries=retries)


sdk = client()
say = sdk.chat.completions.create


def ask(model: str, prompt: str = "Hi", **more: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 2000, "messages": [{"role": "user", "content": prompt}], **more}


def told(completion: Any) -> dict[str, Any]:
    choice, usage = completion.choices[0], completion.usage
    return {
        "text": choice.message.content,
        "model": completion.model,
        "stop": choice.finish_reason,
        "usage": [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens],
    }


def streamed(**body: Any) -> Any:
    """The completion that the SDK adds up from the chunks."""
    with sdk.chat.completions.stream(**body, stream_options={"include_usage": True}) as stream:
        return stream.get_final_completion()


def chunks(**body: Any) -> list[Any]:
    with say(**body, stream=True) as stream:
        return list(stream)


def without_usage(model: str) -> dict[str, Any]:
    """What a client sees that did not ask for usage."""
    found = chunks(**ask(model))
    return {
        "text": "".join(chunk.choices[0].delta.content or "" for chunk in found),
        "stops": [chunk.choices[0].finish_reason for chunk in found if chunk.choices[0].finish_reason],
        "usage": [chunk.usage for chunk in found if chunk.usage],
        "ids": len({chunk.id for chunk in found}),
    }


def tool_loop(model: str, say: Callable[..., Any]) -> dict[str, Any]:
    messages: list[Any] = [{"role": "user", "content": 'Use get_weather for "Paris".'}]
    calls, stops = [], []
    while True:
        choice = say(**ask(model, messages=messages, tools=[WEATHER])).choices[0]
        stops.append(choice.finish_reason)
        asked = choice.message.tool_calls
        if not asked:
            return {"calls": calls, "stops": stops, "text": choice.message.content}
        calls += [[call.function.name, json.loads(call.function.arguments)] for call in asked]
        messages.append(choice.message.model_dump(exclude_none=True))
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "It is sunny."} for call in asked]


def thought(message: Any) -> dict[str, Any]:
    return {"thinking": message.reasoning_content, "then": message.content}


def streamed_thought(**body: Any) -> dict[str, Any]:
    deltas = [chunk.choices[0].delta for chunk in chunks(**body)]
    return {
        "thinking": "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas),
        "then": "".join(delta.content or "" for delta in deltas),
    }


async def several(model: str) -> list[str]:
    async with openai.AsyncOpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=0) as many:

        async def one() -> str:
            stream = await many.chat.completions.create(**ask(model), stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        return list(await asyncio.gather(*(one() for _ in range(5))))


def error(call: Callable[[], Any]) -> dict[str, Any]:
    try:
        call()
    except openai.APIError as raised:
        inner = raised.body if isinstance(raised.body, dict) else {}
        return {
            "class": type(raised).__name__,
            "status": getattr(raised, "status_code", None),
            "type": inner.get("type"),
            "message": inner.get("message"),
            "code": inner.get("code"),
            "request_id": (getattr(raised, "request_id", None) or "").startswith("req_"),
        }
    return {"class": None}


def waiting(call: Callable[[], Any]) -> dict[str, Any]:
    began = time.monotonic()
    return {**error(call), "seconds": time.monotonic() - began}


facts: dict[str, Any] = {
    "version": openai.__version__,
    "whole": {kind: told(say(**ask(model))) for kind, model in KINDS.items()},
    "streamed": {kind: told(streamed(**ask(model))) for kind, model in KINDS.items()},
    "without usage": {kind: without_usage(model) for kind, model in KINDS.items()},
    "several": asyncio.run(several("told-gpt")),
    "tools": {kind: tool_loop(model, say) for kind, model in KINDS.items()},
    "streamed tools": {kind: tool_loop(model, streamed) for kind, model in KINDS.items()},
    "thinking": {
        kind: thought(say(**ask(model, reasoning_effort="high")).choices[0].message) for kind, model in KINDS.items()
    },
    "streamed thinking": {
        kind: streamed_thought(**ask(model, reasoning_effort="high")) for kind, model in KINDS.items()
    },
    "models": [model.id for model in sdk.models.list()],
    "model": sdk.models.retrieve("told-gpt").id,
    "request id": say(**ask("told-gpt"))._request_id,
    "errors": {
        "wrong key": error(lambda: client("sk-wrong-0123456789").chat.completions.create(**ask("told-gpt"))),
        "unknown model": error(lambda: say(**ask("nobody-knows-it"))),
        "unknown model in the list": error(lambda: sdk.models.retrieve("nobody-knows-it")),
        "wrong value": error(lambda: say(**ask("told-gpt", temperature="hot"))),
        "too long for the upstream": error(lambda: say(**ask("long-gpt"))),
        "too long for the other upstream": error(lambda: say(**ask("long-claude"))),
        "too large": error(lambda: say(**ask("told-gpt", "x" * (33 * 2**20)))),
        "rate": error(lambda: say(**ask("practice/told", "[[practice:429]]"))),
        "overloaded": error(lambda: say(**ask("practice/told", "[[practice:529]]"))),
        "overloaded, streaming": error(lambda: chunks(**ask("practice/told", "[[practice:529]]"))),
        "nobody left": error(lambda: say(**ask("gone-model"))),
    },
    "broken": {
        "cut by practice": error(lambda: chunks(**ask("practice/told", "[[practice:cut]]"))),
        "garbage of practice": error(lambda: chunks(**ask("practice/told", "[[practice:garbage]]"))),
        "cut": error(lambda: chunks(**ask("cut-gpt"))),
        "cut, the other upstream": error(lambda: chunks(**ask("cut-claude"))),
        "overloaded": error(lambda: chunks(**ask("dies-gpt"))),
        "overloaded, the other upstream": error(lambda: chunks(**ask("dies-claude"))),
    },
    "retries": {
        "waited": waiting(
            lambda: client(retries=1).chat.completions.create(**ask(f"practice/{RUN}", "[[practice:429]]"))
        ),
        "recovered": told(client(retries=1).chat.completions.create(**ask(f"shaky-{RUN}"))),
        "gave up": error(lambda: client(retries=2).chat.completions.create(**ask(f"gone-{RUN}"))),
    },
}
json.dump(facts, sys.stdout)
