"""What Claude Code sends, rebuilt: structure, sizes and field names as seen from 2.1.197 and 2.1.325, words our own.

The two differ: the newer one keeps most tools back behind a search, writes its system message as blocks, and has its
thinking left out of the answer.
"""

import json
from itertools import cycle, islice
from typing import Any
from uuid import uuid4

Body = dict[str, Any]

OLD, NEW = "2.1.197", "2.1.325"
VERSIONS = (OLD, NEW)
PATH = "/v1/messages?beta=true"
COUNT_PATH = "/v1/messages/count_tokens?beta=true"

BILLING = "x-anthropic-billing-header: cc_version=2.1.0.abc; cc_entrypoint=sdk; cch=0;"
IDENTITY = "You are an agent on the command line, and you help with software."
LARGEST = 125_000  # bytes of a first request

# name -> (characters of its description, bytes of its schema)
TOOLS: dict[str, dict[str, tuple[int, int]]] = {
    OLD: {
        "Agent": (1227, 1260),
        "Bash": (1196, 1456),
        "CronCreate": (2924, 987),
        "CronDelete": (167, 219),
        "CronList": (106, 126),
        "Edit": (360, 584),
        "EnterWorktree": (3031, 630),
        "ExitWorktree": (1923, 502),
        "NotebookEdit": (619, 981),
        "Read": (838, 776),
        "ReportFindings": (574, 1286),
        "ScheduleWakeup": (2802, 820),
        "SendMessage": (655, 452),
        "Skill": (1713, 345),
        "TaskCreate": (2146, 607),
        "TaskGet": (732, 227),
        "TaskList": (998, 126),
        "TaskOutput": (1049, 465),
        "TaskStop": (203, 293),
        "TaskUpdate": (2243, 1168),
        "WebFetch": (374, 336),
        "WebSearch": (311, 499),
        "Workflow": (18780, 1833),
        "Write": (240, 367),
    },
    NEW: {
        "Agent": (3225, 2010),
        "Bash": (1934, 1783),
        "Edit": (360, 584),
        "ListAgents": (777, 336),
        "Read": (790, 1112),
        "ReportFindings": (574, 1646),
        "ScheduleWakeup": (3396, 1423),
        "Skill": (1417, 345),
        "ToolSearch": (952, 427),
        "Workflow": (3496, 1833),
        "DeferredToolPlaceholder": (83, 36),
        "Write": (240, 367),
    },
}
# Each once, so that every keyword which its schemas use has been through the converters.
PROPERTIES: list[Body] = [
    {"type": "string", "minLength": 1, "pattern": "^[a-z]+$"},
    {"type": "number", "exclusiveMinimum": 0, "default": 1},
    {"type": "string", "enum": ["one", "two"], "format": "uri"},
    {"anyOf": [{"type": "string", "const": "all"}, {"type": "array", "items": {"type": "integer"}}]},
    {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {}},
]
WORDS = "Use this when the work at hand asks for it, say what came of it, and leave everything else as it was found. "


def filler(length: int) -> str:
    return "".join(islice(cycle(WORDS), length))


def _schema(size: int) -> Body:
    """A schema of about ``size`` bytes."""
    schema: Body = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }
    for number, property in enumerate(PROPERTIES):
        spare = size - len(json.dumps(schema)) - 150
        if spare <= 0:
            break
        described = {"description": filler(min(spare, 300)), **property}
        schema["properties"][f"field_{number}"] = described
        schema["required"] = ["field_0"]
    return schema


def tools(version: str) -> list[Body]:
    made: list[Body] = [
        {"name": name, "description": filler(words), "input_schema": _schema(size)}
        for name, (words, size) in TOOLS[version].items()
    ]
    for tool in made:
        if tool["name"] == "Bash":
            tool["input_schema"] = {
                "type": "object",
                "properties": {"command": {"description": filler(700), "type": "string"}},
                "required": ["command"],
                "additionalProperties": False,
            }
        if tool["name"] == "DeferredToolPlaceholder":
            tool["defer_loading"] = True
    return made


EPHEMERAL = {"type": "ephemeral"}


def reminder(words: int = 300) -> str:
    """What stands before the user's own words; it mentions tools by name."""
    return f"<system-reminder>\nYou can call the tools Agent, Read and Bash. {filler(words)}\n</system-reminder>\n"


def opening(version: str, prompt: str) -> list[Body]:
    """A user's turn and the system message behind it."""
    asked: Body = {"type": "text", "text": prompt}
    known = filler(6062 if version == OLD else 9040)
    if version == OLD:
        asked["cache_control"] = EPHEMERAL
        system: Any = known
    else:
        system = [{"type": "text", "text": known, "cache_control": EPHEMERAL}]
    user = {"role": "user", "content": [{"type": "text", "text": reminder()}, asked]}
    return [user, {"role": "system", "content": system}]


def request(model: str, prompt: str = "say hi", version: str = OLD, **more: Any) -> Body:
    body: Body = {
        "model": model,
        "messages": opening(version, prompt),
        "system": [
            {"type": "text", "text": BILLING},
            {"type": "text", "text": IDENTITY, "cache_control": EPHEMERAL},
            {"type": "text", "text": filler(5591), "cache_control": EPHEMERAL},
        ],
        "tools": tools(version),
        "metadata": {"user_id": json.dumps({"device_id": uuid4().hex, "account_uuid": "", "session_id": str(uuid4())})},
        "max_tokens": 64_000,
        "thinking": {"type": "adaptive"} | ({} if version == OLD else {"display": "omitted"}),
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
        "stream": True,
        **more,
    }
    return body


def largest(model: str, version: str) -> Body:
    """A first request as large as any that was seen."""
    body = request(model, version=version)
    body["system"][2]["text"] = filler(5591 + LARGEST - len(json.dumps(body)))
    return body


def again(body: Body, version: str) -> Body:
    """The same request without streaming, as it is sent after a stream that broke off."""
    whole = {name: value for name, value in body.items() if name != "stream"}
    return whole if version == OLD else {**whole, "stream": False}


def headers(version: str, key: str) -> dict[str, str]:
    betas = ["claude-code-20250219", "interleaved-thinking-2025-05-14", "context-management-2025-06-27"]
    if version == OLD:
        betas += ["prompt-caching-scope-2026-01-05", "mid-conversation-system-2026-04-07"]
    else:
        betas += ["mid-conversation-tool-changes-2026-07-01", "advanced-tool-use-2025-11-20"]
    return {
        "accept": "application/json",
        "authorization": f"Bearer {key}",
        "user-agent": f"claude-cli/{version} (external, sdk-cli)",
        "x-claude-code-session-id": str(uuid4()),
        "x-stainless-lang": "js",
        "x-stainless-retry-count": "0",
        "x-stainless-timeout": "600",
        "anthropic-beta": ",".join([*betas, "thinking-token-count-2026-05-13", "effort-2025-11-24"]),
        "anthropic-dangerous-direct-browser-access": "true",
        "anthropic-version": "2023-06-01",
        "x-app": "cli",
    }
