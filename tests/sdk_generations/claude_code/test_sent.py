"""What the gateway makes of Claude Code's requests, for every kind of upstream."""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.fakes import formats
from tests.fakes.upstream import CUT, Asked, End, Reply, after, refusing, spoken
from tests.live import KEY, Answer
from tests.sdk_generations.claude_code.conftest import Live
from tests.sdk_generations.claude_code.sent import (
    BILLING,
    COUNT_PATH,
    IDENTITY,
    LARGEST,
    NEW,
    OLD,
    PATH,
    VERSIONS,
    again,
    filler,
    headers,
    largest,
    request,
)

SAID = "Hello from the upstream."
KINDS = ["anthropic", "openai", "practice"]

every_version = pytest.mark.parametrize("version", VERSIONS)
every_kind = pytest.mark.parametrize("kind", KINDS)
Body = dict[str, Any]


def send(live: Live, body: Body, version: str = OLD, path: str = PATH) -> Answer:
    return live.gateway.post(path, body, headers(version, KEY), key=None)


def saying(asked: Asked) -> Reply:
    return spoken(asked, text=("Hello", " from the upstream."))


def in_turns(*answers: Callable[[Asked], Reply]) -> Callable[[Asked], Reply]:
    turns = iter(answers)

    def answer(asked: Asked) -> Reply:
        return next(turns)(asked)

    return answer


def calling(name: str, **input: Any) -> Callable[[Asked], Reply]:
    """An upstream that calls a tool, then says what the tool said."""

    def answer(asked: Asked) -> Reply:
        last = [message for message in asked.json["messages"] if message["role"] != "system"][-1]
        if last["role"] == "user" and "tool_result" not in json.dumps(last):
            return spoken(asked, text=("I look.",), tools=(("toolu_1", name, input),))
        return spoken(asked, text=("Seen.",))

    return answer


# ---- the first request


@every_version
@every_kind
def test_the_largest_first_request_is_answered_as_a_stream(live: Live, kind: str, version: str):
    body = largest(live.model(kind, saying), version)
    assert abs(len(json.dumps(body)) - LARGEST) < 100
    answer = send(live, body, version)
    assert answer.status == 200, answer.body
    assert [answer.kinds[0], *answer.kinds[-2:]] == ["message_start", "message_delta", "message_stop"]
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.events[0]["message"]["usage"]["input_tokens"] > 10_000 or kind == "anthropic"


@every_version
def test_anthropic_gets_the_request_as_it_came(live: Live, version: str):
    body = request(live.model("anthropic", saying), version=version)
    sent = headers(version, KEY)
    assert live.gateway.post(PATH, body, sent, key=None).text == SAID
    [asked] = live.asked(body["model"])
    assert asked.json == body
    assert asked.headers["anthropic-beta"] == sent["anthropic-beta"]
    assert asked.headers["anthropic-version"] == sent["anthropic-version"]
    assert KEY not in str(asked.headers)


