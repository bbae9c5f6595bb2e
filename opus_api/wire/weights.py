"""Tokens by the kinds of bytes in a text, where there is no time for a tokenizer. Pure."""

import string
from typing import NamedTuple


class Weights(NamedTuple):
    """Tokens per byte of UTF-8, by kind of byte."""

    lower: float
    blank: float
    upper: float  # capitals and digits
    other: float  # punctuation, newlines
    high: float  # above ASCII: a Chinese character is three bytes and 0.91 tokens of the vocabulary


# Fitted to the counts of gateway/tokens.py over the texts and the compact JSON of recorded requests.
PROSE = Weights(0.145, 0.42, 0.55, 0.73, 0.30)
COMPACT = Weights(0.092, 0.68, 0.77, 0.69, 0.30)

LOWER = string.ascii_lowercase.encode()
UPPER = (string.ascii_uppercase + string.digits).encode()
HIGH = bytes(range(128, 256))
# Longer texts are judged by eight windows, so that a megabyte costs what a page costs.
SAMPLED = 4096
WINDOW = SAMPLED // 8


def weighed(sample: bytes, weights: Weights) -> float:
    """Tokens of a text in UTF-8."""
    left = sample.translate(None, LOWER)
    lower, blank = len(sample) - len(left), left.count(b" ")
    rest = left.translate(None, UPPER)
    upper = len(left) - len(rest)
    high = 0 if rest.isascii() else len(rest) - len(rest.translate(None, HIGH))
    other = len(rest) - blank - high
    return (
        lower * weights.lower
        + blank * weights.blank
        + upper * weights.upper
        + other * weights.other
        + high * weights.high
    )


def text_weight(text: str) -> float:
    """Tokens of a text, whatever its length in microseconds."""
    if len(text) <= SAMPLED:
        return weighed(_utf8(text), PROSE)
    windows = [text[at : at + WINDOW] for at in range(0, len(text), len(text) // 8)]
    sample = "".join(windows)
    return weighed(_utf8(sample), PROSE) * len(text) / len(sample)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # a JSON body may hold lone surrogates


class Gauge:
    """Estimates the tokens of a text that comes in pieces: ``add`` them, ask for ``tokens``. It keeps its beginning."""

    def __init__(self) -> None:
        self._beginning: list[str] = []
        self._kept = self._length = 0  # characters

    def add(self, text: str) -> None:
        self._length += len(text)
        if self._kept < SAMPLED:
            self._beginning.append(text[:SAMPLED])
            self._kept += len(self._beginning[-1])

    @property
    def tokens(self) -> int:
        """At least one."""
        return max(1, round(text_weight("".join(self._beginning)) * self._length / max(self._kept, 1)))
