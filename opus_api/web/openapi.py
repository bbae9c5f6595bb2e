"""Blueprint ``openapi``: the OpenAPI 3.1 document of the JSON API, made from ``url_map`` and the table of operations.

Paths, methods and parameters in paths are those of the app itself; summaries are the views' docstrings.
"""

import re
from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Flask, Response, current_app
from werkzeug.routing import Rule
from werkzeug.routing.converters import IntegerConverter

from opus_api.services.done_calls import HEADER, LONGEST
from opus_api.version import __version__
from opus_api.web import openapi_schemas as schemas
from opus_api.web.once import MARK
from opus_api.web.openapi_operations import JSON, Operation, operations
from opus_api.web.openapi_schemas import COUNT, NAMED, TEXT, Schema
from opus_api.wire import jsons

bp = Blueprint("openapi", __name__)

OTHER_BASES = ("/v1/v1", "/v1//")  # of the same calls: base URLs that people type by mistake
OPEN = {"health.health", "health.healthz", "auth.login", "openapi.index"}
PEOPLE: list[dict[str, list[str]]] = [{"bearer": []}, {"session": [], "csrf": []}]
CLIENTS: list[dict[str, list[str]]] = [{"apiKey": []}, {"bearerKey": []}]
SCHEMES = {
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "An API key of this gateway."},
    "bearerKey": {"type": "http", "scheme": "bearer", "description": "The same API key, as OpenAI's clients send it."},
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "From POST /api/auth/login."},
    "session": {"type": "apiKey", "in": "cookie", "name": "opus", "description": "__Host-opus over https."},
    "csrf": {"type": "apiKey", "in": "header", "name": "X-CSRF-Token", "description": "For what changes something."},
}
_NAMES = {id(schema): name for name, schema in NAMED.items()}
FAILURES: dict[str, Schema] = {
    "Error": schemas.ERROR,
    "AnthropicError": schemas.ANTHROPIC_ERROR,
    "OpenAIError": schemas.OPENAI_ERROR,
    # In the dialect that the caller's headers look like.
    "EitherError": {"oneOf": [schemas.ANTHROPIC_ERROR, schemas.OPENAI_ERROR]},
}
KEY_OF_A_CALL = {
    "name": HEADER,
    "in": "header",
    "schema": {"type": "string", "pattern": f"^[ -~]{{1,{LONGEST}}}$"},
    "description": "Made up by the caller: repeated within 24 hours, the call is not done twice but answered the same.",
}
# Statuses that any call of a kind may have.
OF_PEOPLE = (400, 401, 403, 404, 409, 413, 422, 429, 503)
OF_CLIENTS = (400, 401, 402, 403, 404, 408, 413, 429, 500, 502, 503, 504, 529)
OF_ALL = (403, 429, 503)


@bp.get("/openapi.json")
def index() -> Response:
    """This document."""
    app: Any = current_app
    return Response(
        _rendered(app._get_current_object()), content_type=JSON, headers={"X-Content-Type-Options": "nosniff"}
    )


@cache
def _rendered(app: Flask) -> bytes:
    return jsons.dumps(document(app))


def document(app: Flask) -> dict[str, Any]:
    """Raises KeyError for a call that the table of operations does not know."""
    table = operations(app.extensions["settings"])
    paths: dict[str, dict[str, Any]] = {}
    for rule, method in calls(app):
        found = _operation(app, rule, table[rule.endpoint])
        paths.setdefault(path_of(rule), {})[method.lower()] = found | {"operationId": f"{rule.endpoint}"}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Opus API",
            "version": __version__,
            "license": {"name": "MIT", "identifier": "MIT"},
            "description": "A Claude-compatible gateway. The calls of /v1 are those of the Anthropic Messages API and "
            "of OpenAI Chat Completions; they answer without /v1 as well.",
        },
        "servers": [{"url": "/"}],
        "paths": _with_references(dict(sorted(paths.items()))),
        "components": {
            "securitySchemes": SCHEMES,
            "schemas": {name: dict(schema) for name, schema in NAMED.items()},
            "responses": {name: _with_references(_failure(schema)) for name, schema in FAILURES.items()},
        },
    }


