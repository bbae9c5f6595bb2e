"""The messages of an OpenAI Chat Completions request as Anthropic turns. Pure."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from opus_api.dialects.anthropic_checks import check_block
from opus_api.wire import jsons
from opus_api.wire.checks import Path, optional, refused
from opus_api.wire.errors import InvalidRequest
from opus_api.wire.messages import Block
from opus_api.wire.request import Body, Call
from opus_api.wire.turns import Turn, check_turns, merged

MEDIA_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w.+-]+=[\w.+-]*)*;base64,(.*)", re.S)
# Blocks of the Messages API that some clients mix into OpenAI messages.
FOREIGN = ("image", "document", "tool_result", "search_result")

SYSTEM = ("system", "developer")


def convert(call: Call) -> tuple[str, list[Body]]:
    """(system text, Anthropic messages) of a checked body. Raises InvalidRequest naming what can not be said."""
    messages: list[Body] = call.body["messages"]
    leading = 0
    while leading < len(messages) and messages[leading]["role"] in SYSTEM:
        leading += 1
    system = [_text(message["content"], ("messages", i, "content")) for i, message in enumerate(messages[:leading])]
    turns = _turns(messages, leading)
    hoisted, turns = _hoisted(turns)
    turns = _in_order(merged(turns))
    if not turns:
        raise InvalidRequest("messages: at least one message with role 'user' is required")
    if turns[0].role != "user":  # a client cut the history; the API wants the user first
        call.warn("inserted_user")
        turns.insert(0, Turn("user", ("messages",), [(("messages",), {"type": "text", "text": "."})]))
    check_turns(turns)
    return "\n\n".join(filter(None, system + hoisted)), [_message(turn) for turn in turns]


def _turns(messages: list[Body], start: int) -> list[Turn]:
    """One turn per message that says anything."""
    out: list[Turn] = []
    last_call = ""  # the id that the old function role answers without naming it
    for index, message in enumerate(messages[start:], start):
        at = ("messages", index)
        match message["role"]:
            case "system" | "developer":
                text = _text(message["content"], (*at, "content"))
                blocks = [{"type": "text", "text": text}] if text.strip() else []
                role = "system"
            case "assistant":
                role, blocks = "assistant", _assistant(message, at, index)
                last_call = blocks[-1].get("id", "") if blocks else last_call
            case "tool" | "function":
                role, blocks = "user", [_tool_result(message, at, last_call)]
            case _:
                role, blocks = "user", _content(message["content"], (*at, "content"))
        if blocks:
            out.append(Turn(role, at, [(at, block) for block in blocks]))
    return out


def _hoisted(turns: list[Turn]) -> tuple[list[str], list[Turn]]:
    """(texts for the system prompt, the rest): a later system message stays where it is if the API allows it there,
    between a user's turn and an assistant's or the end."""
    texts: list[str] = []
    kept: list[Turn] = []
    before = ""  # the role of the last turn that is no system message
    following = _following_roles(turns)
    for index, turn in enumerate(turns):
        if turn.role != "system":
            before = turn.role
            kept.append(turn)
        elif before == "user" and following[index] == "assistant":
            kept.append(turn)
        else:
            texts.append(turn.blocks[0][1]["text"])
    return texts, kept


def _following_roles(turns: list[Turn]) -> list[str]:
    """Of the next turn that is no system message, for each; the end is as good as an assistant's turn."""
    roles: list[str] = []
    following = "assistant"
    for turn in reversed(turns):
        roles.append(following)
        following = following if turn.role == "system" else turn.role
    return roles[::-1]


def _in_order(turns: list[Turn]) -> list[Turn]:
    """Tool results come first in their message: the API wants them there."""
    for turn in turns:
        if turn.role == "user":
            turn.blocks.sort(key=lambda pair: pair[1]["type"] != "tool_result")
    return turns


def _message(turn: Turn) -> Body:
    if turn.role == "system":
        return {"role": "system", "content": turn.blocks[0][1]["text"]}
    return {"role": turn.role, "content": [block for _, block in turn.blocks]}


def _text(content: Any, at: Path) -> str:
    """Content that can be text only."""
    if not isinstance(content, list):
        return content or ""
    for index, part in enumerate(content):
        if not isinstance(part.get("text"), str):
            raise refused((*at, index), "only text is supported here")
    return "\n\n".join(part["text"] for part in content)


# ---- assistants and tools


