"""An OpenAI Chat Completions request as an Anthropic request, field by field. Pure.

What depends on the Anthropic model that will answer is settled later, by the upstream that knows it.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from opus_api.dialects import openai_messages
from opus_api.dialects.anthropic_checks import TOOL_NAME
from opus_api.wire.checks import Path, one_of, optional, refused
from opus_api.wire.errors import InvalidRequest
from opus_api.wire.jsons import DEEPEST
from opus_api.wire.request import Body, Call

DEFAULT_MAX_TOKENS = 8192

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
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
FORMATS = ("text", "json_object", "json_schema")
CHOICES = {"none": "none", "auto": "auto", "required": "any", "any": "any"}


def to_canonical(call: Call) -> Body:
    """Raises InvalidRequest for what can not be said; notes warnings on ``call``."""
    body = call.body
    _refuse(body)
    system, messages = openai_messages.convert(call)
    out: Body = {"model": body["model"], "max_tokens": _max_tokens(body), "messages": messages}
    system = "\n\n".join(filter(None, (system, _format_request(call, body))))
    if system:
        out["system"] = system
    if call.stream:
        out["stream"] = True
    out |= _sampling(body) | _tools(body) | _identity(body) | _reasoning(body)
    if config := _output_config(body):
        out["output_config"] = config
    _warn_dropped(call, body)
    return out


def _refuse(body: Body) -> None:
    if body.get("n") not in (None, 1):
        raise InvalidRequest("n: only 1 is supported")
    if "audio" in (optional(body, "modalities", list) or ()) or body.get("audio"):
        raise InvalidRequest("modalities: audio output is not supported")


def _warn_dropped(call: Call, body: Body) -> None:
    for name in sorted(body.keys() & DROPPED):
        if body[name] is not None and body[name] is not False:
            call.warn(name)
    if body.keys() - MAPPED - DROPPED:
        call.warn("unknown_fields")


def _max_tokens(body: Body) -> int:
    return body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_MAX_TOKENS


def _sampling(body: Body) -> Body:
    out: Body = {}
    if body.get("temperature") is not None:
        out["temperature"] = min(body["temperature"], 1)  # as Anthropic's own OpenAI endpoint does
    if body.get("top_p") is not None:
        out["top_p"] = body["top_p"]
    stop = body.get("stop")
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(item, str) for item in stops):
        raise InvalidRequest("stop: Input should be a valid string or list of strings")
    if kept := [item for item in stops if item.strip()]:  # the API refuses blank ones
        out["stop_sequences"] = kept
    return out


def _identity(body: Body) -> Body:
    """Only a hash of the end user's name leaves the gateway."""
    user = body.get("safety_identifier") or body.get("user")
    if not isinstance(user, str) or not user:
        return {}
    return {"metadata": {"user_id": hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()}}


# ---- reasoning and formats


def _effort(body: Body) -> str | None:
    effort = body.get("reasoning_effort")
    return None if effort is None else one_of(effort, EFFORTS, ("reasoning_effort",))


def _reasoning(body: Body) -> Body:
    effort = _effort(body)
    if effort is None:
        return {}
    return {"thinking": {"type": "disabled" if effort == "none" else "adaptive"}}


def _output_config(body: Body) -> Body:
    config: Body = {}
    effort = _effort(body)
    if effort not in (None, "none"):
        config["effort"] = "low" if effort == "minimal" else effort
    wanted = _response_format(body)
    if wanted.get("type") == "json_schema":
        given = optional(wanted, "json_schema", dict, ("response_format",)) or {}
        schema = optional(given, "schema", dict, ("response_format", "json_schema")) or {"type": "object"}
        config["format"] = {"type": "json_schema", "schema": _closed(schema)}
    return config


def _response_format(body: Body) -> Body:
    wanted: Body = body.get("response_format") or {}
    if wanted:
        one_of(wanted.get("type"), FORMATS, ("response_format", "type"))
    return wanted


def _format_request(call: Call, body: Body) -> str:
    if _response_format(body).get("type") != "json_object":
        return ""
    call.warn("json_object")
    return "Reply with a single JSON object."


def _closed(schema: Any, depth: int = 0) -> Any:
    """Anthropic wants additionalProperties: false on every object."""
    if depth > DEEPEST:
        raise InvalidRequest("response_format.json_schema.schema: nested too deeply")
    if isinstance(schema, list):
        return [_closed(item, depth + 1) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(value, depth + 1) for name, value in schema.items()}
    if closed.get("type") == "object":
        closed["additionalProperties"] = False
    return closed


# ---- tools


