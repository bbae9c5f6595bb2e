"""Words of others on pages that may weigh 60 KB: cut in lists, and whole on the page of what they name.

Counted in bytes of the page, where a quotation mark takes five and a Chinese character three.
"""

from collections.abc import Iterable

from markupsafe import escape

LONGEST = 100  # bytes of a name that is suggested


def size(text: str) -> int:
    """The bytes that a page takes to show the text."""
    return len(str(escape(text)).encode())


def brief(text: str | None, most: int) -> str:
    """The text, or so much of its beginning as takes ``most`` bytes, and an ellipsis."""
    text = text or ""
    if size(text) <= most:
        return text
    taken = 0
    for n, letter in enumerate(text):
        taken += size(letter)
        if taken > most:
            return text[:n] + "…"
    return text


def share(texts: Iterable[str | None], budget: int) -> int:
    """How many bytes each of the texts may take so that all together take no more than the budget: what the short ones
    leave, the long ones get."""
    sizes = sorted(size(text or "") for text in texts)
    for n, one in enumerate(sizes):
        each = budget // (len(sizes) - n)
        if one > each:
            return each
        budget -= one
    return max(sizes, default=0)


def light(names: Iterable[str], most: int) -> list[str]:
    """The first of the names that take ``most`` bytes together, left out what is longer than a name is: it can be
    typed where these are suggested."""
    found, left = [], most
    for name in names:
        if size(name) <= LONGEST:
            left -= size(name)
            if left < 0:
                break
            found.append(name)
    return found
