"""Thinking that a server leaves in the text, between <think> and </think> at its very start (DeepSeek-R1 and others
behind servers without a reasoning parser). Pure."""

OPEN, CLOSE = "<think>", "</think>"

Piece = tuple[bool, str]  # is it thinking?, the text


class ThinkTags:
    """``feed`` the text as it comes; what may be half a tag is held back. ``done``: nothing is left to look for."""

    def __init__(self) -> None:
        self.done = False
        self._state = "before"  # "inside", "after": the thinking has ended, the answer not begun
        self._held = ""

    def feed(self, text: str) -> list[Piece]:
        text, self._held = self._held + text, ""
        out: list[Piece] = []
        if self._state == "before":
            text = self._begun(text)
        if self._state == "inside":
            thought, text = self._split(text)
            out.append((True, thought))
        if self._state == "after":
            text = text.lstrip("\n")  # the line ends between the two belong to neither
            self.done = self.done or bool(text)
        if self.done:
            out.append((False, text))
        return [piece for piece in out if piece[1]]

    def close(self) -> list[Piece]:
        """What was held back, when no more text comes."""
        text, self._held = self._held, ""
        return [(self._state == "inside", text)] if text else []

    def _begun(self, text: str) -> str:
        seen = text.lstrip()
        if seen.startswith(OPEN):
            self._state = "inside"
            return seen.removeprefix(OPEN)
        if OPEN.startswith(seen):
            self._held = text
        else:
            self.done = True
        return text

    def _split(self, text: str) -> tuple[str, str]:
        """(the thinking in ``text``, what follows its end)."""
        thought, end, rest = text.partition(CLOSE)
        if end:
            self._state = "after"
            return thought, rest
        half = next((n for n in range(len(CLOSE) - 1, 0, -1) if thought.endswith(CLOSE[:n])), 0)
        self._held = thought[len(thought) - half :]
        return thought[: len(thought) - half], ""
