from typing import Any

import pytest

from opus_api.wire.events import EventError, checked, checked_message

WRONG: list[Any] = [None, 7, "x", [], {}, {"type": 7}, {"type": None}, {"type": []}]


@pytest.mark.parametrize(
    "event",
    [
        *WRONG,
        {"type": "message_start"},
        {"type": "message_start", "message": []},
        {"type": "message_start", "message": {"usage": 7}},
        {"type": "content_block_start", "index": "0", "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_start", "index": 0},
        {"type": "content_block_start", "index": 0, "content_block": {}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "", "citations": 7}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": 7, "name": "f"}},
        {"type": "content_block_delta", "index": True, "delta": {"type": "text_delta", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": "x"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": ["x"]}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": {}}},
        {"type": "content_block_stop"},
        {"type": "message_delta", "delta": None},
        {"type": "message_delta", "delta": {"stop_reason": ["x"]}},
        {"type": "message_delta", "delta": {}, "usage": []},
    ],
)
def test_an_event_without_its_members_is_refused(event: Any) -> None:
    with pytest.raises(EventError):
        checked(event)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "ping"},
        {"type": "something_new", "x": 1},
        {"type": "message_delta", "delta": {"stop_reason": None}, "usage": None},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "new_block"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "new_delta"}},
    ],
)
def test_what_is_new_passes(event: Any) -> None:
    assert checked(event) is event


@pytest.mark.parametrize(
    "message",
    [
        *WRONG,
        {"type": "message"},
        {"type": "message", "content": None},
        {"type": "message", "content": ["x"]},
        {"type": "message", "content": [{"type": "text"}]},
        {"type": "message", "content": [], "usage": 7},
        {"type": "model", "content": []},
    ],
)
def test_a_message_without_its_members_is_refused(message: Any) -> None:
    with pytest.raises(EventError):
        checked_message(message)
