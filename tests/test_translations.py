"""The console speaks English and Simplified Chinese."""

import pytest
from babel.messages.extract import extract_from_file
from flask.testing import FlaskClient

from opus_api.config import ROOT
from opus_api.web import languages
from scripts import translations


def test_everything_the_console_says_is_translated_and_compiled() -> None:
    assert [problem for locale in translations.LOCALES for problem in translations.wrong(locale)] == []


def test_every_module_that_speaks_is_listened_to() -> None:
    """A pattern that misses a file would take its Chinese away without a word."""
    speaking = [path for path in (ROOT / "opus_api").rglob("*.py") if "flask_babel" in path.read_text()]
    said = {text for path in speaking for _, text, *_ in extract_from_file("python", path, keywords={"_l": None})}
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
