"""Both official SDKs talk with tools through the gateway, Amazon Q behind a TLS proxy for its names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import sdks
from tests.fakes.amazonq import AmazonQ
from tests.live import KEY, Gateway, gateway, unique, wait_until

MODEL = "claude-sonnet-4.5"
NAME = "mcp__git-hub__list-files"  # outside of the service's alphabet
SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
ASK = "Use the tool, please."
SAYING: list[Any] = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def service() -> Iterator[AmazonQ]:
    service = AmazonQ()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def running(service: AmazonQ, migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    proxy, trusted = service.behind_proxy(tmp_path_factory.mktemp("tls"))
    with gateway(migrated, HTTPS_PROXY=proxy.url, UPSTREAM_CA_BUNDLE=str(trusted)) as found:
        sign_in(found, service)
        yield found
    proxy.stop()


def sign_in(running: Gateway, service: AmazonQ) -> dict[str, Any]:
    """As a newcomer does it, through the API."""
    flow = running.api("POST", "/v2/accounts/oidc/start", {"name": unique("q"), "region": "us-east-1"})
    service.approve(flow["user_code"])

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = running.api("GET", f"/v2/accounts/oidc/{flow['flow_id']}")
        return found if found["status"] == "complete" else None

    account: dict[str, Any] = wait_until(look, 10.0)["account"]
    return account


@pytest.fixture
def claude(running: Gateway) -> Iterator[sdks.anthropic.Anthropic]:
    with sdks.anthropic.Anthropic(base_url=running.url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def gpt(running: Gateway) -> Iterator[sdks.openai.OpenAI]:
    with sdks.openai.OpenAI(base_url=f"{running.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_the_anthropic_sdk_streams_a_conversation_with_tools(claude: sdks.anthropic.Anthropic) -> None:
    messages: list[Any] = [{"role": "user", "content": ASK}]
    tools: list[Any] = [{"name": NAME, "description": "Lists files", "input_schema": SCHEMA}]
    settled: dict[str, Any] = {"model": MODEL, "max_tokens": 500, "system": "Be brief.", "tools": tools}
    with claude.messages.stream(messages=messages, **settled) as stream:
        pieces = list(stream.text_stream)
        first = stream.get_final_message()
    assert len(pieces) > 3
    assert "你好 😀" in "".join(pieces)
    assert first.stop_reason == "tool_use"
    used: Any = first.content[-1]
    assert (used.name, used.input) == (NAME, {"path": "practice"})
    result = {"type": "tool_result", "tool_use_id": used.id, "content": "a.txt"}
    messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    with claude.messages.stream(messages=messages, **settled) as stream:
        second = stream.get_final_message()
    assert second.stop_reason == "end_turn"
    assert second.content[0].text == "The tool said: a.txt"  # type: ignore[union-attr]
    assert (second.usage.input_tokens, second.usage.output_tokens) == (20, 7)


def test_the_openai_sdk_streams_a_conversation_with_tools(gpt: sdks.openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ASK}]
    tools: list[Any] = [{"type": "function", "function": {"name": NAME, "description": "d", "parameters": SCHEMA}}]
    with gpt.chat.completions.stream(model=MODEL, messages=messages, tools=tools) as stream:
        for _ in stream:
            pass
        first = stream.get_final_completion().choices[0]
    assert first.finish_reason == "tool_calls"
    (call,) = first.message.tool_calls or ()
    assert (call.function.name, json.loads(call.function.arguments)) == (NAME, {"path": "practice"})
    function = {"name": call.function.name, "arguments": call.function.arguments}
    called = [{"id": call.id, "type": "function", "function": function}]
    spoken = {"role": "assistant", "content": first.message.content, "tool_calls": called}
    messages += [spoken, {"role": "tool", "tool_call_id": call.id, "content": "a.txt"}]
    with gpt.chat.completions.stream(model=MODEL, messages=messages, tools=tools) as stream:
        for _ in stream:
            pass
        second = stream.get_final_completion().choices[0]
    assert (second.finish_reason, second.message.content) == ("stop", "The tool said: a.txt")


def test_an_expired_bearer_is_renewed_once_and_the_client_sees_nothing_of_it(
    running: Gateway, service: AmazonQ
) -> None:
    service.refreshed.clear()
    service.expire()
    answer = running.ask(MODEL)
    assert (answer.status, len(service.refreshed)) == (200, 1)
    assert running.row(answer)["attempts"] == 2  # requests that were sent
    (account,) = running.api("GET", "/api/cookies")["data"]
    assert (account["state"], account["error_count"]) == ("active", 0)


def test_what_an_answer_cost_is_added_to_its_account(running: Gateway) -> None:
    def cost() -> float:
        running.row(running.ask(MODEL))  # once its row is stored, its cost is
        (account,) = running.api("GET", "/api/cookies")["data"]
        used: float = account["oidc"]["credits"]
        return used

    assert cost() == pytest.approx(cost() - 0.02)


def test_the_signed_in_account_is_told_whose_answer_it_was(running: Gateway) -> None:
    answer = running.ask(f"amazonq/{MODEL}", temperature=0.5)
    assert answer.headers["opus-provider"] == "amazonq"
    assert answer.headers["opus-warnings"] == "sampling"


@pytest.mark.parametrize(
    "model, status, words",
    [
        ("fake-malformed", 400, "Improperly formed request."),
        ("fake-too-long", 400, "prompt is too long"),
        ("fake-no-model", 404, "model: "),
    ],
)
def test_refusals_reach_the_client_with_their_status(running: Gateway, model: str, status: int, words: str) -> None:
    answer = running.ask(f"amazonq/{model}")
    assert answer.status == status
    assert words in answer.error[2]


@pytest.mark.parametrize("model", ["fake-exception", "fake-error", "fake-cut", "fake-checksum", "fake-half-tool"])
def test_what_breaks_after_text_ends_in_an_error_event(running: Gateway, model: str) -> None:
    running.api("POST", "/v2/accounts/reset")  # the one before may have cooled the account
    answer = running.ask(f"amazonq/{model}", stream=True)
    assert answer.status == 200
    assert answer.kinds[-1] == "error"
    assert "message_stop" not in answer.kinds


def test_a_suspended_account_is_taken_out_and_another_answers(running: Gateway, service: AmazonQ) -> None:
    first = running.api("GET", "/api/cookies")["data"][0]
    other = sign_in(running, service)
    running.api("PUT", f"/api/cookies/{first['id']}", {"priority": 5})
    running.api("POST", "/v2/accounts/reset")
    service.suspended.add(service.sessions[0].access_token)
    try:
        assert running.ask(MODEL).status == 200
        shown = running.until(first, state="invalid")
        assert shown["state_reason"] == "suspended"
        assert running.shown(other)["state"] == "active"
    finally:
        service.suspended.clear()
        running.api("POST", "/v2/accounts/reset")


def test_a_client_that_leaves_a_silent_answer_is_seen(running: Gateway, claude: sdks.anthropic.Anthropic) -> None:
    with claude.messages.stream(model="amazonq/fake-silent", max_tokens=500, messages=SAYING) as stream:
        assert next(iter(stream.text_stream))
    (row,) = wait_until(lambda: running.api("GET", "/v2/logs?model=amazonq/fake-silent")["data"], 10.0)
    assert (row["outcome"], row["provider"]) == ("client_gone", "amazonq")
