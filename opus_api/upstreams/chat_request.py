"""An Anthropic request as an OpenAI Chat Completions request: the table of wire.md 4.1, row by row. Pure."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from opus_api.wire import jsons
from opus_api.wire.errors import InvalidRequest
from opus_api.wire.messages import UNSIGNED, Block
from opus_api.wire.request import Body, Call

Options = Mapping[str, Any]

# Fields that only tune cost, speed, caching or telemetry: dropped without a word (wire.md 4.1).
SILENT = {
    "service_tier",
    "speed",
    "inference_geo",
    "cache_control",
    "context_management",
    "diagnostics",
    "metadata",
}
NEEDS_ANTHROPIC = ("mcp_servers", "container", "thread", "fallbacks", "compaction")
MAPPED = {
    "model",
    "max_tokens",
    "messages",
    "system",
    "stream",
    "stop_sequences",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "temperature",
    "top_p",
    "top_k",
}
BILLING = "x-anthropic-billing-header:"
LONGEST_TOOL_NAME = 64
MOST_STOPS = 4


def convert(call: Call, model: str, options: Options) -> Body:
    """Raises InvalidRequest when dropping something would change the answer's meaning; else notes warnings on ``call``."""
    body = call.canonical()
    _refuse_foreign(call, body)
    out: Body = {"model": model, "messages": _messages(call, body, options)}
    out["max_completion_tokens" if options["max_completion_tokens"] else "max_tokens"] = _max_tokens(
        call, body, options
    )
    if body.get("tools"):
        out |= _tools(call, body, options)
    out |= _sampling(call, body, options) | _thinking(call, body, options) | _format(body, options)
    out["stream"] = True
    if options["stream_options"]:
        out["stream_options"] = {"include_usage": True}
    return out


def short_name(name: str) -> str:
    """A tool name of at most 64 characters; the hash keeps two long ones apart."""
    if len(name) <= LONGEST_TOOL_NAME:
        return name
    return f"{name[:55]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def long_names(call: Call) -> dict[str, str]:
    """short name -> the client's, for the way back."""
    names = (tool.get("name") for tool in call.canonical().get("tools") or () if isinstance(tool, dict))
    return {short_name(name): name for name in names if isinstance(name, str) and len(name) > LONGEST_TOOL_NAME}


def _refuse_foreign(call: Call, body: Body) -> None:
    for name in NEEDS_ANTHROPIC:
        if body.get(name):
            raise InvalidRequest(f"{name}: needs an Anthropic upstream")
    if body["max_tokens"] == 0:
        raise InvalidRequest("max_tokens: 0 (cache pre-warming) is not supported by this upstream")
    if body.keys() - MAPPED - SILENT - set(NEEDS_ANTHROPIC):
        call.warn("unknown_fields")


def _max_tokens(call: Call, body: Body, options: Options) -> int:
    wanted: int = body["max_tokens"]
    limit: int = options["max_tokens"]
    if limit and wanted > limit:
        call.warn("max_tokens_clamped")
        return limit
    return wanted


def _sampling(call: Call, body: Body, options: Options) -> Body:
    out = {name: body[name] for name in ("temperature", "top_p") if body.get(name) is not None}
    if body.get("top_k") is not None:
        if options["top_k"]:
            out["top_k"] = body["top_k"]
        else:
            call.warn("top_k")
    if stops := body.get("stop_sequences"):
        if len(stops) > MOST_STOPS:
            raise InvalidRequest(f"stop_sequences: at most {MOST_STOPS} are supported by this upstream")
        out["stop"] = stops
    return out


def _thinking(call: Call, body: Body, options: Options) -> Body:
    thinking = body.get("thinking") or {}
    effort = str((body.get("output_config") or {}).get("effort") or "")
    kind = thinking.get("type")
    if not options["reasoning"]:
        if kind not in (None, "disabled"):
            call.warn("thinking")
        return {}
    if kind == "disabled":
        return {"reasoning_effort": "none"}
    if kind == "enabled":
        budget = thinking.get("budget_tokens") or 0
        return {"reasoning_effort": "low" if budget < 4096 else "medium" if budget < 16_384 else "high"}
    if kind is None and not effort:
        return {}
    return {"reasoning_effort": {"xhigh": "high", "max": "high"}.get(effort, effort) or "medium"}


