"""Each kind of content of an Anthropic conversation, and the OpenAI messages that it becomes."""

from typing import Any

import pytest

from opus_api.upstreams import chat_messages
from opus_api.wire.errors import InvalidRequest
from opus_api.wire.request import Call
from tests.golden.pipeline import Exchange

Body = dict[str, Any]


def text(text: str) -> Body:
    return {"type": "text", "text": text}


def user(*blocks: Any) -> Body:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> Body:
    return {"role": "assistant", "content": list(blocks)}


def use(id: str, **input: Any) -> Body:
    return {"type": "tool_use", "id": id, "name": "f", "input": input}


def result(id: str, content: Any = "ok", **more: Any) -> Body:
    return {"type": "tool_result", "tool_use_id": id, "content": content, **more}


def image(data: str = "AAA=") -> Body:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


def document(**source: Any) -> Body:
    return {"type": "document", "source": source}


# ---- the same on OpenAI's side


def o_user(content: Any) -> Body:
    return {"role": "user", "content": content}


def o_calls(*ids: str, content: Any = None) -> Body:
    calls = [{"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}} for id in ids]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def o_tool(id: str, content: str = "ok") -> Body:
    return {"role": "tool", "tool_call_id": id, "content": content}


def o_image(data: str = "AAA=") -> Body:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def converted(*messages: Body, system: Any = None, **options: Any) -> tuple[Call, list[Body]]:
    exchange = Exchange(options=options)
    call = exchange.parse({"model": "m", "max_tokens": 9, "messages": list(messages), "system": system})
    return call, chat_messages.convert(call, exchange.credentials.options)


HELLO = user(text("Hello"))
O_HELLO = o_user("Hello")
MID = {"role": "system", "content": "Mid."}

SYSTEMS: dict[str, tuple[Any, Any]] = {
    "a string": ("Be brief.", "Be brief."),
    "blocks": ([text("a"), text(""), text("b")], "a\n\nb"),
    "Claude Code's attribution": ([text("x-anthropic-billing-header: cc_version=1"), text("a")], "a"),
    "the same further down": ([text("a"), text("x-anthropic-billing-header: b")], "a\n\nx-anthropic-billing-header: b"),
}


@pytest.mark.parametrize("system, sent", SYSTEMS.values(), ids=SYSTEMS)
def test_system_text_is_one_message_in_front(system: Any, sent: str) -> None:
    assert converted(HELLO, system=system)[1] == [{"role": "system", "content": sent}, O_HELLO]


@pytest.mark.parametrize("system", [None, "", [], [text("")], [text("x-anthropic-billing-header: a")]])
def test_no_system_text_is_no_message(system: Any) -> None:
    assert converted(HELLO, system=system)[1] == [O_HELLO]


def test_system_messages_have_the_role_that_the_server_knows() -> None:
    sent = converted(HELLO, MID, system="Top.", system_role="developer")[1]
    assert [message["role"] for message in sent] == ["developer", "user", "developer"]


REMINDER = "<system-reminder>\nMid.\n</system-reminder>"
IN_PLACE: dict[str, tuple[list[Body], Body, list[Body]]] = {
    "in its place": ([HELLO, MID], {}, [O_HELLO, MID]),
    "blocks": ([HELLO, {"role": "system", "content": [text("Mid.")]}], {}, [O_HELLO, MID]),
    "first of all": ([MID, HELLO], {"single_system": True}, [MID, O_HELLO]),
    "after a user": ([HELLO, MID], {"single_system": True}, [o_user(f"Hello\n\n{REMINDER}")]),
    "after a user's parts": (
        [user(text("a"), text("b")), MID],
        {"single_system": True},
        [o_user([text("a"), text("b"), text(f"\n\n{REMINDER}")])],
    ),
    "after tool results": (
        [HELLO, assistant(use("a")), user(result("a")), MID],
        {"single_system": True},
        [O_HELLO, o_calls("a"), o_tool("a"), o_user(REMINDER)],
    ),
    "empty": ([HELLO, {"role": "system", "content": ""}], {}, [O_HELLO]),
}


@pytest.mark.parametrize("messages, options, sent", IN_PLACE.values(), ids=IN_PLACE)
def test_a_system_message_in_the_middle_keeps_its_place(messages: list[Body], options: Body, sent: list[Body]) -> None:
    assert converted(*messages, **options)[1] == sent


TURNS: dict[str, tuple[list[Body], Body, list[Body]]] = {
    "several texts": ([user(text("a"), text("b"))], {}, [o_user([text("a"), text("b")])]),
    "several texts as one string": ([user(text("a"), text("b"))], {"string_content": True}, [o_user("a\n\nb")]),
    "image data": ([user(text("a"), image())], {}, [o_user([text("a"), o_image()])]),
    "image url": (
        [user({"type": "image", "source": {"type": "url", "url": "https://x/i.png"}})],
        {},
        [o_user([{"type": "image_url", "image_url": {"url": "https://x/i.png"}}])],
    ),
    "text document": (
        [user({**document(type="text", media_type="text/plain", data="D"), "title": "T"})],
        {},
        [o_user('<document title="T">\nD\n</document>')],
    ),
    "content document": (
        [user(document(type="content", content=[text("a"), text("b"), image()]))],
        {},
        [o_user([text('<document title="">\na\nb\n</document>'), o_image()])],
    ),
    "content document of a string": (
        [user(document(type="content", content="a"))],
        {},
        [o_user('<document title="">\na\n</document>')],
    ),
    "pdf": (
        [user(document(type="base64", media_type="application/pdf", data="JVBERi0="))],
        {},
        [
            o_user(
                [
                    {
                        "type": "file",
                        "file": {
                            "filename": "document.pdf",
                            "file_data": "data:application/pdf;base64,JVBERi0=",
                        },
                    }
                ]
            )
        ],
    ),
    "assistant text": ([HELLO, assistant(text("a"), text("b"))], {}, [O_HELLO, {"role": "assistant", "content": "ab"}]),
    "an empty assistant": ([HELLO, assistant(), HELLO], {}, [O_HELLO, O_HELLO]),
    "neighbours are one": (
        [HELLO, HELLO],
        {},
        [o_user([text("Hello"), text("Hello")])],
    ),
    "thinking": (
        [HELLO, assistant({"type": "thinking", "thinking": "t", "signature": "s"}, text("a"))],
        {},
        [O_HELLO, {"role": "assistant", "content": "a"}],
    ),
    "thinking played back": (
        [HELLO, assistant({"type": "thinking", "thinking": "t", "signature": "s"}, text("a"))],
        {"replay_reasoning": True},
        [O_HELLO, {"role": "assistant", "content": "a", "reasoning_content": "t"}],
    ),
    "hidden thinking": (
        [HELLO, assistant({"type": "redacted_thinking", "data": "x"}, text("a"))],
        {},
        [O_HELLO, {"role": "assistant", "content": "a"}],
    ),
    "a document that a model wrote": (
        [HELLO, assistant(document(type="text", media_type="text/plain", data="D"), text("a"))],
        {},
        [O_HELLO, {"role": "assistant", "content": '<document title="">\nD\n</document>\na'}],
    ),
    "text beside a call": (
        [HELLO, assistant(text("a"), use("t")), user(result("t"))],
        {},
        [O_HELLO, o_calls("t", content="a"), o_tool("t")],
    ),
    "results in the order of the calls": (
        [HELLO, assistant(use("a"), use("b")), user(result("b", "B"), result("a", "A"), text("go"))],
        {},
        [O_HELLO, o_calls("a", "b"), o_tool("a", "A"), o_tool("b", "B"), o_user("go")],
    ),
    "results in several messages": (
        [HELLO, assistant(use("a"), use("b")), user(result("b")), user(result("a"))],
        {},
        [O_HELLO, o_calls("a", "b"), o_tool("a"), o_tool("b")],
    ),
    "results after other content": (
        [HELLO, assistant(use("a")), user(text("go"), result("a"))],
        {},
        [O_HELLO, o_calls("a"), o_tool("a"), o_user("go")],
    ),
    "ids that are too long": (
        [HELLO, assistant(use("x" * 41)), user(result("x" * 41))],
        {"tool_id_length": 40},
        [
            O_HELLO,
            o_calls(chat_messages.short_id("x" * 41, 40)),
            o_tool(chat_messages.short_id("x" * 41, 40)),
        ],
    ),
}


@pytest.mark.parametrize("messages, options, sent", TURNS.values(), ids=TURNS)
def test_a_turn_becomes_its_messages(messages: list[Body], options: Body, sent: list[Body]) -> None:
    call, body = converted(*messages, **options)
    assert (body, call.warnings) == (sent, [])


RESULTS: dict[str, tuple[Body, str]] = {
    "a string": (result("a", "x"), "x"),
    "blocks": (result("a", [text("x"), text("y")]), "x\ny"),
    "nothing": (result("a", None), ""),
    "empty": (result("a", []), ""),
    "an error": (result("a", "boom", is_error=True), "Error: boom"),
    "no error": (result("a", "fine", is_error=False), "fine"),
    "an error without text": (result("a", None, is_error=True), "Error: "),
}


@pytest.mark.parametrize("block, sent", RESULTS.values(), ids=RESULTS)
def test_a_tool_result_becomes_text(block: Body, sent: str) -> None:
    assert converted(HELLO, assistant(use("a")), user(block))[1][-1] == o_tool("a", sent)


def test_a_tool_that_a_search_has_loaded_is_named() -> None:
    block = result("a", [{"type": "tool_reference", "tool_name": "g"}])
    assert converted(HELLO, assistant(use("a")), user(block))[1][-1] == o_tool("a", "Tool loaded: g")


def test_a_change_of_tools_in_the_middle_is_dropped_with_a_warning() -> None:
    change = {"role": "system", "content": [{"type": "tool_addition", "tool": {"type": "tool_reference", "name": "g"}}]}
    call, body = converted(HELLO, change)
    assert (body, call.warnings) == ([O_HELLO], ["server_blocks"])


def test_a_result_may_lack_content_entirely() -> None:
    bare = {"type": "tool_result", "tool_use_id": "a"}
    assert converted(HELLO, assistant(use("a")), user(bare))[1][-1] == o_tool("a", "")
    filled = converted(HELLO, assistant(use("a")), user(bare), fill_empty_tool_content=True)[1][-1]
    assert filled == o_tool("a", "(no output)")


def test_images_of_results_follow_in_the_user_message_and_are_numbered() -> None:
    results = user(
        result("b", [text("B"), image("BBB=")]),
        result("a", [image("AAA="), document(type="base64", media_type="application/pdf", data="JVBERi0=")]),
        text("go"),
    )
    sent = converted(HELLO, assistant(use("a"), use("b")), results)[1]
    assert sent[2] == o_tool("a", "[image 2 below]\n[document 3 below]")
    assert sent[3] == o_tool("b", "B\n[image 1 below]")
    assert [part["type"] for part in sent[4]["content"]] == ["image_url", "image_url", "file", "text"]


SEARCH = {
    "type": "search_result",
    "source": "https://x",
    "title": "T",
    "content": [text("a"), text("b")],
    "citations": {"enabled": True},
}
SERVER: dict[str, tuple[Body, str]] = {
    "call": ({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}, "a"),
    "search results": (
        {
            "type": "web_search_tool_result",
            "tool_use_id": "s",
            "content": [{"type": "web_search_result", "title": "T", "url": "https://x", "encrypted_content": "zz"}],
        },
        "[web_search results]\nT https://x\na",
    ),
    "program output": (
        {
            "type": "bash_code_execution_tool_result",
            "tool_use_id": "s",
            "content": {"type": "x", "stdout": "out", "stderr": "", "return_code": 0},
        },
        "[bash_code_execution results]\nout\na",
    ),
    "a failure": (
        {
            "type": "web_fetch_tool_result",
            "tool_use_id": "s",
            "content": {"type": "web_fetch_tool_result_error", "error_code": "unavailable"},
        },
        "[web_fetch results]\nunavailable\na",
    ),
    "an MCP result": (
        {"type": "mcp_tool_result", "tool_use_id": "s", "content": [text("x")]},
        "[mcp results]\nx\na",
    ),
    "something new": ({"type": "new_block", "x": 1}, "a"),
}


@pytest.mark.parametrize("block, sent", SERVER.values(), ids=SERVER)
def test_of_server_tools_the_readable_text_stays(block: Body, sent: str) -> None:
    call, body = converted(HELLO, assistant(block, text("a")))
    assert body[-1] == {"role": "assistant", "content": sent}
    assert call.warnings == ["server_blocks"]


def test_a_summary_of_what_was_said_is_the_user_s() -> None:
    call, body = converted(HELLO, assistant({"type": "compaction", "content": "Before: x."}, text("a")), HELLO)
    assert body == [O_HELLO, o_user("Before: x."), {"role": "assistant", "content": "a"}, O_HELLO]
    assert call.warnings == ["server_blocks"]
    assert converted(HELLO, assistant({"type": "compaction", "content": None}, text("a")))[1][0] == O_HELLO


WARNED: dict[str, tuple[Body, Any, str]] = {
    "search result": (
        SEARCH,
        '<search_result source="https://x" title="T">\na\nb\n</search_result>',
        "citations",
    ),
    "citations of a document": (
        {**document(type="text", media_type="text/plain", data="D"), "citations": {"enabled": True}},
        '<document title="">\nD\n</document>',
        "citations",
    ),
    "context of a document": (
        {**document(type="text", media_type="text/plain", data="D"), "context": "C"},
        '<document title="">\nD\n</document>',
        "citations",
    ),
}


@pytest.mark.parametrize("block, sent, code", WARNED.values(), ids=WARNED)
def test_what_only_anthropic_can_do_with_content_is_dropped_with_a_warning(block: Body, sent: Any, code: str) -> None:
    call, body = converted(user(block))
    assert (body, call.warnings) == ([o_user(sent)], [code])


def test_unknown_content_of_a_user_is_dropped_with_a_warning() -> None:
    call, body = converted(user({"type": "new_block"}, text("a")))
    assert (body, call.warnings) == ([o_user("a")], ["server_blocks"])


AT = "messages.0.content.0"
REFUSED: list[tuple[list[Body], Body, str]] = [
    ([user(image())], {"vision": False}, f"{AT}: image input is not supported by this upstream"),
    (
        [HELLO, assistant(use("a")), user(result("a", [image()]))],
        {"vision": False},
        "messages.2.content.0.tool_result.content.0: image input is not supported by this upstream",
    ),
    (
        [user(document(type="base64", media_type="application/pdf", data="x"))],
        {"files": False},
        f"{AT}: document input is not supported by this upstream",
    ),
    ([user(document(type="url", url="https://x"))], {}, f"{AT}: document URLs need an Anthropic upstream"),
    (
        [HELLO, assistant(document(type="base64", media_type="application/pdf", data="x"))],
        {},
        "messages.1.content.0: document input in an assistant message is not supported by this upstream",
    ),
    ([HELLO, assistant(image())], {}, "messages.1.content.0: `image` blocks can only be in `user` messages"),
    ([user(document(type="new"))], {}, f"{AT}: new sources need an Anthropic upstream"),
    ([user({"type": "image", "source": {"type": "new"}})], {}, f"{AT}: new sources need an Anthropic upstream"),
    (
        [user(result("a"))],
        {},
        f"{AT}: unexpected `tool_use_id` found in `tool_result` blocks: a. Each `tool_result` block must have a "
        "corresponding `tool_use` block in the previous message.",
    ),
    (
        [HELLO, assistant(use("a"))],
        {},
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: a. Each `tool_use` "
        "block must have a corresponding `tool_result` block in the next message.",
    ),
]


@pytest.mark.parametrize("messages, options, words", [pytest.param(*row, id=row[2]) for row in REFUSED])
def test_input_is_never_lost_in_silence(messages: list[Body], options: Body, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        converted(*messages, **options)
    assert caught.value.message == words
