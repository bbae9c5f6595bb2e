"""Which conversation a request belongs to, so that its turns go to one account, whose prompt cache is warm. Pure.

A session id names it: the header x-claude-code-session-id, else the body's prompt_cache_key. Without one, the messages
before the first answer do: they are the same in every later turn. metadata.user_id tells users apart who begin alike.
"""

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from opus_api.wire import jsons
from opus_api.wire.request import Call

INSTRUCTIONS = ("system", "developer")  # they may tell the time, so they are not what a conversation is known by
LONGEST = 4096  # characters of one text at each of its ends: an image of 20 MB is not hashed whole


@dataclass(frozen=True, slots=True)
class Conversation:
    """``name`` is a hash: what clients call their sessions is kept nowhere."""

    name: str
    by_session: bool
    has_history: bool  # an answer is among its messages

    @property
    def is_first_turn(self) -> bool:
        """It is rotated, whatever was remembered of one that began alike."""
        return not self.by_session and not self.has_history


def identify(call: Call, owner: str) -> Conversation:
    """``owner``: whose conversation it is (an API key), since names are chosen by clients.

    A prompt cache belongs to a model, so a conversation does, too.
    """
    found = call.body.get("messages")
    messages = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    first = list(itertools.takewhile(lambda message: message.get("role") != "assistant", messages))
    has_history = len(first) < len(messages)
    if session := call.session or _text(call.body.get("prompt_cache_key")):
        return Conversation(_name(owner, call.model, "session", session), True, has_history)
    metadata = call.body.get("metadata")
    user = _text(metadata.get("user_id")) if isinstance(metadata, dict) else ""
    said = [_plain(message.get("content")) for message in first if message.get("role") not in INSTRUCTIONS]
    return Conversation(_name(owner, call.model, "messages", user, said), False, has_history)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _name(*parts: Any) -> str:
    return hashlib.sha256(jsons.dumps(parts)).hexdigest()[:32]


def _plain(content: Any) -> Any:
    """Content without what differs from turn to turn: cache marks, and whether one text is a string or a list."""
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        block = content[0]
        if block.get("type") == "text":
            content = block.get("text")
    return _shortened(content)


def _shortened(value: Any) -> Any:
    if isinstance(value, str) and len(value) > 2 * LONGEST:
        return [value[:LONGEST], len(value), value[-LONGEST:]]
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    if isinstance(value, Mapping):
        return {name: _shortened(each) for name, each in value.items() if name != "cache_control"}
    return value
