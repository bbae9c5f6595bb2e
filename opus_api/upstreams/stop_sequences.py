"""Stop sequences for upstreams that know none: text passes until one of them appears. Pure."""

from collections.abc import Iterable


class StopSequences:
    """``feed`` the text as it comes; what may be the beginning of a sequence is held back until it is decided."""

    def __init__(self, sequences: Iterable[str]):
        self.found = ""  # the sequence that ended the text
        self._sequences = [sequence for sequence in sequences if sequence]
        self._held = ""

    def feed(self, text: str) -> str:
        """What may be shown; nothing more once a sequence was found."""
        if not self._sequences:
            return text
        if self.found:
            return ""
        text = self._held + text
        hits = [(at, -len(stop), stop) for stop in self._sequences if (at := text.find(stop)) >= 0]
        if hits:  # the earliest; of two at one place the longer
            at, _, self.found = min(hits)
            self._held = ""
            return text[:at]
        held = max(_beginning(text, stop) for stop in self._sequences)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def close(self) -> str:
        """What was held back, when no more text comes."""
        text, self._held = self._held, ""
        return text


def _beginning(text: str, stop: str) -> int:
    """How many of the last characters of ``text`` begin ``stop``."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
