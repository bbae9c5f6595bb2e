"""How the app's addresses are matched and built."""

from collections.abc import Callable
from typing import Any

from werkzeug.exceptions import NotFound
from werkzeug.routing import IntegerConverter, Rule

LARGEST_ID = 2**63 - 1  # that a column of a database holds


class RowId(IntegerConverter):
    """``<int:...>``, the id of a row."""

    def to_python(self, value: str) -> int:
        """Raises NotFound for what no column holds, so that no view hears of it. A refusal of the match would have
        other routes tried, which answer that they know other methods."""
        if len(value) > len(str(LARGEST_ID)) or int(value) > LARGEST_ID:
            raise NotFound
        return int(value)


class Address(Rule):
    """Its builders are compiled when they are first needed, which for most of them is never: werkzeug compiles both at
    once, and with 150 addresses every start waits for that longer than for all else that makes an app."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        compile_now = super()._compile_builder

        def build(rule: Rule, /, **values: Any) -> tuple[str, str]:
            compiled = compile_now(append_unknown)
            setattr(rule, "_build_unknown" if append_unknown else "_build", compiled.__get__(rule))
            return compiled(rule, **values)

        return build
