"""Which pages of other sites may call the routes of /v1 from a browser: those of CORS_ORIGINS, none by default."""

from flask import Flask, Response, current_app, request

from opus_api.config import Settings

METHODS = "GET, POST"
# What SDKs send from browsers: names, and how their families of names begin.
SENT = {"authorization", "content-type", "x-api-key", "x-claude-code-session-id"}
SENT_FAMILIES = ("anthropic-", "x-stainless-", "openai-")
READ = "request-id, x-request-id, retry-after, x-should-retry, opus-provider, opus-warnings, anthropic-organization-id"
REMEMBERED = "600"  # seconds


def register(app: Flask, settings: Settings) -> None:
    if settings.cors_origins:
        app.after_request(_open)


def _open(response: Response) -> Response:
    if request.blueprint != "messages":
        return response
    response.headers.add("Vary", "Origin")
    origin = request.headers.get("Origin")
    if origin is None or not _listed(origin):
        return response
    response.headers["Access-Control-Allow-Origin"] = origin
    response.headers["Access-Control-Expose-Headers"] = READ
    if request.method == "OPTIONS":
        wanted = request.headers.get("Access-Control-Request-Headers", "").split(",")
        response.headers["Access-Control-Allow-Methods"] = METHODS
        response.headers["Access-Control-Allow-Headers"] = ", ".join(filter(_may_be_sent, map(_name, wanted)))
        response.headers["Access-Control-Max-Age"] = REMEMBERED
    return response


def _listed(origin: str) -> bool:
    settings: Settings = current_app.extensions["settings"]
    return origin in settings.cors_origins or "*" in settings.cors_origins


def _name(word: str) -> str:
    return word.strip().lower()


def _may_be_sent(name: str) -> bool:
    return name in SENT or name.startswith(SENT_FAMILIES)