def _failure(schema: Schema) -> dict[str, Any]:
    return {"description": "What was wrong, in words.", "content": {JSON: {"schema": schema}}}


def _with_references(part: Any) -> Any:
    """The same, with the name of a schema in place of one that has a name."""
    if isinstance(part, dict):
        name = _NAMES.get(id(part))
        return {"$ref": f"#/components/schemas/{name}"} if name else {k: _with_references(v) for k, v in part.items()}
    return [_with_references(item) for item in part] if isinstance(part, list | tuple) else part


def calls(app: Flask) -> Iterator[tuple[Rule, str]]:
    """The JSON API: routes of its blueprints, each once, though clients' calls answer under several base URLs."""
    for rule in app.url_map.iter_rules():
        if is_call(rule):
            yield from ((rule, method) for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}))


def is_call(rule: Rule) -> bool:
    if rule.endpoint.startswith("messages."):
        return rule.rule.startswith("/v1/") and not rule.rule.startswith(OTHER_BASES)
    module = rule.endpoint.partition(".")[0]
    return module not in {"static", "assets", "console"} and not module.endswith("_pages")


def path_of(rule: Rule) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)


def _operation(app: Flask, rule: Rule, known: Operation) -> dict[str, Any]:
    group = rule.endpoint.partition(".")[0]
    words = " ".join((app.view_functions[rule.endpoint].__doc__ or "").split())
    found: dict[str, Any] = {"tags": [group], "summary": words, "responses": dict(_responses(rule, known))}
    if rule.endpoint not in OPEN:
        found["security"] = CLIENTS if group == "messages" else PEOPLE
    headers = [KEY_OF_A_CALL] if hasattr(app.view_functions[rule.endpoint], MARK) else []
    if parameters := [*_in_path(rule), *_in_query(known), *headers]:
        found["parameters"] = parameters
    if known.takes is not None:
        found["requestBody"] = {"required": True, "content": {JSON: {"schema": known.takes}}}
    return found


def _in_path(rule: Rule) -> Iterator[dict[str, Any]]:
    for name in sorted(rule.arguments):
        schema = COUNT if isinstance(rule._converters[name], IntegerConverter) else {**TEXT, "minLength": 1}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(known: Operation) -> Iterator[dict[str, Any]]:
    for name, schema in (known.query or {}).items():
        yield {"name": name, "in": "query", "schema": schema}


def _responses(rule: Rule, known: Operation) -> Iterator[tuple[str, Any]]:
    success: dict[str, Any] = {"description": HTTPStatus(known.status).phrase}
    if known.gives is not None:
        success["content"] = {known.media: {"schema": known.gives}}
    if known.streams:
        success["content"]["text/event-stream"] = {"schema": schemas.STREAMED}
    yield str(known.status), success
    for status, schema in (known.also or {}).items():
        yield str(status), {"description": HTTPStatus(status).phrase, "content": {JSON: {"schema": schema}}}
    failure = {"$ref": f"#/components/responses/{_shape(rule)}"}
    for status in (*_failures(rule), *known.fails):
        if status not in (known.also or {}):
            yield str(status), failure


def _shape(rule: Rule) -> str:
    if not rule.endpoint.startswith("messages."):
        return "Error"
    if rule.endpoint.startswith("messages.model"):
        return "EitherError"
    return "AnthropicError" if "/messages" in rule.rule else "OpenAIError"


def _failures(rule: Rule) -> tuple[int, ...]:
    if rule.endpoint.startswith("messages."):
        return OF_CLIENTS
    return OF_ALL if rule.endpoint in OPEN and rule.endpoint != "auth.login" else OF_PEOPLE
