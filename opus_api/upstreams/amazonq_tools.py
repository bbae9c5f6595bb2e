"""Tools as Amazon Q takes them: names in its alphabet and back, descriptions and schemas within its limits. Pure.

Limits are those of the service's published model and of what other gateways saw refused.
"""

import hashlib
import re
from collections.abc import Iterable
from typing import Any

from opus_api.wire.errors import InvalidRequest
from opus_api.wire.jsons import DEEPEST
from opus_api.wire.request import Body

NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{0,63}")
LONGEST_NAME = 64
LONGEST_DESCRIPTION = 10_240
KEPT_DESCRIPTION = 10_000  # of a longer one, beside the pointer to the whole
# Refused by the service.
REFUSED_KEYS = ("additionalProperties", "$schema")
# Members whose own members have names that people chose.
NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
# Members that hold values, not schemas.
VALUES = ("enum", "const", "default", "examples", "required")


class ToolNames:
    """The client's names to the service's and back, one to one. The same names always give the same pairs."""

    def __init__(self, names: Iterable[str]):
        ours = list(dict.fromkeys(names))
        self._short = {name: name for name in ours if NAME.fullmatch(name)}
        for name in ours:
            if name not in self._short:
                self._short[name] = self._free(name)
        self.long = {short: name for name, short in self._short.items()}

    def __getitem__(self, name: str) -> str:
        return self._short[name]

    def _free(self, name: str) -> str:
        plain = re.sub(r"[^a-zA-Z0-9_]", "_", name)
        plain = plain if re.match(r"[a-zA-Z]", plain) else f"t_{plain}"
        if len(plain) <= LONGEST_NAME and plain not in self._short.values():
            return plain
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{plain[:47]}_{digest[:16]}"


def specification(name: str, description: str, schema: Body) -> Body:
    """One entry of ``tools``. ``name`` is already the service's."""
    text = description.strip() or f"Tool: {name}"
    if len(text) > LONGEST_DESCRIPTION:
        text = f"{text[:KEPT_DESCRIPTION]}…\n{pointer(name)}"
    return {"toolSpecification": {"name": name, "description": text, "inputSchema": {"json": plain_schema(schema)}}}


def stub(name: str) -> Body:
    """A tool that only the history knows: the service refuses calls of tools that are not declared."""
    return specification(name, "", {"type": "object"})


def pointer(name: str) -> str:
    return f"The whole description is in the instructions, under: Tool {name}"


def overlong(name: str, description: str) -> str:
    """What goes to the instructions of a description that the service would not take, "" when it takes all of it."""
    text = description.strip()
    return f"Tool {name}:\n{text}" if len(text) > LONGEST_DESCRIPTION else ""


def plain_schema(schema: Any, depth: int = 0) -> Any:
    """Without the members that the service refuses, at every depth; names inside ``properties`` are the client's.

    Raises InvalidRequest for a schema deeper than JSON can be written.
    """
    if depth > DEEPEST:
        raise InvalidRequest("tools: a schema is nested too deeply")
    if isinstance(schema, list):
        return [plain_schema(item, depth + 1) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {}
    for key, value in schema.items():
        if key in REFUSED_KEYS or (key in ("required", "properties") and not value):
            continue
        if key in NAMED and isinstance(value, dict):
            out[key] = {name: plain_schema(inner, depth + 1) for name, inner in value.items()}
        else:
            out[key] = value if key in VALUES else plain_schema(value, depth + 1)
    return out
