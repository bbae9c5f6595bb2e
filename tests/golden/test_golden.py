"""Every folder here is one exchange: what the client sends, what the upstream must get, what it answers, what the
client must get. Streams arrive in pieces of every size and with every line end; it must make no difference.

``upstream-in.events.json`` is an AWS event stream: [kind, payload] for each message, in the order in which they come.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from opus_api.wire.eventstream import encode
from tests import grammar
from tests.golden.pipeline import Answer, Exchange, answer, cut

CASES = sorted(path.parent.name for path in Path(__file__).parent.glob("*/client-in.json"))
STREAMS = [name for name in CASES if (Path(__file__).parent / name / "upstream-in.sse").exists()]
ANSWERS = [name for name in CASES if (Path(__file__).parent / name / "upstream-in.json").exists()]
EVENTS = [name for name in CASES if (Path(__file__).parent / name / "upstream-in.events.json").exists()]
REQUESTS = [name for name in CASES if (Path(__file__).parent / name / "upstream-out.json").exists()]
SIZES = [1, 2, 3, 7, 64, 0]
LINE_ENDS = {"LF": b"\n", "CRLF": b"\r\n", "CR": b"\r"}


class Case:
    def __init__(self, name: str):
        self.folder = Path(__file__).parent / name
        facts: dict[str, Any] = self._json("case.json") or {}
        self.status: int = facts.pop("status", 200)
        self.upstream_status: int = facts.pop("upstream_status", 200)
        self.warnings: list[str] = facts.pop("warnings", [])
        self.exchange = Exchange(**facts)
        self.body: dict[str, Any] = self._json("client-in.json")

    def _json(self, name: str) -> Any:
        path = self.folder / name
        return json.loads(path.read_bytes()) if path.exists() else None

    @property
    def upstream_body(self) -> Any:
        return self._json("upstream-out.json")

    @property
    def stream(self) -> bytes:
        return (self.folder / "upstream-in.sse").read_bytes()

    @property
    def event_stream(self) -> bytes:
        return b"".join(message(*item) for item in self._json("upstream-in.events.json"))

    @property
    def answered(self) -> bytes:
        """What the upstream sent, in whichever form."""
        if (self.folder / "upstream-in.sse").exists():
            return self.stream
        return self.json if (self.folder / "upstream-in.json").exists() else self.event_stream

    @property
    def json(self) -> bytes:
        return (self.folder / "upstream-in.json").read_bytes()

    def run(self, data: bytes, size: int) -> Answer:
        return self.run_pieces(cut(data, size))

    def run_pieces(self, pieces: list[bytes]) -> Answer:
        call = self.exchange.parse(self.body)
        self.exchange.request(call)
        return answer(self.exchange, call, pieces, self.upstream_status)

    def check(self, got: Answer) -> None:
        assert got.status == self.status
        if (self.folder / "client-out.json").exists():
            assert plain(json.loads(got.body)) == self._json("client-out.json")
            return
        expected = (self.folder / "client-out.sse").read_bytes()
        if self.exchange.verbatim:
            assert got.body.replace(b"\r\n", b"\n").replace(b"\r", b"\n") == expected
        elif self.exchange.dialect == "openai":
            assert plain(grammar.chunks(got.body)) == grammar.chunks(expected)
        else:
            assert plain(grammar.check(got.body)) == grammar.events(expected)


def message(kind: str, payload: Any) -> bytes:
    """One message of an AWS event stream. Its text is UTF-8, as the service sends it."""
    word = "exception" if kind.endswith("Exception") else "event"
    headers = [(":message-type", word), (f":{word}-type", kind), (":content-type", "application/json")]
    return encode(headers, json.dumps(payload, ensure_ascii=False).encode())


def plain(value: Any) -> Any:
    """Without what is random: ids are numbered as they appear, times are 0, and so are UUIDs."""
    seen: dict[str, str] = {}

    def numbered(match: re.Match[str]) -> str:
        kind = match[1]
        return seen.setdefault(match[0], f"{kind}_{sum(key.startswith(kind) for key in seen) + 1}")

    text = re.sub(r"(?<![A-Za-z0-9])(msg|toolu)_[A-Za-z0-9]{24}", numbered, json.dumps(value))
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "0", text)
    return json.loads(re.sub(r'"created": \d+', '"created": 0', text))


@pytest.mark.parametrize("name", REQUESTS)
def test_the_upstream_gets_the_request_in_its_own_format(name: str) -> None:
    case = Case(name)
    call = case.exchange.parse(case.body)
    assert plain(json.loads(case.exchange.request(call).body or b"")) == case.upstream_body
    assert call.warnings == case.warnings


@pytest.mark.parametrize("line_end", LINE_ENDS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", STREAMS)
def test_the_client_gets_the_same_wherever_the_bytes_were_cut(name: str, size: int, line_end: str) -> None:
    case = Case(name)
    case.check(case.run(case.stream.replace(b"\n", LINE_ENDS[line_end]), size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", EVENTS)
def test_the_client_gets_the_same_wherever_an_event_stream_was_cut(name: str, size: int) -> None:
    case = Case(name)
    case.check(case.run(case.event_stream, size))


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_stream_may_come_in_two_pieces_cut_anywhere(name: str) -> None:
    case = Case(name)
    data = case.event_stream
    whole = case.run(data, 0)
    for at in range(1, len(data)):
        got = case.run_pieces([data[:at], b"", data[at:]])
        assert (got.status, spelled(case, got)) == (whole.status, spelled(case, whole)), at


def spelled(case: Case, got: Answer) -> Any:
    """What the client reads in an answer, whatever the pieces were."""
    if case.body.get("stream") is not True or got.status != 200:
        return plain(json.loads(got.body))
    return plain([json.loads(line[6:]) for line in got.body.splitlines() if line[:7] == b"data: {"])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ANSWERS)
def test_the_client_gets_an_answer_that_was_no_stream(name: str, size: int) -> None:
    case = Case(name)
    case.check(case.run(case.json, size))
