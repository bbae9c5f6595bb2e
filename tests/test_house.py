"""The house checks itself: documents that name what there is, and habits that nobody should have to remember."""

import ast
import re
import statistics
from pathlib import Path

import pytest

from opus_api import config
from opus_api.dialects import DIALECTS
from opus_api.services.saved_settings import SAVED, SECRETS
from opus_api.upstreams import UPSTREAMS
from opus_api.upstreams.practice import FAULTS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
FEATURES = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
MODULES = sorted((ROOT / "opus_api").rglob("*.py"))
FEATURE_ROW = re.compile(r"^\| ([A-Z]\d+) \|", re.M)
TEST_NAME = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_setting_is_in_the_readme_with_its_default_and_meaning() -> None:
    for name, default, meaning in config.documented():
        row = next((line for line in README.splitlines() if line.startswith(f"| `{name}` |")), "")
        assert meaning in row, name
        assert default in row or default in ("()", "False"), name


def test_every_setting_that_can_be_saved_is_in_the_readme() -> None:
    known = {name: saved.help for name, saved in SAVED.items()} | dict(SECRETS)
    rows = {name: rf"\| `{name}` \| .* \| {re.escape(help)} \|" for name, help in known.items()}
    assert not [name for name, row in rows.items() if not re.search(row, README)]


def test_every_option_of_a_provider_is_in_the_readme() -> None:
    options = {option for upstream in UPSTREAMS.values() for option in upstream.options}
    assert not [option.name for option in options if f"| `{option.name}` |" not in README or option.help not in README]


def test_every_fault_of_the_practice_provider_is_in_the_readme() -> None:
    plain = README.replace("`", "")
    assert not [mark for mark, what in FAULTS.items() if f"| [[practice:{mark}]] | {what} |" not in plain]


@pytest.mark.parametrize("path", sorted({path for path, _ in TEST_NAME.findall(FEATURES)}))
def test_every_test_that_the_features_name_exists(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    missing = [name for where, name in TEST_NAME.findall(FEATURES) if where == path and f"def {name}(" not in text]
    assert not missing


def test_every_file_and_test_that_the_list_of_asvs_names_exists() -> None:
    text = (ROOT / "docs" / "asvs.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/.]+?)(?:::(\w+))?`", text)
    assert len(named) > 50
    missing = [path for path, _ in named if not (ROOT / path).exists()]
    missing += [name for path, name in named if name and f"def {name}(" not in (ROOT / path).read_text("utf-8")]
    assert not missing


def test_every_row_of_the_features_names_a_test() -> None:
    rows = [line for line in FEATURES.splitlines() if FEATURE_ROW.match(line)]
    assert len(rows) >= 20
    assert not [row.split("|")[1].strip() for row in rows if not TEST_NAME.search(row)]


@pytest.mark.parametrize("template", sorted((ROOT / "templates").rglob("*.html")), ids=lambda path: path.name)
def test_templates_hold_no_script_no_style_and_nothing_unescaped(template: Path) -> None:
    text = template.read_text(encoding="utf-8")
    assert "|safe" not in text.replace(" ", "")
    assert not re.search(r"<style|\bstyle=|\son\w+=|javascript:", text)
    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    assert not re.search(r"src=\"(https?:)?//|<link[^>]*href=\"(https?:)?//", text)


def test_nothing_is_left_undone_or_hidden() -> None:
    left = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplementedError")
    assert not [path.name for path in MODULES if left.search(path.read_text(encoding="utf-8"))]


def test_no_module_runs_programs() -> None:
    """A gateway that can be talked into running a command has been somebody's advisory."""
    culprits = [
        p.name for p in MODULES if re.search(r"\b(subprocess|os\.system|popen)\b", p.read_text(encoding="utf-8"))
    ]
    assert not culprits


def test_sql_is_never_put_together_from_text() -> None:
    built = re.compile(r"\b(sa\.text|execute)\(\s*(f[\"']|[\"'][^\"']*[\"']\s*(%|\.format|\+))")
    assert not [path.name for path in MODULES if built.search(path.read_text(encoding="utf-8"))]


def functions() -> list[tuple[int, str]]:
    found = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                found.append(((node.end_lineno or 0) - node.lineno + 1, f"{path.name}: {node.name}"))
    return found


def test_functions_are_short_and_modules_readable_in_a_sitting() -> None:
    lengths = functions()
    assert statistics.median(length for length, _ in lengths) <= 10
    assert not [name for length, name in lengths if length > 60]
    assert not [p.name for p in MODULES if p.read_text(encoding="utf-8").count("\n") > 500]


@pytest.mark.parametrize("name", [*UPSTREAMS, *DIALECTS])
def test_everything_that_can_be_added_is_in_the_architecture_or_the_readme(name: str) -> None:
    documents = README + (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert name in documents


def _fences(text: str) -> list[str]:
    return re.findall(r"^```.*?^```$", text, re.DOTALL | re.MULTILINE)


def _shape(text: str) -> tuple[list[str], set[str], int]:
    """Headings by level, all that stands in backticks, rows of tables; what prose says differs with the language."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    spans = {" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)}
    return re.findall(r"^#+(?= )", prose, re.MULTILINE), spans, len(re.findall(r"^\|", prose, re.MULTILINE))


def test_both_readmes_name_the_same_commands_variables_and_settings() -> None:
    chinese = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
    assert _fences(chinese) == _fences(README)
    assert _shape(chinese) == _shape(README)
    pictures = re.findall(r"\((docs/screenshots/[^)]+)\)", README)
    assert pictures == re.findall(r"\((docs/screenshots/[^)]+)\)", chinese)
    assert [name for name in pictures if not (ROOT / name).is_file()] == []
