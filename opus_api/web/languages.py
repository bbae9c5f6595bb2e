"""In which language a page is shown: the one chosen by hand, else the first of the browser's that we have."""

from typing import NamedTuple

from flask import Flask, has_request_context, request
from flask_babel import gettext

from opus_api.config import ROOT
from opus_api.extensions import babel
from opus_api.services import stored_words
from opus_api.wire.errors import Phrase


class Language(NamedTuple):
    """``tag`` is what HTML and browsers call it (BCP 47), ``locale`` the folder of its catalog."""

    tag: str
    locale: str
    name: str  # in its own words


LANGUAGES = (Language("en", "en", "English"), Language("zh-CN", "zh_Hans_CN", "简体中文"))
COOKIE = "language"


def current() -> Language:
    """Of this request; English outside of one."""
    if not has_request_context():
        return LANGUAGES[0]
    by_tag = {language.tag: language for language in LANGUAGES}
    if chosen := by_tag.get(request.cookies.get(COOKIE, "")):
        return chosen
    return by_tag[request.accept_languages.best_match(by_tag, LANGUAGES[0].tag)]


def in_words(said: str) -> str:
    """What a service says, in the language of the page."""
    if isinstance(said, Phrase) and said.values:
        values = {name: in_words(one) if isinstance(one, Phrase) else one for name, one in said.values.items()}
        return str(gettext(said.template, **values))
    return str(gettext(said)) if said else ""  # gettext("") is the catalog's header


def reason_in_words(text: str | None) -> str:
    """Why an account is in its state, as far as the words are ours."""
    found = stored_words.reason(text)
    return in_words(found) if isinstance(found, Phrase) else found


def register(app: Flask) -> None:
    """Hooks into templates and translated texts only; a request without any pays nothing."""
    babel.init_app(
        app,
        default_translation_directories=str(ROOT / "translations"),
        locale_selector=lambda: current().locale,
    )
