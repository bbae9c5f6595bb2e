"""AWS event stream, with botocore's own parser as the oracle."""

import random
import struct
import time
from binascii import crc32
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer, ParserError
from hypothesis import given
from hypothesis import strategies as st

from opus_api.wire.eventstream import MOST_PAYLOAD, Decoder, EventStreamError, StreamMessage, encode

# Made by botocore's counterpart of the encoder.
EVENT = bytes.fromhex(
    "0000007c0000005c3bddcf780b3a6576656e742d74797065070016617373697374616e74526573706f6e73654576656e740d3a636f6e74656e"
    "742d747970650700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d747970650700056576656e747b22636f6e74656e7422"
    "3a224869227db02babdc"
)
EXCEPTION = bytes.fromhex(
    "0000008800000061de0175f40f3a657863657074696f6e2d747970650700137468726f74746c696e67457863657074696f6e0d3a636f6e7465"
    "6e742d747970650700106170706c69636174696f6e2f6a736f6e0d3a6d6573736167652d74797065070009657863657074696f6e7b226d6573"
    "73616765223a22736c6f7720646f776e227d832ee072"
)
HEADERS = [(":message-type", "event"), (":event-type", "assistantResponseEvent"), (":content-type", "application/json")]
LETTERS = encode(HEADERS, '{"content":"你😀"}'.encode())
THREE = EVENT + LETTERS + EXCEPTION


def framed(headers: bytes, payload: bytes = b"") -> bytes:
    """A message with these bytes for headers, its checksums right."""
    lengths = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    body = lengths + struct.pack("!I", crc32(lengths)) + headers + payload
    return body + struct.pack("!I", crc32(body))


def decoded(pieces: list[bytes]) -> list[StreamMessage]:
    decoder = Decoder()
    messages = [message for piece in pieces for message in decoder.feed(piece)]
    decoder.close()
    return messages


def by_botocore(pieces: list[bytes]) -> list[StreamMessage]:
    buffer = EventStreamBuffer()
    messages = []
    for piece in pieces:
        buffer.add_data(piece)
        messages += [StreamMessage(message.headers, message.payload) for message in buffer]
    return messages


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def test_an_event_is_its_headers_and_its_payload() -> None:
    (message,) = decoded([EVENT])
    assert message.headers[":event-type"] == "assistantResponseEvent"
    assert message.headers[":message-type"] == "event"
    assert message.payload == b'{"content":"Hi"}'


def test_an_exception_names_its_type() -> None:
    (message,) = decoded([EXCEPTION])
    assert message.headers[":exception-type"] == "throttlingException"


def test_the_encoder_writes_what_botocore_reads() -> None:
    (message,) = by_botocore([LETTERS])
    assert message == StreamMessage(dict(HEADERS), '{"content":"你😀"}'.encode())


@pytest.mark.parametrize("data", [EVENT, EXCEPTION, THREE], ids=["event", "exception", "three"])
def test_a_split_anywhere_makes_no_difference(data: bytes) -> None:
    whole = by_botocore([data])
    for at in range(len(data) + 1):
        assert decoded([data[:at], data[at:]]) == whole, at


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 13, 64, 1460])
def test_pieces_of_any_size_make_no_difference(size: int) -> None:
    assert decoded(in_pieces(THREE * 3, size)) == by_botocore(in_pieces(THREE * 3, size))


def test_every_type_of_header_is_read_as_botocore_reads_it() -> None:
    values = [b"\x00", b"\x01", b"\x02\xff", b"\x03\xff\xfe", b"\x04\xff\xff\xff\xfd", b"\x05" + b"\xff" * 8]
    values += [b"\x06\x00\x03abc", "\x07\x00\x03é1".encode("latin-1").replace(b"\xe9", "é".encode())]
    values += [b"\x08" + b"\x00" * 7 + b"\x09", b"\x09" + bytes(range(16))]
    data = framed(b"".join(bytes([2]) + b"h%d" % i + value for i, value in enumerate(values)), b"payload")
    assert decoded([data]) == by_botocore([data])
    assert list(decoded([data])[0].headers.values())[:3] == [True, False, -1]


