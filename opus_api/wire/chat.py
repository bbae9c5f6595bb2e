"""OpenAI Chat Completions vocabulary: the tables and small translations that both sides of the gateway share."""

from collections.abc import Mapping
from typing import Any

from opus_api.wire.messages import Usage

# finish_reason -> stop_reason (wire.md 4.2), and back (4.5)
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


def _count(*values: Any) -> int:
    """The first that is a number."""
    return next((int(v) for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)), 0)


def _details(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = usage.get(name)
    return value if isinstance(value, dict) else {}


def read_usage(usage: Mapping[str, Any]) -> Usage:
    """OpenAI counters as Anthropic counts them. Cache counters stand in three places, by vendor (wire.md 3.3)."""
    prompt = _count(usage.get("prompt_tokens"))
    prompt_details = _details(usage, "prompt_tokens_details")
    cached = _count(
        prompt_details.get("cached_tokens"), usage.get("prompt_cache_hit_tokens"), usage.get("cached_tokens")
    )
    written = _count(prompt_details.get("cache_write_tokens"))
    completion = _count(usage.get("completion_tokens"))
    reasoning = _details(usage, "completion_tokens_details").get("reasoning_tokens")
    return Usage(
        input_tokens=max(0, prompt - cached - written),
        cache_creation_input_tokens=written,
        cache_read_input_tokens=cached,
        # Some vendors count reasoning in the total only.
        output_tokens=max(completion, _count(usage.get("total_tokens")) - prompt),
        thinking_tokens=_count(reasoning) if reasoning else None,
    )


def write_usage(usage: Usage) -> dict[str, Any]:
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
