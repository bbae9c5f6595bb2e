"""Reads along OpenAI chat bytes that are passed on verbatim: first content, usage, end, as canonical events. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from opus_api.upstreams import bodies
from opus_api.upstreams.base import Credentials, Relayed
from opus_api.upstreams.failures import broken, failure_in
from opus_api.wire import sse
from opus_api.wire.chat import read_usage
from opus_api.wire.messages import Event

DONE = b"data: [DONE]\n\n"


class ChatReader:
    """All until the first content, then only what may carry usage, an error or the end."""

    NOTABLE = re.compile(rb'"finish_reason":\s*"|"usage":\s*\{|"error"|\[DONE\]')

    def __init__(self, include_usage: bool, credentials: Credentials):
        self._include_usage = include_usage
        self._credentials = credentials
        self._content = False
        self.said_all = self.saw_usage = False
        self._done = False

    def wants(self, data: bytes) -> bool:
        return not self._content or bool(self.NOTABLE.search(data)) or bodies.looks_broken(data)

    def read(self, name: bytes, data: bytes, facts: list[Event]) -> bool:
        """False when the client must not see this event: the usage chunk that only we asked for. Raises Failure."""
        if data.startswith(sse.DONE):
            if not self.said_all:  # clients would take what they have for the whole answer
                raise broken(bodies.EARLY)
            self._done = True
            facts.append({"type": "message_stop"})
            return True
        chunk = bodies.parsed(data)
        self._note(chunk, facts)
        return self._include_usage or bool(chunk.get("choices")) or not chunk.get("usage")

    def completion(self, data: bytes, facts: list[Event]) -> Mapping[str, Any]:
        """The whole answer, where no stream came. Raises Failure when it is none."""
        completion = bodies.parsed(data)
        self._note(completion, facts)
        if not isinstance(completion.get("choices"), list) or not self.said_all:
            raise broken("upstream sent no completion")
        facts.append({"type": "message_stop"})
        return completion  # type: ignore[no-any-return] # _note refuses what is no object

    def _note(self, chunk: Any, facts: list[Event]) -> None:
        if not isinstance(chunk, dict):
            raise broken("upstream sent invalid JSON")
        if failure := failure_in(chunk, self._credentials):
            raise failure
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._note_choice(choice, facts)
        if isinstance(usage := chunk.get("usage"), dict) and usage:
            self.saw_usage = True
            facts.append({"type": "message_delta", "delta": {}, "usage": read_usage(usage).as_dict()})

    def _note_choice(self, choice: Mapping[str, Any], facts: list[Event]) -> None:
        delta = choice.get("delta") or choice.get("message")
        if choice.get("finish_reason"):
            self.said_all = True
            facts.append({"type": "message_delta", "delta": {}})
        elif not self._content and isinstance(delta, dict) and any(v for name, v in delta.items() if name != "role"):
            facts.append({"type": "content_block_delta"})
        self._content = self._content or bool(facts)

    def close(self) -> Relayed:
        if not self.said_all:
            raise broken(bodies.EARLY)
        return (b"", []) if self._done else (DONE, [{"type": "message_stop"}])


def as_stream(completion: Mapping[str, Any], include_usage: bool) -> bytes:
    """The chunks that spell a whole completion, for a client that asked for a stream where the server ignored it."""
    head = {**completion, "object": "chat.completion.chunk"}
    usage = head.pop("usage", None)
    choices = [_chunk_choice(choice) for choice in completion["choices"] if isinstance(choice, dict)]
    chunks = [{**head, "choices": choices}]
    if usage and include_usage:
        chunks.append({**head, "choices": [], "usage": usage})
    return b"".join([b"data: %b\n\n" % bodies.written(chunk) for chunk in chunks]) + DONE


def _chunk_choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    out = {name: value for name, value in choice.items() if name != "message"}
    delta = dict(choice["message"]) if isinstance(choice.get("message"), dict) else {}
    if isinstance(calls := delta.get("tool_calls"), list):
        delta["tool_calls"] = [{"index": i, **call} for i, call in enumerate(calls) if isinstance(call, dict)]
    return {**out, "delta": delta}
