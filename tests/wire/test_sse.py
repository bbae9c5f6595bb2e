import time
import tracemalloc

import pytest

from opus_api.wire import sse

SIZES = [1, 2, 3, 7, 64, 10_000]

STREAMS = {
    "plain": (b'data: {"x":1}\n\n', [(b"", b'{"x":1}')]),
    "named": (b'event: a\ndata: {"x":1}\n\n', [(b"a", b'{"x":1}')]),
    "no space after the colon": (b"event:a\ndata:1\n\n", [(b"a", b"1")]),
    "two spaces keep one": (b"data:  1\n\n", [(b"", b" 1")]),
    "several data lines": (b'data: {"x":\ndata: 1}\n\n', [(b"", b'{"x":\n1}')]),
    "named, several data lines": (b"event: a\ndata: 1\ndata: 2\n\n", [(b"a", b"1\n2")]),
    "comments, ids, unknown fields": (b": hi\n:\nid: 7\nretry: 3\nfoo: bar\nalone\ndata: 1\n\n", [(b"", b"1")]),
    "a comment alone": (b": OPENROUTER PROCESSING\n\n", []),
    "an event without data": (b"event: ping\n\n", []),
    "data without colon is empty": (b"data\ndata: 1\n\n", [(b"", b"\n1")]),
    "empty data": (b"data\n\ndata:\n\ndata: \n\nevent: a\ndata: \n\ndata: 1\n\n", [(b"", b"1")]),
    "blank lines between": (b"\n\n\ndata: 1\n\n\n\ndata: 2\n\n", [(b"", b"1"), (b"", b"2")]),
    "byte order mark": (b"\xef\xbb\xbfdata: 1\n\n", [(b"", b"1")]),
    "separators of other alphabets": ("data: \u2028\u0085\n\n".encode(), [(b"", "\u2028\u0085".encode())]),
    "no final blank line, whole JSON": (b'data: {"x":1}', [(b"", b'{"x":1}')]),
    "no final blank line, end mark": (b"data: [DONE]\n", [(b"", b"[DONE]")]),
    "no final blank line, half JSON": (b'data: {"x":', []),
}


def decoded(stream: bytes, size: int) -> list[sse.SseEvent]:
    chunks = [stream[start : start + size] for start in range(0, len(stream), size)]
    return [event for batch in sse.decode([b"", *chunks]) for event in batch]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("stream, events", STREAMS.values(), ids=STREAMS)
def test_events_do_not_depend_on_cuts_or_line_ends(
    stream: bytes, events: list[sse.SseEvent], line_end: bytes, size: int
) -> None:
    assert decoded(stream.replace(b"\n", line_end), size) == events


@pytest.mark.parametrize("size", SIZES)
def test_line_ends_may_be_mixed(size: int) -> None:
    assert decoded(b"data: 1\r\n\ndata: 2\r\r\ndata: 3\n\rdata: 4\n\n", size) == [
        (b"", n) for n in (b"1", b"2", b"3", b"4")
    ]


def test_an_event_comes_with_the_read_that_completes_it() -> None:
    decoder = sse.Decoder()
    assert decoder.feed(b"data: 1\n") == []
    assert decoder.feed(b"\ndata: 2\n\ndata:") == [(b"", b"1"), (b"", b"2")]
    assert decoder.feed(b" 3\n\n") == [(b"", b"3")]
    assert decoder.close() == []


@pytest.mark.parametrize("reader", [sse.Decoder(), sse.WholeEvents()])
def test_an_event_without_end_is_refused(reader: sse.Decoder | sse.WholeEvents) -> None:
    for _ in range(16):
        reader.feed(b"x" * 2**20)
    with pytest.raises(sse.SseError, match="event larger than"):
        reader.feed(b"x")


def test_a_large_event_is_read_in_linear_time_and_little_memory() -> None:
    data = b'data: {"x":"' + b"a" * 5_000_000 + b'"}\n\n'
    chunks = [data[start : start + 4096] for start in range(0, len(data), 4096)]
    for reader in (sse.Decoder(), sse.WholeEvents()):
        tracemalloc.start()
        began = time.perf_counter()
        out = [reader.feed(chunk) for chunk in chunks]
        assert time.perf_counter() - began < 1
        assert tracemalloc.get_traced_memory()[1] < 4 * len(data)
        tracemalloc.stop()
        assert len(out[-1]) in (1, len(data))


# ---- what is relayed


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_bytes_are_relayed_unchanged_and_in_whole_events(line_end: bytes, size: int) -> None:
    stream = b"event: a\ndata: 1   \n\n: ping\n\ndata: 2\n\n\ndata: 3\n\n".replace(b"\n", line_end)
    relay = sse.WholeEvents()
    pieces = [relay.feed(stream[start : start + size]) for start in range(0, len(stream), size)]
    assert b"".join(pieces) + relay.close() == stream
    assert all(piece.endswith(line_end) for piece in pieces if piece)


@pytest.mark.parametrize(
    "rest, relayed", [(b'data: {"x":1}', b'data: {"x":1}\n\n'), (b'data: {"x":', b""), (b": hi\n", b""), (b"", b"")]
)
def test_what_is_left_at_the_end_is_relayed_only_when_it_is_an_event(rest: bytes, relayed: bytes) -> None:
    relay = sse.WholeEvents()
    assert relay.feed(b"data: 1\n\n" + rest) == b"data: 1\n\n"
    assert relay.close() == relayed
