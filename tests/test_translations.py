"""The console speaks English and Simplified Chinese."""

import ast
import json
from typing import TypeGuard

import pytest
from babel.messages.extract import extract_from_file
from flask import Flask
from flask.testing import FlaskClient

from opus_api.config import ROOT
from opus_api.services.values import FieldError
from opus_api.web import languages
from opus_api.wire.errors import Phrase
from scripts import translations


def test_everything_the_console_says_is_translated_and_compiled() -> None:
    assert [problem for locale in translations.LOCALES for problem in translations.wrong(locale)] == []


def test_every_module_that_speaks_is_listened_to() -> None:
    """A pattern that misses a file would take its Chinese away without a word."""
    speaking = [path for path in (ROOT / "opus_api").rglob("*.py") if "flask_babel" in path.read_text()]
    words = {"_l": None, "gettext": None}
    said = {text for path in speaking for _, text, *_ in extract_from_file("python", path, keywords=words)}
    assert len(said) > 50
    assert said - set(translations.said()) == set()


def test_every_language_but_english_has_a_catalog() -> None:
    assert [language.locale for language in languages.LANGUAGES[1:]] == list(translations.LOCALES)


@pytest.mark.parametrize(
    "browser, cookie, tag, heading",
    [
        ("", "", "en", "Sign in"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "", "zh-CN", "登录"),
        ("zh", "", "zh-CN", "登录"),
        ("de-DE,de", "", "en", "Sign in"),
        ("zh-CN", "en", "en", "Sign in"),
        ("en", "zh-CN", "zh-CN", "登录"),
        ("en", "nonsense", "en", "Sign in"),
    ],
)
def test_the_language_follows_the_choice_and_then_the_browser(
    client: FlaskClient, browser: str, cookie: str, tag: str, heading: str
) -> None:
    if cookie:
        client.set_cookie("language", cookie)
    page = client.get("/login", headers={"Accept-Language": browser}).text
    assert f'<html lang="{tag}"' in page
    assert f"<h1>{heading}</h1>" in page


RAISED = {*translations.REFUSALS.split(), "ApiError", "FieldError", "AddressRefused"}


def test_no_service_fills_in_its_sentences_before_they_can_be_translated() -> None:
    """An f-string is English for good; a Phrase keeps what it was made of."""
    files = [path for folder in ("services", "transport") for path in (ROOT / "opus_api" / folder).rglob("*.py")]
    calls = [(path.name, node) for path in files for node in ast.walk(ast.parse(path.read_text())) if is_refusal(node)]
    assert len(calls) > 50
    assert [f"{name}:{call.lineno}" for name, call in calls if isinstance(call.args[-1], ast.JoinedStr)] == []


def is_refusal(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISED


def test_a_phrase_says_its_parts_in_the_language_too_and_percent_signs_stay(app: Flask) -> None:
    refusal = FieldError("100%", Phrase("must be at most %(n)s characters.", n=9))
    with app.test_request_context(headers={"Accept-Language": "zh"}):
        assert languages.in_words(refusal.message) == "100%: 至多 9 个字符。"
        assert languages.in_words("100 % sure") == "100 % sure"
        assert languages.in_words("") == ""
    assert refusal.message == "100%: must be at most 9 characters."
    assert json.dumps({"message": refusal.message}) == '{"message": "100%: must be at most 9 characters."}'
