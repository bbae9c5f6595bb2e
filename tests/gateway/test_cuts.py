"""Bar 6: an upstream's stream cut at every byte. Before content another account answers whole, after it nobody does."""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from opus_api.config import Settings
from opus_api.dialects import DIALECTS
from opus_api.gateway.catalog import Catalog
from opus_api.gateway.dispatch import Dispatch, Worker
from opus_api.gateway.load import Load
from opus_api.gateway.pool import Pool
from opus_api.gateway.stream import Answer
from opus_api.state.memory import MemoryState
from opus_api.transport.exchange import cut
from tests import bars
from tests.fakes import formats
from tests.gateway.values import Notes, account, snapshot


class CutExchange:
    """A stream of which only the first ``at`` bytes come."""

    status = 200
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed

    def __init__(self, stream: bytes, at: int):
        self._stream, self._at = stream, at

    def open(self) -> Iterator[bytes]:
        yield from ()

    def chunks(self) -> Iterator[bytes]:
        part = self._stream[: self._at]
        yield from (part[i : i + 97] for i in range(0, len(part), 97))
        if self._at < len(self._stream):
            raise cut()

    def no_total_limit(self, seconds: float) -> None: ...
    def last_event_came(self, wait: float = 0.0) -> None: ...
    def close(self) -> None: ...


class CutOnce:
    """A transport whose first exchange is cut; all others are whole."""

    def __init__(self, stream: bytes, at: int):
        self._stream, self._at, self.asked = stream, at, 0

    def exchange(self, *_: Any) -> CutExchange:
        self.asked += 1
        return CutExchange(self._stream, self._at if self.asked == 1 else len(self._stream))


def answered(kind: str, dialect: str, transport: CutOnce) -> list[dict[str, Any]]:
    """What the client reads, event by event, without what is made up anew each time."""
    accounts = snapshot(*(account(id, kind, models=("m",)) for id in (1, 2)))
    pool = Pool(Notes(), 3, MemoryState())  # type: ignore[arg-type]
    pool.adopt(accounts)
    body = {"model": "m", "max_tokens": 5, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    call = DIALECTS[dialect].parse(body, {})
    worker = Worker(pool, transport, Load(), lambda *_: None)  # type: ignore[arg-type,return-value]
    targets = Catalog(accounts, practice_only=False).resolve("m").targets
    answer = Answer(Dispatch(call, targets, worker, Settings()), "req_1", 15.0, lambda _: None)
    answer.begin()
    lines = b"".join(answer).split(b"\n")
    answer.close()
    events = [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
    for event in events:
        for own in (event, event.get("message") or {}):
            own.pop("id", None)
            own.pop("created", None)
    return events


def generated(seed: int) -> formats.Said:
    """An answer of some text, perhaps with thinking before it and tools after it."""
    draw = random.Random(seed)
    words = [draw.choice(["Hello", " wörld", "\n\n", ' "quoted"', " 你好", " data: {}", " \\"]) for _ in range(30)]
    text = tuple(words[: draw.randint(1, 12)])
    thinking = tuple(words[12 : 12 + draw.randint(0, 4)])
    tools = tuple((f"toolu_{i}", "look", {"at": words[20 + i], "n": i}) for i in range(draw.randint(0, 2)))
    return formats.Said(text=text, thinking=thinking, tools=tools)


@pytest.mark.parametrize(
    "streams, step", [pytest.param(2, 3, id="2"), pytest.param(200, 1, id="200", marks=pytest.mark.chaos)]
)
def test_wherever_a_stream_is_cut_nothing_is_repeated_and_every_loss_is_told(streams: int, step: int) -> None:
    """Clients of both dialects by turns, byte after byte."""
    cuts = repeated = untold = 0
    for seed in range(streams):
        for kind, told in (("anthropic", formats.anthropic), ("openai", formats.openai)):
            steps = told.stream(generated(seed), {"stream_options": {"include_usage": True}})
            stream = b"".join(part for part in steps if isinstance(part, bytes))
            for turn, dialect in enumerate(DIALECTS):
                whole = answered(kind, dialect, CutOnce(stream, len(stream)))
                for at in range(seed % step + turn * step, len(stream), step * len(DIALECTS)):
                    transport = CutOnce(stream, at)
                    got = answered(kind, dialect, transport)
                    cuts += 1
                    if transport.asked == 2:  # before content
                        repeated += got != whole
                        continue
                    kept = [event for event in got if "error" not in event]
                    repeated += kept != whole[: len(kept)]
                    untold += len(kept) < len(whole) and "error" not in got[-1]
    bars.report(6, streams=streams, cuts=cuts, repeated=repeated, untold=untold)
    assert (repeated, untold) == (0, 0)
