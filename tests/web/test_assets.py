"""The sheet and the script as browsers receive them."""

import re

import pytest
from flask.testing import FlaskClient

from opus_api.web import assets


@pytest.mark.parametrize("name, kind", [("app.css", "text/css"), ("app.js", "text/javascript")])
def test_a_page_names_what_browsers_may_keep_for_good(browser: FlaskClient, name: str, kind: str) -> None:
    found = re.search(rf'"(/static/{name}\?v=\w+)"', browser.get("/login").text)
    assert found
    answer = browser.get(found[1])
    assert answer.content_type == f"{kind}; charset=utf-8"
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert browser.get(found[1], headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304


def test_an_old_address_is_asked_for_again(browser: FlaskClient) -> None:
    assert browser.get("/static/app.css?v=old").headers["Cache-Control"] == "no-cache"
    assert browser.get("/static/app.css").headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "sheet, sent",
    [
        (
            "a { color: red; }\n\n/* why */\nb > i,\nu { top: calc(1px + 2px); }",
            "a{color:red}b>i,u{top:calc(1px + 2px)}",
        ),
        (
            "@media (width >= 40rem) { .a :is(b, i) { x: url(\"data:image/svg+xml,%3Csvg d='m2 4'\") } }",
            "@media (width>=40rem){.a :is(b,i){x:url(\"data:image/svg+xml,%3Csvg d='m2 4'\")}}",
        ),
        (
            ":root { --line: #eee; } hr { margin: -0.5rem 10.25rem; color: var(--line) }",
            ":root{--a:#eee}hr{margin:-.5rem 10.25rem;color:var(--a)}",
        ),
    ],
)
def test_a_sheet_is_sent_without_what_only_its_readers_need(sheet: str, sent: str) -> None:
    assert assets.compact(sheet) == sent


def test_a_script_is_sent_without_its_notes_and_indentation() -> None:
    script = '// All of it.\n"use strict";\n(() => {\n  // Why.\n  a("//b"); // beside\n\n})();\n'
    assert assets.without_notes(script) == '"use strict";\n(() => {\na("//b"); // beside\n})();\n'
