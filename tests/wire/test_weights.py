import time

import pytest

from opus_api.gateway import tokens
from opus_api.wire.weights import Gauge

TEXTS = {
    "English": "The harbour master wrote down every ship, its cargo and the hour at which it left the quay. " * 30,
    "Chinese": "港务长记下了每一艘船、它的货物以及它离开码头的时间。" * 30,
    "code": "def total(values: list[int]) -> int:\n    return sum(value for value in values if value > 0)\n\n\n" * 30,
    "arguments": '{"path":"src/main.py","line":12,"replace":true}' * 30,
}


def gauged(text: str, size: int) -> int:
    gauge = Gauge()
    for start in range(0, len(text), size):
        gauge.add(text[start : start + size])
    return gauge.tokens


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_pieces_are_estimated_within_a_third_of_what_they_count(text: str, size: int) -> None:
    empty = tokens.count({"messages": [{"role": "user", "content": ""}]})
    counted = tokens.count({"messages": [{"role": "user", "content": text}]}) - empty
    assert gauged(text, size) == pytest.approx(counted, rel=0.33)


def test_nothing_is_one_token() -> None:
    assert Gauge().tokens == 1


def test_a_long_answer_costs_no_memory_and_little_time() -> None:
    gauge = Gauge()
    began = time.perf_counter()
    for _ in range(100_000):
        gauge.add("word ")
    assert 50_000 < gauge.tokens < 200_000
    assert time.perf_counter() - began < 1
    assert len(gauge._beginning) < 1000
