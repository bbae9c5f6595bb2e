"""What each side wrote down of a run, as values. Times are monotonic seconds: all processes share that clock."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Request:
    """One request as its client saw it.

    ``end``: complete | error (in its protocol) | unended (a regular end of the bytes, none of the stream) | cut |
    dropped (no head came) | refused (no connection) | left | hung.
    """

    tag: str
    model: str
    dialect: str
    via: str
    stream: bool
    began: float
    ended: float
    end: str
    status: int = 0  # 0: no head came
    request_id: str = ""
    text: str = ""
    error_type: str = ""
    output_tokens: int | None = None  # what it was told
    leaked: bool = False  # a secret was in what it got


@dataclass(frozen=True)
class Call:
    """One call as the upstream saw it. ``ended`` None: it never did; ``left``: the gateway hung up before the end."""

    number: int
    tag: str
    call: int
    fault: str
    account: str  # the credential it came with
    began: float
    input_tokens: int
    output_tokens: int
    retry_after: int | None = None
    ended: float | None = None
    left: bool = False


@dataclass(frozen=True)
class Done:
    """What the monkey did, and when it was over."""

    what: str
    began: float
    ended: float


@dataclass(frozen=True)
class Ledgers:
    requests: tuple[Request, ...] = ()
    calls: tuple[Call, ...] = ()
    rows: tuple[Mapping[str, Any], ...] = ()  # of the request log
    done: tuple[Done, ...] = ()
    told_after: float = 0.0  # seconds until another worker knows what one was told; there are two during a reload
    accounts: Mapping[str, int] = field(default_factory=dict)  # credential -> id in the database
    secrets_in: tuple[str, ...] = ()  # places outside of answers where a secret was found
    places_lost: int = 0  # of the accounts' caps, once everything had ended


def read_requests(path: Path) -> tuple[Request, ...]:
    return tuple(Request(**entry) for entry in _lines(path))


def read_calls(path: Path) -> tuple[Call, ...]:
    """Lines of the beginning and of the end, joined by number."""
    found: dict[int, dict[str, Any]] = {}
    for entry in _lines(path):
        found.setdefault(entry["number"], {}).update(entry)
    return tuple(Call(**entry) for entry in found.values())


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
