"""Amazon Q's event streams, as an Anthropic and an OpenAI client get them, wherever the bytes were cut."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_api.upstreams.stop_sequences import StopSequences
from opus_api.wire.eventstream import encode
from tests import grammar
from tests.golden.pipeline import Answer, Exchange, answer, cut
from tests.properties.given import JSON

SIZES = [1, 3, 7, 64, 0]
THINKING = {"max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024}}
TOOL = {"name": "mcp__git-hub__x", "description": "d", "input_schema": {"type": "object"}}
START = ("initial-response", {"conversationId": "c"})


def event(kind: str, payload: Any) -> bytes:
    headers = [(":message-type", "event"), (":event-type", kind), (":content-type", "application/json")]
    return encode(headers, payload if isinstance(payload, bytes) else json.dumps(payload).encode())


def said(text: str) -> tuple[str, Any]:
    return "assistantResponseEvent", {"content": text, "modelId": "claude-sonnet-4.5"}


def used(id: str = "tooluse_A1", name: str = "mcp__git_hub__x", **more: Any) -> tuple[str, Any]:
    return "toolUseEvent", {"toolUseId": id, "name": name, **more}


def exception(kind: str, **payload: Any) -> bytes:
    return encode([(":message-type", "exception"), (":exception-type", kind)], json.dumps(payload).encode())


def body(*events: tuple[str, Any] | bytes) -> bytes:
    return b"".join(item if isinstance(item, bytes) else event(*item) for item in events)


def answered(data: bytes, size: int = 0, dialect: str = "anthropic", **given: Any) -> Answer:
    exchange = Exchange(dialect=dialect, provider="amazonq", model="claude-sonnet-4.5")
    asked = {"model": "m", "max_tokens": 1000, "stream": True, "messages": [{"role": "user", "content": "Hi"}], **given}
    call = exchange.parse(asked)
    exchange.request(call)
    return answer(exchange, call, cut(data, size))


def spelled(data: bytes, size: int = 0, **given: Any) -> str:
    """What an Anthropic client gets, in the short notation of the wire tests."""
    got = answered(data, size, **given)
    assert got.status == 200, got.body
    return " ".join(map(_short, grammar.events(got.body)))


def _short(event: dict[str, Any]) -> str:
    match event["type"]:
        case "message_start":
            return "MS"
        case "content_block_start":
            block = event["content_block"]
            named = f"({block['id']},{block['name']})" if block["type"] == "tool_use" else ""
            return f"S{event['index']}:{block['type']}{named}"
        case "content_block_delta":
            return f"D{event['index']}:{'|'.join(str(v) for k, v in event['delta'].items() if k != 'type')}"
        case "content_block_stop":
            return f"E{event['index']}"
        case "message_delta":
            usage, delta = event["usage"], event["delta"]
            stop = delta["stop_sequence"]
            words = delta["stop_reason"] + (f":{stop}" if stop else "")
            return f"MD({words},{usage['input_tokens']},{usage['output_tokens']})"
        case "message_stop":
            return "MX"
        case "error":
            return f"ERROR({event['error']['type']}: {event['error']['message']})"
        case other:
            return str(other)


USAGE = ("metadataEvent", {"tokenUsage": {"uncachedInputTokens": 10, "outputTokens": 5, "cacheReadInputTokens": 80}})
TEXT = "MS ping S0:text D0:Hi E0"
CASES: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "text": (body(START, said("Hi")), {}, f"{TEXT} MD(end_turn,10,1) MX"),
    "equal pieces are all kept": (
        body(said("\n"), said("\n")),
        {},
        "MS ping S0:text D0:\n D0:\n E0 MD(end_turn,10,1) MX",
    ),
    "usage is believed": (body(said("Hi"), USAGE), {}, f"{TEXT} MD(end_turn,10,5) MX"),
    "unknown events are for others": (
        body(
            START,
            ("brandNewEvent", {"content": "no"}),
            ("followupPromptEvent", {"followupPrompt": {"content": "no"}}),
            ("supplementaryWebLinksEvent", {"supplementaryWebLinks": []}),
            said("Hi"),
            ("codeReferenceEvent", {"references": []}),
            ("contextUsageEvent", {"contextUsagePercentage": 1.5}),
            ("meteringEvent", {"usage": 0.02, "unit": "credit"}),
        ),
        {},
        f"{TEXT} MD(end_turn,10,1) MX",
    ),
    "code is text": (body(("codeEvent", {"content": "Hi"})), {}, f"{TEXT} MD(end_turn,10,1) MX"),
    "an answer without content": (
        body(START, ("contextUsageEvent", {"contextUsagePercentage": 1.5})),
        {},
        "MS ping MD(end_turn,10,1) MX",
    ),
    "tool call": (
        body(said("Hi"), used(), used(input='{"cmd":'), used(input='"ls"}'), used(stop=True)),
        {"tools": [TOOL]},
        f'{TEXT} S1:tool_use(tooluse_A1,mcp__git-hub__x) D1:{{"cmd": D1:"ls"}} E1 MD(tool_use,10,4) MX',
    ),
    "tool call without input": (
        body(used(), used(stop=True)),
        {},
        "MS ping S0:tool_use(tooluse_A1,mcp__git_hub__x) E0 MD(tool_use,10,1) MX",
    ),
    "whole tool call in one event, its input an object": (
        body(used(input={"a": 1}, stop=True)),
        {},
        'MS ping S0:tool_use(tooluse_A1,mcp__git_hub__x) D0:{"a":1} E0 MD(tool_use,10,2) MX',
    ),
    "three tool calls and text after them": (
        body(
            used("a", "f"), used("a", "f", stop=True), used("b", "f", input="{}"), used("b", "f", stop=True),
            used("c", "g", input="{}", stop=True), said("Hi"),
        ),
        {},
        "MS ping S0:tool_use(a,f) E0 S1:tool_use(b,f) D1:{} E1 S2:tool_use(c,g) D2:{} E2 S3:text D3:Hi E3 "
        "MD(tool_use,10,2) MX",
    ),
    "interleaved tool calls follow each other": (
        body(
            used("a", "f"), used("b", "g"), used("a", "f", input='{"x":'), used("b", "g", input="{}"), said("Hi"),
            used("b", "g", stop=True), used("a", "f", input="1}"), used("a", "f", stop=True),
        ),
        {},
        'MS ping S0:tool_use(a,f) D0:{"x": D0:1} E0 S1:tool_use(b,g) D1:{} E1 S2:text D2:Hi E2 MD(tool_use,10,3) MX',
    ),
    "thinking with its signature": (
        body(
            ("reasoningContentEvent", {"text": "Let"}),
            ("reasoningContentEvent", {"text": " me"}),
            ("reasoningContentEvent", {"signature": "sig"}),
            said("Hi"),
        ),
        THINKING,
        "MS ping S0:thinking D0:Let D0: me D0:sig E0 S1:text D1:Hi E1 MD(end_turn,10,3) MX",
    ),
    "thinking without a signature": (
        body(("reasoningContentEvent", {"text": "Let"}), said("Hi")),
        THINKING,
        "MS ping S0:thinking D0:Let D0:opus:unsigned E0 S1:text D1:Hi E1 MD(end_turn,10,2) MX",
    ),
    "redacted thinking": (
        body(("reasoningContentEvent", {"redactedContent": "eA=="}), said("Hi")),
        THINKING,
        "MS ping S0:redacted_thinking E0 S1:text D1:Hi E1 MD(end_turn,10,1) MX",
    ),
    "thinking that nobody asked for": (
        body(("reasoningContentEvent", {"text": "Let me"}), said("Hi")),
        {},
        f"{TEXT} MD(end_turn,10,3) MX",
    ),
    "a stop sequence over two pieces": (
        body(said("Hi E"), said("ND more"), said("never seen")),
        {"stop_sequences": ["END"]},
        "MS ping S0:text D0:Hi  E0 MD(stop_sequence:END,10,2) MX",
    ),
    "half a stop sequence is text": (
        body(said("Hi E"), said("N")),
        {"stop_sequences": ["END"]},
        "MS ping S0:text D0:Hi  D0:EN E0 MD(end_turn,10,2) MX",
    ),
    "the client's limit": (
        body(said("12345678"), said("9"), said("never seen")),
        {"max_tokens": 2},
        "MS ping S0:text D0:12345678 E0 MD(max_tokens,10,3) MX",
    ),
    "cut inside a message": (
        body(said("Hi"), said("more"))[:-5],
        {},
        "MS ping S0:text D0:Hi ERROR(api_error: upstream stream ended early)",
    ),
    "cut inside a tool call": (
        body(said("Hi"), used(), used(input='{"cmd":')),
        {},
        f'{TEXT} S1:tool_use(tooluse_A1,mcp__git_hub__x) D1:{{"cmd": '
        "ERROR(api_error: upstream stream ended early)",
    ),
    "a tool call whose input is cut off": (
        body(said("Hi"), used(), used(input='{"cmd":'), used(stop=True)),
        {},
        f'{TEXT} S1:tool_use(tooluse_A1,mcp__git_hub__x) D1:{{"cmd": '
        "ERROR(api_error: upstream returned invalid tool arguments)",
    ),
    "a broken checksum": (
        body(said("Hi")) + body(said("more"))[:-1] + b"!",
        {},
        "MS ping S0:text D0:Hi ERROR(api_error: upstream sent a broken event stream: checksum of a message does not "
        "fit)",
    ),
    "invalid JSON": (
        body(said("Hi"), ("assistantResponseEvent", b"{not json")),
        {},
        "MS ping S0:text D0:Hi ERROR(api_error: upstream sent invalid JSON)",
    ),
    "an exception after text": (
        body(said("Hi"), exception("throttlingException", message="slow down")),
        {},
        "MS ping S0:text D0:Hi ERROR(rate_limit_error: slow down)",
    ),
    "the exception that is named error": (
        body(said("Hi"), exception("error", message="oh")),
        {},
        "MS ping S0:text D0:Hi ERROR(api_error: oh)",
    ),
    "an error message": (
        body(said("Hi"), encode([(":message-type", "error"), (":error-code", "x"), (":error-message", "oh")], b"")),
        {},
        "MS ping S0:text D0:Hi ERROR(api_error: oh)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CASES)
def test_an_anthropic_client_gets_the_same_wherever_the_bytes_were_cut(name: str, size: int) -> None:
    data, given, expected = CASES[name]
    assert spelled(data, size, **given) == expected


FAILURES = {
    "nothing": (b"", 502, "api_error", "upstream sent an empty answer"),
    "only the beginning": (body(START), 502, "api_error", "upstream sent an empty answer"),
    "an invalid state": (
        body(START, ("invalidStateEvent", {"reason": "R", "message": "state"})), 502, "api_error", "state",
    ),
    "an exception first": (
        body(START, exception("throttlingException", message="slow down")), 429, "rate_limit_error", "slow down",
    ),
    "JSON with 200": (b'{"__type":"x#ThrottlingException","message":"slow"}', 429, "rate_limit_error", "slow"),
    "a web page": (b"<html>", 502, "api_error", "upstream sent a web page instead of an answer"),
    "a message of 2 MB": (
        body(START, said("x" * 2_000_000)),
        502, "api_error", "upstream sent a broken event stream: a message has an impossible length",
    ),
    "a tool call without a name": (
        body(("toolUseEvent", {"toolUseId": "a"})), 502, "api_error", "upstream sent a tool call without a name",
    ),
}  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FAILURES)
def test_what_fails_before_content_is_an_error_with_its_status(name: str, size: int) -> None:
    data, status, kind, words = FAILURES[name]
    got = answered(data, size)
    assert (got.status, json.loads(got.body)["error"]) == (status, {"type": kind, "message": words})


def test_cached_tokens_are_counted_apart() -> None:
    got = answered(body(said("Hi"), USAGE))
    usage = grammar.events(got.body)[-2]["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == (10, 80, 5)


def test_credits_are_added_up_and_are_no_tokens() -> None:
    exchange = Exchange(provider="amazonq", model="claude-sonnet-4.5")
    call = exchange.parse({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]})
    metered = [
        {"usage": 0.02, "unit": "credit", "unitPlural": "credits"},
        {"usage": 0.03},
        *({"usage": value} for value in (-1, True, "7", None, 1e300)),
        {"usage": 5, "unit": "request"},
    ]
    answer(exchange, call, [body(said("Hi"), *(("meteringEvent", payload) for payload in metered))])
    assert call.credits == pytest.approx(0.05)
    assert call.usage_estimated


def test_an_openai_client_gets_its_own_format() -> None:
    data = body(said("Hi"), used("a", "f", input="{}", stop=True))
    chunks = grammar.chunks(answered(data, dialect="openai").body)
    assert chunks[-2]["choices"] == [] or chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
    whole = json.loads(answered(data, dialect="openai", stream=False).body)["choices"][0]
    assert whole["message"]["content"] == "Hi"
    assert whole["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert whole["finish_reason"] == "tool_calls"


def test_a_client_without_streaming_gets_the_message() -> None:
    data = body(said("Hi"), used("a", "f", input='{"x":1}', stop=True), USAGE)
    message = json.loads(answered(data, stream=False).body)
    assert message["content"] == [
        {"type": "text", "text": "Hi"},
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
    ]
    assert (message["stop_reason"], message["model"]) == ("tool_use", "m")


KINDS = st.sampled_from(
    ["assistantResponseEvent", "toolUseEvent", "reasoningContentEvent", "metadataEvent", "invalidStateEvent", "other"]
)
NAMES = ["content", "toolUseId", "name", "input", "stop", "text", "signature", "tokenUsage", "message"]
ODD = st.one_of(JSON, st.dictionaries(st.sampled_from(NAMES), JSON | st.sampled_from(["a", "{}", True]), max_size=4))


@given(st.lists(st.tuples(KINDS, ODD), max_size=6), st.sampled_from([1, 17, 0]), st.booleans())
def test_whatever_the_service_sends_the_client_gets_a_valid_answer_or_error(
    events: list[tuple[str, Any]], size: int, thinks: bool
) -> None:
    got = answered(body(*events), size, **(THINKING if thinks else {}))
    if got.status != 200:
        assert json.loads(got.body)["type"] == "error"
    elif b"event: error" not in got.body:
        grammar.check(got.body)


@given(st.text("abE", max_size=12), st.lists(st.text("abE", min_size=1, max_size=3), max_size=3), st.integers(1, 4))
def test_stop_sequences_are_found_wherever_the_text_was_cut(text: str, stops: list[str], size: int) -> None:
    whole, pieces = StopSequences(stops), StopSequences(stops)
    once = whole.feed(text) + whole.close()
    piecewise = "".join(pieces.feed(text[i : i + size]) for i in range(0, len(text), size)) + pieces.close()
    assert all(stop not in once for stop in stops)
    assert text.startswith(once)
    assert not pieces.found or text[: len(piecewise) + len(pieces.found)].endswith(pieces.found)
    assert bool(pieces.found) == any(stop in text for stop in stops)
