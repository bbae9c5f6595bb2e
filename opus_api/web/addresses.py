"""An address of the app whose builders are compiled when they are first needed, which for most of them is never.

werkzeug compiles both at once, and with 150 addresses every start waits for that longer than for all else that makes
an app.
"""

from collections.abc import Callable
from typing import Any

from werkzeug.routing import Rule


class Address(Rule):
    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        compile_now = super()._compile_builder

        def build(rule: Rule, /, **values: Any) -> tuple[str, str]:
            compiled = compile_now(append_unknown)
            setattr(rule, "_build_unknown" if append_unknown else "_build", compiled.__get__(rule))
            return compiled(rule, **values)

        return build
