from typing import Any

import pytest

from opus_api.wire.chat import finish_reason, read_usage, write_usage
from opus_api.wire.messages import Usage

READ = {
    "plain": ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}, Usage(9, 0, 0, 5)),
    "nothing": ({}, Usage()),
    "OpenAI's cache": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 80, "cache_write_tokens": 5},
        },
        Usage(15, 5, 80, 7),
    ),
    "DeepSeek's cache": ({"prompt_tokens": 100, "prompt_cache_hit_tokens": 80}, Usage(20, 0, 80, 0)),
    "Together's cache": ({"prompt_tokens": 100, "cached_tokens": 80}, Usage(20, 0, 80, 0)),
    "more cached than there is": ({"prompt_tokens": 10, "cached_tokens": 80}, Usage(0, 0, 80, 0)),
    "reasoning in the total only": (
        {
            "prompt_tokens": 12,
            "completion_tokens": 2,
            "total_tokens": 354,
            "completion_tokens_details": {"reasoning_tokens": 340},
        },
        Usage(12, 0, 0, 342, 340),
    ),
    "no counters at all": (
        {"prompt_tokens": "9", "completion_tokens": None, "total_tokens": -1, "prompt_tokens_details": [1]},
        Usage(),
    ),
    "floats": ({"prompt_tokens": 9.0, "completion_tokens": float("nan")}, Usage(9)),
}


@pytest.mark.parametrize("usage, read", READ.values(), ids=READ)
def test_counters_are_read_from_where_vendors_put_them(usage: dict[str, Any], read: Usage) -> None:
    assert read_usage(usage) == read


def test_counters_survive_the_way_there_and_back() -> None:
    usage = Usage(15, 5, 80, 7, 3)
    assert read_usage(write_usage(usage)) == usage


@pytest.mark.parametrize(
    "stop, finish",
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("something_new", "stop"),
        (None, "stop"),
        ([], "stop"),
    ],
)
def test_every_stop_reason_has_its_finish_reason(stop: Any, finish: str) -> None:
    assert finish_reason(stop) == finish
