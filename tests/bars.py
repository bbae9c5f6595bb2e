"""What the bars of docs/reliability.md reached: a test that measures one reports it, `make bars` writes it there."""

import json
import os
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "test-results" / "bars.jsonl"


def report(bar: int, **figures: Any) -> None:
    """Prints ``bar N: name figure, …`` and keeps it; names are read aloud, so ``p99_ms=12`` becomes "p99 ms 12"."""
    keep(bar, os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0], **figures)


def keep(bar: int, test: str, **figures: Any) -> None:
    """The same of a test, or of a command such as "make coverage", that is named."""
    print(f"bar {bar}: {said(figures)}")
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as kept:
        kept.write(json.dumps({"bar": bar, "test": test, "figures": figures}, default=str) + "\n")


def said(figures: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in figures.items())


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
