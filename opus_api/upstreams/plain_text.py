"""What other models can read of what only Anthropic's know: system blocks, documents, search results, server tools.

Pure. Notes a warning on the call where something is left out.
"""

from collections.abc import Iterable
from typing import Any

from opus_api.wire.checks import Path, refused
from opus_api.wire.messages import Block
from opus_api.wire.request import Call
from opus_api.wire.turns import blocks_of

BILLING = "x-anthropic-billing-header:"
# Members of server results that hold something to read, in the order they are told.
READABLE = ("title", "url", "text", "stdout", "stderr", "error_code")


def texts_of(blocks: Iterable[Block], joint: str = "\n\n") -> str:
    """The text blocks among them, in one."""
    return joint.join(block["text"] for block in blocks if block["type"] == "text" and block["text"])


def system_text(system: str | list[Block] | None) -> str:
    """The system prompt in one piece, without what only Anthropic wants to see."""
    if not isinstance(system, list):
        return system or ""
    # Claude Code's attribution differs each turn and would ruin the upstream's prompt cache.
    if system and system[0]["text"].startswith(BILLING):
        system = system[1:]
    return texts_of(system)


# ---- what users send


def document(call: Call, block: Block) -> str | None:
    """A text document as a part of a prompt; None for one that is no text."""
    source, citations = block["source"], block.get("citations")
    if block.get("context") or (isinstance(citations, dict) and citations.get("enabled")):
        call.warn("citations")
    match source["type"]:
        case "text":
            text = source["data"]
        case "content":
            text = texts_of(blocks_of(source.get("content")), "\n")
        case _:
            return None
    return f'<document title="{block.get("title") or ""}">\n{text}\n</document>'


def search_result(call: Call, block: Block) -> str:
    call.warn("citations")
    head = f'<search_result source="{block["source"]}" title="{block["title"]}">'
    return f"{head}\n{texts_of(block['content'], chr(10))}\n</search_result>"


def tool_reference(block: Block) -> str:
    return f"Tool loaded: {block.get('tool_name') or block.get('name') or ''}"


# ---- what models have said


def said(call: Call, block: Block, at: Path) -> str:
    """Of an assistant's block that is neither text, thinking nor a tool call. Raises InvalidRequest for a document
    that is no text."""
    if block["type"] == "document":
        if (text := document(call, block)) is None:
            raise refused(at, "document input in an assistant message is not supported by this upstream")
        return f"{text}\n"
    call.warn("server_blocks")
    text = readable(block.get("content"))
    return f"[{block['type'].removesuffix('_tool_result')} results]\n{text}\n" if text else ""


def readable(content: Any) -> str:
    """The text in a server tool's result: search hits, page texts, program output."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(filter(None, map(_readable_item, content)))
    return _readable_item(content)


def _readable_item(item: Any) -> str:
    if not isinstance(item, dict):
        return ""
    return " ".join(item[name] for name in READABLE if isinstance(item.get(name), str) and item[name])