def _assistant(message: Body, at: Path, index: int) -> list[Block]:
    text = "".join(part.get("text") or part.get("refusal") or "" for part in _assistant_parts(message, at))
    text = text or _refusal(message, at)
    blocks: list[Block] = [{"type": "text", "text": text}] if text.strip() else []
    calls = message.get("tool_calls") or []
    if message.get("function_call"):
        calls = [{"id": f"call_{index}", "function": message["function_call"]}]
    return blocks + [_tool_use(call, (*at, "tool_calls", position)) for position, call in enumerate(calls)]


def _refusal(message: Body, at: Path) -> str:
    return optional(message, "refusal", str, at) or ""


def _assistant_parts(message: Body, at: Path) -> list[Body]:
    content = message.get("content")
    parts: list[Body] = content if isinstance(content, list) else [{"text": content or ""}]
    for index, part in enumerate(parts):
        if not isinstance(part.get("text", part.get("refusal")), str):
            raise refused((*at, "content", index), "only text is supported here")
    return parts


def _tool_use(call: Any, at: Path) -> Block:
    if not isinstance(call, dict):
        raise refused(at, "Input should be a valid dictionary")
    custom = call.get("custom")
    function = call.get("function") if custom is None else custom
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise refused((*at, "function", "name"), "Field required")
    if not isinstance(call.get("id"), str) or not call["id"]:
        raise refused((*at, "id"), "Field required")
    input = {"input": function.get("input")} if custom is not None else _arguments(function, at)
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": input}


def _arguments(function: Mapping[str, Any], at: Path) -> dict[str, Any]:
    arguments = function.get("arguments") or "{}"
    try:
        value = jsons.loads(arguments) if isinstance(arguments, str) else arguments
    except jsons.JsonError:
        raise refused((*at, "function", "arguments"), "invalid JSON") from None
    return value if isinstance(value, dict) else {"value": value}


def _tool_result(message: Body, at: Path, last_call: str) -> Block:
    id = last_call if message["role"] == "function" else message["tool_call_id"]
    content = message.get("content")
    if isinstance(content, list):
        content = _content(content, (*at, "content"))
    return {"type": "tool_result", "tool_use_id": id, "content": content or ""}


# ---- users


def _content(content: Any, at: Path) -> list[Block]:
    """Blocks of a string or of parts; blank text is left out, the API refuses it."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content.strip() else []
    return [block for index, part in enumerate(content) if (block := _part(part, (*at, index)))]


def _part(part: Body, at: Path) -> Block | None:
    match part["type"]:
        case "text":
            if not isinstance(part.get("text"), str):
                raise refused((*at, "text"), "Input should be a valid string")
            return {"type": "text", "text": part["text"]} if part["text"].strip() else None
        case "image_url":
            return _image(part.get("image_url"), (*at, "image_url"))
        case "file":
            return _file(part.get("file"), (*at, "file"))
        case "input_audio":
            raise refused(at, "audio input is not supported")
        case kind if kind in FOREIGN:
            check_block(part, at)
            return part
        case kind:
            raise refused((*at, "type"), f"'{kind}' is not supported")


def _image(image: Any, at: Path) -> Block:
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str):
        raise refused((*at, "url"), "Field required")
    data = DATA_URL.fullmatch(url)
    if not data:
        if not url.startswith(("https://", "http://")):
            raise refused((*at, "url"), "Input should be an https or data URL")
        return {"type": "image", "source": {"type": "url", "url": url}}
    media_type = "image/jpeg" if data[1] == "image/jpg" else data[1]
    if media_type not in MEDIA_TYPES:
        raise refused((*at, "url"), f"media type should be one of {', '.join(MEDIA_TYPES)}")
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data[2]}}


def _file(file: Any, at: Path) -> Block:
    if not isinstance(file, dict):
        raise refused(at, "Input should be a valid dictionary")
    if file.get("file_id"):
        raise refused((*at, "file_id"), "file ids are not supported yet; send file_data")
    data = DATA_URL.fullmatch(file["file_data"]) if isinstance(file.get("file_data"), str) else None
    if not data:
        raise refused((*at, "file_data"), "Input should be a base64 data URL")
    title = file.get("filename")
    return {"type": "document", "source": _source(data[1], data[2], at)} | (
        {"title": title} if isinstance(title, str) and title else {}
    )


def _source(media_type: str, data: str, at: Path) -> Body:
    if media_type == "application/pdf":
        return {"type": "base64", "media_type": media_type, "data": data}
    if not media_type.startswith("text/"):
        raise refused((*at, "file_data"), "media type should be application/pdf or text/plain")
    try:
        text = base64.b64decode(data, validate=True).decode()
    except (binascii.Error, ValueError):
        raise refused((*at, "file_data"), "Input should be base64 of UTF-8 text") from None
    return {"type": "text", "media_type": "text/plain", "data": text}
