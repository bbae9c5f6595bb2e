"""An OpenAI Chat Completions request as an Anthropic request: the table of wire.md 4.4, row by row. Pure."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from opus_api.wire import jsons
from opus_api.wire.errors import InvalidRequest
from opus_api.wire.messages import Block
from opus_api.wire.request import Body, Call

DEFAULT_MAX_TOKENS = 8192
MEDIA_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,(.*)", re.S)

# Fields without an Anthropic counterpart that do not change what the answer means: dropped with a warning each.
DROPPED = {
    "logprobs",
    "top_logprobs",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "store",
    "metadata",
    "prediction",
    "verbosity",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "web_search_options",
    "moderation",
}
MAPPED = {
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "stop",
    "stream",
    "stream_options",
    "n",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "response_format",
    "reasoning_effort",
    "user",
    "safety_identifier",
    "modalities",
    "audio",
}
# reasoning_effort -> budget of models that think by budget (4.5 and older)
BUDGETS = {"minimal": 2048, "low": 2048, "medium": 8192, "high": 24_576, "xhigh": 24_576, "max": 24_576}
EFFORTS = {"minimal": "low"}
BY_BUDGET = re.compile(
    r"claude-(3|opus-4-[015]\b|sonnet-4-[05]\b|haiku-4-5|(opus|sonnet)-4-2025)"
    r"|claude-(sonnet|opus|haiku)-4[.-]5"
)


def to_canonical(call: Call) -> Body:
    """Raises InvalidRequest for what can not be said; notes warnings on ``call``."""
    body = call.body
    _refuse(body)
    system, messages = _messages(call, body)
    out: Body = {"model": body["model"], "max_tokens": _max_tokens(body), "messages": messages}
    if system:
        out["system"] = system
    if call.stream:
        out["stream"] = True
    out |= _sampling(call, body) | _tools(body) | _format(call, body, out) | _identity(body)
    _reasoning(call, body, out)
    for name in sorted(body.keys() & DROPPED):
        if body[name] not in (None, False):
            call.warn(name)
    if body.keys() - MAPPED - DROPPED:
        call.warn("unknown_fields")
    return out


def _refuse(body: Body) -> None:
    if body.get("n") not in (None, 1):
        raise InvalidRequest("n: only 1 is supported")
    if "audio" in (body.get("modalities") or ()) or body.get("audio"):
        raise InvalidRequest("modalities: audio output is not supported")


def _max_tokens(body: Body) -> int:
    return body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_MAX_TOKENS


def _sampling(call: Call, body: Body) -> Body:
    out: Body = {}
    if body.get("temperature") is not None:
        out["temperature"] = min(body["temperature"], 1)
    if body.get("top_p") is not None:
        out["top_p"] = body["top_p"]
    stop = body.get("stop")
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(item, str) for item in stops):
        raise InvalidRequest("stop: Input should be a valid string or list of strings")
    if kept := [item for item in stops if item.strip()]:
        out["stop_sequences"] = kept
    return out


def _identity(body: Body) -> Body:
    """Only a hash of the end user's name leaves the gateway."""
    user = body.get("safety_identifier") or body.get("user")
    if not isinstance(user, str) or not user:
        return {}
    return {"metadata": {"user_id": hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()}}


def _reasoning(call: Call, body: Body, out: Body) -> None:
    effort = body.get("reasoning_effort")
    if effort is None:
        return
    if effort == "none":
        out["thinking"] = {"type": "disabled"}
    elif _unsigned_tool_turn(out["messages"]):
        call.warn("thinking")  # the second turn of a tool loop without signed thinking would be refused
    elif BY_BUDGET.search(body["model"]):
        budget = BUDGETS.get(effort, BUDGETS["medium"])
        out["thinking"] = {"type": "enabled", "budget_tokens": budget}
        out["max_tokens"] = max(out["max_tokens"], budget + 1024)
        out.pop("temperature", None)
    else:
        out["thinking"] = {"type": "adaptive"}
        out["output_config"] = {**out.get("output_config", {}), "effort": EFFORTS.get(effort, effort)}


def _unsigned_tool_turn(messages: list[Body]) -> bool:
    last = next((m for m in reversed(messages) if m["role"] == "assistant"), {})
    return any(block["type"] == "tool_use" for block in last.get("content") or () if isinstance(block, dict))


