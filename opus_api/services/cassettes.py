"""From an exchange that debug mode kept to a golden folder: the same bytes, played again without anybody to ask.

The folder has the form of ``tests/golden``: ``client-in.json``, ``upstream-out.json``, ``upstream-in.sse`` or
``.json``, ``client-out.sse`` or ``.json``, and ``case.json`` for what is not usual there. What is random is numbered,
as its test does: ids of messages and tool calls, times, our request id.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opus_api.services.exchange_log import CUT, FACTS
from opus_api.upstreams import UPSTREAMS
from opus_api.wire.errors import Conflict, Phrase

# What tests/golden/pipeline.py: Exchange takes for granted.
USUAL: Mapping[str, Any] = {
    "dialect": "anthropic",
    "provider": "openai",
    "model": "upstream-model",
    "options": {},
    "headers": {},
    "estimate": 10,
    "status": 200,
    "upstream_status": 200,
    "warnings": [],
}
WHOLE = ("ok", "upstream_cut", "client_error")  # outcomes in which the client's answer is the upstream's
RANDOM_ID = re.compile(r"(?<![A-Za-z0-9])(msg|toolu)_[A-Za-z0-9]{24}")
CREATED = re.compile(r'"created": ?\d+')
OUR_OWN_WARNING = "model_substituted"  # of the name, which a golden folder does not look up


@dataclass(frozen=True, slots=True)
class Message:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")


def make(kept: Path, target: Path) -> list[str]:
    """Write the golden folder ``target`` from the folder of a kept exchange: the files' names.

    Raises Conflict with a sentence when this exchange cannot be played again, OSError.
    """
    files = _files(kept)
    target.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (target / name).write_bytes(data)
    return sorted(files)


def _files(kept: Path) -> dict[str, bytes]:
    facts = _facts(kept)
    attempt, number = facts["attempts"][-1], len(facts["attempts"])
    client_in, client_out = _message(kept, "client-in"), _message(kept, "client-out")
    sent, upstream_in = _message(kept, f"upstream-out-{number}"), _message(kept, f"upstream-in-{number}")
    said = _ours_numbered(_without(client_out.body, facts["pings"]), facts["request_id"])
    files = {
        "client-in.json": _pretty(json.loads(client_in.body)),
        "upstream-out.json": _pretty(json.loads(sent.body)),
        f"upstream-in.{_kind(upstream_in)}": _plain_ends(upstream_in.body)
        if upstream_in.is_stream
        else upstream_in.body,
        f"client-out.{_kind(client_out)}": _expected(client_out, said, attempt["verbatim"]),
    }
    case = _case(facts, attempt, client_out.status, upstream_in.status)
    return files | ({"case.json": _pretty(case)} if case else {})


def _facts(kept: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((kept / FACTS).read_bytes())
    except FileNotFoundError:
        raise Conflict("This request still runs; try again when it has ended.") from None
    if not facts["attempts"]:
        raise Conflict("No upstream was asked for this request, so there is nothing to play again.")
    if facts["outcome"] not in WHOLE:
        raise Conflict(
            Phrase(
                "This request ended as %(outcome)s: its answer is not what the upstream said.", outcome=facts["outcome"]
            )
        )
    if facts["attempts"][-1]["provider"] == "amazonq":
        raise Conflict("Amazon Q answers in a binary format that golden folders do not hold.")
    return facts


def _message(kept: Path, face: str) -> Message:
    head, _, body = (kept / f"{face}.http").read_bytes().partition(b"\n\n")
    first, *lines = head.decode("utf-8", "replace").split("\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    if CUT in headers:
        raise Conflict(
            Phrase("Of %(face)s only %(size)s were kept, so it cannot be played again.", face=face, size=headers[CUT])
        )
    words = first.split(" ")
    return Message(int(words[1]) if words[0] == "HTTP" else 0, headers, body)


def _case(facts: Mapping[str, Any], attempt: Mapping[str, Any], status: int, upstream_status: int) -> dict[str, Any]:
    defaults = {option.name: option.default for option in UPSTREAMS[attempt["provider"]].options}
    options = {name: value for name, value in attempt["options"].items() if value != defaults.get(name)}
    told = {
        **{name: facts[name] for name in ("dialect", "headers", "estimate")},
        **{name: attempt[name] for name in ("provider", "model")},
        "options": options,
        "status": status,
        "upstream_status": upstream_status,
        "warnings": [code for code in attempt["warnings"] if code != OUR_OWN_WARNING],
    }
    return {name: value for name, value in told.items() if value != USUAL[name]}


def _kind(message: Message) -> str:
    return "sse" if message.is_stream else "json"


def _pretty(value: Any) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def _plain_ends(stream: bytes) -> bytes:
    return stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _without(body: bytes, pings: list[tuple[int, int]]) -> bytes:
    """The answer without our pings, which come when time passes."""
    for start, length in reversed(pings):
        body = body[:start] + body[start + length :]
    return body


def _ours_numbered(body: bytes, request_id: str) -> bytes:
    return body.replace(request_id.encode(), b"req_1")


def _expected(message: Message, said: bytes, verbatim: bool) -> bytes:
    if not message.is_stream:
        return _pretty(json.loads(_numbered(json.dumps(json.loads(said)))))
    return _plain_ends(said) if verbatim else _numbered(said.decode()).encode()


def _numbered(text: str) -> str:
    seen: dict[str, str] = {}

    def numbered(match: re.Match[str]) -> str:
        kind = match[1]
        return seen.setdefault(match[0], f"{kind}_{sum(key.startswith(kind) for key in seen) + 1}")

    return CREATED.sub('"created": 0', RANDOM_ID.sub(numbered, text))
