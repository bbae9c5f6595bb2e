"""Reads the events of an answer along: tokens, the time of the first content, whether the end came."""

import time
from collections.abc import Iterable

from opus_api.wire.messages import Event, Usage

CONTENT = ("content_block_start", "content_block_delta")


def is_content(event: Event) -> bool:
    """An event that commits the answer to this attempt: content, or its regular end without any."""
    return event["type"] in CONTENT or event["type"] == "message_delta"


class Meter:
    """``watch`` every list of events. Times are monotonic seconds."""

    __slots__ = ("began", "ended", "first_content", "usage", "usage_seen")

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.first_content: float | None = None
        self.usage = Usage()
        self.usage_seen = False  # the upstream told its own count
        self.ended = False

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
