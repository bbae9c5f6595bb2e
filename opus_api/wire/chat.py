"""OpenAI Chat Completions vocabulary: the tables and small translations that both sides of the gateway share."""

from collections.abc import Mapping
from typing import Any

from opus_api.wire.messages import Usage, counter

# finish_reason -> stop_reason, and back
STOP_REASON = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
FINISH_REASON = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def finish_reason(stop_reason: Any) -> str:
    """OpenAI's word for why an answer ended; ``stop`` for what it has no word for."""
    return FINISH_REASON.get(stop_reason, "stop") if isinstance(stop_reason, str) else "stop"


def _first(*values: Any) -> int:
    """The first of them that is a counter, else 0."""
    return next((count for value in values if (count := counter(value)) is not None), 0)


def _details(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = usage.get(name)
    return value if isinstance(value, dict) else {}


def read_usage(usage: Mapping[str, Any]) -> Usage:
    """OpenAI's counters as Anthropic counts them. Never raises: a counter that is none counts as absent.

    Cached tokens stand in ``prompt_tokens_details`` (OpenAI), ``prompt_cache_hit_tokens`` (DeepSeek) or
    ``cached_tokens`` (Hugging Face, Together).
    """
    prompt = _first(usage.get("prompt_tokens"))
    details = _details(usage, "prompt_tokens_details")
    cached = _first(details.get("cached_tokens"), usage.get("prompt_cache_hit_tokens"), usage.get("cached_tokens"))
    written = _first(details.get("cache_write_tokens"))
    return Usage(
        input_tokens=max(0, prompt - cached - written),
        cache_creation_input_tokens=written,
        cache_read_input_tokens=cached,
        # xAI and Gemini count reasoning in the total only.
        output_tokens=max(_first(usage.get("completion_tokens")), _first(usage.get("total_tokens")) - prompt),
        thinking_tokens=_first(_details(usage, "completion_tokens_details").get("reasoning_tokens")) or None,
    )


def write_usage(usage: Usage) -> dict[str, Any]:
    """Anthropic's counters as OpenAI counts them: cached tokens are part of the prompt's."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.prompt_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_input_tokens,
            "cache_write_tokens": usage.cache_creation_input_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.thinking_tokens or 0},
    }
