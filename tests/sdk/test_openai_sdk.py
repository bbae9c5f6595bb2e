"""The official openai SDK against the running gateway, in front of every kind of upstream."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests import sdks
from tests.fakes.formats import INPUT, TEXT
from tests.fakes.upstream import after, refusing

from .conftest import Live

Gpt = Callable[..., "sdks.openai.OpenAI"]

ASK: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def test_a_completion_is_created(gpt: Gpt, model: str, kind: str) -> None:
    completion = gpt().chat.completions.create(model=model, messages=ASK)
    assert completion.object == "chat.completion"
    (choice,) = completion.choices
    assert choice.finish_reason == "stop"
    assert choice.message.content
    assert choice.message.content.startswith("This is practice" if kind == "practice" else "".join(TEXT))
    assert completion.usage
    assert completion.usage.completion_tokens > 0


@pytest.mark.parametrize("kind", ["anthropic", "openai"])
@pytest.mark.parametrize("stream", [False, True])
def test_usage_is_the_upstreams(gpt: Gpt, model: str, stream: bool) -> None:
    if stream:
        options: Any = {"stream": True, "stream_options": {"include_usage": True}}
        *_, last = gpt().chat.completions.create(model=model, messages=ASK, **options)
        assert last.choices == []
        usage = last.usage
    else:
        usage = gpt().chat.completions.create(model=model, messages=ASK).usage
    assert usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (17, 7, 24)
    assert usage.prompt_tokens_details
    assert usage.prompt_tokens_details.cached_tokens == 3


def test_a_completion_is_streamed(gpt: Gpt, model: str) -> None:
    chunks = list(gpt().chat.completions.create(model=model, messages=ASK, stream=True))
    assert all(chunk.choices for chunk in chunks), "the usage chunk comes only when it is asked for"
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert len(pieces) >= 5
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_stream_helper_accumulates_the_same(gpt: Gpt, model: str) -> None:
    whole = gpt().chat.completions.create(model=model, messages=ASK).choices[0].message.content
    with gpt().chat.completions.stream(model=model, messages=ASK) as stream:
        assert stream.get_final_completion().choices[0].message.content == whole


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_loop_ends_with_the_final_answer(gpt: Gpt, model: str, kind: str, stream: bool) -> None:
    def turn(messages: list[Any]) -> Any:
        if not stream:
            return gpt().chat.completions.create(model=model, messages=messages, tools=[TOOL]).choices[0]
        with gpt().chat.completions.stream(model=model, messages=messages, tools=[TOOL]) as running:
            return running.get_final_completion().choices[0]

    first = turn(ASK)
    assert first.finish_reason == "tool_calls"
    (call,) = first.message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == ({"city": "practice"} if kind == "practice" else INPUT)
    called = {"role": "assistant", "content": first.message.content, "tool_calls": [call.to_dict()]}
    last = turn([*ASK, called, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}])
    assert last.finish_reason == "stop"
    assert "sunny" in last.message.content


@pytest.mark.parametrize("stream", [False, True])
def test_thinking_comes_as_reasoning_content(gpt: Gpt, model: str, kind: str, stream: bool) -> None:
    request: dict[str, Any] = {"model": model, "messages": ASK, "reasoning_effort": "low"}
    if stream:
        chunks = gpt().chat.completions.create(**request, stream=True)
        deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
        thought = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    else:
        thought = gpt().chat.completions.create(**request).choices[0].message.reasoning_content
    assert thought.startswith("This is practice" if kind == "practice" else "Let me think.")


@pytest.mark.parametrize("kind", ["anthropic", "openai"])
def test_images_reach_the_upstream_in_its_format(gpt: Gpt, live: Live, model: str, kind: str) -> None:
    urls = ["data:image/png;base64,AAAA", "https://example.com/a.png"]
    parts: list[Any] = [{"type": "text", "text": "See:"}]
    parts += [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    gpt().chat.completions.create(model=model, messages=[{"role": "user", "content": parts}])
    seen = live.asked(model)[-1].json["messages"][0]["content"][1:]
    if kind == "openai":
        assert [part["image_url"]["url"] for part in seen] == urls
    else:
        sources = [
            {"type": "base64", "media_type": "image/png", "data": "AAAA"},
            {"type": "url", "url": "https://example.com/a.png"},
        ]
        assert [block["source"] for block in seen] == sources


def test_models_are_listed_at_once_and_retrieved(gpt: Gpt, live: Live) -> None:
    names = [live.model("openai") for _ in range(25)]
    listed = gpt().models.list().data
    assert set(names) <= {model.id for model in listed}
    found = gpt().models.retrieve(names[0])
    assert (found.id, found.object, found.owned_by) == (names[0], "model", "openai")
    with pytest.raises(sdks.openai.NotFoundError):
        gpt().models.retrieve("no/such model")


# ---- errors


def test_refusals_are_raised_as_the_class_of_their_status(gpt: Gpt, live: Live) -> None:
    live.model("openai")  # with a real account, practice serves no name but its own
    model = live.model("practice")
    cases: list[tuple[dict[str, Any], dict[str, Any], type[sdks.openai.APIStatusError]]] = [
        ({"api_key": "sk-nobody"}, {}, sdks.openai.AuthenticationError),
        ({}, {"model": "no-such-model"}, sdks.openai.NotFoundError),
        ({}, {"max_tokens": 0}, sdks.openai.BadRequestError),
        ({}, {"messages": [{"role": "user", "content": "x" * (33 * 2**20)}]}, sdks.openai.APIStatusError),
        ({}, {"messages": [{"role": "user", "content": "[[practice:429]]"}]}, sdks.openai.RateLimitError),
        ({}, {"messages": [{"role": "user", "content": "[[practice:529]]"}]}, sdks.openai.InternalServerError),
    ]
    statuses = []
    for options, changed, expected in cases:
        with pytest.raises(expected) as caught:
            gpt(**options).chat.completions.create(**{"model": model, "messages": ASK, **changed})
        statuses.append(caught.value.status_code)
        assert caught.value.request_id
        assert caught.value.body["message"]  # type: ignore[index]
    assert statuses == [401, 404, 400, 413, 429, 503]


@pytest.mark.parametrize("kind", ["anthropic", "openai"])
@pytest.mark.parametrize(
    "status, expected",
    [
        (400, "BadRequestError"),
        (401, "InternalServerError"),
        (402, "RateLimitError"),
        (404, "NotFoundError"),
        (429, "RateLimitError"),
    ],
)
def test_an_upstreams_refusal_has_its_class(gpt: Gpt, live: Live, kind: str, status: int, expected: str) -> None:
    model = live.model(kind, refusing(status, retry_after="30"))
    with pytest.raises(getattr(sdks.openai, expected)):
        gpt().chat.completions.create(model=model, messages=ASK)


@pytest.mark.parametrize("kind", ["anthropic", "openai"])
def test_an_error_after_the_first_text_is_raised_from_the_stream(gpt: Gpt, live: Live, kind: str) -> None:
    model = live.model(kind, after(5))
    seen = []
    with pytest.raises(sdks.openai.APIError, match="upstream stream ended early"):  # noqa: PT012
        for chunk in gpt().chat.completions.create(model=model, messages=ASK, stream=True):
            seen.append(chunk.choices[0].delta.content)
    assert any(seen)