def custom_tools(body: Body) -> set[str]:
    """Names of the tools whose input is free text, which Anthropic does not know: they become tools with one string."""
    tools = body.get("tools") or ()
    customs = (tool.get("custom") or tool for tool in tools if isinstance(tool, dict) and _is_free_text(tool))
    return {tool["name"] for tool in customs if isinstance(tool, dict) and isinstance(tool.get("name"), str)}


def _is_free_text(tool: Body) -> bool:
    return tool.get("type") == "custom" and "input_schema" not in tool  # with a schema it is Anthropic's "custom"


def _tools(body: Body) -> Body:
    tools = [_tool(tool, ("tools", index)) for index, tool in enumerate(body.get("tools") or ())]
    tools += [_function(tool, ("functions", index)) for index, tool in enumerate(body.get("functions") or ())]
    if len({tool["name"] for tool in tools}) < len(tools):
        raise InvalidRequest("tools: Tool names must be unique.")
    if not tools:
        return {}
    choice, names = _tool_choice(body.get("tool_choice", body.get("function_call")))
    out: Body = {"tools": [tool for tool in tools if names is None or tool["name"] in names]}
    if not out["tools"]:
        raise InvalidRequest("tool_choice.allowed_tools.tools: names none of the tools")
    if body.get("parallel_tool_calls") is False and (choice or {}).get("type") != "none":
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    if choice:
        out["tool_choice"] = choice
    return out


def _tool(tool: Any, at: Path) -> Body:
    """A definition in any of the shapes clients send: nested, flat, Anthropic's own, or a custom tool."""
    if not isinstance(tool, dict):
        raise refused(at, "Input should be a valid dictionary")
    if optional(tool, "type", str, at) not in (None, "function", "custom"):
        raise refused((*at, "type"), f"'{tool['type']}' is not supported")
    if _is_free_text(tool):
        return _custom_tool(tool.get("custom") or tool, (*at, "custom"))
    nested = tool.get("function")
    return _function(tool, at) if nested is None else _function(nested, (*at, "function"))


def _function(function: Any, at: Path) -> Body:
    name = _name(function, at)
    schema = optional(function, "parameters", dict, at) or optional(function, "input_schema", dict, at) or {}
    optional(schema, "properties", dict, (*at, "parameters"))
    out: Body = {"name": name, "input_schema": {"type": "object", "properties": {}, **schema}}
    if out["input_schema"]["properties"] is None:
        out["input_schema"]["properties"] = {}
    if description := optional(function, "description", str, at):
        out["description"] = description
    if (strict := optional(function, "strict", bool, at)) is not None:
        out["strict"] = strict
    return out


def _custom_tool(tool: Any, at: Path) -> Body:
    name = _name(tool, at)
    schema = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    return {"name": name, "description": optional(tool, "description", str, at) or "", "input_schema": schema}


def _name(tool: Any, at: Path) -> str:
    if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
        raise refused((*at, "name"), "Field required")
    if not TOOL_NAME.fullmatch(tool["name"]):
        raise refused((*at, "name"), "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'")
    return str(tool["name"])


def _tool_choice(choice: Any) -> tuple[Body | None, set[str] | None]:
    """(Anthropic's choice, the names that stay allowed or None for all)."""
    if choice is None:
        return None, None
    if isinstance(choice, dict) and choice.get("type") in ("auto", "any", "none"):  # Anthropic's shape
        choice = choice["type"]
    if isinstance(choice, str):
        one_of(choice, tuple(CHOICES), ("tool_choice",))
        return {"type": CHOICES[choice]}, None
    if not isinstance(choice, dict):
        raise InvalidRequest("tool_choice: Input should be a valid string or dictionary")
    if choice.get("type") == "allowed_tools":
        return _allowed_tools(optional(choice, "allowed_tools", dict, ("tool_choice",)) or choice)
    return {"type": "tool", "name": _named(choice, ("tool_choice",))}, None


def _allowed_tools(allowed: Mapping[str, Any]) -> tuple[Body, set[str]]:
    at = ("tool_choice", "allowed_tools")
    names = {_named(tool, (*at, "tools", i)) for i, tool in enumerate(optional(allowed, "tools", list, at) or ())}
    return {"type": "any" if allowed.get("mode") == "required" else "auto"}, names


def _named(choice: Any, at: Path) -> str:
    """The name in ``{"function": {"name"}}``, ``{"custom": {"name"}}`` or ``{"name"}``."""
    if isinstance(choice, dict):
        inner = choice.get("function") or choice.get("custom") or choice
        if isinstance(inner, dict) and isinstance(inner.get("name"), str):
            return str(inner["name"])
    raise refused((*at, "function", "name"), "Field required")
