"""What Anthropic's models would refuse in a request that is fine elsewhere, and what is done about it. Pure.

Two kinds of requests need it: those whose history other upstreams wrote (a pool mixes them), and those that were
OpenAI requests, whose client cannot know what the model that answers takes.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from opus_api.wire.messages import UNSIGNED, Block
from opus_api.wire.request import Body, Call
from opus_api.wire.turns import blocks_of

# output_config.effort -> budget of models that think by budget
BUDGETS: Mapping[str, int] = {"low": 2048, "medium": 8192, "high": 24_576, "xhigh": 24_576, "max": 24_576}
MOST_OF_CLAUDE_3 = 4096  # output tokens of Claude 3 Opus, Sonnet and Haiku
ROOM = 1024  # tokens for the answer beyond the budget
SAMPLING = ("temperature", "top_p", "top_k")
TOOL_ID = re.compile(r"[a-zA-Z0-9_-]+")  # what Anthropic takes; others make ids like functions.get:0

# "claude-3-5-sonnet-20241022", "claude-opus-4-20250514", "claude-sonnet-4-5", "claude-fable-5-1"
NAME = re.compile(
    r"claude-(?:(?P<old>3)(?:[.-](?P<old_minor>\d))?|(?P<line>[a-z]+)-(?P<major>\d+)(?:[.-](?P<minor>\d{1,2}))?)\b"
)


def generation(model: str) -> tuple[int, int] | None:
    """(4, 5) of claude-sonnet-4-5; None for a name that says none."""
    found = NAME.search(model)
    if not found:
        return None
    return int(found["old"] or found["major"]), int((found["old_minor"] if found["old"] else found["minor"]) or 0)


def fit(call: Call, body: Body) -> Body:
    """``body``, with ``model`` set, as its model takes it. Notes warnings on ``call``."""
    body = body | {"messages": _replayable(body["messages"])}
    if call.dialect != "anthropic":
        body = _with_limit_of(call, body)
        body = _with_thinking_of(call, body)
        body = _with_system_first(body)
        body = _without_removed(call, body)
    return _without_refused_thinking(call, body)


# ---- histories that other upstreams wrote


def _replayable(messages: list[Body]) -> list[Body]:
    """Without thinking that Anthropic did not sign and text that is blank, and with tool call ids in its alphabet: it
    refuses others."""
    out = []
    for message in messages:
        content = message["content"]
        if any(map(_is_foreign, blocks_of(content))):
            content = [_plain(block) for block in blocks_of(content) if _has_id(block) or not _is_foreign(block)]
            if not content:
                continue
            message = {**message, "content": content}
        out.append(message)
    return out


def _has_id(block: Block) -> bool:
    return block["type"] in ("tool_use", "tool_result")


def _is_foreign(block: Block) -> bool:
    match block["type"]:
        case "tool_use":
            return not TOOL_ID.fullmatch(block["id"])
        case "tool_result":
            return not TOOL_ID.fullmatch(block["tool_use_id"])
        case "thinking":
            return block.get("signature") in (None, "", UNSIGNED)
        case "text":
            return not block["text"] or block["text"].isspace()
        case _:
            return False


def _plain(block: Block) -> Block:
    """The same id becomes the same one each time, in the call as in its result."""
    if not _is_foreign(block):
        return block
    member = "id" if block["type"] == "tool_use" else "tool_use_id"
    digest = hashlib.sha256(block[member].encode("utf-8", "surrogatepass")).hexdigest()
    return {**block, member: f"toolu_{digest[:24]}"}


def _without_refused_thinking(call: Call, body: Body) -> Body:
    """Thinking by budget must find the thinking of the tool call that is being answered, and no model may think when
    a tool is forced: better no thinking than no answer."""
    kind = (body.get("thinking") or {}).get("type")
    forced = call.dialect != "anthropic" and _forced(body)
    if kind not in ("enabled", "adaptive") or not (forced or (kind == "enabled" and _lost_thinking(body["messages"]))):
        return body
    call.warn("thinking")
    return _without(body, "thinking")


def _forced(body: Body) -> bool:
    choice: Any = body.get("tool_choice") or {}
    return choice.get("type") in ("any", "tool")


def _lost_thinking(messages: list[Body]) -> bool:
    """The last assistant turn called a tool and does not begin with thinking."""
    last: Any = next((message["content"] for message in reversed(messages) if message["role"] == "assistant"), [])
    kinds = [block["type"] for block in last] if isinstance(last, list) else []
    return "tool_use" in kinds and kinds[0] not in ("thinking", "redacted_thinking")


# ---- requests that were OpenAI's


def _with_limit_of(call: Call, body: Body) -> Body:
    """Our default must not be above what the model can write; a limit that the client chose is its own."""
    number = generation(body["model"])
    if number != (3, 0) or call.body.get("max_tokens") or call.body.get("max_completion_tokens"):
        return body
    return body | {"max_tokens": min(body["max_tokens"], MOST_OF_CLAUDE_3)}


def _with_thinking_of(call: Call, body: Body) -> Body:
    """Adaptive thinking as models up to 4.5 take it, by budget or not at all; nothing for those that always think."""
    thinking, number = body.get("thinking") or {}, generation(body["model"]) or (99, 0)
    if thinking.get("type") == "disabled" and _always_thinks(body["model"]):
        return _without(body, "thinking")
    if thinking.get("type") != "adaptive" or number > (4, 5):
        return body
    config = dict(body["output_config"])
    budget = BUDGETS[config.pop("effort")]
    body = _without(body, "thinking", "output_config") | ({"output_config": config} if config else {})
    if number < (3, 7) or _forced(body) or _lost_thinking(body["messages"]):
        call.warn("thinking")
        return body
    # Sampling parameters and thinking exclude each other.
    out = _without(body, *SAMPLING) | {"thinking": {"type": "enabled", "budget_tokens": budget}}
    return out | {"max_tokens": max(body["max_tokens"], budget + ROOM)}


def _without(body: Body, *names: str) -> Body:
    return {name: value for name, value in body.items() if name not in names}


def _always_thinks(model: str) -> bool:
    return "fable" in model or "mythos" in model


def _with_system_first(body: Body) -> Body:
    """Models before 4.8, and those whose name says nothing, take no system message among the others."""
    messages = body["messages"]
    later = [message["content"] for message in messages if message["role"] == "system"]
    if not later or (generation(body["model"]) or (0, 0)) >= (4, 8):
        return body
    system = "\n\n".join(filter(None, [body.get("system"), *later]))
    return body | {"system": system, "messages": [message for message in messages if message["role"] != "system"]}


def _without_removed(call: Call, body: Body) -> Body:
    """Models from 4.7 on refuse sampling parameters, Fable and Mythos from 5.1 on refuse to have a tool forced."""
    model = body["model"]
    number = generation(model) or (0, 0)
    if number >= (4, 7) and any(name in body for name in SAMPLING):
        call.warn("sampling")
        body = _without(body, *SAMPLING)
    choice: Any = body.get("tool_choice") or {}
    if _always_thinks(model) and number >= (5, 1) and choice.get("type") in ("any", "tool"):
        call.warn("tool_choice")
        body = body | {"tool_choice": {**_without(choice, "name"), "type": "auto"}}
    return body
