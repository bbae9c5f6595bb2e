"""The official anthropic SDK against the running gateway, in front of every kind of upstream."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests import sdks
from tests.fakes.formats import INPUT, TEXT
from tests.fakes.upstream import after, refusing
from tests.live import unique, wait_until

from .conftest import Live

Claude = Callable[..., "sdks.anthropic.Anthropic"]

ASK: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOL: Any = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
PIXEL = base64.b64encode(b"\x89PNG pixel").decode()


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_message_is_created(claude: Claude, model: str, kind: str) -> None:
    message = claude().messages.create(model=model, max_tokens=64, messages=ASK)
    assert (message.type, message.role, message.stop_reason) == ("message", "assistant", "end_turn")
    assert message.model == model
    assert text_of(message).startswith("This is practice" if kind == "practice" else "".join(TEXT))
    assert message.usage.output_tokens > 0


@pytest.mark.parametrize("kind, usage", [("anthropic", (12, 2, 3, 7)), ("openai", (12, 2, 3, 7))])
@pytest.mark.parametrize("stream", [False, True])
def test_usage_is_the_upstreams(claude: Claude, model: str, usage: tuple[int, ...], stream: bool) -> None:
    if stream:
        with claude().messages.stream(model=model, max_tokens=64, messages=ASK) as running:
            found = running.get_final_message().usage
    else:
        found = claude().messages.create(model=model, max_tokens=64, messages=ASK).usage
    counted = (found.input_tokens, found.cache_creation_input_tokens, found.cache_read_input_tokens)
    assert (*counted, found.output_tokens) == usage


def test_a_message_is_streamed(claude: Claude, model: str) -> None:
    with claude().messages.stream(model=model, max_tokens=64, messages=ASK) as stream:
        pieces = list(stream.text_stream)
        message = stream.get_final_message()
    assert len(pieces) >= 5
    assert "".join(pieces) == text_of(message)
    assert message.stop_reason == "end_turn"


def test_events_come_in_the_documented_order(claude: Claude, model: str) -> None:
    events = list(claude().messages.create(model=model, max_tokens=64, messages=ASK, stream=True))
    kinds = [event.type for event in events]
    deltas = kinds.count("content_block_delta")
    # The SDK keeps pings to itself.
    middle = ["content_block_start", *["content_block_delta"] * deltas, "content_block_stop"]
    assert kinds == ["message_start", *middle, "message_delta", "message_stop"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_loop_ends_with_the_final_answer(claude: Claude, model: str, kind: str, stream: bool) -> None:
    def turn(messages: list[Any]) -> Any:
        request: dict[str, Any] = {"model": model, "max_tokens": 64, "messages": messages, "tools": [TOOL]}
        if not stream:
            return claude().messages.create(**request)
        with claude().messages.stream(**request) as running:
            return running.get_final_message()

    first = turn(ASK)
    assert first.stop_reason == "tool_use"
    call = first.content[-1]
    assert (call.type, call.name) == ("tool_use", "get_weather")
    assert call.input == ({"city": "practice"} if kind == "practice" else INPUT)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    last = turn([*ASK, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}])
    assert last.stop_reason == "end_turn"
    assert "sunny" in text_of(last)


@pytest.mark.parametrize("stream", [False, True])
def test_thinking_comes_with_a_signature(claude: Claude, model: str, kind: str, stream: bool) -> None:
    request: dict[str, Any] = {"model": model, "max_tokens": 2048, "messages": ASK}
    request["thinking"] = {"type": "enabled", "budget_tokens": 1024}
    if stream:
        with claude().messages.stream(**request) as running:
            message = running.get_final_message()
    else:
        message = claude().messages.create(**request)
    thought, said = message.content
    assert (thought.type, said.type) == ("thinking", "text")
    assert thought.thinking.startswith("This is practice" if kind == "practice" else "Let me think.")
    assert thought.signature == ("c2lnbmVk" if kind == "anthropic" else "opus:unsigned")


@pytest.mark.parametrize("kind", ["anthropic"])
def test_only_signed_thinking_goes_back_to_anthropic(claude: Claude, live: Live, model: str) -> None:
    for signature in ("c2lnbmVk", "opus:unsigned", ""):
        thought: Any = {"type": "thinking", "thinking": "hm", "signature": signature}
        answer: Any = {"role": "assistant", "content": [thought, {"type": "text", "text": "Yes?"}]}
        claude().messages.create(model=model, max_tokens=64, messages=[*ASK, answer, *ASK])
    kept = [[block["type"] for block in asked.json["messages"][1]["content"]] for asked in live.asked(model)]
    assert kept == [["thinking", "text"], ["text"], ["text"]]


@pytest.mark.parametrize("kind", ["anthropic", "openai"])
def test_images_reach_the_upstream_in_its_format(claude: Claude, live: Live, model: str, kind: str) -> None:
    sources: list[dict[str, str]] = [
        {"type": "base64", "media_type": "image/png", "data": PIXEL},
        {"type": "url", "url": "https://example.com/a.png"},
    ]
    blocks: list[Any] = [{"type": "text", "text": "See:"}, *({"type": "image", "source": s} for s in sources)]
    claude().messages.create(model=model, max_tokens=64, messages=[{"role": "user", "content": blocks}])
    seen = live.asked(model)[-1].json["messages"][0]["content"][1:]
    if kind == "anthropic":
        assert [block["source"] for block in seen] == sources
    else:
        urls = [f"data:image/png;base64,{PIXEL}", "https://example.com/a.png"]
        assert [part["image_url"]["url"] for part in seen] == urls


@pytest.mark.parametrize("kind", ["anthropic"])
def test_what_the_sdk_adds_reaches_anthropic(claude: Claude, live: Live, model: str) -> None:
    claude().beta.messages.create(model=model, max_tokens=64, messages=ASK, betas=["context-1m-2025-08-07"])
    asked = live.asked(model)[-1]
    assert asked.headers["anthropic-beta"] == "context-1m-2025-08-07"
    assert asked.headers["anthropic-version"] == "2026-10-21"
    assert asked.headers["user-agent"].startswith("opus-api/")
    assert asked.headers["accept-encoding"] == "identity"
    assert "authorization" not in asked.headers
    assert not any(name.startswith("x-stainless") for name in asked.headers)


def test_tokens_are_counted_without_an_upstream(claude: Claude, live: Live, model: str) -> None:
    few = claude().messages.count_tokens(model=model, messages=[{"role": "user", "content": "Hi"}])
    many = claude().messages.count_tokens(model=model, messages=[{"role": "user", "content": "Hi there " * 100}])
    assert 0 < few.input_tokens < 50 < 150 < many.input_tokens
    assert live.asked(model) == []


def test_the_model_list_is_paged(claude: Claude, live: Live) -> None:
    names = [live.model("anthropic") for _ in range(25)]
    first = claude().models.list(limit=10)
    assert (len(first.data), first.has_more) == (10, True)
    every = [model.id for model in claude().models.list()]  # follows the pages of 20
    assert len(every) == len(set(every))
    assert set(names) <= set(every)
    before = claude().models.list(before_id=every[12], limit=5)
    assert [model.id for model in before.data] == every[7:12]


@pytest.mark.parametrize("kind", ["anthropic", "openai"])
def test_a_model_is_retrieved_by_its_id(claude: Claude, model: str) -> None:
    found = claude().models.retrieve(model)
    assert (found.id, found.type) == (model, "model")
    with pytest.raises(sdks.anthropic.NotFoundError):
        claude().models.retrieve("no/such model")


# ---- errors


def test_refusals_are_raised_as_the_class_of_their_status(claude: Claude, live: Live) -> None:
    live.model("openai")  # with a real account, practice serves no name but its own
    model = live.model("practice")
    cases: list[tuple[dict[str, Any], dict[str, Any], type[sdks.anthropic.APIStatusError]]] = [
        ({"api_key": "sk-nobody"}, {}, sdks.anthropic.AuthenticationError),
        ({}, {"model": "no-such-model"}, sdks.anthropic.NotFoundError),
        ({}, {"max_tokens": -1}, sdks.anthropic.BadRequestError),
        ({}, {"messages": [{"role": "user", "content": "x" * (33 * 2**20)}]}, sdks.anthropic.APIStatusError),
        ({}, {"messages": [{"role": "user", "content": "[[practice:429]]"}]}, sdks.anthropic.RateLimitError),
        ({}, {"messages": [{"role": "user", "content": "[[practice:529]]"}]}, sdks.anthropic.InternalServerError),
    ]
    statuses = []
    for options, changed, expected in cases:
        with pytest.raises(expected) as caught:
            claude(**options).messages.create(**{"model": model, "max_tokens": 64, "messages": ASK, **changed})
        statuses.append(caught.value.status_code)
        assert caught.value.request_id
        assert caught.value.body["error"]["message"]  # type: ignore[index]
    assert statuses == [401, 404, 400, 413, 429, 529]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["anthropic", "openai"])
@pytest.mark.parametrize(
    "status, expected, type_",
    [
        (400, "BadRequestError", "invalid_request_error"),
        (401, "InternalServerError", "overloaded_error"),
        (402, "RateLimitError", "rate_limit_error"),
        (404, "NotFoundError", "not_found_error"),
        (413, "APIStatusError", "request_too_large"),
        (429, "RateLimitError", "rate_limit_error"),
    ],
)
def test_an_upstreams_refusal_has_its_class(
    claude: Claude, live: Live, kind: str, stream: bool, status: int, expected: str, type_: str
) -> None:
    model = live.model(kind, refusing(status, retry_after="30"))
    with pytest.raises(getattr(sdks.anthropic, expected)) as caught:
        claude().messages.create(model=model, max_tokens=64, messages=ASK, stream=stream)
    assert caught.value.body["error"]["type"] == type_  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["anthropic", "openai"])
def test_an_error_after_the_first_text_is_raised_from_the_stream(claude: Claude, live: Live, kind: str) -> None:
    model = live.model(kind, after(5))
    seen = []
    with pytest.raises(sdks.anthropic.APIStatusError) as caught:  # noqa: SIM117
        with claude().messages.stream(model=model, max_tokens=64, messages=ASK) as stream:
            seen.extend(stream.text_stream)
    assert seen
    assert "upstream stream ended early" in str(caught.value)


def test_a_retry_waits_as_long_as_the_gateway_says(claude: Claude, live: Live) -> None:
    name = unique("practice/retried")
    began = time.monotonic()
    with pytest.raises(sdks.anthropic.RateLimitError):
        claude(max_retries=1).messages.create(
            model=name, max_tokens=64, messages=[{"role": "user", "content": "[[practice:429]]"}]
        )
    assert time.monotonic() - began >= 1.0
    wait_until(lambda: len(live.gateway.rows("model = ?", name)) == 2)


def test_what_no_retry_can_heal_is_not_retried(claude: Claude, live: Live) -> None:
    name = unique("sdk-disabled")
    account = live.gateway.account("anthropic", live.upstream.url, models=[name])
    live.gateway.api("PUT", f"/api/cookies/{account['id']}", {"state": "disabled"})
    with pytest.raises(sdks.anthropic.InternalServerError) as caught:
        claude(max_retries=2).messages.create(model=name, max_tokens=64, messages=ASK)
    assert caught.value.status_code == 529
    assert caught.value.response.headers["x-should-retry"] == "false"
    live.gateway.row_of(name)
    assert len(live.gateway.rows("model = ?", name)) == 1
