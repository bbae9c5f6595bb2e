"""The official SDKs' own accumulators, fed without a network."""

from __future__ import annotations

from functools import cache
from typing import Any

import httpx2

from tests import sdks

ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


class _Served(httpx2.MockTransport):
    """Answers every request with the stream that was set last."""

    def __init__(self) -> None:
        self.stream = b""
        super().__init__(self._answer)

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=self.stream)


_SERVED = _Served()
_HTTP = httpx2.Client(transport=_SERVED)


@cache
def _anthropic() -> sdks.anthropic.Anthropic:
    return sdks.anthropic.Anthropic(api_key="x", base_url="http://test", max_retries=0, http_client=_HTTP)


@cache
def _openai() -> sdks.openai.OpenAI:
    return sdks.openai.OpenAI(api_key="x", base_url="http://test", max_retries=0, http_client=_HTTP)


def anthropic_message(stream: bytes) -> dict[str, Any]:
    """The message that the anthropic SDK makes of a stream. Raises APIStatusError for an error event."""
    _SERVED.stream = stream
    with _anthropic().messages.stream(max_tokens=9, **ASKED) as events:
        return events.get_final_message().to_dict()


def openai_completion(stream: bytes) -> dict[str, Any]:
    """The completion that the openai SDK makes of a stream. Raises APIError for an error."""
    _SERVED.stream = stream
    with _openai().chat.completions.stream(**ASKED) as events:
        for _ in events:
            pass
        return events.current_completion_snapshot.to_dict()
