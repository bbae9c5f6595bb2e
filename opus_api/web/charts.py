"""Charts as numbers: where the bars and lines of an SVG go. Pure; templates/_charts.html draws them."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 600.0, 140.0
GAP = 0.22  # of a bar's place that stays empty
MINUTE = 60_000  # ms


@dataclass(frozen=True, slots=True)
class Period:
    """One period with the values of all series, and where it stands."""

    label: str
    values: tuple[float, ...]
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class Chart:
    """``top`` is what the upper edge stands for; ``paths`` and ``dots`` have one SVG path for each series."""

    periods: tuple[Period, ...]
    top: float
    paths: tuple[str, ...]
    is_filled: bool
    dots: tuple[str, ...] = ()  # points of a line that have no neighbour

    @property
    def is_empty(self) -> bool:
        return not any(value for period in self.periods for value in period.values)


def stacked(labels: Sequence[str], *series: Sequence[float]) -> Chart:
    """Bars of which each shows the sum of the series' values."""
    columns = list(zip(*series, strict=True))
    top = nice(max((sum(column) for column in columns), default=0))
    paths = tuple(_bars(columns, number, top) for number in range(len(series)))
    return Chart(_periods(labels, columns), top, paths, is_filled=True)


def lines(labels: Sequence[str], *series: Sequence[float | None]) -> Chart:
    """Lines of milliseconds over the same periods; a period without a value breaks its line."""
    columns = [tuple(value or 0 for value in column) for column in zip(*series, strict=True)]
    top = nice_span(max((max(column) for column in columns), default=0))
    drawn = tuple(_line(one, top) for one in series)
    return Chart(_periods(labels, columns), top, drawn, is_filled=False, dots=tuple(_dots(one, top) for one in series))


def _periods(labels: Sequence[str], columns: Sequence[tuple[float, ...]]) -> tuple[Period, ...]:
    place = WIDTH / max(1, len(columns))
    return tuple(
        Period(label, column, round(number * place, 1), round(place, 1))
        for number, (label, column) in enumerate(zip(labels, columns, strict=True))
    )


def _bars(columns: Sequence[tuple[float, ...]], series: int, top: float) -> str:
    """The bars of one series, each on those of the series before it."""
    place, path = WIDTH / max(1, len(columns)), []
    for number, column in enumerate(columns):
        if column[series]:
            x, width = (number + GAP / 2) * place, (1 - GAP) * place
            ground, height = HEIGHT - sum(column[:series]) / top * HEIGHT, column[series] / top * HEIGHT
            path.append(f"M{x:.0f} {ground:.1f}v-{height:.1f}h{width:.0f}v{height:.1f}z")
    return "".join(path)


def _line(series: Sequence[float | None], top: float) -> str:
    """The path of a line, begun anew after each gap."""
    path, pen = [], "M"
    for number, value in enumerate(series):
        if value is None:
            pen = "M"
        else:
            path.append(f"{pen}{_point(number, value, len(series), top)}")
            pen = "L"
    return "".join(path)


def _dots(series: Sequence[float | None], top: float) -> str:
    """A line of no length, which round ends make a dot, wherever a value stands alone."""
    around = [None, *series, None]
    alone = [n for n, value in enumerate(series) if value is not None and around[n] is None and around[n + 2] is None]
    return "".join(f"M{_point(number, series[number] or 0, len(series), top)}h0" for number in alone)


def _point(number: int, value: float, of: int, top: float) -> str:
    return f"{(number + 0.5) * WIDTH / max(1, of):.0f} {HEIGHT - value / top * HEIGHT:.1f}"


@dataclass(frozen=True, slots=True)
class Bar:
    """From where to where in percent of the whole, and until where nothing came yet."""

    start: float
    width: float
    wait: float


def timeline(spans: Sequence[int], first: int | None = None) -> tuple[Bar, ...]:
    """Spans of time, one after the other; ``first``: since the beginning of all, when something came in the last."""
    whole = max(1, sum(spans))
    bars, begin = [], 0
    for number, span in enumerate(spans):
        came = first if number == len(spans) - 1 and first is not None else begin + span
        wait = min(max(came - begin, 0), span)
        bars.append(Bar(*(round(100 * part / whole, 2) for part in (begin, span, wait))))
        begin += span
    return tuple(bars)


def nice(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten: a scale that people read at once."""
    step = 1.0
    while True:
        for factor in (1, 2, 5):
            if value <= factor * step:
                return factor * step
        step *= 10


def nice_span(ms: float) -> float:
    """The same for milliseconds: from a minute on in minutes."""
    return nice(ms) if ms <= 50_000 else MINUTE * nice(ms / MINUTE)


def span_of(ms: float) -> str:
    """Milliseconds as an axis says them: 500 ms, 20 s, 2 min."""
    for size, unit in ((MINUTE, "min"), (1000, "s")):
        if ms >= size:
            return f"{ms / size:.3g} {unit}"
    return f"{ms:.3g} ms"


def short(value: float) -> str:
    """A number as an axis says it: 950, 1.2k, 3M."""
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:  # which three digits round up to it
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