def _format(body: Body, options: Options) -> Body:
    wanted = (body.get("output_config") or {}).get("format")
    if not wanted:
        return {}
    if not options["structured_output"]:
        raise InvalidRequest("output_config.format: structured outputs are not supported by this upstream")
    schema = {"name": "response", "schema": wanted.get("schema"), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


# ---- tools


def _tools(call: Call, body: Body, options: Options) -> Body:
    choice = body.get("tool_choice") or {}
    tools = [tool for index, given in enumerate(body["tools"]) if (tool := _tool(call, body, index, given))]
    out: Body = {"tools": tools}
    if choice:
        out["tool_choice"] = _tool_choice(choice)
    if choice.get("disable_parallel_tool_use") and options["parallel_tool_calls"]:
        out["parallel_tool_calls"] = False
    return out


def _tool(call: Call, body: Body, index: int, tool: Body) -> Body | None:
    kind = tool.get("type")
    if kind in (None, "custom"):
        function = {"name": short_name(tool["name"]), "parameters": _schema(tool["input_schema"])}
        function |= {name: tool[name] for name in ("description", "strict") if tool.get(name) is not None}
        return {"type": "function", "function": function}
    choice = body.get("tool_choice") or {}
    others = any(t.get("type") in (None, "custom") for t in body["tools"])
    forced = choice.get("type") == "any" or choice.get("name") == tool.get("name")
    if not others or forced or not _runs_at_anthropic(str(kind)):
        raise InvalidRequest(f"tools.{index}: {kind} is not supported by this upstream")
    call.warn("server_tools")
    return None


def _runs_at_anthropic(kind: str) -> bool:
    return kind.startswith(
        ("web_search_", "web_fetch_", "code_execution_", "tool_search_tool_", "advisor_", "mcp_toolset")
    )


def _schema(schema: Body) -> Body:
    """Some servers refuse an object without properties."""
    return schema if schema.get("properties") else {"type": "object", "properties": {}, **schema}


def _tool_choice(choice: Body) -> Any:
    match choice["type"]:
        case "tool":
            return {"type": "function", "function": {"name": short_name(choice["name"])}}
        case "any":
            return "required"
        case other:
            return other


# ---- messages


def _messages(call: Call, body: Body, options: Options) -> list[Body]:
    out: list[Body] = []
    if system := _system_text(body.get("system")):
        out.append({"role": "system", "content": system})
    for index, message in enumerate(body["messages"]):
        blocks = _blocks(message["content"])
        if message["role"] == "system":
            _add_system(out, _texts(blocks), options)
        elif message["role"] == "assistant":
            out += _assistant(call, blocks, options)
        else:
            out += _user(call, blocks, f"messages.{index}.content", options, out)
    if body["messages"][-1]["role"] == "assistant" and not options["prefill"]:
        raise InvalidRequest(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
    return out


def _blocks(content: str | list[Block]) -> list[Block]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _texts(blocks: Iterable[Block], joint: str = "\n\n") -> str:
    return joint.join(block["text"] for block in blocks if block["type"] == "text" and block["text"])


def _system_text(system: str | list[Block] | None) -> str:
    if not isinstance(system, list):
        return system or ""
    # Claude Code's attribution differs each turn and would ruin the upstream's prompt cache.
    if system and system[0].get("text", "").startswith(BILLING):
        system = system[1:]
    return _texts(system)


def _add_system(out: list[Body], text: str, options: Options) -> None:
    """A system message in the middle of the conversation stays where it is: its place has a meaning."""
    if not text:
        return
    if not options["single_system"]:
        out.append({"role": "system", "content": text})
        return
    reminder = {"type": "text", "text": f"\n\n<system-reminder>\n{text}\n</system-reminder>"}
    if out and out[-1]["role"] == "user":
        last = out[-1]["content"]
        out[-1]["content"] = last + reminder["text"] if isinstance(last, str) else [*last, reminder]
    else:
        out.append({"role": "user", "content": reminder["text"].strip()})


def _assistant(call: Call, blocks: list[Block], options: Options) -> list[Body]:
    texts: list[str] = []
    calls: list[Body] = []
    thinking: list[str] = []
    for block in blocks:
        match block["type"]:
            case "text":
                texts.append(block["text"])
            case "tool_use":
                arguments = jsons.compact(block["input"])
                function = {"name": short_name(block["name"]), "arguments": arguments}
                calls.append({"id": block["id"], "type": "function", "function": function})
            case "thinking":
                thinking.append(block["thinking"])
            case "redacted_thinking":
                pass
            case _:
                texts.append(_server_text(call, block))
    message: Body = {"role": "assistant", "content": "".join(texts) or None}
    if calls:
        message["tool_calls"] = calls
    if thinking and options["replay_reasoning"]:
        message["reasoning_content"] = "".join(thinking)
    return [message] if message["content"] or calls else []


def _server_text(call: Call, block: Block) -> str:
    """What a person could read in a block that only Anthropic's servers make."""
    call.warn("server_blocks")
    kind = str(block["type"])
    content = block.get("content")
    if not kind.endswith("_tool_result") or not isinstance(content, list):
        return ""
    lines = [f"{item.get('title', '')} {item.get('url', '')}".strip() for item in content if isinstance(item, dict)]
    return "\n".join([f"[{kind.removesuffix('_tool_result')} results]", *filter(None, lines)]) + "\n"


def _user(call: Call, blocks: list[Block], at: str, options: Options, before: list[Body]) -> list[Body]:
    """All tool messages of the turn first, in the order of the calls, then one user message with the rest."""
    results: list[Body] = []
    parts: list[Body] = []
    for index, block in enumerate(blocks):
        if block["type"] == "tool_result":
            content, attached = _tool_result(call, block, f"{at}.{index}", options, len(parts))
            results.append({"role": "tool", "tool_call_id": block["tool_use_id"], "content": content})
            parts += attached
        elif part := _part(call, block, f"{at}.{index}", options):
            parts.append(part)
    order = _call_order(before)
    results.sort(key=lambda message: order.get(message["tool_call_id"], len(order)))
    return results + _user_message(parts, options)


def _call_order(messages: list[Body]) -> dict[str, int]:
    last = next((m for m in reversed(messages) if m["role"] == "assistant"), {})
    return {item["id"]: position for position, item in enumerate(last.get("tool_calls") or ())}


def _user_message(parts: list[Body], options: Options) -> list[Body]:
    if not parts:
        return []
    if all(part["type"] == "text" for part in parts) and (len(parts) == 1 or options["string_content"]):
        return [{"role": "user", "content": "\n\n".join(part["text"] for part in parts)}]
    return [{"role": "user", "content": parts}]


def _tool_result(call: Call, block: Block, at: str, options: Options, images: int) -> tuple[str, list[Body]]:
    """(text of the tool message, parts for the user message that follows): tool messages take text only."""
    texts: list[str] = []
    attached: list[Body] = []
    for index, item in enumerate(_blocks(block.get("content") or "")):
        part = _part(call, item, f"{at}.tool_result.content.{index}", options)
        if part is None:
            continue
        if part["type"] == "text":
            texts.append(part["text"])
        else:
            attached.append(part)
            texts.append(f"[{item['type']} {images + len(attached)} below]")
    text = "\n".join(texts)
    if block.get("is_error"):
        text = f"Error: {text}"
    return text or ("(no output)" if options["fill_empty_tool_content"] else ""), attached


def _part(call: Call, block: Block, at: str, options: Options) -> Body | None:
    match block["type"]:
        case "text":
            return {"type": "text", "text": block["text"]} if block["text"] else None
        case "image":
            return _image(block, at, options)
        case "document":
            return _document(call, block, at, options)
        case "search_result":
            call.warn("citations")
            text = _texts(block["content"], "\n")
            return {
                "type": "text",
                "text": f'<search_result source="{block["source"]}" title="{block["title"]}">\n{text}\n</search_result>',
            }
        case _:
            call.warn("server_blocks")
            return None


def _image(block: Block, at: str, options: Options) -> Body:
    if not options["vision"]:
        raise InvalidRequest(f"{at}: image input is not supported by this upstream")
    source = block["source"]
    match source["type"]:
        case "base64":
            url = f"data:{source.get('media_type')};base64,{source.get('data')}"
        case "url":
            url = str(source.get("url"))
        case _:
            raise InvalidRequest(f"{at}: file sources need an Anthropic upstream")
    return {"type": "image_url", "image_url": {"url": url}}


def _document(call: Call, block: Block, at: str, options: Options) -> Body:
    source = block["source"]
    title = block.get("title") or ""
    if block.get("context") or (block.get("citations") or {}).get("enabled"):
        call.warn("citations")
    match source["type"]:
        case "text":
            return _document_text(title, str(source.get("data") or ""))
        case "content":
            return _document_text(title, _texts(_blocks(source.get("content") or ""), "\n"))
        case "base64":
            if not options["files"]:
                raise InvalidRequest(f"{at}: document input is not supported by this upstream")
            data = f"data:application/pdf;base64,{source.get('data')}"
            return {"type": "file", "file": {"filename": title or "document.pdf", "file_data": data}}
        case "url":
            raise InvalidRequest(f"{at}: document URLs need an Anthropic upstream")
        case _:
            raise InvalidRequest(f"{at}: file sources need an Anthropic upstream")


def _document_text(title: str, text: str) -> Body:
    return {"type": "text", "text": f'<document title="{title}">\n{text}\n</document>'}


def without_unsigned_thinking(messages: list[Body]) -> list[Body]:
    """Thinking that no Anthropic model signed is refused by Anthropic (wire.md 4.2): leave it out."""
    out = []
    for message in messages:
        content = message.get("content")
        if message.get("role") == "assistant" and isinstance(content, list):
            kept = [b for b in content if b.get("type") != "thinking" or b.get("signature") not in (None, "", UNSIGNED)]
            if len(kept) != len(content):
                message = {**message, "content": kept}
                if not kept:
                    continue
        out.append(message)
    return out
