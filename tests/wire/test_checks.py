from typing import Any

import pytest

from opus_api.wire.checks import json_object, one_of, optional, refused, required
from opus_api.wire.errors import InvalidRequest


@pytest.mark.parametrize(
    "raw, message",
    [
        (b"", "The request body is empty; send a JSON object."),
        (b" \n", "The request body is empty; send a JSON object."),
        (b"{", "The request body is not valid JSON."),
        (b"\xff", "The request body is not valid JSON."),
        (b'{"a":NaN}', "The request body is not valid JSON."),
        (b"[" * 100_000, "The request body is not valid JSON."),
        (b"[]", "The request body must be a JSON object."),
        (b"null", "The request body must be a JSON object."),
    ],
)
def test_a_body_that_is_no_object_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        json_object(raw)
    assert caught.value.message == message


@pytest.mark.parametrize(
    "kind, wrong, words",
    [
        (str, 7, "a valid string"),
        (int, True, "a valid integer"),
        (int, 1.5, "a valid integer"),
        (bool, 1, "a valid boolean"),
        (float, False, "a valid number"),
        (list, {}, "a valid list"),
        (dict, [], "a valid dictionary"),
    ],
)
def test_a_wrong_type_is_named_with_its_path(kind: type, wrong: Any, words: str) -> None:
    for check in (required, optional):
        with pytest.raises(InvalidRequest) as caught:
            check({"x": wrong}, "x", kind, ("messages", 0))
        assert caught.value.message == f"messages.0.x: Input should be {words}"


def test_null_is_absent_where_a_member_is_optional_and_wrong_where_it_is_required() -> None:
    assert optional({"x": None}, "x", int) is None
    with pytest.raises(InvalidRequest, match="x: Input should be a valid integer"):
        required({"x": None}, "x", int)
    with pytest.raises(InvalidRequest, match="x: Field required"):
        required({}, "x", int)


def test_an_object_is_read() -> None:
    assert json_object(b'{"a":[1.5,"\\ud83d"]}') == {"a": [1.5, "\ud83d"]}


def test_an_int_is_a_fine_float() -> None:
    assert required({"x": 1}, "x", float) == 1


@pytest.mark.parametrize(
    "allowed, words", [(("a",), "'a'"), (("a", "b"), "'a' or 'b'"), (("a", "b", "c"), "'a', 'b' or 'c'")]
)
def test_a_wrong_word_names_the_right_ones(allowed: tuple[str, ...], words: str) -> None:
    assert one_of("a", allowed, ("role",)) == "a"
    with pytest.raises(InvalidRequest, match=f"role: Input should be {words}$"):
        one_of(["a"], allowed, ("role",))


def test_a_path_is_dotted() -> None:
    assert refused(("messages", 0, "content"), "no").message == "messages.0.content: no"
