"""The messages of an Anthropic request as OpenAI Chat Completions messages. Pure."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from opus_api.upstreams import plain_text
from opus_api.upstreams.plain_text import system_text, texts_of
from opus_api.wire import jsons
from opus_api.wire.checks import Path, refused
from opus_api.wire.errors import InvalidRequest
from opus_api.wire.messages import Block
from opus_api.wire.request import Body, Call
from opus_api.wire.turns import Turn, blocks_of, check_turns, turns

Options = Mapping[str, Any]
Part = dict[str, Any]

PREFILL = "This model does not support assistant message prefill. The conversation must end with a user message."
LONGEST_TOOL_NAME = 64


def convert(call: Call, options: Options) -> list[Body]:
    """The messages, system text first. Raises InvalidRequest naming the block that can not be said."""
    body = call.canonical()
    conversation = turns(body["messages"])
    check_turns(conversation)
    out: list[Body] = []
    if system := system_text(body.get("system")):
        out.append({"role": options["system_role"], "content": system})
    converter = _Converter(call, options)
    said = False
    for turn in _with_systems_joined(conversation) if options["single_system"] else conversation:
        if turn.role == "system":
            _add_system(out, texts_of(block for _, block in turn.blocks), options)
            if any(block["type"] != "text" for _, block in turn.blocks):
                call.warn("server_blocks")
            continue
        messages = converter.assistant(turn) if turn.role == "assistant" else converter.user(turn)
        said = said or bool(messages)
        out += messages
    if conversation[-1].role == "assistant" and not options["prefill"]:
        raise InvalidRequest(PREFILL)
    if not said:
        raise InvalidRequest("messages: text content blocks must be non-empty")
    return out


def short_name(name: str) -> str:
    """A tool name of at most 64 characters; the hash keeps two long ones apart."""
    if len(name) <= LONGEST_TOOL_NAME:
        return name
    return f"{name[:55]}_{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def short_id(id: str, longest: int) -> str:
    """A tool call's id within the upstream's limit (OpenAI: 40 characters); 0 is no limit. The same one each time."""
    if not longest or len(id) <= longest:
        return id
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:longest]


# ---- system


def _add_system(out: list[Body], text: str, options: Options) -> None:
    """A system message in the middle of the conversation stays where it is: its place has a meaning."""
    if not text:
        return
    if not options["single_system"] or not out:
        out.append({"role": options["system_role"], "content": text})
        return
    reminder = f"<system-reminder>\n{text}\n</system-reminder>"
    if out[-1]["role"] != "user":
        out.append({"role": "user", "content": reminder})
    elif isinstance(out[-1]["content"], str):
        out[-1]["content"] += f"\n\n{reminder}"
    else:
        out[-1]["content"] = [*out[-1]["content"], {"type": "text", "text": f"\n\n{reminder}"}]


def _with_systems_joined(conversation: Iterable[Turn]) -> Iterator[Turn]:
    for is_system, neighbours in itertools.groupby(conversation, lambda turn: turn.role == "system"):
        if is_system:
            yield Turn("system", (), [pair for turn in neighbours for pair in turn.blocks])
        else:
            yield from neighbours


# ---- turns


class _Converter:
    """What every turn needs: the call to note warnings on, the account's options, the order of the last tool calls."""

    def __init__(self, call: Call, options: Options):
        self._call = call
        self._options = options
        self._order: dict[str, int] = {}

    def assistant(self, turn: Turn) -> list[Body]:
        texts: list[str] = []
        calls: list[Body] = []
        thinking: list[str] = []
        before: list[Part] = []
        for at, block in turn.blocks:
            match block["type"]:
                case "text":
                    texts.append(block["text"])
                case "tool_use":
                    calls.append(self._tool_call(block, at))
                case "thinking":
                    thinking.append(block["thinking"])
                case "redacted_thinking":
                    pass
                case "compaction":  # sums up what the user and the model said so far
                    self._call.warn("server_blocks")
                    before += _text_part(plain_text.readable(block.get("content")))
                case _:
                    texts.append(plain_text.said(self._call, block, at))
        self._order = {call["id"]: position for position, call in enumerate(calls)}
        message: Body = {"role": "assistant", "content": "".join(texts) or None}
        if calls:
            message["tool_calls"] = calls
        if thinking and self._options["replay_reasoning"]:
            message["reasoning_content"] = "".join(thinking)
        said = [message] if message["content"] or calls else []
        return self._user_message([part for part in before if part["text"]]) + said

    def _tool_call(self, block: Block, at: Path) -> Body:
        try:
            function = {"name": short_name(block["name"]), "arguments": jsons.compact(block["input"])}
        except jsons.JsonError:
            raise refused((*at, "tool_use", "input"), "nested too deeply") from None
        return {"id": self._id(block["id"]), "type": "function", "function": function}

    def _id(self, id: str) -> str:
        return short_id(id, self._options["tool_id_length"])

    def user(self, turn: Turn) -> list[Body]:
        """All tool messages of the turn first, in the order of the calls, then one user message with the rest."""
        results: list[Body] = []
        attached: list[Part] = []  # of tool results: tool messages take text only
        parts: list[Part] = []
        for at, block in turn.blocks:
            if block["type"] == "tool_result":
                content = self._tool_result(block, at, attached)
                results.append({"role": "tool", "tool_call_id": self._id(block["tool_use_id"]), "content": content})
            else:
                parts += self._parts(block, at)
        results.sort(key=lambda message: self._order.get(message["tool_call_id"], len(self._order)))
        return results + self._user_message(attached + parts)

    def _user_message(self, parts: list[Part]) -> list[Body]:
        if not parts:
            return []
        if all(part["type"] == "text" for part in parts) and (len(parts) == 1 or self._options["string_content"]):
            return [{"role": "user", "content": "\n\n".join(part["text"] for part in parts)}]
        return [{"role": "user", "content": parts}]

    def _tool_result(self, block: Block, at: Path, attached: list[Part]) -> str:
        """The text of the tool message. What is no text goes to ``attached``, with a note in its place."""
        texts: list[str] = []
        for index, item in enumerate(blocks_of(block.get("content"))):
            for part in self._parts(item, (*at, "tool_result", "content", index)):
                if part["type"] == "text":
                    texts.append(part["text"])
                else:
                    attached.append(part)
                    texts.append(f"[{item['type']} {len(attached)} below]")
        text = "\n".join(texts)
        if block.get("is_error"):
            return f"Error: {text}"
        return text or ("(no output)" if self._options["fill_empty_tool_content"] else "")

    # ---- blocks of a user

    def _parts(self, block: Block, at: Path) -> list[Part]:
        match block["type"]:
            case "text":
                return _text_part(block["text"]) if block["text"] else []
            case "image":
                return [self._image(block["source"], at)]
            case "document":
                return self._document(block, at)
            case "search_result":
                return _text_part(plain_text.search_result(self._call, block))
            case "tool_reference":
                return _text_part(plain_text.tool_reference(block))
            case _:
                self._call.warn("server_blocks")
                return []

    def _image(self, source: Body, at: Path) -> Part:
        if not self._options["vision"]:
            raise refused(at, "image input is not supported by this upstream")
        match source["type"]:
            case "base64":
                url = f"data:{source['media_type']};base64,{source['data']}"
            case "url":
                url = source["url"]
            case _:
                raise refused(at, f"{source['type']} sources need an Anthropic upstream")
        return {"type": "image_url", "image_url": {"url": url}}

    def _document(self, block: Block, at: Path) -> list[Part]:
        source = block["source"]
        if (text := plain_text.document(self._call, block)) is not None:
            blocks = blocks_of(source.get("content"))
            return _text_part(text) + [self._image(item["source"], at) for item in blocks if item["type"] == "image"]
        match source["type"]:
            case "base64":
                return [self._pdf(block.get("title") or "", source, at)]
            case "url":  # the gateway must not fetch what a client names
                raise refused(at, "document URLs need an Anthropic upstream")
            case kind:
                raise refused(at, f"{kind} sources need an Anthropic upstream")

    def _pdf(self, title: str, source: Body, at: Path) -> Part:
        if not self._options["files"]:
            raise refused(at, "document input is not supported by this upstream")
        data = f"data:{source['media_type']};base64,{source['data']}"
        return {"type": "file", "file": {"filename": title or "document.pdf", "file_data": data}}


def _text_part(text: str) -> list[Part]:
    return [{"type": "text", "text": text}]