def test_the_smallest_message_has_16_bytes() -> None:
    assert decoded([framed(b"")]) == [StreamMessage({}, b"")]


@pytest.mark.parametrize(
    "data, words",
    [
        (b'{"message":"no stream"}', "checksum of a prelude"),
        (EVENT[:-1] + b"\x00", "checksum of a message"),
        (EVENT[:20] + b"\x00" + EVENT[21:], "checksum of a message"),
        (framed(b"", b"x" * (MOST_PAYLOAD + 1)), "impossible length"),
        (struct.pack("!III", 12, 0, crc32(struct.pack("!II", 12, 0))), "impossible length"),
        (struct.pack("!III", 40, 30, crc32(struct.pack("!II", 40, 30))), "impossible length"),
        (framed(b"\x01a\x00\x01a\x01"), "twice"),
        (framed(b"\x01a\x0a"), "unknown type"),
        (framed(b"\x01a\x07\x00\x09short"), "beyond"),
        (framed(b"\x01a\x09short"), "beyond"),
        (framed(b"\x01a\x05\x00"), "malformed"),
        (framed(b"\x09a"), "malformed"),
        (framed(b"\x01\xff\x00"), "malformed"),
        (framed(b"\x01a\x07\x00\x01\xff"), "malformed"),
    ],
)
def test_what_is_no_event_stream_is_refused_with_a_reason(data: bytes, words: str) -> None:
    with pytest.raises(EventStreamError, match=words):
        list(Decoder().feed(data))


def test_a_body_that_ends_inside_a_message_is_refused_at_the_end() -> None:
    decoder = Decoder()
    assert list(decoder.feed(THREE[:-1])) == by_botocore([THREE])[:2]
    with pytest.raises(EventStreamError, match="ended inside"):
        decoder.close()


def test_messages_before_a_broken_one_are_read() -> None:
    messages = Decoder().feed(EVENT + EXCEPTION[:-1] + b"!")
    assert next(messages).payload == b'{"content":"Hi"}'
    with pytest.raises(EventStreamError):
        next(messages)


def outcome(read: Any, data: bytes, failures: type[Exception] | tuple[type[Exception], ...]) -> Any:
    try:
        return read([data])
    except failures:
        return "refused"


@given(st.binary(max_size=200))
def test_random_bytes_raise_only_the_decoders_own_error(data: bytes) -> None:
    outcome(decoded, data, EventStreamError)


@given(st.binary(max_size=80), st.binary(max_size=40))
def test_random_headers_are_read_as_botocore_reads_them_or_refused(headers: bytes, payload: bytes) -> None:
    data = framed(headers, payload)
    ours = outcome(decoded, data, EventStreamError)
    theirs = outcome(by_botocore, data, (ParserError, struct.error, UnicodeDecodeError, KeyError, IndexError))
    if ours != "refused":
        assert ours == theirs


@given(st.integers(0, len(THREE) - 1), st.integers(1, 255))
def test_one_changed_byte_is_always_noticed(at: int, change: int) -> None:
    broken = THREE[:at] + bytes([THREE[at] ^ change]) + THREE[at + 1 :]
    assert outcome(decoded, broken, EventStreamError) == "refused"


def test_a_whole_body_in_one_piece_is_read_in_linear_time() -> None:
    """botocore needs 1.8 s for 20,000 messages in one piece, because it slices the rest off for each."""
    data = EVENT * 20_000
    began = time.process_time()
    assert len(decoded([data])) == 20_000
    assert time.process_time() - began < 1.0


def test_a_large_message_in_small_pieces_is_read_in_linear_time() -> None:
    data = framed(b"", random.Random(1).randbytes(MOST_PAYLOAD))
    began = time.process_time()
    assert len(decoded(in_pieces(data, 100))) == 1
    assert time.process_time() - began < 1.0
