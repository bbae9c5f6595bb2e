"""What an upstream does wrong, by name. Pure: a fault and a request in, a Reply out.

A request carries its script inside the model's name, so nothing between client and upstream knows of it:
``anthropic-chaos~q17~status:500~cut:4`` is request q17, whose first call gets a 500, whose second breaks off after four
events, and whose further calls are answered well. Each answer says who it is: the words of q17's second call are
``q17.2.0 q17.2.1 …``, and its usage is a number of its own.
"""

import gzip
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.fakes import formats
from tests.fakes.upstream import CUT, FOREVER, RESET, Asked, Reply, Step, in_json, is_anthropic, refused, spoken

WORDS = 6
GOOD = "ok"
MIB = 2**20


@dataclass(frozen=True)
class Script:
    tag: str
    faults: tuple[str, ...]


def script_of(asked: Mapping[str, Any]) -> Script:
    """Of the model's name, else of the prompt; without a script every call is answered well."""
    model = asked["model"] if "~" in asked["model"] else _prompt(asked)
    _, _, rest = model.partition("~")
    tag, *faults = rest.split("~")
    return Script(tag, tuple(faults))


def _prompt(asked: Mapping[str, Any]) -> str:
    content = asked["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


def words(tag: str, call: int) -> tuple[str, ...]:
    return tuple(f"{tag}.{call}.{n} " for n in range(WORDS))


def usage(tag: str, call: int) -> dict[str, int]:
    """Numbers that no other call has by chance."""
    number = zlib.crc32(f"{tag}.{call}".encode())
    return {"input_tokens": 10 + number % 9_000, "output_tokens": 1 + number // 9_000 % 9_000}


def reply(asked: Asked, tag: str, call: int, fault: str) -> Reply:
    """What this call is answered; ``fault`` is ``name`` or ``name:number``. Raises KeyError for an unknown name."""
    name, _, number = fault.partition(":")
    good = spoken(asked, text=words(tag, call), cached=0, written=0, **usage(tag, call))
    return FAULTS[name](asked, good, int(number or 0))


# ---- pieces of a good answer


def _events(good: Reply) -> list[Step]:
    return list(good.body) if not isinstance(good.body, bytes) else [good.body]


def _bytes(good: Reply) -> bytes:
    return b"".join(step for step in _events(good) if isinstance(step, bytes))


def _with(good: Reply, body: Sequence[Step], **changes: Any) -> Reply:
    return Reply(good.status, body, {**good.headers, **changes.pop("headers", {})}, **changes)


def _broken_off(good: Reply, events: int, *then: Step) -> Reply:
    """A stream as far as ``events``; of a whole answer, half of it."""
    if isinstance(good.body, bytes):
        return _with(good, [good.body[: len(good.body) // 2], *then])
    return _with(good, [*_events(good)[:events], *then])


def _error(asked: Asked, status: int) -> bytes:
    message = f"upstream says {status} to {asked.key}"  # whose key must not come through
    if is_anthropic(asked):
        return formats.event(formats.anthropic_error(status, message))
    return formats.data(formats.openai_error(status, message))


def _error_in_stream(asked: Asked, good: Reply, events: int) -> Reply:
    if isinstance(good.body, bytes):
        shape = formats.anthropic_error if is_anthropic(asked) else formats.openai_error
        return in_json(shape(500, f"upstream says 500 to {asked.key}"))
    return _with(good, [*_events(good)[:events], _error(asked, 500)])


def _spread(asked: Asked, good: Reply, seconds: int) -> Reply:
    """What it says, at equal distances over so long; its end comes with the last words."""
    events = _events(good)
    said = events[: WORDS + 2]
    return _with(good, [*(step for event in said for step in (seconds / len(said), event)), *events[WORDS + 2 :]])


def _wrong_length(asked: Asked, good: Reply, more: int) -> Reply:
    body = _bytes(good)
    return _with(good, [body, CUT], headers={"content-length": str(len(body) + (more or 10))}, framing="raw")


def _line_ends(asked: Asked, good: Reply, _: int) -> Reply:
    """CR, LF and CRLF by turns: each is an end of a line in server-sent events."""
    if isinstance(good.body, bytes):
        return good
    ends = (b"\r\n", b"\r", b"\n")
    lines = _bytes(good).split(b"\n")[:-1]
    return _with(good, [line + ends[(n // 3) % 3] for n, line in enumerate(lines)])


def _long_line(asked: Asked, good: Reply, mib: int) -> Reply:
    """A line without an end, the same MiB again and again."""
    return _with(good, [b"data: ", *[b"x" * MIB] * (mib or 64), b"\n\n"])


def _flood(asked: Asked, good: Reply, mib: int) -> Reply:
    """So much text that no buffer takes it whole."""
    if isinstance(good.body, bytes):
        return good
    first, *rest = _events(good)
    piece = formats.event(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x" * 2**16}}
    )
    return _with(good, [first, rest[0], *[piece] * (mib * 16), *rest[1:]])


def _gzip_bomb(asked: Asked, good: Reply, mib: int) -> Reply:
    """One line that grows a thousandfold; a member per MiB, because compressing it whole would take seconds."""
    bomb = gzip.compress(b"data: ") + gzip.compress(b"0" * MIB) * (mib or 256) + gzip.compress(b"\n\n")
    return Reply(200, bomb, {**good.headers, "content-encoding": "gzip"})


def _status(asked: Asked, good: Reply, status: int) -> Reply:
    return refused(status, asked, f"upstream says {status} to {asked.key}")


def _limited(asked: Asked, good: Reply, seconds: int) -> Reply:
    return refused(429, asked, "slow down", retry_after=str(seconds))


Fault = Callable[[Asked, Reply, int], Reply]

FAULTS: dict[str, Fault] = {
    GOOD: lambda asked, good, _: good,
    "status": _status,  # :N
    "limit": _limited,  # :seconds, 429 with retry-after
    "delay": lambda asked, good, ms: _with(good, good.body, before=[ms / 1000]),
    "hold": lambda asked, good, ms: _with(good, [*_events(good)[:3], ms / 1000, *_events(good)[3:]]),
    "reset": lambda asked, good, _: Reply(before=[RESET]),  # before the head
    "silent": lambda asked, good, _: Reply(before=[FOREVER]),
    "rst": lambda asked, good, byte: _with(good, [_bytes(good)[:byte], RESET]),
    "cut": lambda asked, good, events: _broken_off(good, events, CUT),
    "stall": lambda asked, good, events: _broken_off(good, events, FOREVER),
    "unended": lambda asked, good, events: _broken_off(good, events),
    "drip": lambda asked, good, ms: _with(
        good, [step for byte in _bytes(good) for step in (bytes([byte]), (ms or 1000) / 1000)]
    ),
    "spread": _spread,
    "html": lambda *_: Reply(200, b"<html><body>502 Bad Gateway</body></html>", {"content-type": "text/html"}),
    "empty": lambda asked, good, _: Reply(200, b"", good.headers),
    "error": _error_in_stream,  # :after that many events, 0 being the first
    "length": _wrong_length,
    "split": lambda asked, good, _: _with(good, [bytes([byte]) for byte in _bytes(good)]),
    "ends": _line_ends,
    "line": _long_line,
    "bomb": _gzip_bomb,
    "flood": _flood,  # :MiB, of Anthropic's
    "redirect": lambda *_: Reply(307, b"", {"location": "http://169.254.169.254/latest/meta-data"}),
}

# Those that are no trouble at all, only strange.
HARMLESS = (GOOD, "delay", "hold", "spread", "split", "ends")


def retry_after(fault: str) -> int | None:
    """The seconds for which this answer forbids to ask the account again."""
    name, _, number = fault.partition(":")
    return int(number) if name == "limit" else None
