"""An Anthropic request as Amazon Q's conversation state. Pure.

The service wants one current user message and a history in which user and assistant alternate. Its system prompt is its
own, so the client's goes in front of the first user message. It knows no sampling, no limit and no stop sequences;
the last two are kept by our reader of the answer.
"""

import hashlib
import re
import uuid
from collections.abc import Iterator, Mapping

from opus_api.upstreams import plain_text
from opus_api.upstreams.amazonq_tools import ToolNames, overlong, specification, stub
from opus_api.upstreams.chat_messages import PREFILL
from opus_api.upstreams.chat_request import is_custom, left_out, refuse_foreign
from opus_api.upstreams.plain_text import system_text, texts_of
from opus_api.wire.checks import Path, refused
from opus_api.wire.errors import InvalidRequest
from opus_api.wire.messages import Block
from opus_api.wire.request import Body, Call
from opus_api.wire.turns import Turn, blocks_of, check_turns, merged, turns

IMAGE_FORMATS: Mapping[str, str] = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/gif": "gif",
    "image/webp": "webp",
}
MOST_IMAGES = 10  # of one message
EMPTY = "(empty)"  # the service refuses history without text
NO_OUTPUT = "(no output)"
TOOL_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
DOCUMENTATION = "Descriptions of tools that are too long for their place:"


def convert(call: Call, model: str, origin: str) -> Body:
    """The ``conversationState``. Raises InvalidRequest when dropping something would change the answer's meaning."""
    body = call.canonical()
    refuse_foreign(call, body)
    _note_dropped(call, body)
    conversation = merged(_without_systems(turns(body["messages"])))
    check_turns(conversation)
    if not conversation or conversation[-1].role != "user":
        raise InvalidRequest(PREFILL)
    names = tool_names(call)
    items = list(_Items(call, names, origin).of(conversation))
    current: Body = items.pop()["userInputMessage"]
    current["modelId"] = model
    if tools := _tools(call, body, names, conversation):
        current["userInputMessageContext"]["tools"] = tools
    _put_first(items, current, _instructions(body, names))
    _fill_empty(items, current)
    state: Body = {"conversationId": str(uuid.uuid4()), "chatTriggerType": "MANUAL"}
    return state | {"history": items, "currentMessage": {"userInputMessage": current}}


def tool_names(call: Call) -> ToolNames:
    """All tools that the request speaks of, declared or called."""
    body = call.canonical()
    declared = (tool["name"] for tool in body.get("tools") or () if is_custom(tool))
    return ToolNames([*declared, *_called(turns(body["messages"]))])


def tool_id(id: str) -> str:
    """A tool call's id in the service's alphabet; the same one each time."""
    if TOOL_ID.fullmatch(id):
        return id
    return f"toolu_{hashlib.sha256(id.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"


def _note_dropped(call: Call, body: Body) -> None:
    if any(body.get(name) is not None for name in ("temperature", "top_p", "top_k")):
        call.warn("sampling")
    if (body.get("thinking") or {}).get("type") not in (None, "disabled"):
        call.warn("thinking")
    if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        call.warn("tool_choice")
    if (body.get("output_config") or {}).get("format"):
        raise InvalidRequest("output_config.format: structured outputs are not supported by this upstream")


# ---- instructions


def _without_systems(conversation: list[Turn]) -> Iterator[Turn]:
    """System messages among the others become reminders in a user's message, in their place."""
    for turn in conversation:
        if turn.role == "system":
            text = texts_of(block for _, block in turn.blocks)
            block = {"type": "text", "text": f"<system-reminder>\n{text}\n</system-reminder>"}
            turn = Turn("user", turn.at, [(turn.at, block)] if text else [])
        if turn.blocks:
            yield turn


def _instructions(body: Body, names: ToolNames) -> str:
    tools = [tool for tool in body.get("tools") or () if is_custom(tool)]
    long = [text for tool in tools if (text := overlong(names[tool["name"]], str(tool.get("description") or "")))]
    return "\n\n".join(filter(None, [system_text(body.get("system")), *([DOCUMENTATION, *long] if long else [])]))


def _put_first(history: list[Body], current: Body, text: str) -> None:
    """In front of the conversation's first words, on every turn: the service keeps nothing between requests."""
    first = history[0]["userInputMessage"] if history else current
    first["content"] = "\n\n".join(filter(None, [text, first["content"]]))


def _fill_empty(history: list[Body], current: Body) -> None:
    for item in history:
        message = next(iter(item.values()))
        message["content"] = message["content"] or EMPTY
    context = current["userInputMessageContext"]
    if not current["content"] and not context.get("toolResults"):
        if not current.get("images"):
            raise InvalidRequest("messages: text content blocks must be non-empty")
        current["content"] = EMPTY


# ---- turns


