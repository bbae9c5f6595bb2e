"""AWS event stream (``application/vnd.amazon.eventstream``): bytes to messages, and back. Pure and incremental.

The framing is that of Smithy's specification "Amazon Event Stream": all integers are big-endian; a message is its
length (4 bytes), the length of its headers (4), the CRC-32 of these 8 bytes (4), headers, payload, and the CRC-32 of
all that precedes it (4). A header is the length of its name (1), the name, a type (1) and the value.
"""

import struct
from binascii import crc32
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

PRELUDE = struct.Struct("!III")
CHECKSUM = struct.Struct("!I")
FRAMING = PRELUDE.size + CHECKSUM.size  # 16, the smallest message

# Our own bounds; botocore takes headers up to 128 KiB and payloads up to 24 MiB.
MOST_HEADERS = 128 * 1024
MOST_PAYLOAD = 2**20

TRUE, FALSE, BYTES, STRING, UUID = 0, 1, 6, 7, 9
NUMBERS = {2: struct.Struct("!b"), 3: struct.Struct("!h"), 4: struct.Struct("!i"), 5: struct.Struct("!q")}
NUMBERS[8] = NUMBERS[5]  # a timestamp: milliseconds since 1970
LENGTH = struct.Struct("!H")


class EventStreamError(ValueError):
    """The bytes are no event stream, or a message is larger than our bounds."""


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """One message. Values of headers are bool, int, str or bytes, by their type; a UUID is its 16 bytes."""

    headers: dict[str, Any]
    payload: bytes


class Decoder:
    """``feed`` what arrived, iterate over the messages that it completes; ``close`` at the end."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[StreamMessage]:
        """Raises EventStreamError, after the messages before the broken one; nothing more can be read then."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while (size := _size_at(buffer, start)) and len(buffer) - start >= size:
                start += size
                yield _message(bytes(buffer[start - size : start]))
        finally:
            del buffer[:start]  # once a read: doing so for each message would be quadratic

    def close(self) -> None:
        """Raises EventStreamError when the body ended inside a message."""
        if self._buffer:
            raise EventStreamError("ended inside a message")


def _size_at(buffer: bytearray, start: int) -> int:
    """Bytes of the message that begins there, 0 when its prelude has not arrived. Raises EventStreamError."""
    if len(buffer) - start < PRELUDE.size:
        return 0
    size, headers, checksum = PRELUDE.unpack_from(buffer, start)
    if crc32(buffer[start : start + 8]) != checksum:
        raise EventStreamError("checksum of a prelude does not fit")
    if headers > MOST_HEADERS or not 0 <= size - headers - FRAMING <= MOST_PAYLOAD:
        raise EventStreamError("a message has an impossible length")
    return int(size)


def _message(data: bytes) -> StreamMessage:
    if crc32(data[:-4]) != CHECKSUM.unpack_from(data, len(data) - 4)[0]:
        raise EventStreamError("checksum of a message does not fit")
    end = PRELUDE.size + PRELUDE.unpack_from(data)[1]
    try:
        headers = _headers(data[PRELUDE.size : end])
    except (struct.error, IndexError, UnicodeDecodeError):
        raise EventStreamError("headers of a message are malformed") from None
    return StreamMessage(headers, data[end:-4])


def _headers(data: bytes) -> dict[str, Any]:
    """Raises struct.error, IndexError, UnicodeDecodeError, EventStreamError."""
    headers: dict[str, Any] = {}
    at = 0
    while at < len(data):
        name_end = at + 1 + data[at]
        name = data[at + 1 : name_end].decode()
        value, at = _value(data, data[name_end], name_end + 1)
        if name in headers:
            raise EventStreamError("a header stands twice in a message")
        headers[name] = value
    return headers


def _value(data: bytes, kind: int, at: int) -> tuple[Any, int]:
    """(the value that begins there, where it ends)"""
    if kind in (TRUE, FALSE):
        return kind == TRUE, at
    if kind in NUMBERS:
        return NUMBERS[kind].unpack_from(data, at)[0], at + NUMBERS[kind].size
    if kind in (BYTES, STRING):
        begin = at + LENGTH.size
        end = begin + LENGTH.unpack_from(data, at)[0]
    elif kind == UUID:
        begin, end = at, at + 16
    else:
        raise EventStreamError("a header has an unknown type")
    if end > len(data):
        raise EventStreamError("a header reaches beyond its message")
    return (data[begin:end].decode() if kind == STRING else data[begin:end]), end


def encode(headers: Iterable[tuple[str, str]], payload: bytes) -> bytes:
    """One message; all headers are strings."""
    packed = b"".join(_packed(name.encode(), value.encode()) for name, value in headers)
    lengths = struct.pack("!II", FRAMING + len(packed) + len(payload), len(packed))
    body = lengths + CHECKSUM.pack(crc32(lengths)) + packed + payload
    return body + CHECKSUM.pack(crc32(body))


def _packed(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + bytes([STRING]) + LENGTH.pack(len(value)) + value
