"""Each part of an Anthropic request, and what Amazon Q gets of it; the rules of its fake are the judge."""

import json
from typing import Any

import pytest
from hypothesis import given

from opus_api.upstreams.amazonq_request import EMPTY, NO_OUTPUT, tool_names
from opus_api.wire.errors import InvalidRequest
from opus_api.wire.request import Call
from tests.fakes.amazonq_rules import problems
from tests.golden.pipeline import Exchange
from tests.properties.given import ANTHROPIC, conversations, mutated

SCHEMA = {"type": "object", "properties": {"cmd": {"type": "string"}}, "required": ["cmd"]}
BASH = {"name": "bash", "description": "Run a command", "input_schema": SCHEMA}
Q_BASH = {"toolSpecification": {"name": "bash", "description": "Run a command", "inputSchema": {"json": SCHEMA}}}
LEAST = {"model": "m", "max_tokens": 100}
LINK = {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}
PIXEL = "iVBORw0KGgo="
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}


def assistant(*content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content[0] if isinstance(content[0], str) else list(content)}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def use(id: str = "toolu_1", name: str = "bash", **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": name, "input": given or {"cmd": "ls"}}


def result(id: str = "toolu_1", content: Any = "a.txt", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id, "content": content, **more}


def asked(*messages: dict[str, Any], dialect: str = "anthropic", **given: Any) -> tuple[Call, dict[str, Any]]:
    """(the call, the whole body that the service gets), checked against all its rules."""
    exchange = Exchange(dialect=dialect, provider="amazonq", model="claude-sonnet-4.5")
    call = exchange.parse({"model": "m", "max_tokens": 100, "messages": list(messages), **given})
    body = json.loads(exchange.request(call).body or b"")
    assert problems(body) == []
    return call, body


def state(*messages: dict[str, Any], **given: Any) -> tuple[list[Any], dict[str, Any]]:
    """(history, current message)"""
    found = asked(*messages, **given)[1]["conversationState"]
    return found["history"], found["currentMessage"]["userInputMessage"]


def refusal(*messages: dict[str, Any], **given: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        asked(*messages, **given)
    return caught.value.message


def test_the_least_request() -> None:
    body = asked(user("Hi"))[1]
    assert len(body["conversationState"].pop("conversationId")) == 36
    assert body == {
        "conversationState": {
            "chatTriggerType": "MANUAL",
            "history": [],
            "currentMessage": {
                "userInputMessage": {
                    "content": "Hi",
                    "origin": "CLI",
                    "userInputMessageContext": {},
                    "modelId": "claude-sonnet-4.5",
                }
            },
        }
    }


def test_the_system_prompt_stands_before_the_first_words_of_the_conversation_on_every_turn() -> None:
    assert state(user("Hi"), system="Be brief.")[1]["content"] == "Be brief.\n\nHi"
    history, current = state(user("Hi"), assistant(use()), user(result()), system=[text("Be"), text("brief.")],
                             tools=[BASH])  # fmt: skip
    assert history[0]["userInputMessage"]["content"] == "Be\n\nbrief.\n\nHi"
    assert current["content"] == ""


def test_a_system_message_in_the_middle_stays_in_its_place() -> None:
    history, current = state(user("a"), assistant("b"), {"role": "system", "content": "c"}, user("d"))
    assert history[0]["userInputMessage"]["content"] == "a"
    assert current["content"] == "<system-reminder>\nc\n</system-reminder>\n\nd"


def test_messages_of_one_role_become_one_and_lose_nothing() -> None:
    history, current = state(
        user("a"), user("b"), assistant("c"), assistant(use()), user(result()), user("d"), tools=[BASH]
    )
    assert history[0]["userInputMessage"]["content"] == "a\n\nb"
    assert history[1]["assistantResponseMessage"]["content"] == "c"
    assert current["content"] == "d"
    assert current["userInputMessageContext"]["toolResults"][0]["toolUseId"] == "toolu_1"


def test_a_conversation_with_tools_round_trips() -> None:
    history, current = state(user("List"), assistant(text("I look."), use()), user(result()), tools=[BASH])
    assert history[1] == {
        "assistantResponseMessage": {
            "content": "I look.",
            "toolUses": [{"toolUseId": "toolu_1", "name": "bash", "input": {"cmd": "ls"}}],
        }
    }
    assert current["userInputMessageContext"] == {
        "toolResults": [{"toolUseId": "toolu_1", "content": [{"text": "a.txt"}], "status": "success"}],
        "tools": [Q_BASH],
    }


def test_history_without_words_gets_a_placeholder() -> None:
    history, _ = state(user("a"), assistant(use()), user(result()), assistant("b"), user("c"), tools=[BASH])
    assert history[1]["assistantResponseMessage"]["content"] == EMPTY
    assert history[2]["userInputMessage"]["content"] == EMPTY


def test_tools_that_only_the_history_knows_are_declared_as_stubs() -> None:
    _, current = state(user("a"), assistant(use(), use("toolu_2", "mcp__git-hub__x")),
                       user(result(), result("toolu_2")))  # fmt: skip
    tools = current["userInputMessageContext"]["tools"]
    assert [tool["toolSpecification"]["name"] for tool in tools] == ["bash", "mcp__git_hub__x"]
    assert tools[0]["toolSpecification"]["inputSchema"] == {"json": {"type": "object"}}
    _, current = state(user("a"), assistant(use("toolu_2", "old")), user(result("toolu_2")), tools=[BASH])
    tools = current["userInputMessageContext"]["tools"]
    assert [tool["toolSpecification"]["name"] for tool in tools] == ["bash", "old"]


def test_tool_choice_none_leaves_only_what_the_history_needs() -> None:
    none = {"tool_choice": {"type": "none"}, "tools": [BASH]}
    assert "tools" not in state(user("a"), **none)[1]["userInputMessageContext"]
    _, current = state(user("a"), assistant(use()), user(result()), **none)
    assert current["userInputMessageContext"]["tools"][0]["toolSpecification"]["description"] == "Tool: bash"


NAMES = [
    ("bash", "bash"),
    ("mcp__git-hub__x", "mcp__git_hub__x"),
    ("7zip", "t_7zip"),
    ("_private", "t__private"),
    ("x" * 64, "x" * 64),
    ("x" * 100, "x" * 47 + "_"),
]


@pytest.mark.parametrize("name, short", NAMES, ids=[name[:12] for name, _ in NAMES])
def test_a_tool_name_comes_in_the_services_alphabet_and_back(name: str, short: str) -> None:
    call, body = asked(user("a"), tools=[{**BASH, "name": name}])
    context = body["conversationState"]["currentMessage"]["userInputMessage"]["userInputMessageContext"]
    sent = context["tools"][0]["toolSpecification"]["name"]
    assert sent.startswith(short)
    assert tool_names(call).long[sent] == name


def test_tool_names_that_would_become_one_stay_two() -> None:
    names = ["a-b", "a_b", "a--b", "a_-b"]
    call, body = asked(user("a"), tools=[{**BASH, "name": name} for name in names])
    context = body["conversationState"]["currentMessage"]["userInputMessage"]["userInputMessageContext"]
    sent = [tool["toolSpecification"]["name"] for tool in context["tools"]]
    assert len(set(sent)) == 4
    assert sent[1] == "a_b"
    assert [tool_names(call).long[name] for name in sent] == names


def test_descriptions_fit_their_limits_and_lose_nothing() -> None:
    long = "word " * 3000
    _, current = state(user("a"), tools=[{**BASH, "description": long}, {**BASH, "name": "b", "description": ""}])
    first, second = (tool["toolSpecification"] for tool in current["userInputMessageContext"]["tools"])
    assert first["description"].startswith(long[:10_000])
    assert long.strip() in current["content"]
    assert second["description"] == "Tool: b"


def test_schemas_lose_what_the_service_refuses_but_no_name_of_the_clients() -> None:
    schema = {
        "$schema": "x",
        "type": "object",
        "additionalProperties": False,
        "required": [],
        "properties": {
            "additionalProperties": {"type": "string", "default": {"properties": {}}},
            "required": {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}},
            "list": {"type": "array", "items": {"type": "object", "$schema": "y", "required": ["a"]}},
        },
    }
    _, current = state(user("a"), tools=[{**BASH, "input_schema": schema}])
    assert current["userInputMessageContext"]["tools"][0]["toolSpecification"]["inputSchema"]["json"] == {
        "type": "object",
        "properties": {
            "additionalProperties": {"type": "string", "default": {"properties": {}}},
            "required": {"type": "object"},
            "list": {"type": "array", "items": {"type": "object", "required": ["a"]}},
        },
    }


def test_results_stand_in_the_order_of_the_calls_once_for_each_with_their_status() -> None:
    calls = assistant(use("toolu_1"), use("toolu_2"), use("toolu_3"))
    answers = user(result("toolu_3", "boom", is_error=True), result("toolu_2", ""), result("toolu_1"))
    _, current = state(user("a"), calls, answers, tools=[BASH])
    assert current["userInputMessageContext"]["toolResults"] == [
        {"toolUseId": "toolu_1", "content": [{"text": "a.txt"}], "status": "success"},
        {"toolUseId": "toolu_2", "content": [{"text": NO_OUTPUT}], "status": "success"},
        {"toolUseId": "toolu_3", "content": [{"text": "boom"}], "status": "error"},
    ]


def test_two_results_of_one_call_become_one() -> None:
    _, current = state(user("a"), assistant(use()), user(result(), result(content="more", is_error=True)), tools=[BASH])
    assert current["userInputMessageContext"]["toolResults"] == [
        {"toolUseId": "toolu_1", "content": [{"text": "a.txt"}, {"text": "more"}], "status": "error"}
    ]


def test_images_stand_beside_the_text_also_those_of_tool_results() -> None:
    _, current = state(user(text("Look"), IMAGE))
    assert current["images"] == [{"format": "png", "source": {"bytes": PIXEL}}]
    assert current["content"] == "Look"
    _, current = state(user("a"), assistant(use()), user(result(content=[text("see"), IMAGE])), tools=[BASH])
    assert len(current["images"]) == 1
    texts = current["userInputMessageContext"]["toolResults"][0]["content"]
    assert texts == [{"text": "see\n[image 1 of this message]"}]


def test_an_image_alone_is_a_message() -> None:
    assert state(user(IMAGE))[1]["content"] == EMPTY


def test_odd_ids_of_tool_calls_become_the_same_good_one_each_time() -> None:
    history, current = state(user("a"), assistant(use("functions.bash:0")), user(result("functions.bash:0")))
    called = history[1]["assistantResponseMessage"]["toolUses"][0]["toolUseId"]
    assert current["userInputMessageContext"]["toolResults"][0]["toolUseId"] == called


def test_documents_and_search_results_become_text() -> None:
    document = {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "D"}}
    hit = {"type": "search_result", "source": "s", "title": "t", "content": [text("found")]}
    call, body = asked(user(document, hit))
    content = body["conversationState"]["currentMessage"]["userInputMessage"]["content"]
    assert content == (
        '<document title="T">\nD\n</document>\n\n<search_result source="s" title="t">\nfound\n</search_result>'
    )
    assert call.warnings == ["citations"]


