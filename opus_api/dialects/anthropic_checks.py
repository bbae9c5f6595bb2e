"""Checks of a Messages API request, down to the members that our own code reads. Pure.

They are no stricter than the API itself: unknown members and block types pass, for the upstream to judge.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from opus_api.wire.checks import Path, model_name, one_of, optional, refused, required
from opus_api.wire.errors import InvalidRequest
from opus_api.wire.messages import Block
from opus_api.wire.request import Body
from opus_api.wire.turns import blocks_of

OLDEST_VERSION = "2023-06-01"
# Gone from 2026-10-21 on, the version after. A date between the two is none we know: it counts as the newest.
SAMPLING = ("temperature", "top_p", "top_k")

# Required members of the content blocks whose shape we know.
BLOCKS: Mapping[str, tuple[tuple[str, type], ...]] = {
    "text": (("text", str),),
    "image": (("source", dict),),
    "document": (("source", dict),),
    "search_result": (("source", str), ("title", str), ("content", list)),
    "thinking": (("thinking", str),),
    "redacted_thinking": (("data", str),),
    "tool_use": (("id", str), ("name", str), ("input", dict)),
    "tool_result": (("tool_use_id", str),),
    "server_tool_use": (("id", str), ("name", str), ("input", dict)),
}
# The same of their sources. What "content" holds is checked by itself.
SOURCES: Mapping[str, tuple[tuple[str, type], ...]] = {
    "base64": (("media_type", str), ("data", str)),
    "url": (("url", str),),
    "text": (("data", str),),
}

# Optional members of the body.
MEMBERS: Mapping[str, type] = {
    "stream": bool,
    "stop_sequences": list,
    "tools": list,
    "tool_choice": dict,
    "thinking": dict,
    "output_config": dict,
    "metadata": dict,
    "thread": dict,
    "temperature": float,
    "top_p": float,
    "top_k": int,
}

ROLES = ("user", "assistant", "system")
TOOL_CHOICES = ("auto", "any", "tool", "none")
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
MOST_CACHE_MARKS = 4


def check_body(body: Body, version: str) -> None:
    """What messages and count_tokens have in common. Raises InvalidRequest naming the field."""
    newest = version > OLDEST_VERSION
    if newest:
        for name in SAMPLING:
            if name in body:
                raise refused((name,), "Extra inputs are not permitted")
    model_name(body)
    for name, kind in MEMBERS.items():
        optional(body, name, kind)
    _check_settings(body)
    _check_system(body.get("system"))
    resumed = (body.get("thread") or {}).get("type") == "continue"  # Anthropic has the messages before
    _check_messages(required(body, "messages", list), resumed)
    _check_tools(body)
    _check_cache_marks(body)
    if newest:
        _check_removed_content(body["messages"])


def check_budget(body: Body, betas: str) -> None:
    """Thinking leaves room for the answer, unless it may go on between tool calls (``betas``: anthropic-beta)."""
    thinking = body.get("thinking") or {}
    budget = thinking.get("budget_tokens") if thinking.get("type") == "enabled" else None
    if budget is not None and 0 < body["max_tokens"] <= budget and "interleaved-thinking" not in betas:
        raise InvalidRequest("`max_tokens` must be greater than `thinking.budget_tokens`")


def _check_settings(body: Body) -> None:
    for index, stop in enumerate(body.get("stop_sequences") or ()):
        if not isinstance(stop, str):
            raise refused(("stop_sequences", index), "Input should be a valid string")
        if not stop.strip():
            raise refused(("stop_sequences",), "each stop sequence must contain non-whitespace")
    thinking = body.get("thinking")
    if thinking is not None:
        required(thinking, "type", str, ("thinking",))
        optional(thinking, "budget_tokens", int, ("thinking",))
    config = body.get("output_config") or {}
    optional(config, "effort", str, ("output_config",))
    if (wanted := optional(config, "format", dict, ("output_config",))) is not None:
        optional(wanted, "schema", dict, ("output_config", "format"))


def _check_system(system: Any) -> None:
    if system is None or isinstance(system, str):
        return
    if not isinstance(system, list):
        raise refused(("system",), "Input should be a valid string or list of text blocks")
    for index, block in enumerate(system):
        check_block(block, ("system", index))
        if block["type"] != "text":
            raise refused(("system", index, "type"), "Input should be 'text'")


def _check_messages(messages: list[Any], resumed: bool) -> None:
    if not messages and not resumed:
        raise refused(("messages",), "at least one message is required")
    for index, message in enumerate(messages):
        at = ("messages", index)
        if not isinstance(message, dict):
            raise refused(at, "Input should be a valid dictionary")
        if message.get("role") not in ROLES:
            one_of(required(message, "role", str, at), ROLES, (*at, "role"))
        if "content" not in message:
            raise refused((*at, "content"), "Field required")
        _check_content(message["content"], (*at, "content"))
        if message["role"] == "user":
            _check_says_something(message["content"])
    if all(message["role"] == "system" for message in messages) and not resumed:
        raise refused(("messages",), "at least one message with role 'user' is required")


def _check_says_something(content: Any) -> None:
    """Of users only: before a tool call some models write nothing but a line end, and clients send it back."""
    for block in blocks_of(content):
        if block["type"] == "text" and not block["text"]:
            raise refused(("messages",), "text content blocks must be non-empty")
        if block["type"] == "text" and block["text"].isspace():
            raise refused(("messages",), "text content blocks must contain non-whitespace text")


def _check_content(content: Any, at: Path) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise refused(at, "Input should be a valid list")
    for index, block in enumerate(content):
        check_block(block, (*at, index))


def check_block(block: Any, at: Path) -> None:
    """One content block. Raises InvalidRequest."""
    if not isinstance(block, dict):
        raise refused(at, "Input should be a valid dictionary")
    kind = required(block, "type", str, at)
    for name, type_ in BLOCKS.get(kind, ()):
        if block.get(name).__class__ is not type_:
            required(block, name, type_, (*at, kind))
    if kind in INNER:
        INNER[kind](block, (*at, kind))


def _check_tool_result(block: Body, at: Path) -> None:
    if block.get("content") is not None:
        _check_content(block["content"], (*at, "content"))
    optional(block, "is_error", bool, at)


def _check_search_result(block: Body, at: Path) -> None:
    _check_content(block["content"], (*at, "content"))


def _check_sourced(block: Body, at: Path) -> None:
    source = block["source"]
    kind = required(source, "type", str, (*at, "source"))
    if kind == "file":
        _refuse_file_id(source, (*at, "source"))
    for name, type_ in SOURCES.get(kind, ()):
        required(source, name, type_, (*at, "source", kind))
    if kind == "content":
        _check_content(source.get("content", ""), (*at, "source", "content", "content"))
    optional(block, "title", str, at)


def _refuse_file_id(holder: Body, at: Path) -> None:
    raise refused((*at, "file_id"), "file ids are not supported yet; send the content itself, as base64 or text")


INNER = {
    "tool_result": _check_tool_result,
    "search_result": _check_search_result,
    "image": _check_sourced,
    "document": _check_sourced,
    "container_upload": _refuse_file_id,
}


# ---- rules about all blocks


def _check_cache_marks(body: Body) -> None:
    marked = [block for block in _all_blocks(body) if block.get("cache_control") is not None]
    if any(block.get("type") == "text" and not block["text"] for block in marked):
        raise InvalidRequest("cache_control cannot be set for empty text blocks")
    if len(marked) > MOST_CACHE_MARKS:
        raise InvalidRequest(
            f"A maximum of {MOST_CACHE_MARKS} blocks with cache_control may be provided. Found {len(marked)}."
        )


def _all_blocks(body: Body) -> Iterator[Block]:
    """Everything that can carry a cache_control, of a checked body."""
    yield from body.get("tools") or ()
    yield from blocks_of(body.get("system"))
    for message in body["messages"]:
        for block in blocks_of(message["content"]):
            yield block
            if block["type"] == "tool_result":
                yield from blocks_of(block.get("content"))


def _check_removed_content(messages: list[Body]) -> None:
    """What the newest version took out of conversations."""
    for index, message in enumerate(messages):
        for position, block in enumerate(blocks_of(message["content"])):
            at = ("messages", index, "content", position)
            if message["role"] == "user":
                _check_uncited(block, at)
            elif message["role"] == "assistant" and block["type"] == "document":
                raise refused((*at, "type"), "'document' is not permitted in an assistant message")


def _check_uncited(block: Block, at: Path) -> None:
    """Citations are what a model writes: a user's text carries none."""
    kind = block["type"]
    if kind == "text" and block.get("citations"):
        raise refused((*at, "text", "citations"), "Extra inputs are not permitted")
    if kind in ("search_result", "tool_result"):
        for position, inner in enumerate(blocks_of(block.get("content"))):
            _check_uncited(inner, (*at, kind, "content", position))


