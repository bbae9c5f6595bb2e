"""Call: a checked client request, in whichever dialect it came."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Body = dict[str, Any]


@dataclass(slots=True)
class Call:
    """One request of a client. ``body`` is as the client sent it; ``canonical()`` is the Anthropic request it means.

    Conversion is put off until an upstream needs it: on the verbatim edge (same dialect on both sides) options that
    the canonical form cannot say must pass.
    """

    dialect: str
    model: str  # as the client named it
    stream: bool
    body: Body
    to_canonical: Callable[["Call"], Body]  # raises InvalidRequest
    headers: Mapping[str, str] = field(default_factory=dict)  # the client's anthropic-* headers, lower case
    session: str = ""  # the client's x-claude-code-session-id
    include_usage: bool = True  # OpenAI: the client asked for the usage chunk
    input_estimate: int = 0  # tokens, for message_start
    usage_estimated: bool = False  # the upstream did not count
    credits: float = 0.0  # what the answer cost, where the upstream meters that
    said_all: bool = False  # the upstream said why the answer ends: only its usage and an end mark may follow
    warnings: list[str] = field(default_factory=list)  # codes of opus-warnings
    _canonical: Body | None = None
    _left_out: list[str] = field(default_factory=list)  # by the conversion to the canonical form

    def canonical(self) -> Body:
        """Raises InvalidRequest. Its warnings count each time: another attempt may go without conversion."""
        if self._canonical is None:
            before, self.warnings = self.warnings, []
            self._canonical = self.to_canonical(self)
            self._left_out, self.warnings = self.warnings, before
        for code in self._left_out:
            self.warn(code)
        return self._canonical

    def warn(self, code: str) -> None:
        if code not in self.warnings:
            self.warnings.append(code)

    @property
    def thinking_wanted(self) -> bool:
        """Whether the answer may carry thinking: OpenAI clients always get it, as reasoning_content (M4)."""
        if self.dialect != "anthropic":
            return True
        thinking = self.body.get("thinking")
        return isinstance(thinking, dict) and thinking.get("type") not in (None, "disabled")

    def forget_prompt(self) -> None:
        """Give the memory of a large prompt back once the upstream has begun to answer."""
        self.body = {"model": self.model, **{k: self.body[k] for k in ("thinking", "tools") if k in self.body}}
        self._canonical = None