def _format(call: Call, body: Body, out: Body) -> Body:
    wanted = body.get("response_format") or {}
    match wanted.get("type"):
        case "json_schema":
            schema = (wanted.get("json_schema") or {}).get("schema") or {"type": "object"}
            return {"output_config": {"format": {"type": "json_schema", "schema": _closed(schema)}}}
        case "json_object":
            call.warn("json_object")
            suffix = "Reply with a single JSON object."
            out["system"] = f"{out['system']}\n\n{suffix}" if out.get("system") else suffix
    return {}


def _closed(schema: Any) -> Any:
    """Anthropic wants additionalProperties: false on every object."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(value) for name, value in schema.items()}
    if closed.get("type") == "object":
        closed["additionalProperties"] = False
    return closed


# ---- tools


def _tools(body: Body) -> Body:
    given = [*(body.get("tools") or ()), *({"function": f} for f in body.get("functions") or ())]
    tools = [_tool(tool, f"tools.{index}") for index, tool in enumerate(given)]
    if not tools:
        return {}
    choice, names = _tool_choice(body.get("tool_choice", body.get("function_call")))
    out: Body = {"tools": [tool for tool in tools if names is None or tool["name"] in names]}
    if body.get("parallel_tool_calls") is False:
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    if choice:
        out["tool_choice"] = choice
    return out


def _tool(tool: Any, at: str) -> Body:
    """A definition in any of the shapes clients send: nested, flat, Anthropic's own, or a custom tool with a grammar."""
    if not isinstance(tool, dict):
        raise InvalidRequest(f"{at}: Input should be a valid dictionary")
    if tool.get("type") == "custom":
        return _custom_tool(tool.get("custom") or tool, at)
    function = tool.get("function") or tool
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InvalidRequest(f"{at}.function.name: Field required")
    schema = function.get("parameters") or function.get("input_schema") or {}
    out: Body = {"name": function["name"], "input_schema": {"type": "object", "properties": {}, **schema}}
    out |= {name: function[name] for name in ("description", "strict") if function.get(name) is not None}
    return out


def _custom_tool(tool: Mapping[str, Any], at: str) -> Body:
    if not isinstance(tool.get("name"), str):
        raise InvalidRequest(f"{at}.custom.name: Field required")
    schema = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    return {"name": tool["name"], "description": tool.get("description") or "", "input_schema": schema}


def _tool_choice(choice: Any) -> tuple[Body | None, set[str] | None]:
    """(Anthropic's choice, the names that stay allowed or None for all)."""
    if choice is None:
        return None, None
    if isinstance(choice, str):
        kinds = {"none": "none", "auto": "auto", "required": "any"}
        if choice not in kinds:
            raise InvalidRequest("tool_choice: Input should be 'none', 'auto' or 'required'")
        return {"type": kinds[choice]}, None
    if not isinstance(choice, dict):
        raise InvalidRequest("tool_choice: Input should be a valid string or dictionary")
    if choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools") or {}
        names = {(tool.get("function") or tool).get("name") for tool in allowed.get("tools") or ()}
        return {"type": "any" if allowed.get("mode") == "required" else "auto"}, names
    named = (choice.get("function") or choice.get("custom") or choice).get("name")
    if not isinstance(named, str):
        raise InvalidRequest("tool_choice.function.name: Field required")
    return {"type": "tool", "name": named}, None


# ---- messages


def _messages(call: Call, body: Body) -> tuple[str, list[Body]]:
    system: list[str] = []
    out: list[Body] = []
    known: set[str] = set()  # ids of tool calls so far
    for index, message in enumerate(body["messages"]):
        role, at = message["role"], f"messages.{index}"
        if role in ("system", "developer"):
            system.append(_text(message["content"]))
        elif role == "assistant":
            _append(out, "assistant", _assistant(message, at, known, index))
        elif role in ("tool", "function"):
            _append(out, "user", [_tool_result(message, at, known, index)])
        else:
            _append(out, "user", _user(message["content"], f"{at}.content"))
    if not out:
        raise InvalidRequest("messages: at least one message with role 'user' is required")
    if out[0]["role"] != "user":
        call.warn("inserted_user")
        out.insert(0, {"role": "user", "content": "."})
    _check_answered(out)
    return "\n\n".join(filter(None, system)), out


def _append(messages: list[Body], role: str, blocks: list[Block]) -> None:
    """Adjacent messages of one role are one; a message without blocks is none. Tool results come first in theirs."""
    if not blocks:
        return
    if not messages or messages[-1]["role"] != role:
        messages.append({"role": role, "content": []})
    content = messages[-1]["content"]
    content.extend(blocks)
    content.sort(key=lambda block: block["type"] != "tool_result")


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n\n".join(part["text"] for part in content or () if isinstance(part.get("text"), str))