# ---- tools


def _check_tools(body: Body) -> None:
    names = set()
    for index, tool in enumerate(body.get("tools") or ()):
        at = ("tools", index)
        if not isinstance(tool, dict):
            raise refused(at, "Input should be a valid dictionary")
        if optional(tool, "type", str, at) in (None, "custom"):
            _check_custom_tool(tool, (*at, "custom"))
        name = optional(tool, "name", str, at)
        if name is not None and name in names:
            raise refused(("tools",), "Tool names must be unique.")
        names.add(name)
    _check_tool_choice(body)


def _check_tool_choice(body: Body) -> None:
    choice = body.get("tool_choice")
    if choice is None:
        return
    kind = one_of(required(choice, "type", str, ("tool_choice",)), TOOL_CHOICES, ("tool_choice", "type"))
    if kind == "tool":
        required(choice, "name", str, ("tool_choice", "tool"))
    if kind in ("any", "tool") and not body.get("tools"):
        raise refused(("tool_choice",), "tools must be provided when tool_choice is any or tool")


def _check_custom_tool(tool: Mapping[str, Any], at: Path) -> None:
    if not TOOL_NAME.fullmatch(required(tool, "name", str, at)):
        raise refused((*at, "name"), "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'")
    optional(tool, "description", str, at)
    schema = required(tool, "input_schema", dict, at)
    optional(schema, "properties", dict, (*at, "input_schema"))
