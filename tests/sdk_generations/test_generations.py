"""What is true of the gateway for every generation of the official SDKs that its clients may have installed."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.upstream import Upstream
from tests.live import Gateway, wait_until
from tests.sdk_generations.conftest import ANTHROPIC, LOST, OPENAI, RUNS, TOO_LONG

SAID = "Hello from the upstream."
PRACTICE = (
    "This is practice: no model was asked. You wrote: Hi\n"
    "Add an account on the page /cookies and real models answer here."
)
SAYS = {"anthropic": SAID, "openai": SAID, "practice": PRACTICE}
ANSWERS = {
    "anthropic": "It is sunny.",
    "openai": "It is sunny.",
    "practice": "This is practice: no model was asked. The tool answered: It is sunny.",
}
THINKS = {
    "anthropic": "Let me think.",
    "openai": "Let me think.",
    "practice": "This is practice, so there is little to think about.",
}
MODELS = {"anthropic": "told-claude", "openai": "told-gpt", "practice": "practice/told"}
FORMS = ["whole", "streamed"]

every = pytest.mark.parametrize("run", RUNS)
every_anthropic = pytest.mark.parametrize("run", ANTHROPIC)
every_openai = pytest.mark.parametrize("run", OPENAI)
every_kind = pytest.mark.parametrize("kind", MODELS)

Facts = dict[str, Any]


# ---- which


@every
def test_a_run_uses_the_generation_that_it_is_named_after(run: str, facts: Facts):
    pinned = json.loads((Path(__file__).parent / "package.json").read_text())["dependencies"]
    node = {"anthropic-node": pinned["@anthropic-ai/sdk"], "openai-node": pinned["openai"]}
    assert facts["version"].startswith(node.get(run) or run.partition("-")[2] + ".")


# ---- what is said


@pytest.mark.parametrize("form", FORMS)
@every_kind
@every_anthropic
def test_a_message_comes_out_as_it_went_in(facts: Facts, kind: str, form: str):
    usage = [8, 0, 22] if kind == "practice" else [12, 3, 7]
    expected = {"text": SAYS[kind], "blocks": ["text"], "model": MODELS[kind], "stop": "end_turn", "usage": usage}
    assert facts[form][kind] == expected


@pytest.mark.parametrize("form", FORMS)
@every_kind
@every_openai
def test_a_completion_comes_out_as_it_went_in(facts: Facts, kind: str, form: str):
    usage = [8, 22, 30] if kind == "practice" else [17, 7, 24]
    assert facts[form][kind] == {"text": SAYS[kind], "model": MODELS[kind], "stop": "stop", "usage": usage}


@every_kind
@every_anthropic
def test_a_stream_tells_its_events_in_order(facts: Facts, kind: str):
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert facts["events"][kind] == ["message_start", *block, "message_delta", "message_stop"]


@every_kind
@every_openai
def test_chunks_have_one_id_one_end_and_no_usage_that_nobody_asked_for(facts: Facts, kind: str):
    assert facts["without usage"][kind] == {"text": SAYS[kind], "stops": ["stop"], "usage": [], "ids": 1}


@every
def test_five_streams_at_once_do_not_mix(facts: Facts):
    assert facts["several"] == [SAID] * 5


@pytest.mark.parametrize("form", ["tools", "streamed tools"])
@every_kind
@every
def test_a_tool_is_called_and_its_result_is_read(run: str, facts: Facts, kind: str, form: str):
    stops = ["tool_use", "end_turn"] if run in ANTHROPIC else ["tool_calls", "stop"]
    expected = {"calls": [["get_weather", {"city": "Paris"}]], "stops": stops, "text": ANSWERS[kind]}
    assert facts[form][kind] == expected


# The newest SDKs open a thread on the server; told with details.error_code that there are none, they go on without.
@pytest.mark.parametrize("run, kind", [(run, kind) for run in [*ANTHROPIC, "openai-node"] for kind in MODELS])
def test_the_sdks_own_tool_loop_comes_to_its_end(facts: Facts, kind: str):
    ends = {**ANSWERS, "practice": "This is practice: no model was asked. The tool answered: It is sunny in Paris."}
    assert facts["runner"][kind] == ends[kind]


@pytest.mark.parametrize("form", ["thinking", "streamed thinking"])
@every_kind
@every
def test_thinking_comes_apart_from_the_text(run: str, facts: Facts, kind: str, form: str):
    signed = {"signed": True} if run in ANTHROPIC else {}
    assert facts[form][kind] == {"thinking": THINKS[kind], "then": SAYS[kind], **signed}


# ---- around it


@every_anthropic
def test_a_beta_call_reaches_the_upstream_with_its_header(run: str, facts: Facts, upstream: Upstream):
    assert facts["beta"]["text"] == SAID
    [asked] = [asked for asked in upstream.asked if asked.method == "POST" and asked.model == f"beta-{run}"]
    assert "context-1m-2025-08-07" in asked.headers["anthropic-beta"]


@every_anthropic
def test_tokens_are_counted_the_same_by_both_calls(facts: Facts):
    assert facts["counted"] == facts["beta counted"] > 0


@every
def test_every_page_of_the_models_is_read(run: str, facts: Facts, live: Gateway):
    listed = [model["id"] for model in live.send("GET", "/v1/models").json["data"]]
    assert facts["models"] == listed
    assert len(listed) > 4  # pages hold two
    assert facts["model"] in listed


@every
def test_an_answer_carries_its_request_id(facts: Facts, live: Gateway):
    assert live.row(facts["request id"])["outcome"] == "ok"


# ---- errors, each as its own class

# what is done -> (status, type, message), the same for all of one dialect
ANTHROPIC_ERRORS = {
    "wrong key": (401, "authentication_error", "invalid x-api-key"),
    "unknown model": (404, "not_found_error", "model: nobody-knows-it"),
    "unknown model in the list": (404, "not_found_error", "model: nobody-knows-it"),
    "wrong value": (400, "invalid_request_error", "max_tokens: Input should be greater than or equal to 0"),
    "too long for the upstream": (400, "invalid_request_error", TOO_LONG),
    "too long for the other upstream": (400, "invalid_request_error", TOO_LONG),
    "too large": (413, "request_too_large", "Request exceeds the maximum size"),
    "rate": (429, "rate_limit_error", "practice: HTTP 429 rate_limit_error with retry-after: 1"),
    "overloaded": (529, "overloaded_error", "practice: HTTP 529 overloaded_error"),
    "overloaded, streaming": (529, "overloaded_error", "practice: HTTP 529 overloaded_error"),
    "nobody left": (529, "overloaded_error", "no upstream account available"),
}
OPENAI_ERRORS = {
    "wrong key": (401, "invalid_api_key", "invalid x-api-key"),
    "unknown model": (404, "model_not_found", "model: nobody-knows-it"),
    "unknown model in the list": (404, "model_not_found", "model: nobody-knows-it"),
    "wrong value": (400, None, "temperature: Input should be a valid number"),
    "too long for the upstream": (400, "context_length_exceeded", TOO_LONG),
    "too long for the other upstream": (400, "context_length_exceeded", TOO_LONG),
    "too large": (413, "request_too_large", "Request exceeds the maximum size"),
    "rate": (429, "rate_limit_exceeded", "practice: HTTP 429 rate_limit_error with retry-after: 1"),
    "overloaded": (503, "overloaded", "practice: HTTP 529 overloaded_error"),
    "overloaded, streaming": (503, "overloaded", "practice: HTTP 529 overloaded_error"),
    "nobody left": (503, "overloaded", "no upstream account available"),
}
CLASSES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    413: "RequestTooLargeError",
    429: "RateLimitError",
    503: "InternalServerError",
    529: "OverloadedError",
}
# Generations differ here.
OTHER_CLASSES = {
    ("anthropic-2", 413): "ContentTooLargeError",
    ("anthropic-node", 413): "ContentTooLargeError",
    ("openai-2", 413): "APIStatusError",
    ("openai-3", 413): "APIStatusError",
    ("openai-node", 413): "APIError",
}


def class_of(run: str, status: int) -> str:
    return OTHER_CLASSES.get((run, status), CLASSES[status])


@pytest.mark.parametrize("what", ANTHROPIC_ERRORS)
@every_anthropic
def test_an_error_is_raised_as_what_it_is(run: str, facts: Facts, what: str):
    found = facts["errors"][what]
    assert (found["status"], found["type"], found["message"]) == ANTHROPIC_ERRORS[what]
    assert (found["class"], found["request_id"]) == (class_of(run, found["status"]), True)


@pytest.mark.parametrize("what", OPENAI_ERRORS)
@every_openai
def test_an_error_of_a_completion_is_raised_as_what_it_is(run: str, facts: Facts, what: str):
    found = facts["errors"][what]
    assert (found["status"], found["code"], found["message"]) == OPENAI_ERRORS[what]
    assert (found["class"], found["request_id"]) == (class_of(run, found["status"]), True)


BROKEN = {
    "cut by practice": ("api_error", "upstream stream ended early"),
    "garbage of practice": ("api_error", "upstream sent invalid JSON"),
    "cut": ("api_error", "upstream stream ended early"),
    "cut, the other upstream": ("api_error", "upstream stream ended early"),
    "overloaded": ("overloaded_error", "Overloaded"),
    "overloaded, the other upstream": ("api_error", "Overloaded"),
}


@pytest.mark.parametrize("what", BROKEN)
@every_anthropic
def test_a_stream_that_breaks_off_is_no_message(facts: Facts, what: str, run: str):
    found = facts["broken"][what]
    assert (found["type"], found["message"], found["request_id"]) == (*BROKEN[what], True)
    assert found["class"] == ("APIError" if run == "anthropic-node" else "APIStatusError")


@pytest.mark.parametrize("what", BROKEN)
@every_openai
def test_a_completion_that_breaks_off_is_none(facts: Facts, what: str):
    found = facts["broken"][what]
    assert (found["class"], found["type"], found["message"]) == ("APIError", "server_error", BROKEN[what][1])


# ---- trying again


def requests(live: Gateway, model: str, least: int) -> int:
    """How many have come for a model; at least so many will be waited for."""
    return len(wait_until(lambda: (rows := live.rows("model = ?", model)) and len(rows) >= least and rows))


@every
def test_a_retry_waits_as_long_as_it_is_told_to(run: str, facts: Facts, live: Gateway):
    waited = facts["retries"]["waited"]
    assert waited["class"] == "RateLimitError"
    assert 1.0 <= waited["seconds"] < 3.0  # without the header: half a second
    assert requests(live, f"practice/{run}", 2) == 2


@every
def test_a_retry_after_a_fault_succeeds(run: str, facts: Facts, live: Gateway):
    assert facts["retries"]["recovered"]["text"] == SAID
    assert requests(live, f"shaky-{run}", 2) == 2


@every
def test_what_no_retry_can_cure_is_not_tried_again(run: str, facts: Facts, live: Gateway):
    assert facts["retries"]["gave up"]["message"] == "no upstream account available"
    assert requests(live, f"gone-{run}", 1) == 1


# ---- what the newest SDKs look for inside an error


def test_the_details_of_an_upstreams_refusal_come_through(live: Gateway):
    answer = live.ask("lost-claude", thread={"type": "continue", "previous_message_id": "msg_1"})
    assert (answer.status, answer.json["error"]) == (400, LOST)