def _assistant(message: Body, at: str, known: set[str], index: int) -> list[Block]:
    text = _text(message.get("content")) or message.get("refusal") or ""
    blocks: list[Block] = [{"type": "text", "text": text}] if text.strip() else []
    calls = message.get("tool_calls") or []
    if message.get("function_call"):
        calls = [{"id": f"call_{index}", "function": message["function_call"]}]
    for position, call in enumerate(calls):
        blocks.append(_tool_use(call, f"{at}.tool_calls.{position}"))
        known.add(blocks[-1]["id"])
    return blocks


def _tool_use(call: Any, at: str) -> Block:
    function = (call.get("function") or call.get("custom")) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InvalidRequest(f"{at}.function.name: Field required")
    if not isinstance(call.get("id"), str):
        raise InvalidRequest(f"{at}.id: Field required")
    if call.get("custom"):
        return {
            "type": "tool_use",
            "id": call["id"],
            "name": function["name"],
            "input": {"input": function.get("input")},
        }
    arguments = function.get("arguments") or "{}"
    try:
        value = jsons.loads(arguments) if isinstance(arguments, str) else arguments
    except jsons.JsonError:
        raise InvalidRequest(f"{at}.function.arguments: invalid JSON") from None
    value = value if isinstance(value, dict) else {"value": value}
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": value}


def _tool_result(message: Body, at: str, known: set[str], index: int) -> Block:
    id = message.get("tool_call_id")
    if id is None:  # the old "function" role answers the call just before it
        id = next((name for name in (f"call_{index - 1}",) if name in known), "")
    if id not in known:
        raise InvalidRequest(
            f"{at}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each `tool_result` block must have a "
            "corresponding `tool_use` block in the previous message."
        )
    return {"type": "tool_result", "tool_use_id": id, "content": _text(message.get("content"))}


def _check_answered(messages: list[Body]) -> None:
    for index, message in enumerate(messages[:-1]):
        called = [block["id"] for block in _blocks(message) if block["type"] == "tool_use"]
        answered = {block["tool_use_id"] for block in _blocks(messages[index + 1]) if block["type"] == "tool_result"}
        missing = [id for id in called if id not in answered]
        if missing:
            raise InvalidRequest(
                f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the next "
                "message."
            )


def _blocks(message: Body) -> list[Block]:
    return message["content"] if isinstance(message["content"], list) else []


def _user(content: Any, at: str) -> list[Block]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content.strip() else []
    return [block for index, part in enumerate(content) if (block := _part(part, f"{at}.{index}"))]


def _part(part: Body, at: str) -> Block | None:
    match part["type"]:
        case "text":
            text = part.get("text")
            return {"type": "text", "text": text} if isinstance(text, str) and text.strip() else None
        case "image_url":
            return _image(part.get("image_url"), f"{at}.image_url")
        case "file":
            return _file(part.get("file") or {}, f"{at}.file")
        case "input_audio":
            raise InvalidRequest(f"{at}: audio input is not supported")
        case "image" | "document" | "tool_result" | "search_result":
            return part  # some clients mix Anthropic's blocks in
        case other:
            raise InvalidRequest(f"{at}.type: '{other}' is not supported")


def _image(image: Any, at: str) -> Block:
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str):
        raise InvalidRequest(f"{at}.url: Field required")
    data = DATA_URL.fullmatch(url)
    if not data:
        if not url.startswith(("https://", "http://")):
            raise InvalidRequest(f"{at}.url: Input should be an https or data URL")
        return {"type": "image", "source": {"type": "url", "url": url}}
    if data[1] not in MEDIA_TYPES:
        raise InvalidRequest(f"{at}.url: media type should be one of {', '.join(MEDIA_TYPES)}")
    return {"type": "image", "source": {"type": "base64", "media_type": data[1], "data": data[2]}}


def _file(file: Mapping[str, Any], at: str) -> Block:
    data = DATA_URL.fullmatch(file.get("file_data") or "")
    if file.get("file_id") or not data:
        raise InvalidRequest(f"{at}: only file_data with a base64 data URL is supported")
    source = {"type": "base64", "media_type": data[1], "data": data[2]}
    return {"type": "document", "source": source} | ({"title": file["filename"]} if file.get("filename") else {})
