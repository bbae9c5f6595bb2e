"""Conversations turn by turn: messages of one role that follow each other are one turn, as the Messages API reads them.

Every block keeps the path under which the client sent it, for errors that name it.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from opus_api.wire.checks import Path, refused
from opus_api.wire.messages import Block, Message


@dataclass(slots=True)
class Turn:
    """``at`` is the path of its first message, each block comes with its own."""

    role: str
    at: Path
    blocks: list[tuple[Path, Block]] = field(default_factory=list)

    def of_type(self, kind: str) -> list[tuple[Path, Block]]:
        return [pair for pair in self.blocks if pair[1]["type"] == kind]


def turns(messages: Iterable[Message]) -> list[Turn]:
    """The turns of checked canonical messages."""
    return merged(
        Turn(message["role"], ("messages", index), _located(message["content"], index))
        for index, message in enumerate(messages)
    )


def blocks_of(content: Any) -> list[Block]:
    """Content that may be a string, as blocks."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


def _located(content: Any, message: int) -> list[tuple[Path, Block]]:
    return [(("messages", message, "content", index), block) for index, block in enumerate(blocks_of(content))]


def merged(parts: Iterable[Turn]) -> list[Turn]:
    """Neighbours of one role become one turn. System messages stay as many as they are."""
    out: list[Turn] = []
    for turn in parts:
        if out and out[-1].role == turn.role != "system":
            out[-1].blocks += turn.blocks
        else:
            out.append(turn)
    return out


# Blocks that have a place in turns of one role only.
PLACES = {
    "tool_use": "assistant",
    "thinking": "assistant",
    "redacted_thinking": "assistant",
    "tool_result": "user",
    "image": "user",
    "search_result": "user",
}


def check_turns(conversation: list[Turn]) -> None:
    """Blocks stand in turns of their role; every tool call is answered in the next turn, and nothing else is. Raises
    InvalidRequest in the API's words."""
    for turn in conversation:
        for at, block in turn.blocks:
            if PLACES.get(block["type"], turn.role) != turn.role:
                raise refused(at, f"`{block['type']}` blocks can only be in `{PLACES[block['type']]}` messages")
    calls: dict[str, None] = {}  # the ids, in order
    caller: Turn | None = None
    for turn in [*conversation, Turn("end", ())]:
        results = turn.of_type("tool_result") if turn.role == "user" else []
        if calls or results:
            _check_pairs(caller, calls, results)
        caller = turn
        calls = {block["id"]: None for _, block in turn.of_type("tool_use")} if turn.role == "assistant" else {}


def _check_pairs(caller: Turn | None, calls: Collection[str], results: list[tuple[Path, Block]]) -> None:
    for at, block in results:
        if block["tool_use_id"] not in calls:
            raise refused(
                at,
                f"unexpected `tool_use_id` found in `tool_result` blocks: {block['tool_use_id']}. Each `tool_result` "
                "block must have a corresponding `tool_use` block in the previous message.",
            )
    answered = {block["tool_use_id"] for _, block in results}
    missing = [id for id in calls if id not in answered]
    if missing and caller:
        raise refused(
            caller.at,
            f"`tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(missing)}. Each "
            "`tool_use` block must have a corresponding `tool_result` block in the next message.",
        )