@every_version
def test_another_upstream_gets_system_messages_where_they_were_and_no_billing_header(live: Live, version: str):
    body = request(live.model("openai", saying), version=version)
    assert send(live, body, version).text == SAID
    [asked] = live.asked(body["model"])
    messages = asked.json["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "system"]
    assert messages[0]["content"] == f"{IDENTITY}\n\n{filler(5591)}"
    assert messages[2]["content"] == filler(6062 if version == OLD else 9040)
    assert BILLING[:26] not in asked.body.decode()
    assert len(asked.json["tools"]) == len(body["tools"])


@every_version
def test_an_upstream_with_one_system_message_gets_the_others_as_reminders(live: Live, version: str):
    body = request(live.model("openai", saying, options={"single_system": True}), version=version)
    assert send(live, body, version).text == SAID
    [asked] = live.asked(body["model"])
    assert [message["role"] for message in asked.json["messages"]] == ["system", "user"]
    assert filler(500) in json.dumps(asked.json["messages"][1])


@every_version
def test_neither_the_device_nor_the_account_of_the_user_reaches_another_upstream(live: Live, version: str):
    body = request(live.model("openai", saying), version=version)
    send(live, body, version)
    [asked] = live.asked(body["model"])
    assert json.loads(body["metadata"]["user_id"])["device_id"] not in asked.body.decode() + str(asked.headers)
    assert not [name for name in asked.headers if name.startswith(("x-claude", "x-stainless", "anthropic-"))]


@every_version
def test_practice_answers_what_the_user_wrote_and_not_the_reminders(live: Live, version: str):
    answer = send(live, request(live.model("practice"), version=version), version)
    assert "You wrote: say hi" in answer.text


# ---- tools


@every_kind
def test_a_tool_loop_comes_to_its_end(live: Live, kind: str):
    body = request(live.model(kind, calling("Bash", command="echo 1")), 'Please use Bash for "echo 1".')
    asked = send(live, body)
    call = next(e["content_block"] for e in asked.events if e.get("content_block", {}).get("type") == "tool_use")
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "1", "is_error": False}
    body["messages"] += [
        {"role": "assistant", "content": [{**call, "input": {"command": "echo 1"}}]},
        {"role": "user", "content": [{**result, "cache_control": {"type": "ephemeral"}}]},
    ]
    ended = send(live, body)
    assert asked.events[-2]["delta"]["stop_reason"] == "tool_use"
    assert ended.events[-2]["delta"]["stop_reason"] == "end_turn"
    assert ended.text == (
        "This is practice: no model was asked. The tool answered: 1" if kind == "practice" else "Seen."
    )


def results(first: Body, second: Body) -> list[Body]:
    """Two calls, and their results in the order in which they were done."""
    calls = [
        {"type": "tool_use", "id": "call_openai-style.1", "name": "Bash", "input": {"command": "sleep 1"}},
        {"type": "tool_use", "id": "toolu_2", "name": "Bash", "input": {"command": "false"}},
    ]
    return [{"role": "assistant", "content": calls}, {"role": "user", "content": [first, second]}]


@every_version
def test_results_in_the_order_of_completion_are_sent_in_the_order_of_the_calls(live: Live, version: str):
    body = request(live.model("openai", saying), version=version)
    body["messages"] += results(
        {"type": "tool_result", "tool_use_id": "toolu_2", "content": "status 1", "is_error": True},
        {"type": "tool_result", "tool_use_id": "call_openai-style.1", "content": "slept", "is_error": False},
    )
    assert send(live, body, version).status == 200
    [asked] = live.asked(body["model"])
    told = [(m["tool_call_id"], m["content"]) for m in asked.json["messages"] if m["role"] == "tool"]
    assert told == [("call_openai-style.1", "slept"), ("toolu_2", "Error: status 1")]


def test_another_upstream_is_told_which_tools_a_search_has_found(live: Live):
    body = request(live.model("openai", saying), version=NEW)
    body["messages"] += [
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "toolu_1", "name": "ToolSearch", "input": {"query": "select:WebFetch"}}
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "content": [{"type": "tool_reference", "tool_name": "WebFetch"}],
                }
            ],
        },
    ]
    assert send(live, body, NEW).status == 200
    [asked] = live.asked(body["model"])
    assert "WebFetch" in next(m["content"] for m in asked.json["messages"] if m["role"] == "tool")


@pytest.mark.parametrize("signature", ["", None])
def test_thinking_that_nobody_signed_is_taken_out_before_anthropic_reads_it(live: Live, signature: str | None):
    body = request(live.model("anthropic", saying))
    unsigned = {"type": "thinking", "thinking": "hm"} | ({} if signature is None else {"signature": signature})
    signed = {"type": "thinking", "thinking": "well", "signature": "c2lnbmVk"}
    text = {"type": "text", "text": "So."}
    turn = {"role": "user", "content": "go on"}
    body["messages"] += [{"role": "assistant", "content": [unsigned, signed, text]}, turn]
    assert send(live, body).text == SAID
    [asked] = live.asked(body["model"])
    assert asked.json["messages"][-2:] == [{"role": "assistant", "content": [signed, text]}, turn]


# ---- when it goes wrong

OVERLOADED = formats.event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
BROKEN: dict[str, bytes | End] = {"anthropic": OVERLOADED, "openai": CUT}


