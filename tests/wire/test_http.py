import pytest

from opus_api.wire.http import Dechunker, FramingError, HttpResponse

CHUNKED = b"5\r\nhello\r\n6;name=value\r\n world\r\n0\r\ntrailer: x\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_the_payload_does_not_depend_on_cuts(size: int) -> None:
    dechunker = Dechunker()
    out = b"".join(dechunker.feed(CHUNKED[start : start + size]) for start in range(0, len(CHUNKED), size))
    assert (out, dechunker.done, dechunker.rest) == (b"hello world", True, b"")


def test_what_follows_the_end_is_kept_apart() -> None:
    dechunker = Dechunker()
    assert dechunker.feed(CHUNKED + b"HTTP/1.1") == b"hello world"
    assert dechunker.feed(b" 200") == b""
    assert dechunker.rest == b"HTTP/1.1 200"


def test_line_feeds_alone_end_lines_too() -> None:
    dechunker = Dechunker()
    assert dechunker.feed(b"2\nhi\n0\n\n") == b"hi"
    assert dechunker.done


@pytest.mark.parametrize(
    "data, problem",
    [
        (b"x\r\n", "bad chunk size"),
        (b"\r\n", "bad chunk size"),
        (b"-1\r\n", "bad chunk size"),
        (b"0x5\r\n", "bad chunk size"),
        (b"5_0\r\n", "bad chunk size"),
        (b"f" * 16 + b"\r\n", "bad chunk size"),
        (b"2\r\nhello\r\n", "longer than its size"),
        (b"5;" + b"x" * 9000, "line too long"),
    ],
)
def test_broken_framing_is_an_error(data: bytes, problem: str) -> None:
    with pytest.raises(FramingError, match=problem):
        Dechunker().feed(data)


@pytest.mark.parametrize("header, kind", [("Text/Event-Stream; charset=utf-8", "text/event-stream"), ("", "")])
def test_a_content_type_is_compared_without_its_parameters(header: str, kind: str) -> None:
    assert HttpResponse(200, {"content-type": header}).content_type == kind
