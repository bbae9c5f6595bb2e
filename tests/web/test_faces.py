"""What is shown of a kept exchange: how the room of a page is shared, and where a text ends."""

import pytest

from opus_api.web.faces import MOST_OF_ONE, cost, excerpts


@pytest.mark.parametrize(
    "sizes, room, shown",
    [
        ([10, 20, 30], 100, [10, 20, 30]),
        ([10, 200, 300], 100, [10, 45, 45]),
        ([300, 10, 40], 100, [50, 10, 40]),
        ([90, 90], 101, [50, 51]),
        ([9, 9], 0, [0, 0]),
        ([9, 9], -5, [0, 0]),
        ([20_000, 20_000], 60_000, [MOST_OF_ONE, MOST_OF_ONE]),
        ([], 100, []),
    ],
)
def test_the_long_ones_share_what_the_short_ones_leave(sizes: list[int], room: int, shown: list[int]) -> None:
    found = excerpts({f"upstream-in-{n}": b"x" * size for n, size in enumerate(sizes)}, room)
    assert [len(one.text) for one in found] == shown
    assert [one.size for one in found] == sizes
    assert [one.is_cut for one in found] == [len(one.text) < one.size for one in found]


@pytest.mark.parametrize("letter", ["x", "<", '"', "\u6c49", "\U0001f600", "\x1b"])
def test_the_room_is_counted_as_the_page_is_sent(letter: str) -> None:
    (one,) = excerpts({"client-in": letter.encode() * 5000}, 1000)
    assert 990 <= cost(one.text) <= 1000
    assert one.is_cut


def test_no_character_is_cut_in_two_and_bytes_that_are_no_text_become_marks() -> None:
    text = "x" * (MOST_OF_ONE - 1) + "\u6c49"
    whole, binary = excerpts({"client-in": text.encode(), "upstream-in-12": b"a\n\xff\x00\r\nb"}, 60_000)
    assert whole.text == text[:-1]
    assert binary.text == "a\n\ufffd\u2400\u240d\nb"
    assert (whole.kind, binary.kind) == ("client-in", "upstream-in")
