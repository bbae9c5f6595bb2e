import base64
from typing import Any

import pytest

from opus_api.dialects import openai
from opus_api.wire.errors import InvalidRequest
from opus_api.wire.request import Call

Body = dict[str, Any]


def system(text: Any, role: str = "system") -> Body:
    return {"role": role, "content": text}


def user(content: Any) -> Body:
    return {"role": "user", "content": content}


def assistant(content: Any = None, *calls: str, **more: Any) -> Body:
    functions = [{"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}} for id in calls]
    return {"role": "assistant", "content": content, **({"tool_calls": functions} if calls else {}), **more}


def tool(id: str, content: Any = "ok") -> Body:
    return {"role": "tool", "tool_call_id": id, "content": content}


def call_of(*messages: Body) -> Call:
    return openai.parse({"model": "m", "messages": list(messages)}, {})


def text(*texts: str) -> list[Body]:
    return [{"type": "text", "text": text} for text in texts]


def use(id: str) -> Body:
    return {"type": "tool_use", "id": id, "name": "f", "input": {}}


def result(id: str, content: Any = "ok") -> Body:
    return {"type": "tool_result", "tool_use_id": id, "content": content}


HELLO = user("Hello")
A_HELLO = user(text("Hello"))

CONVERSATIONS: dict[str, tuple[list[Body], str | None, list[Body]]] = {
    "leading system and developer": (
        [system("a"), system([{"type": "text", "text": "b"}], "developer"), system(""), HELLO],
        "a\n\nb",
        [A_HELLO],
    ),
    "system at the end stays": ([HELLO, system("mid")], None, [A_HELLO, system("mid")]),
    "system before an assistant stays": (
        [HELLO, system("a"), system("b"), assistant("x"), HELLO],
        None,
        [A_HELLO, system("a"), system("b"), {"role": "assistant", "content": text("x")}, A_HELLO],
    ),
    "system after an assistant goes up": (
        [system("top"), HELLO, assistant("x"), system("mid"), HELLO],
        "top\n\nmid",
        [A_HELLO, {"role": "assistant", "content": text("x")}, A_HELLO],
    ),
    "system between users goes up and they become one": (
        [HELLO, system("mid"), HELLO],
        "mid",
        [user(text("Hello", "Hello"))],
    ),
    "system between tool results goes up": (
        [HELLO, assistant(None, "a", "b"), tool("a"), system("mid"), tool("b")],
        "mid",
        [A_HELLO, {"role": "assistant", "content": [use("a"), use("b")]}, user([result("a"), result("b")])],
    ),
    "tool results come before the rest": (
        [HELLO, assistant("x", "a"), user("wait"), tool("a")],
        None,
        [A_HELLO, {"role": "assistant", "content": [*text("x"), use("a")]}, user([result("a"), *text("wait")])],
    ),
    "blank text is left out": (
        [user([{"type": "text", "text": " "}, {"type": "text", "text": "Hello"}]), assistant(""), user("\n")],
        None,
        [A_HELLO],
    ),
    "neighbours are one": (
        [HELLO, HELLO, assistant("x"), assistant("y")],
        None,
        [user(text("Hello", "Hello")), {"role": "assistant", "content": text("x", "y")}],
    ),
    "assistant parts and refusals": (
        [
            HELLO,
            assistant([{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}]),
            HELLO,
            assistant(None, refusal="no"),
        ],
        None,
        [A_HELLO, {"role": "assistant", "content": text("ab")}, A_HELLO, {"role": "assistant", "content": text("no")}],
    ),
    "reasoning is unsigned and left out": (
        [HELLO, assistant("x", reasoning_content="secret")],
        None,
        [A_HELLO, {"role": "assistant", "content": text("x")}],
    ),
    "parts in a tool result": (
        [
            HELLO,
            assistant(None, "a"),
            tool("a", [{"type": "text", "text": "t"}, {"type": "image_url", "image_url": {"url": "https://x/i.png"}}]),
        ],
        None,
        [
            A_HELLO,
            {"role": "assistant", "content": [use("a")]},
            user([result("a", [*text("t"), {"type": "image", "source": {"type": "url", "url": "https://x/i.png"}}])]),
        ],
    ),
    "the old function role": (
        [
            HELLO,
            assistant(function_call={"name": "f", "arguments": ""}),
            {"role": "function", "name": "f", "content": None},
        ],
        None,
        [A_HELLO, {"role": "assistant", "content": [use("call_1")]}, user([result("call_1", "")])],
    ),
    "custom tool calls": (
        [
            HELLO,
            assistant(tool_calls=[{"id": "a", "type": "custom", "custom": {"name": "f", "input": "x"}}]),
            tool("a"),
        ],
        None,
        [A_HELLO, {"role": "assistant", "content": [{**use("a"), "input": {"input": "x"}}]}, user([result("a")])],
    ),
}


@pytest.mark.parametrize("messages, top, expected", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_a_conversation_keeps_its_order_and_its_pairs(
    messages: list[Body], top: str | None, expected: list[Body]
) -> None:
    call = call_of(*messages)
    assert call.canonical().get("system") == top
    assert call.canonical()["messages"] == expected
    assert call.warnings == []


def test_a_history_that_was_cut_gets_a_user_in_front() -> None:
    call = call_of(assistant("x"), HELLO)
    assert call.canonical()["messages"][0] == user(text("."))
    assert call.warnings == ["inserted_user"]


@pytest.mark.parametrize(
    "arguments, input",
    [('{"a":1}', {"a": 1}), ("", {}), (None, {}), ({"a": 1}, {"a": 1}), ("[1]", {"value": [1]}), ("7", {"value": 7})],
)
def test_arguments_become_an_object(arguments: Any, input: Body) -> None:
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}]
    blocks = call_of(HELLO, assistant(tool_calls=calls), tool("a")).canonical()["messages"][1]["content"]
    assert blocks == [{**use("a"), "input": input}]


PDF = "data:application/pdf;base64,JVBERi0="
NOTE = "data:text/markdown;charset=utf-8;base64," + base64.b64encode("Grüße".encode()).decode()
IMAGE = {"type": "base64", "media_type": "image/png", "data": "AAA="}

PARTS: dict[str, tuple[Body, Body]] = {
    "image data": (
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAA=", "detail": "high"}},
        {"type": "image", "source": IMAGE},
    ),
    "image as a string": (
        {"type": "image_url", "image_url": "data:image/png;base64,AAA="},
        {"type": "image", "source": IMAGE},
    ),
    "image/jpg is image/jpeg": (
        {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,AAA="}},
        {"type": "image", "source": {**IMAGE, "media_type": "image/jpeg"}},
    ),
    "image url": (
        {"type": "image_url", "image_url": {"url": "https://x/i.png"}},
        {"type": "image", "source": {"type": "url", "url": "https://x/i.png"}},
    ),
    "pdf": (
        {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
            "title": "a.pdf",
        },
    ),
    "text file": (
        {"type": "file", "file": {"file_data": NOTE}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"}},
    ),
    "Anthropic's own block": ({"type": "image", "source": IMAGE}, {"type": "image", "source": IMAGE}),
}


@pytest.mark.parametrize("part, block", PARTS.values(), ids=PARTS)
def test_a_part_becomes_a_block(part: Body, block: Body) -> None:
    assert call_of(user([part])).canonical()["messages"] == [user([block])]


AT = "messages.0.content.0"
REFUSED: list[tuple[list[Body], str]] = [
    ([assistant(None, refusal=["no"])], "messages.0.refusal: Input should be a valid string"),
    ([user([{"type": "text"}])], f"{AT}.text: Input should be a valid string"),
    ([user([{"type": "video"}])], f"{AT}.type: 'video' is not supported"),
    ([user([{"type": "input_audio", "input_audio": {}}])], f"{AT}: audio input is not supported"),
    ([user([{"type": "image_url"}])], f"{AT}.image_url.url: Field required"),
    (
        [user([{"type": "image_url", "image_url": {"url": "ftp://x"}}])],
        f"{AT}.image_url.url: Input should be an https or data URL",
    ),
    (
        [user([{"type": "image_url", "image_url": {"url": "data:image/tiff;base64,AAA="}}])],
        f"{AT}.image_url.url: media type should be one of image/jpeg, image/png, image/gif, image/webp",
    ),
    ([user([{"type": "file"}])], f"{AT}.file: Input should be a valid dictionary"),
    (
        [user([{"type": "file", "file": {"file_id": "file_1"}}])],
        f"{AT}.file.file_id: file ids are not supported yet; send file_data",
    ),
    ([user([{"type": "file", "file": {"file_data": "x"}}])], f"{AT}.file.file_data: Input should be a base64 data URL"),
    (
        [user([{"type": "file", "file": {"file_data": "data:application/zip;base64,AAA="}}])],
        f"{AT}.file.file_data: media type should be application/pdf or text/plain",
    ),
    (
        [user([{"type": "file", "file": {"file_data": "data:text/plain;base64,/w=="}}])],
        f"{AT}.file.file_data: Input should be base64 of UTF-8 text",
    ),
    ([user([{"type": "image", "source": "x"}])], f"{AT}.image.source: Input should be a valid dictionary"),
    (
        [user([{"type": "tool_result", "tool_use_id": "x"}])],
        "messages.0: unexpected `tool_use_id` found in `tool_result` blocks: x. Each `tool_result` block must have a "
        "corresponding `tool_use` block in the previous message.",
    ),
    ([system([{"type": "image_url"}]), HELLO], f"{AT}: only text is supported here"),
    ([HELLO, assistant([{"type": "image_url"}])], "messages.1.content.0: only text is supported here"),
    ([HELLO, assistant(tool_calls=["x"])], "messages.1.tool_calls.0: Input should be a valid dictionary"),
    ([HELLO, assistant(tool_calls=[{"id": "a"}])], "messages.1.tool_calls.0.function.name: Field required"),
    (
        [HELLO, assistant(tool_calls=[{"function": {"name": "f"}}])],
        "messages.1.tool_calls.0.id: Field required",
    ),
    (
        [HELLO, assistant(tool_calls=[{"id": "a", "function": {"name": "f", "arguments": "{"}}])],
        "messages.1.tool_calls.0.function.arguments: invalid JSON",
    ),
    (
        [HELLO, tool("x")],
        "messages.1: unexpected `tool_use_id` found in `tool_result` blocks: x. Each `tool_result` block must have a "
        "corresponding `tool_use` block in the previous message.",
    ),
    (
        [HELLO, assistant(None, "a", "b"), tool("a"), HELLO],
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: b. Each `tool_use` "
        "block must have a corresponding `tool_result` block in the next message.",
    ),
    ([user(" ")], "messages: at least one message with role 'user' is required"),
    ([system("x")], "messages: at least one message with role 'user' is required"),
]


@pytest.mark.parametrize("messages, text", [pytest.param(*row, id=row[1]) for row in REFUSED])
def test_what_can_not_be_said_is_refused(messages: list[Body], text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        call_of(*messages).canonical()
    assert caught.value.message == text
