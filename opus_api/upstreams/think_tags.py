"""Thinking that a server leaves in the text, between <think> and </think> at its very start (DeepSeek-R1 and others
behind servers without a reasoning parser). Pure."""

OPEN, CLOSE = "<think>", "</think>"

Piece = tuple[bool, str]  # is it thinking?, the text


class ThinkTags:
    """``feed`` the text as it comes; what may be half a tag is held back. ``done``: nothing is left to look for."""

    def __init__(self) -> None:
        self.done = False
        self._held = ""
        self._inside = False
        self._after = (
            False  # the thinking has ended, the answer not begun: the line ends between them belong to neither
        )

    def feed(self, text: str) -> list[Piece]:
        text, self._held = self._held + text, ""
        out: list[Piece] = []
        if not self._inside and not self._after:
            text = self._at_start(text)
        if self._inside:
            thought, text = self._to_close(text)
            out.append((True, thought))
        if self._after:
            text = text.lstrip("\n")
            self.done = bool(text)
        if self.done:
            out.append((False, text))
        return [piece for piece in out if piece[1]]

    def close(self) -> list[Piece]:
        """What was held back, when no more text comes."""
        text, self._held = self._held, ""
        return [(self._inside, text)] if text else []

    def _at_start(self, text: str) -> str:
        seen = text.lstrip()
        if seen.startswith(OPEN):
            self._inside = True
            return seen.removeprefix(OPEN).lstrip("\n")
        if OPEN.startswith(seen):
            self._held = text
        else:
            self.done = True
        return text

    def _to_close(self, text: str) -> tuple[str, str]:
        """(the thinking in ``text``, what follows its end)."""
        thought, end, rest = text.partition(CLOSE)
        if end:
            self._inside, self._after = False, True
            return thought, rest
        half = next((n for n in range(len(CLOSE) - 1, 0, -1) if thought.endswith(CLOSE[:n])), 0)
        if half:
            thought, self._held = thought[:-half], thought[-half:]
        return thought, ""
