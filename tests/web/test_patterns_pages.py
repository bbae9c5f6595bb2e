"""The page of all widgets shows all widgets."""

import re

import pytest
from flask.testing import FlaskClient

from opus_api.config import ROOT
from tests.web.conftest import weight

TEMPLATES = ROOT / "templates"
SHOWN = (TEMPLATES / "patterns.html").read_text(encoding="utf-8")


def macros(name: str) -> list[str]:
    return re.findall(r"{% macro (\w+)\(", (TEMPLATES / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("library, prefix", [("_macros.html", "ui"), ("_charts.html", "draw")])
def test_every_macro_is_shown(library: str, prefix: str) -> None:
    missing = [name for name in macros(library) if not re.search(rf"\b{prefix}\.{name}\(", SHOWN)]
    assert missing == []


def test_every_icon_is_shown(person: FlaskClient) -> None:
    page = person.get("/patterns").text
    source = (TEMPLATES / "_macros.html").read_text(encoding="utf-8").partition("{%- endmacro %}")[0]
    for path in re.findall(r'd="([^"]+)"', source):
        assert path in page


def test_it_is_for_those_who_are_signed_in(browser: FlaskClient) -> None:
    assert browser.get("/patterns").location.startswith("/login")


def test_the_page_weighs_at_most_60_kb(person: FlaskClient) -> None:
    assert weight(person.get("/patterns")) <= 60_000