class _Items:
    """Turns as items of the history: the call to note warnings on, the tools' names, the order of the last calls."""

    def __init__(self, call: Call, names: ToolNames, origin: str):
        self._call = call
        self._names = names
        self._origin = origin
        self._order: list[str] = []

    def of(self, conversation: list[Turn]) -> Iterator[Body]:
        if conversation[0].role == "assistant":
            yield self._user(Turn("user", ()))
        for turn in conversation:
            yield self._user(turn) if turn.role == "user" else self._assistant(turn)

    def _assistant(self, turn: Turn) -> Body:
        texts: list[str] = []
        uses: list[Body] = []
        for at, block in turn.blocks:
            match block["type"]:
                case "text":
                    texts.append(block["text"])
                case "tool_use":
                    name = self._names[block["name"]]
                    uses.append({"toolUseId": tool_id(block["id"]), "name": name, "input": block["input"]})
                case "thinking" | "redacted_thinking":
                    pass
                case _:
                    texts.append(plain_text.said(self._call, block, at))
        self._order = [use["toolUseId"] for use in uses]
        message: Body = {"content": "".join(texts)}
        return {"assistantResponseMessage": message | ({"toolUses": uses} if uses else {})}

    def _user(self, turn: Turn) -> Body:
        texts: list[str] = []
        images: list[Body] = []
        results: dict[str, Body] = {}
        for at, block in turn.blocks:
            if block["type"] == "tool_result":
                self._tool_result(block, at, results, images)
            else:
                self._part(block, at, texts, images)
        context: Body = {}
        if results:
            context["toolResults"] = sorted(results.values(), key=lambda result: self._place(result["toolUseId"]))
        message: Body = {"content": "\n\n".join(filter(None, texts)), "origin": self._origin}
        if images:
            message["images"] = images
        return {"userInputMessage": message | {"userInputMessageContext": context}}

    def _place(self, id: str) -> int:
        return self._order.index(id) if id in self._order else len(self._order)

    def _tool_result(self, block: Block, at: Path, results: dict[str, Body], images: list[Body]) -> None:
        """One entry for each id; what is no text goes beside it, for results hold text only."""
        texts: list[str] = []
        before = len(images)
        for index, item in enumerate(blocks_of(block.get("content"))):
            self._part(item, (*at, "tool_result", "content", index), texts, images)
        texts += [f"[image {number + 1} of this message]" for number in range(before, len(images))]
        content = [{"text": "\n".join(filter(None, texts)) or NO_OUTPUT}]
        id = tool_id(block["tool_use_id"])
        result = results.setdefault(id, {"toolUseId": id, "content": [], "status": "success"})
        result["content"] += content
        if block.get("is_error"):
            result["status"] = "error"

    # ---- blocks of a user

    def _part(self, block: Block, at: Path, texts: list[str], images: list[Body]) -> None:
        match block["type"]:
            case "text":
                texts.append(block["text"])
            case "image":
                images.append(self._image(block["source"], at, len(images)))
            case "document":
                self._document(block, at, texts, images)
            case "search_result":
                texts.append(plain_text.search_result(self._call, block))
            case "tool_reference":
                texts.append(plain_text.tool_reference(block))
            case _:
                self._call.warn("server_blocks")

    def _image(self, source: Body, at: Path, before: int) -> Body:
        if source["type"] != "base64":  # the gateway must not fetch what a client names
            raise refused(at, f"{source['type']} sources of images are not supported by this upstream")
        if source["media_type"] not in IMAGE_FORMATS:
            raise refused(at, f"{source['media_type']} is not supported by this upstream")
        if before >= MOST_IMAGES:
            raise refused(at, f"more than {MOST_IMAGES} images in one message are not supported by this upstream")
        return {"format": IMAGE_FORMATS[source["media_type"]], "source": {"bytes": source["data"]}}

    def _document(self, block: Block, at: Path, texts: list[str], images: list[Body]) -> None:
        if (text := plain_text.document(self._call, block)) is None:
            raise refused(at, "document input is not supported by this upstream")
        texts.append(text)
        for item in blocks_of(block["source"].get("content")):
            if item["type"] == "image":
                images.append(self._image(item["source"], at, len(images)))


# ---- tools


def _called(conversation: list[Turn]) -> list[str]:
    """The names of the tools that were called, in the order of their first calls."""
    return list(dict.fromkeys(block["name"] for turn in conversation for _, block in turn.of_type("tool_use")))


def _tools(call: Call, body: Body, names: ToolNames, conversation: list[Turn]) -> list[Body]:
    """The declared tools, and a stub for each that only the history knows. ``tool_choice`` none leaves only stubs."""
    declared: dict[str, Body] = {}
    for index, tool in enumerate(body.get("tools") or ()):
        if is_custom(tool):
            name = names[tool["name"]]
            declared[name] = specification(name, str(tool.get("description") or ""), tool["input_schema"])
        else:
            left_out(call, body, index, tool)
    if (body.get("tool_choice") or {}).get("type") == "none":
        declared = {}
    stubs = {names[name]: stub(names[name]) for name in _called(conversation)}
    return [*declared.values(), *(tool for name, tool in stubs.items() if name not in declared)]
