"""Where bars and lines go."""

import pytest

from opus_api.web import charts


@pytest.mark.parametrize(
    "value, top",
    [(0, 1), (1, 1), (1.5, 2), (3, 5), (7, 10), (10, 10), (11, 20), (499, 500), (501, 1000), (1e9 + 1, 2e9)],
)
def test_a_scale_ends_with_a_round_number(value: float, top: float) -> None:
    assert charts.nice(value) == top


@pytest.mark.parametrize(
    "value, said",
    [
        (0, "0"),
        (950, "950"),
        (1200, "1.2k"),
        (2_500_000, "2.5M"),
        (3e9, "3G"),
        (99_950, "100k"),
        (999_950, "1M"),
        (1e12, "1T"),
        (1e15, "1P"),
    ],
)
def test_an_axis_says_numbers_shortly(value: float, said: str) -> None:
    assert charts.short(value) == said


@pytest.mark.parametrize(
    "ms, top, said",
    [
        (0, 1, "1 ms"),
        (499, 500, "500 ms"),
        (600, 1000, "1 s"),
        (12_000, 20_000, "20 s"),
        (50_000, 50_000, "50 s"),
        (50_001, 60_000, "1 min"),
        (61_000, 120_000, "2 min"),
        (290_000, 300_000, "5 min"),
        (900_000, 1_200_000, "20 min"),
    ],
)
def test_an_axis_of_time_ends_with_a_round_number_of_its_unit(ms: float, top: float, said: str) -> None:
    assert charts.nice_span(ms) == top
    assert charts.span_of(top) == said


def test_bars_of_a_series_stand_on_those_before_it() -> None:
    chart = charts.stacked(["a", "b"], [1, 0], [1, 2])
    assert chart.top == 2
    assert chart.paths == (
        "M33 140.0v-70.0h234v70.0z",
        "M33 70.0v-70.0h234v70.0zM333 140.0v-140.0h234v140.0z",
    )


def test_a_line_breaks_where_nothing_was_measured() -> None:
    chart = charts.lines(["a", "b", "c"], [5, None, 10])
    assert chart.paths == ("M100 70.0M500 0.0",)


@pytest.mark.parametrize("series", [[], [0, 0]])
def test_nothing_is_an_empty_chart(series: list[int]) -> None:
    assert charts.stacked(["x"] * len(series), series).is_empty
    assert charts.lines(["x"] * len(series), series).is_empty


def test_a_value_that_stands_alone_is_a_dot() -> None:
    chart = charts.lines(["a", "b", "c", "d"], [None, 5, None, None], [1, 2, None, 4])
    assert chart.paths == ("M225 0.0", "M75 112.0L225 84.0M525 28.0")
    assert chart.dots == ("M225 0.0h0", "M525 28.0h0")
    assert charts.stacked(["a"], [1]).dots == ()


@pytest.mark.parametrize(
    "spans, first, bars",
    [
        ([100], 40, [(0, 100, 40)]),
        ([100], None, [(0, 100, 100)]),
        ([25, 75], 50, [(0, 25, 25), (25, 75, 25)]),
        ([25, 75], 10, [(0, 25, 25), (25, 75, 0)]),
        ([0], 0, [(0, 0, 0)]),
        ([], None, []),
    ],
)
def test_tries_stand_one_after_the_other(spans: list[int], first: int | None, bars: list[tuple[float, ...]]) -> None:
    assert [(bar.start, bar.width, bar.wait) for bar in charts.timeline(spans, first)] == bars
