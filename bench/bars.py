"""Write what the bars' tests have reached (test-results/bars.jsonl) into the table of docs/reliability.md.

The last run of a test counts; a test without a run keeps what the page says.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.bars import RESULTS, said  # noqa: E402 - the path comes first

PAGE = ROOT / "docs" / "reliability.md"
# | 5 | Failover before content | what it must reach | what it reached | how to run it |
ROW = re.compile(
    r"^\| (?P<bar>\d+) \| (?P<name>[^|]*) \| (?P<goal>[^|]*) \|(?P<reached>[^|]*)\|(?P<commands>[^|]*)\|$", re.M
)


def last_runs(lines: str) -> dict[int, dict[str, str]]:
    """Of JSON lines: for each bar its tests, and for each test the figures of its last run."""
    found: dict[int, dict[str, str]] = {}
    for line in lines.splitlines():
        run = json.loads(line)
        found.setdefault(run["bar"], {})[run["test"]] = said(run["figures"])
    return found


def rendered(page: str, runs: dict[int, dict[str, str]]) -> str:
    def row(match: re.Match[str]) -> str:
        if not runs.get(int(match["bar"])):
            return match[0]
        tests = {_command(name): figures for name, figures in runs[int(match["bar"])].items()}
        if match["reached"].strip():
            known = (cell.strip().split("<br>") for cell in (match["commands"], match["reached"]))
            tests = dict(zip(*known, strict=False)) | tests
        reached = "<br>".join(tests[name] for name in sorted(tests))
        return f"| {match['bar']} | {match['name']} | {match['goal']} | {reached} | {'<br>'.join(sorted(tests))} |"

    return ROW.sub(row, page)


def _command(name: str) -> str:
    return f"`{name if name.startswith('make ') else f'pytest {name}'}`"


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(rendered(page, last_runs(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")
