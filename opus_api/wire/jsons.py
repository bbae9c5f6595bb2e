"""JSON at the edge: orjson, and the standard library for the few texts that orjson refuses."""

import json
import math
import re
from typing import Any, NoReturn

import orjson

DEEPEST = 254  # levels that ``dumps`` writes: orjson's bound
LEVELS = 64  # of what is to be stored
ROOM = 14  # levels that an answer may have around what a model wrote
# Parsing holds the interpreter lock from beginning to end, and with it every stream of the process. Both bounds keep
# that below a tenth of a second, in the worst form that JSON can have.
MOST_MARKS = 250_000
LARGEST_ODD = 8 * 2**20  # bytes of a text that orjson refuses
MARKS = (b",", b":", b"[", b"{")
SLICE = 4 * 2**20


class JsonError(ValueError):
    """Not JSON, or nested too deeply."""


def loads(data: bytes | str) -> Any:
    """Raises JsonError. Lone surrogates (an emoji split in two) are accepted: JavaScript clients send them."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if len(data) > LARGEST_ODD:
            raise JsonError(str(error)) from None
    try:
        return json.loads(data, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise JsonError(str(error)) from None


def loads_strict(data: bytes | str) -> Any:
    """The same for what is to be stored: half of a character is no text that a database takes, and nobody means more
    than LEVELS of nesting, while other readers fall over it. Raises JsonError."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise JsonError(str(error)) from None
    if _is_deep(value):
        raise JsonError(f"nested more than {LEVELS} levels deep")
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(LEVELS):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
        ]
        if not level:
            return False
    return any(isinstance(inner, (dict, list)) for inner in level)


def loads_shallow(data: bytes | str) -> Any:
    """The same for what an answer will hold in turn. Raises JsonError, too, when ``dumps`` would not take it with ROOM
    levels around it."""
    value = loads(data)
    curly, square = (b"{", b"[") if isinstance(data, bytes) else ("{", "[")
    if data.count(curly) + data.count(square) > DEEPEST - ROOM:  # type: ignore[arg-type] # of data's own kind
        around = value
        for _ in range(ROOM):
            around = [around]
        dumps(around)
    return value


def has_too_many_values(data: bytes) -> bool:
    """Whether ``data`` holds more than MOST_MARKS commas, colons and opening brackets outside of strings.

    Each value brings one, so that they measure what parsing costs; the length of strings costs next to nothing.
    """
    if len(data) <= MOST_MARKS or not _has_many_marks(data):
        return False
    found, inside, start = 0, 0, 0
    while start < len(data) and found <= MOST_MARKS:
        piece = data[start : start + SLICE]
        start += len(piece)
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # an escape may not be cut in two
            piece += data[start : start + 1]
            start += 1
        parts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"', 2 * MOST_MARKS + 2)
        outside = b"".join(parts[inside::2])
        found += sum(map(outside.count, MARKS))
        inside ^= (len(parts) - 1) % 2
    return found > MOST_MARKS


def _has_many_marks(data: bytes) -> bool:
    """The same, those inside of strings included."""
    found = 0
    for mark in MARKS:  # one call each, so that a thread lets others have the lock in between
        found += data.count(mark)
        if found > MOST_MARKS:
            return True
    return False


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large")
    return value


def dumps(value: Any) -> bytes:
    """Compact JSON. Raises JsonError when ``value`` is no JSON or nested deeper than DEEPEST levels."""
    try:
        return orjson.dumps(value)
    except TypeError:
        pass
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII: lone surrogates stay escapes
    except (TypeError, ValueError, RecursionError) as error:
        raise JsonError(str(error)) from None
    if _too_deep(text):
        raise JsonError("nested too deeply")
    return text.encode()


def _too_deep(text: str) -> bool:
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", text):  # those inside strings, too: only a bound
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest > DEEPEST


def compact(value: Any) -> str:
    """The same as text, as tool arguments travel inside OpenAI's JSON."""
    return dumps(value).decode()


CLOSER = {"{": "}", "[": "]"}


def loads_cut(text: str) -> Any:
    """JSON whose end is missing, as a model leaves it that ran out of tokens: what is open is closed, and a last
    member that is not whole is left out. Raises JsonError when that does not help either."""
    closers, whole_until, closers_there = _open_ends(text)
    try:
        return loads_shallow(text + closers)
    except JsonError:
        return loads_shallow(text[:whole_until] + closers_there)


def closing(text: str) -> str:
    """What must follow ``text`` to make it JSON. Raises JsonError when something else is missing than the ends."""
    closers = _open_ends(text)[0]
    loads_shallow(text + closers)
    return closers


def _open_ends(text: str) -> tuple[str, int, str]:
    """What closes all that is open at the end; where a comma or an opener last stood, and what closes it there."""
    open_: list[str] = []
    whole_until, closers_there = 0, ""
    in_string = escaped = False
    for position, char in enumerate(text):
        if in_string:
            if escaped or char == "\\":
                escaped = not escaped
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in CLOSER:
            open_.append(CLOSER[char])
            whole_until, closers_there = position + 1, "".join(reversed(open_))
        elif char in "]}" and open_:
            open_.pop()
        elif char == ",":
            whole_until, closers_there = position, "".join(reversed(open_))
    return '"' * in_string + "".join(reversed(open_)), whole_until, closers_there
