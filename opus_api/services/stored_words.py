"""English of ours that rows keep, such as why an account is out: made Phrases again, which pages translate."""

import re
from collections.abc import Iterable
from functools import cache

from opus_api.wire.errors import Phrase

REASONS = (
    Phrase("rate limit reached"),
    Phrase("quota or credit used up"),
    Phrase("suspended"),
    Phrase("The key was refused (%(status)s): %(said)s"),
    Phrase("The access token was refused; sign in again."),
    Phrase("The service answered %(status)s: %(said)s"),
    Phrase("The key works, but its rate or quota is used up."),
    Phrase("The account works, but its rate or quota is used up."),
    Phrase("credential refused %(n)s times: %(why)s"),
    Phrase("failed %(n)s times: %(why)s"),
)
CHANGES = (
    Phrase("key %(name)s"),
    Phrase("block %(name)s"),
    Phrase("account %(name)s"),
    Phrase("accounts exported with secrets"),
)
STATES = (Phrase("live"), Phrase("revoked"), Phrase("deleted"), Phrase("erased"))  # of a key or an account, in a change


def reason(text: str | None) -> str:
    """Why an account is in its state; the words of its provider stay as they are."""
    return _read(text or "", REASONS)


def change(text: str) -> str:
    """What was changed."""
    return _read(text, CHANGES)


def state(text: str) -> str:
    """What a key or an account was before or after a change."""
    return _read(text, STATES)


def _read(text: str, phrases: Iterable[Phrase]) -> str:
    for phrase in phrases:
        if found := _pattern(phrase.template).fullmatch(text):
            return Phrase(phrase.template, **found.groupdict())
    return text


@cache  # a page asks for each of them in each of its rows
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"%\\\((\w+)\\\)s", r"(?P<\1>.*?)", re.escape(template)), re.DOTALL)
