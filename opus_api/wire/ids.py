"""Random identifiers."""

import secrets
import string

BASE62 = string.digits + string.ascii_letters


def random_base62(length: int) -> str:
    return "".join(secrets.choice(BASE62) for _ in range(length))


def message_id() -> str:
    return "msg_" + random_base62(24)


def tool_id() -> str:
    return "toolu_" + random_base62(24)


def request_id() -> str:
    return "req_" + random_base62(24)
