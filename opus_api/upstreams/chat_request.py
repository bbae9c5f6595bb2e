"""An Anthropic request as an OpenAI Chat Completions request, field by field. Pure.

Dropped without a word is what only tunes cost, speed, caching or telemetry; dropped with a warning is what the answer
can do without; refused is what would change the answer's meaning.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from opus_api.upstreams import chat_messages
from opus_api.upstreams.chat_messages import LONGEST_TOOL_NAME, short_name
from opus_api.wire.errors import InvalidRequest
from opus_api.wire.request import Body, Call

Options = Mapping[str, Any]

# Claude Code sends several of these on every call.
SILENT = {
    "service_tier",
    "speed",
    "inference_geo",
    "cache_control",
    "context_management",
    "diagnostics",
    "metadata",
}
NEEDS_ANTHROPIC = ("mcp_servers", "container", "fallbacks", "compaction")
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
    "thread",
    "top_p",
    "top_k",
}
# Tools that run on Anthropic's servers, by the start of their dated type. The other dated ones (bash_…, computer_…)
# run at the client, but only Claude knows their schema.
SERVER_TOOLS = ("web_search_", "web_fetch_", "code_execution_", "tool_search_tool_", "advisor_", "mcp_toolset")

MOST_STOPS = 4  # OpenAI's limit, kept by most compatible servers
LARGEST_EFFORT = {"xhigh": "high", "max": "high"}


def convert(call: Call, model: str, options: Options) -> Body:
    """Raises InvalidRequest when dropping something would change the answer's meaning; else warns on ``call``."""
    body = call.canonical()
    refuse_foreign(call, body)
    out: Body = {"model": model, "messages": chat_messages.convert(call, options)}
    limit = "max_completion_tokens" if options["max_completion_tokens"] else "max_tokens"
    out[limit] = _max_tokens(call, body, options)
    if body.get("tools"):
        out |= _tools(call, body, options)
    out |= _sampling(call, body, options) | _thinking(call, body, options) | _format(body, options)
    out |= _identity(body, options)
    out["stream"] = True
    if options["stream_options"]:
        out["stream_options"] = {"include_usage": True}
    return out


def long_names(call: Call) -> dict[str, str]:
    """short name -> the client's, for the way back."""
    names = (tool.get("name") or "" for tool in call.canonical().get("tools") or ())
    return {short_name(name): name for name in names if len(name) > LONGEST_TOOL_NAME}


def refuse_thread(body: Body) -> None:
    """Conversations kept at Anthropic. With these details its SDKs send the whole conversation instead."""
    if body.get("thread"):
        details = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
        raise InvalidRequest("thread: needs an Anthropic upstream", details=details)


def refuse_foreign(call: Call, body: Body) -> None:
    """What only Anthropic can do is refused, unknown members are noted. Raises InvalidRequest."""
    refuse_thread(body)
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
    effort = (body.get("output_config") or {}).get("effort") or ""
    kind = thinking.get("type")
    if not options["reasoning"]:
        if kind not in (None, "disabled"):
            call.warn("thinking")
        return {}
    if kind == "disabled":
        return {"reasoning_effort": "none"} if options["reasoning_none"] else {}
    if kind == "enabled":
        budget = thinking.get("budget_tokens") or 0
        return {"reasoning_effort": "low" if budget < 4096 else "medium" if budget < 16_384 else "high"}
    if kind is None and not effort:
        return {}
    return {"reasoning_effort": LARGEST_EFFORT.get(effort, effort) or "medium"}


def _format(body: Body, options: Options) -> Body:
    wanted = (body.get("output_config") or {}).get("format")
    if not wanted:
        return {}
    if not options["structured_output"] or wanted.get("type") != "json_schema":
        raise InvalidRequest("output_config.format: structured outputs are not supported by this upstream")
    schema = {"name": "response", "schema": wanted.get("schema"), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _identity(body: Body, options: Options) -> Body:
    """Only on demand and only a hash: Claude Code puts ids of the device and the account there."""
    user = (body.get("metadata") or {}).get("user_id")
    if not options["safety_identifier"] or not isinstance(user, str):
        return {}
    return {"safety_identifier": hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()}


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
    if is_custom(tool):
        function = {"name": short_name(tool["name"]), "parameters": _schema(tool["input_schema"])}
        function |= {name: tool[name] for name in ("description", "strict") if tool.get(name) is not None}
        return {"type": "function", "function": function}
    left_out(call, body, index, tool)
    return None


def left_out(call: Call, body: Body, index: int, tool: Body) -> None:
    """Tools that run at Anthropic can be done without when others remain. Raises InvalidRequest for one that is forced,
    for the only one, and for those whose schema only Claude knows."""
    kind = tool["type"]
    choice = body.get("tool_choice") or {}
    forced = choice.get("type") == "any" or (choice.get("type") == "tool" and choice["name"] == tool.get("name"))
    if forced or not kind.startswith(SERVER_TOOLS) or not any(map(is_custom, body["tools"])):
        raise InvalidRequest(f"tools.{index}: {kind} is not supported by this upstream")
    call.warn("server_tools")


def is_custom(tool: Body) -> bool:
    return tool.get("type") in (None, "custom")


def _schema(schema: Body) -> Body:
    """Some servers refuse an object without properties."""
    return schema if schema.get("properties") else {"type": "object", **schema, "properties": {}}


def _tool_choice(choice: Body) -> Any:
    match choice["type"]:
        case "tool":
            return {"type": "function", "function": {"name": short_name(choice["name"])}}
        case "any":
            return "required"
        case other:
            return other
