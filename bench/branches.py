"""What `make coverage` measured: the share of branches that tests enter, and the gaps in what guards (bar 16).

Ends with 1 when the share is below ``LEAST``, or when a guard has a line or a branch that no test enters.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coverage import Coverage

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import bars  # noqa: E402 - the path comes first

LEAST = 95.0  # percent of all branches
# Authentication, encryption, rotation, what a failure means for a request, the address guard: every branch.
GUARDS = tuple(
    f"opus_api/{name}.py"
    for name in (
        *("crypto", "gateway/attempts", "state/rotation", "transport/guard"),
        *("services/api_keys", "services/login_throttle", "services/passwords", "services/users"),
        *("web/auth", "web/guards", "web/sessions", "web/signed_in"),
    )
)


def gaps(files: Mapping[str, Any]) -> dict[str, list[str]]:
    """Of coverage's JSON: guards with what no test enters, as 12 (a line) or 12->15 (a branch). Raises KeyError for a
    guard that was not measured."""
    found = {
        name: [
            *map(str, files[name]["missing_lines"]),
            *(f"{start}->{'exit' if end < 0 else end}" for start, end in files[name]["missing_branches"]),
        ]
        for name in GUARDS
    }
    return {name: missed for name, missed in found.items() if missed}


def percent(files: Mapping[str, Any], names: tuple[str, ...]) -> float:
    """Of the branches of these files together."""
    entered, every = (
        sum(files[name]["summary"][kind] for name in names) for kind in ("covered_branches", "num_branches")
    )
    return 100.0 * entered / every if every else 100.0


def measured() -> dict[str, Any]:
    """Of .coverage, which holds all processes."""
    coverage = Coverage()
    coverage.load()
    with tempfile.NamedTemporaryFile() as file:
        coverage.json_report(outfile=file.name)
        found: dict[str, Any] = json.loads(Path(file.name).read_bytes())
    return found


def main() -> int:
    files = measured()["files"]
    share, missed = percent(files, tuple(files)), gaps(files)
    bars.keep(
        16,
        "make coverage",
        branches_percent=share,
        branches_of_guards_percent=percent(files, GUARDS),
        guards=len(GUARDS),
        guards_with_gaps=len(missed),
    )
    for name, places in missed.items():
        print(f"{name}: no test enters {', '.join(places)}")
    if share < LEAST:
        print(f"Tests enter {share:.1f} % of all branches; the bar is {LEAST:g} %.")
    return int(bool(missed) or share < LEAST)


if __name__ == "__main__":
    sys.exit(main())
