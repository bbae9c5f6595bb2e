from collections.abc import Iterator
from typing import Any

import pytest

from opus_api.upstreams import bodies
from opus_api.upstreams.base import Failure
from opus_api.wire import sse
from opus_api.wire.errors import InvalidRequest
from tests.golden.pipeline import Exchange, answer, cut

BODY: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}


def result_of(generator: Any) -> tuple[int, Any]:
    """(how often time passed, what it returned)."""
    waits = 0
    while True:
        try:
            assert next(generator) == []
        except StopIteration as end:
            return waits, end.value
        waits += 1


@pytest.mark.parametrize(
    "chunks, first, whole",
    [
        ([b"data: 1"], b"d", b"data: 1"),
        ([b"", b" \r\n", b"", b"{}"], b"{", b" \r\n{}"),
        ([b"\xef", b"\xbb\xbf", b": hi"], b":", b": hi"),
    ],
)
def test_a_body_begins_with_its_first_visible_byte(chunks: list[bytes], first: bytes, whole: bytes) -> None:
    waits, (found, body) = result_of(bodies.begin(iter(chunks)))
    assert (found, b"".join(body)) == (first, whole)
    assert waits == chunks.count(b"")


@pytest.mark.parametrize(
    "chunks, problem",
    [([], "an empty answer"), ([b"", b" \n"], "an empty answer"), ([b"\n<html>"], "a web page instead of an answer")],
)
def test_a_body_that_is_no_answer_is_a_failure(chunks: list[bytes], problem: str) -> None:
    with pytest.raises(Failure, match=problem):
        result_of(bodies.begin(iter(chunks)))


def test_a_whole_answer_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "LARGEST", 10)
    assert result_of(bodies.whole([b"12345", b"", b"67890"])) == (1, b"1234567890")
    with pytest.raises(Failure, match="too large an answer"):
        result_of(bodies.whole([b"12345", b"678901"]))


def endless() -> Iterator[bytes]:
    while True:
        yield b"x" * 2**20


def test_an_event_without_end_is_a_failure() -> None:
    with pytest.raises(Failure, match="event larger than"):
        list(bodies.events(endless()))
    for provider, dialect in (("openai", "openai"), ("anthropic", "anthropic"), ("anthropic", "openai")):
        exchange = Exchange(provider=provider, dialect=dialect)
        got = answer(exchange, exchange.parse({**BODY, "stream": True}), endless())
        assert (got.status, str(sse.MAX_EVENT) in got.body.decode()) == (502, True)


def test_a_request_too_deep_to_write_is_the_client_s_fault_and_an_answer_the_upstream_s() -> None:
    deep: Any = []
    for _ in range(300):
        deep = [deep]
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        bodies.encoded({"x": deep})
    with pytest.raises(Failure, match="nested too deeply"):
        bodies.written(deep)


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_stream_that_nobody_asked_for_is_a_failure(provider: str) -> None:
    exchange = Exchange(provider=provider, dialect=provider)
    got = answer(exchange, exchange.parse(BODY), cut(b"data: {}\n\n", 3))
    assert (got.status, b"upstream sent no JSON" in got.body) == (502, True)


@pytest.mark.parametrize(
    "provider, data",
    [
        ("anthropic", b"{}"),
        ("anthropic", b'{"type":"message"}'),
        ("anthropic", b'{"type":"message","content":[7]}'),
        ("anthropic", b"{"),
        ("openai", b"{}"),
        ("openai", b'{"choices":7}'),
        ("openai", b'{"choices":[]}'),
        ("openai", b'{"choices":[{"message":{"content":"x"}}]}'),
        ("openai", b"{"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_json_that_is_no_answer_is_a_failure(provider: str, data: bytes, stream: bool) -> None:
    for dialect in ("anthropic", "openai"):
        exchange = Exchange(provider=provider, dialect=dialect)
        got = answer(exchange, exchange.parse({**BODY, "stream": stream}), cut(data, 2))
        assert got.status == 502