@every_version
@pytest.mark.parametrize("kind", BROKEN)
def test_a_request_is_served_whole_after_its_stream_broke_off(live: Live, kind: str, version: str):
    body = request(live.model(kind, in_turns(after(4, 0.05, BROKEN[kind]), saying)), version=version)
    first = send(live, body, version)
    assert (first.status, first.kinds[-1]) == (200, "error")
    whole = send(live, again(body, version), version)
    assert (whole.status, whole.json["type"], whole.text) == (200, "message", SAID)
    assert live.asked(body["model"])[-1].json["max_tokens"] == 64_000


@pytest.mark.parametrize(
    "words",
    [
        "role 'system' is not supported on this model",  # it tries again without
        "messages.1.role: Input should be 'user' or 'assistant'",
        "prompt is too long: 215432 tokens > 200000 maximum",  # it compacts
        "input length and `max_tokens` exceed context limit: 178902 + 64000 > 200000, decrease input length or"
        " `max_tokens` and try again",  # it asks for less
    ],
)
@pytest.mark.parametrize("kind", ["anthropic", "openai"])
def test_the_words_of_a_refusal_come_through(live: Live, kind: str, words: str):
    answer = send(live, request(live.model(kind, refusing(400, words))))
    assert answer.error == (400, "invalid_request_error", words)


def test_an_overlong_prompt_is_called_so_whatever_the_upstream_calls_it(live: Live):
    words = "This model's maximum context length is 128000 tokens. However, you requested 140000 tokens (76000 in the messages, 64000 in the completion)."  # noqa: E501
    answer = send(live, request(live.model("openai", refusing(400, words))))
    assert answer.error == (400, "invalid_request_error", "prompt is too long: 140000 tokens > 128000 maximum")


@pytest.mark.parametrize("mark, status, retry_after", [("429", 429, "1"), ("529", 529, None)])
def test_a_refusal_for_now_keeps_its_status(live: Live, mark: str, status: int, retry_after: str | None):
    answer = send(live, request(live.model("practice"), f"[[practice:{mark}]]"))
    assert (answer.status, answer.headers.get("retry-after")) == (status, retry_after)


@every_version
def test_an_unknown_model_and_a_wrong_key_are_told_apart(live: Live, version: str):
    unknown = send(live, request("claude-unheard-of", version=version), version)
    assert unknown.error[:2] == (404, "not_found_error")
    wrong = live.gateway.post(PATH, request("claude-unheard-of"), headers(version, "sk-wrong-0123456789"), key=None)
    assert wrong.error == (401, "authentication_error", "invalid x-api-key")


# ---- beside the answers


def test_fifteen_counts_at_once_ask_no_upstream(live: Live):
    model = live.model("anthropic", refusing(500))
    full = request(model)
    parts = [{"model": model, "messages": full["messages"][:1], "tools": [tool]} for tool in full["tools"][:13]]
    parts += [{"model": model, "messages": full["messages"], "system": full["system"], "tools": full["tools"]}]
    parts += [{"model": model, "messages": [{"role": "user", "content": "x"}]}]
    with ThreadPoolExecutor(15) as pool:
        counts = [
            answer.json["input_tokens"] for answer in pool.map(lambda part: send(live, part, path=COUNT_PATH), parts)
        ]
    assert counts[-1] < min(counts[:-1])
    assert counts[-2] == max(counts)
    assert live.asked(model) == []


@pytest.mark.parametrize("path", ["/", "/api/hello"])
def test_the_first_probe_is_answered_without_a_key(live: Live, path: str):
    answer = live.gateway.send("HEAD", path, key=None)
    assert (answer.status < 500, answer.body) == (True, b"")


@every_version
def test_the_list_of_models_comes_without_a_redirect(live: Live, version: str):
    model = live.model("anthropic", saying)
    answer = live.gateway.send("GET", "/v1/models?limit=1000", headers=headers(version, KEY), key=None)
    assert answer.status == 200
    assert model in [entry["id"] for entry in answer.json["data"] if re.search("claude|anthropic", entry["id"])]
    assert answer.json["has_more"] is False
