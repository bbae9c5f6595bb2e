from typing import Any

import pytest

from opus_api.wire import jsons


@pytest.mark.parametrize("text", ["", "{", "nul", "NaN", "[Infinity]", "-Infinity", "1e999", "[" * 5000 + "]" * 5000])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(jsons.JsonError):
        jsons.loads(text)


def test_half_an_emoji_passes_in_and_out() -> None:
    value = jsons.loads(b'{"text":"\\ud83d"}')
    assert value == {"text": "\ud83d"}
    assert jsons.dumps(value) == b'{"text":"\\ud83d"}'


def test_large_numbers_pass() -> None:
    assert jsons.dumps(2**70) == str(2**70).encode()


@pytest.mark.parametrize("value", [object(), {"x": {1, 2}}, {"a": float("nan"), "b": "\ud83d"}])
def test_what_can_not_be_said_in_json_is_refused(value: Any) -> None:
    with pytest.raises(jsons.JsonError):
        jsons.dumps(value)


def test_depth_has_a_limit() -> None:
    deep: Any = 1
    for _ in range(jsons.DEEPEST):
        deep = [deep]
    assert jsons.dumps(deep)
    with pytest.raises(jsons.JsonError):
        jsons.dumps([deep])
    with pytest.raises(jsons.JsonError):
        jsons.dumps(["\ud83d", deep])


@pytest.mark.parametrize(
    "text, value",
    [
        ('{"a":1', {"a": 1}),
        ('{"a":"x', {"a": "x"}),
        ('{"a":"x\\', {}),
        ('{"a":[1,{"b":2', {"a": [1, {"b": 2}]}),
        ('{"a":1,"b', {"a": 1}),
        ('{"a":1,"b":', {"a": 1}),
        ('{"a":1,', {"a": 1}),
        ('{"a":tru', {}),
        ('{"a":"},"', {"a": "},"}),
        ("{", {}),
        ('{"a":{"b":1},"c":[2],"d', {"a": {"b": 1}, "c": [2]}),
    ],
)
def test_json_that_was_cut_is_closed(text: str, value: Any) -> None:
    assert jsons.loads_cut(text) == value


@pytest.mark.parametrize("text", ["", "no json", "}{"])
def test_what_was_never_json_stays_refused(text: str) -> None:
    with pytest.raises(jsons.JsonError):
        jsons.loads_cut(text)


@pytest.mark.parametrize("levels, taken", [(jsons.DEEPEST - jsons.ROOM, True), (jsons.DEEPEST - jsons.ROOM + 1, False)])
@pytest.mark.parametrize("kind", [str, str.encode])
def test_what_will_be_written_again_leaves_room_for_what_stands_around_it(kind: Any, levels: int, taken: bool) -> None:
    text = kind("[" * levels + "]" * levels)
    try:
        jsons.loads_shallow(text)
    except jsons.JsonError:
        assert not taken
    else:
        assert taken
    assert jsons.loads_shallow(kind("[" + ",".join(["[]"] * 500) + "]"))  # many brackets are not many levels


@pytest.mark.parametrize("text, ends", [('{"a":{"b":"x', '"}}'), ('{"a":[1', "]}"), ("{}", "")])
def test_the_ends_that_are_missing_are_known(text: str, ends: str) -> None:
    assert jsons.closing(text) == ends


@pytest.mark.parametrize("text", ['{"a":1,"b', '{"a"', "no json", ""])
def test_more_than_ends_is_not_made_up(text: str) -> None:
    with pytest.raises(jsons.JsonError):
        jsons.closing(text)


@pytest.mark.parametrize("levels, taken", [(0, True), (64, True), (65, False), (1000, False), (100_000, False)])
def test_what_is_to_be_stored_has_64_levels_at_most(levels: int, taken: bool) -> None:
    text = "[" * levels + "1" + "]" * levels
    if taken:
        assert jsons.loads_strict(text) == jsons.loads(text)
        return
    with pytest.raises(jsons.JsonError):
        jsons.loads_strict(text)
