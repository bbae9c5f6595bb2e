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
    "value, said", [(0, "0"), (950, "950"), (1200, "1.2k"), (2_500_000, "2.5M"), (3e9, "3G"), (99_950, "100k")]
)
def test_an_axis_says_numbers_shortly(value: float, said: str) -> None:
    assert charts.short(value) == said


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
