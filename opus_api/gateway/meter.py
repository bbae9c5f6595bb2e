"""Reads the events of an answer along: tokens, the time of the first content, whether the end came."""

import re
import time
from collections.abc import Iterable

from opus_api.gateway import tokens
from opus_api.wire.messages import Event, Usage

# What a model says, in the events of either dialect.
SAID = re.compile(
    rb'"(?:text|thinking|partial_json|content|reasoning_content|arguments)": ?"([^"\\]*(?:\\.[^"\\]*)*)"', re.S
)
SAMPLE = 8  # pieces

CONTENT = ("content_block_start", "content_block_delta")


def is_content(event: Event) -> bool:
    """An event that commits the answer to this attempt: content, or its regular end without any."""
    return event["type"] in CONTENT or event["type"] == "message_delta"


class Meter:
    """``watch`` every list of events. Times are monotonic seconds."""

    __slots__ = ("_relayed", "_sample", "began", "ended", "first_content", "usage", "usage_seen")

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.first_content: float | None = None
        self.usage = Usage()
        self.usage_seen = False  # the upstream told its own count
        self.ended = False
        self._relayed = 0  # bytes that went to the client
        self._sample: list[bytes] = []  # the first of them

    def relayed(self, data: bytes) -> None:
        """Bytes for the client, on the hot path: looked at only when the answer ends without its usage."""
        self._relayed += len(data)
        if len(self._sample) < SAMPLE:
            self._sample.append(data)

    def settle(self, model: str) -> None:
        """The answer is over. Without usage of the upstream, tokens are estimated from what was relayed."""
        if self.usage_seen or not self._relayed:
            return
        sample = b"".join(self._sample)
        said = b"".join(SAID.findall(sample)).decode("utf-8", "replace")
        estimate = tokens.estimate_text(said, model) * self._relayed / len(sample)
        self.usage.output_tokens = max(self.usage.output_tokens, round(estimate))

    def watch(self, events: Iterable[Event]) -> None:
        for event in events:
            kind = event["type"]
            if kind == "content_block_delta":
                if self.first_content is None:
                    self.first_content = time.monotonic()
            elif kind == "message_delta":
                self.first_content = self.first_content or time.monotonic()
                self._on_usage(event.get("usage"))
            elif kind == "message_start":
                self.usage.update(event["message"].get("usage") or {})
            elif kind == "message_stop":
                self.ended = True
            elif kind == "content_block_start" and self.first_content is None:
                self.first_content = time.monotonic()

    def _on_usage(self, usage: object) -> None:
        if isinstance(usage, dict) and usage:
            self.usage.update(usage)
            self.usage_seen = True

    @property
    def first_token_ms(self) -> int | None:
        return None if self.first_content is None else round((self.first_content - self.began) * 1000)

    @property
    def duration_ms(self) -> int:
        return round((time.monotonic() - self.began) * 1000)
