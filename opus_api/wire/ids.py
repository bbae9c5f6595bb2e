"""Random identifiers."""

import secrets
import string

BASE62 = string.digits + string.ascii_letters

# Each letter stands for four byte values; the eight values left over are thrown away, so that all are equally likely.
_LETTERS = (BASE62 * 5)[:256].encode()
_LEFT_OVER = bytes(range(248, 256))


def random_base62(length: int) -> str:
    """``length`` letters and digits from the system's source of randomness."""
    text = ""
    while len(text) < length:
        text += secrets.token_bytes(length + 8).translate(_LETTERS, _LEFT_OVER).decode()
    return text[:length]


def message_id() -> str:
    return "msg_" + random_base62(24)


def tool_id() -> str:
    return "toolu_" + random_base62(24)


def request_id() -> str:
    return "req_" + random_base62(24)
