"""Every route that an app has, read from its ``url_map``: what comes later falls into the same tests by itself."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from flask import Flask
from werkzeug.routing import Rule

SAFE = {"GET", "HEAD", "OPTIONS"}

# Anybody may ask for these. Bar 17 allows six; a new one is a decision that this list and docs/reliability.md record.
OPEN = {"/health", "/healthz", "/login", "/api/auth/login", "/my", "/openapi.json"}
# Lead on to another page, hand out what every page needs, or sign out: they tell nothing, so they are not counted.
LEADING = {"/", "/index.html", "/static/index.html", "/static/dashboard.html", "/static/<path:filename>"}
LEADING |= {"/static/app.css", "/static/app.js", "/static/live.js"}
# Forms that change nothing but the asking browser's own cookies, and only with the CSRF token of a page of ours.
OWN_COOKIES = {"/theme", "/language", "/logout"}
# Open to this machine alone, else to people and to the monitor's token.
LOCAL = {"/ready", "/metrics"}


class Kind(Enum):
    OPEN = "open"
    LOCAL = "this machine"
    CLIENT = "API key"
    JSON = "JWT, or a session with its CSRF token"
    PAGE = "a session, and for a form its CSRF token"


@dataclass(frozen=True)
class Route:
    rule: str
    method: str
    endpoint: str
    kind: Kind

    @property
    def path(self) -> str:
        """With 1 for whatever stands in it."""
        return self.filled({})

    def filled(self, known: Mapping[str, object]) -> str:
        """With these values for what stands in it, by name; 1 for the rest."""
        return re.sub(r"<(?:[^<>]*:)?(\w+)>", lambda found: str(known.get(found[1], 1)), self.rule)

    @property
    def is_form(self) -> bool:
        return self.method not in SAFE and self.rule in OWN_COOKIES | {"/login", "/my"}

    def __str__(self) -> str:
        return f"{self.method} {self.rule}"


def kind_of(rule: Rule) -> Kind:
    if rule.rule in LOCAL:
        return Kind.LOCAL
    if rule.rule in OPEN | LEADING | OWN_COOKIES:
        return Kind.OPEN
    if rule.endpoint.startswith("messages."):
        return Kind.CLIENT
    return Kind.JSON if rule.rule.startswith(("/api/", "/v2/")) else Kind.PAGE


def every(app: Flask) -> list[Route]:
    """Without HEAD and OPTIONS, which Flask adds."""
    return [
        Route(rule.rule, method, rule.endpoint, kind_of(rule))
        for rule in app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
    ]
