"""What Amazon Q refuses in a request, as far as it is known: "Improperly formed request." has many reasons."""

import re
from collections.abc import Iterator
from typing import Any

TOP_LEVEL = {"conversationState", "profileArn"}
STATE = {"conversationId", "history", "currentMessage", "chatTriggerType"}
USER = {"content", "origin", "modelId", "images", "userInputMessageContext"}
CONTEXT = {"tools", "toolResults", "envState"}
ASSISTANT = {"content", "messageId", "toolUses"}
NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{0,63}")
ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
ARN = re.compile(r"arn:aws:codewhisperer:[a-z0-9-]+:\d{12}:profile/[A-Z0-9]{12}")
FORMATS = {"png", "jpeg", "gif", "webp"}


def problems(body: Any) -> list[str]:
    """Every rule that a GenerateAssistantResponse request breaks, in words; [] when the service would take it."""
    if not isinstance(body, dict) or not isinstance(body.get("conversationState"), dict):
        return ["no conversationState"]
    return [*_unknown(body, TOP_LEVEL), *_profile(body), *_state(body["conversationState"])]


def _unknown(members: dict[str, Any], known: set[str]) -> Iterator[str]:
    yield from (f"unknown member {name}" for name in members.keys() - known)


def _profile(body: dict[str, Any]) -> Iterator[str]:
    if "profileArn" in body and not ARN.fullmatch(str(body["profileArn"])):
        yield "profileArn is none"


def _state(state: dict[str, Any]) -> Iterator[str]:
    yield from _unknown(state, STATE)
    if state.get("chatTriggerType") != "MANUAL":
        yield "chatTriggerType"
    if not 1 <= len(state.get("conversationId", "x")) <= 128:
        yield "conversationId"
    current = state.get("currentMessage", {}).get("userInputMessage")
    if not isinstance(current, dict):
        yield "currentMessage is no userInputMessage"
        return
    history = state.get("history", [])
    yield from _history(history)
    yield from _user(current, is_current=True)
    yield from _order([*history, {"userInputMessage": current}])
    yield from _declared(history, current)


def _history(history: list[Any]) -> Iterator[str]:
    if len(history) > 10_000:
        yield "history is too long"
    for item in history:
        if len(item) != 1:
            yield "an item of the history is not one of its kinds"
        elif "userInputMessage" in item:
            yield from _user(item["userInputMessage"], is_current=False)
        elif "assistantResponseMessage" in item:
            yield from _assistant(item["assistantResponseMessage"])
        else:
            yield "an item of the history is of no kind"


def _user(message: dict[str, Any], is_current: bool) -> Iterator[str]:
    yield from _unknown(message, USER)
    context = message.get("userInputMessageContext", {})
    yield from _unknown(context, CONTEXT)
    content = message.get("content")
    if not isinstance(content, str) or len(content) > 600_000:
        yield "content of a user message"
    if not content and not (is_current and context.get("toolResults")):
        yield "empty content of a user message"
    if not is_current and "tools" in context:
        yield "tools in the history"
    for image in message.get("images", []):
        yield from _image(image)
    if len(message.get("images", [])) > 10:
        yield "too many images"
    yield from _results(context.get("toolResults", []))
    for tool in context.get("tools", []):
        yield from _tool(tool.get("toolSpecification", {}))


def _image(image: dict[str, Any]) -> Iterator[str]:
    if image.get("format") not in FORMATS:
        yield "format of an image"
    if image["source"].keys() != {"bytes"} or str(image["source"]["bytes"]).startswith("data:"):
        yield "bytes of an image"


def _results(results: list[Any]) -> Iterator[str]:
    ids = [result.get("toolUseId", "") for result in results]
    if len(set(ids)) != len(ids):
        yield "two results of one tool call"
    for result in results:
        if not ID.fullmatch(result.get("toolUseId", "")):
            yield "toolUseId"
        if result.get("status") not in ("success", "error"):
            yield "status of a tool result"
        if not result.get("content") or not all(len(item) == 1 for item in result["content"]):
            yield "content of a tool result"


def _tool(tool: dict[str, Any]) -> Iterator[str]:
    if not NAME.fullmatch(tool.get("name", "")):
        yield f"name of a tool: {tool.get('name')}"
    if not 1 <= len(tool.get("description", "")) <= 10_240:
        yield "description of a tool"
    schema = tool.get("inputSchema", {}).get("json")
    if not isinstance(schema, dict):
        yield "no schema"
    yield from _schema(schema)


def _schema(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for item in schema:
            yield from _schema(item)
    if not isinstance(schema, dict):
        return
    for name, value in schema.items():
        if name in ("additionalProperties", "$schema") or (name in ("required", "properties") and not value):
            yield f"{name} in a schema"
        if name in ("properties", "patternProperties", "$defs", "definitions") and isinstance(value, dict):
            for inner in value.values():
                yield from _schema(inner)
        elif name not in ("enum", "const", "default", "examples", "required"):
            yield from _schema(value)


def _assistant(message: dict[str, Any]) -> Iterator[str]:
    yield from _unknown(message, ASSISTANT)
    if not message.get("content"):
        yield "empty content of an assistant message"
    for use in message.get("toolUses", []):
        if not ID.fullmatch(use.get("toolUseId", "")) or not isinstance(use.get("input"), dict):
            yield "a tool use"
        if not NAME.fullmatch(use.get("name", "")):
            yield f"name of a used tool: {use.get('name')}"


def _order(items: list[dict[str, Any]]) -> Iterator[str]:
    """User and assistant alternate, and results follow the calls that they answer."""
    called: list[str] = []
    for index, item in enumerate(items):
        user = item.get("userInputMessage")
        if (user is not None) != (index % 2 == 0):
            yield "the history does not alternate"
            return
        if user is None:
            called = [use["toolUseId"] for use in item["assistantResponseMessage"].get("toolUses", [])]
            continue
        results = [result["toolUseId"] for result in user.get("userInputMessageContext", {}).get("toolResults", [])]
        if results != called:
            yield "tool results do not follow their calls"


def _declared(history: list[Any], current: dict[str, Any]) -> Iterator[str]:
    context = current.get("userInputMessageContext", {})
    declared = {tool["toolSpecification"]["name"] for tool in context.get("tools", [])}
    used = {use["name"] for item in history for use in item.get("assistantResponseMessage", {}).get("toolUses", [])}
    if used - declared:
        yield "a used tool is not declared"
