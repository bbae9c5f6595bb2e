"""What a page shows of a kept exchange: the beginning of each face as text, all of them within the room there is."""

from bisect import bisect_right
from codecs import getincrementaldecoder
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from markupsafe import escape

from opus_api.web.console import visible

MOST_OF_ONE = 8 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Excerpt:
    """``kind``: the face's name without the number of its attempt. ``size``: of the whole, in bytes."""

    name: str
    kind: str
    text: str
    size: int
    is_cut: bool


def excerpts(faces: Mapping[str, bytes], room: int) -> list[Excerpt]:
    """``room``: bytes of HTML for the texts of all of them; what a short one leaves is for the long ones."""
    texts = [_text(data[:MOST_OF_ONE]) for data in faces.values()]
    shares = _shares([min(cost(text), MOST_OF_ONE) for text in texts], max(room, 0))
    found = []
    for (name, data), text, share in zip(faces.items(), texts, shares, strict=True):
        begun = cut(text, share)
        is_cut = len(data) > MOST_OF_ONE or begun != text
        found.append(Excerpt(name, name.rstrip("0123456789").rstrip("-"), begun, len(data), is_cut))
    return found


def cost(text: str) -> int:
    """Bytes that it takes in a page."""
    return len(escape(text).encode())


def cut(text: str, room: int) -> str:
    """As much of its beginning as these bytes of HTML hold."""
    return text[: bisect_right(list(accumulate(map(cost, text))), room)]


def _text(data: bytes) -> str:
    """Without half a character at its end; what is no text becomes marks."""
    lines = getincrementaldecoder("utf-8")("replace").decode(data).split("\n")
    return "\n".join(visible(line) for line in lines)


def _shares(needs: Sequence[int], room: int) -> list[int]:
    """Each gets what it needs, or an even part of what the smaller ones leave."""
    shares = [0] * len(needs)
    for taken, place in enumerate(sorted(range(len(needs)), key=needs.__getitem__)):
        shares[place] = min(needs[place], room // (len(needs) - taken))
        room -= shares[place]
    return shares