def test_thinking_of_earlier_turns_is_left_out() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    history, _ = state(user("a"), assistant(thought, text("b")), user("c"))
    assert history[1]["assistantResponseMessage"] == {"content": "b"}


@pytest.mark.parametrize(
    "given, warnings",
    [
        ({"temperature": 0.5}, ["sampling"]),
        ({"top_p": 0.5, "top_k": 3}, ["sampling"]),
        ({"max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024}}, ["thinking"]),
        ({"thinking": {"type": "disabled"}}, []),
        ({"tool_choice": {"type": "any"}, "tools": [BASH]}, ["tool_choice"]),
        ({"tool_choice": {"type": "tool", "name": "bash"}, "tools": [BASH]}, ["tool_choice"]),
        ({"tool_choice": {"type": "auto"}, "tools": [BASH]}, []),
        ({"tools": [BASH, {"type": "web_search_20250305", "name": "web_search"}]}, ["server_tools"]),
        ({"metadata": {"user_id": "u"}, "stop_sequences": ["x"]}, []),
    ],
    ids=str,
)
def test_what_the_service_does_not_know_is_dropped_with_its_warning(given: dict[str, Any], warnings: list[str]) -> None:
    assert asked(user("a"), **given)[0].warnings == warnings


@pytest.mark.parametrize(
    "messages, given, words",
    [
        ([user("a"), assistant("b")], {}, "must end with a user message"),
        ([user("a")], {"output_config": {"format": {"type": "json_schema", "schema": {}}}}, "output_config.format"),
        ([user(LINK)], {}, "messages.0.content.0"),
        ([user({**IMAGE, "source": {**IMAGE["source"], "media_type": "image/tiff"}})], {}, "image/tiff"),
        ([user(*[IMAGE] * 11)], {}, "messages.0.content.10: more than 10 images"),
        ([user(PDF)], {}, "document input is not supported"),
        ([user("a"), assistant(use()), user("b")], {}, "without `tool_result`"),
        ([user("a")], {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0: web_search"),
        ([user("a")], {"mcp_servers": [{}]}, "mcp_servers: needs an Anthropic upstream"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_would_change_the_answer_is_refused_by_name(
    messages: list[Any], given: dict[str, Any], words: str
) -> None:
    assert words in refusal(*messages, **given)


def test_an_openai_request_is_converted_as_well() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "bash", "arguments": '{"cmd":"ls"}'}}
    _, body = asked(
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "List"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "a.txt"},
        dialect="openai",
        tools=[{"type": "function", "function": {"name": "bash", "parameters": SCHEMA}}],
    )
    history = body["conversationState"]["history"]
    assert history[0]["userInputMessage"]["content"] == "Be brief.\n\nList"
    assert history[1]["assistantResponseMessage"]["toolUses"][0]["input"] == {"cmd": "ls"}


def without_format(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "output_config"}


@given(mutated(without_format(ANTHROPIC)) | conversations().map(lambda messages: {**LEAST, "messages": messages}))
def test_whatever_a_client_sends_the_service_takes_or_the_client_is_told(body: dict[str, Any]) -> None:
    exchange = Exchange(provider="amazonq", model="claude-sonnet-4.5")
    try:
        request = exchange.request(exchange.parse(body))
    except InvalidRequest:
        return
    assert problems(json.loads(request.body or b"")) == []
