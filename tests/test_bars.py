"""The page of bars: what a test reported is what the page says."""

import re
from pathlib import Path

import pytest

from bench.bars import PAGE, ROOT, last_runs, rendered
from bench.branches import GUARDS, gaps, percent
from tests import bars


def test_a_report_is_printed_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bars, "RESULTS", tmp_path / "made" / "bars.jsonl")
    bars.report(5, requests=10_000, errors=0, added_ms=12.345)
    assert capsys.readouterr().out == "bar 5: requests 10,000, errors 0, added ms 12.3\n"
    runs = last_runs((tmp_path / "made" / "bars.jsonl").read_text())
    assert list(runs[5].values()) == ["requests 10,000, errors 0, added ms 12.3"]
    assert "test_a_report_is_printed_and_kept" in next(iter(runs[5]))


def test_the_last_run_of_each_test_is_on_the_page() -> None:
    line = '{"bar": 5, "test": "%s", "figures": {"errors": %d}}'
    runs = last_runs("\n".join([line % ("a.py::x", 7), line % ("b.py::y", 1), line % ("a.py::x", 0)]))
    page = "| 4 | Slow | fast | kept | as it was |\n| 5 | Failover | 0 errors | | |\n"
    assert rendered(page, runs) == (
        "| 4 | Slow | fast | kept | as it was |\n"
        "| 5 | Failover | 0 errors | errors 0<br>errors 1 | `pytest a.py::x`<br>`pytest b.py::y` |\n"
    )


def test_a_test_that_did_not_run_keeps_what_the_page_says() -> None:
    runs = last_runs('{"bar": 5, "test": "b.py::y", "figures": {"errors": 2}}')
    page = "| 5 | Failover | 0 errors | errors 0<br>errors 1 | `pytest a.py::x`<br>`pytest b.py::y` |\n"
    assert rendered(page, runs) == page.replace("errors 1", "errors 2")


def test_a_command_stands_on_the_page_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "RESULTS", tmp_path / "bars.jsonl")
    bars.keep(16, "make coverage", percent=97.25)
    runs = last_runs((tmp_path / "bars.jsonl").read_text())
    page = rendered("| 16 | Fuzz | 0 failures | | |\n", runs)
    assert page == "| 16 | Fuzz | 0 failures | percent 97.2 | `make coverage` |\n"


def test_a_guard_with_a_branch_that_no_test_enters_is_named() -> None:
    entered = {"summary": {"covered_branches": 4, "num_branches": 4}, "missing_lines": [], "missing_branches": []}
    files = dict.fromkeys(GUARDS, entered)
    assert (gaps(files), percent(files, GUARDS)) == ({}, 100.0)
    files["opus_api/crypto.py"] = {
        "summary": {"covered_branches": 2, "num_branches": 4},
        "missing_lines": [9],
        "missing_branches": [[7, 9], [12, -1]],
    }
    assert gaps(files) == {"opus_api/crypto.py": ["9", "7->9", "12->exit"]}
    assert percent(files, ("opus_api/crypto.py",)) == 50.0
    assert all((ROOT / name).is_file() for name in GUARDS)


def test_the_page_has_a_row_for_each_bar() -> None:
    rows = re.findall(r"^\| (\d+) \|", PAGE.read_text(encoding="utf-8"), re.M)
    assert rows == [str(bar) for bar in range(1, 21)]
