"""How far the token counts are from recorded truth, and what they cost.

    python bench/tokens.py --truth FILE.jsonl [--write docs/performance.md]

Each line of the file holds `request` (a Messages body), `model` and `input_tokens` (what the API charged for it).
With --write the section between the two markers of that page is replaced by what was measured now.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from opus_api.gateway import tokens

BEGIN, END = "<!-- tokens:begin -->", "<!-- tokens:end -->"
Row = Mapping[str, Any]
Counter = Callable[[tokens.Body], int]
METHODS: tuple[Counter, ...] = (tokens.count, tokens.estimate)

PROSE = "The harbour master wrote down every ship, its cargo and the hour at which it left the quay. "
SMALL = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": PROSE}]}
LARGE = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": PROSE * 1100}]}


def main() -> int:
    arguments = _arguments()
    if not arguments.truth.is_file():
        print(f"No recorded requests at {arguments.truth}: nothing was measured.", file=sys.stderr)
        return 1
    rows = [json.loads(line) for line in arguments.truth.read_text("utf-8").splitlines() if line.strip()]
    if not rows:
        print(f"{arguments.truth} holds no requests: nothing was measured.", file=sys.stderr)
        return 1
    report = _report(rows)
    print(report)
    if arguments.write:
        _replace(arguments.write, report)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the token counts against recorded requests.")
    parser.add_argument("--truth", type=Path, required=True, help="recorded requests, one JSON object a line")
    parser.add_argument("--write", type=Path, help="the page whose section is replaced")
    return parser.parse_args()


def _report(rows: list[Row]) -> str:
    lines = [
        "## Token counting",
        "",
        f"Absolute relative error against the true `usage.input_tokens` of {len(rows)} recorded requests, in per "
        "cent: median / 90th percentile.",
        "",
        "| requests | number | `count()` | `estimate()` |",
        "|---|---:|---:|---:|",
        *(_line(name, chosen) for name, chosen in _groups(rows)),
        "",
        *_timings(),
        "",
        f"Made by `python bench/tokens.py --truth FILE.jsonl --write docs/performance.md` on Python "
        f"{platform.python_version()}, {platform.machine()}.",
    ]
    return "\n".join(lines)


def _groups(rows: list[Row]) -> Iterable[tuple[str, list[Row]]]:
    yield "all", rows
    yield "with tools", [row for row in rows if row["request"].get("tools")]
    yield "chat only", [row for row in rows if not row["request"].get("tools")]
    for family in tokens.FAMILIES:
        yield family.name, [row for row in rows if tokens.family(row["model"]) is family]


def _line(name: str, rows: list[Row]) -> str:
    if not rows:
        return f"| {name} | 0 | – | – |"
    cells = [_error(method, rows) for method in METHODS]
    return f"| {name} | {len(rows)} | {' | '.join(cells)} |"


def _error(method: Counter, rows: list[Row]) -> str:
    errors = sorted(abs(method(row["request"]) / row["input_tokens"] - 1) * 100 for row in rows)
    return f"{statistics.median(errors):.1f} / {_percentile(errors, 90):.1f}"


def _percentile(ordered: list[float], percent: int) -> float:
    """Linear between neighbours, as numpy's default."""
    at = (len(ordered) - 1) * percent / 100
    below, above = ordered[int(at)], ordered[min(int(at) + 1, len(ordered) - 1)]
    return below + (above - below) * (at % 1)


def _timings() -> list[str]:
    size = len(json.dumps(LARGE)) / 1000
    return [
        f"- `estimate()`: {_seconds(tokens.estimate, SMALL) * 1e6:.0f} µs for a request of one sentence, "
        f"{_seconds(tokens.estimate, LARGE) * 1e6:.0f} µs for {size:.0f} KB.",
        f"- `count()`: {_seconds(tokens.count, LARGE) * 1e3 / size * 100:.0f} ms per 100 KB.",
    ]


def _seconds(method: Counter, body: tokens.Body) -> float:
    """The median of 21 calls."""
    taken = []
    for _ in range(21):
        start = time.perf_counter()
        method(body)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _replace(page: Path, report: str) -> None:
    section = f"{BEGIN}\n{report}\n{END}"
    old = page.read_text("utf-8") if page.exists() else "# Performance\n"
    marked = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    new = marked.sub(lambda _: section, old) if marked.search(old) else f"{old.rstrip()}\n\n{section}\n"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(new, "utf-8")


if __name__ == "__main__":
    sys.exit(main())
