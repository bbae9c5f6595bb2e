"""Blueprint ``messages``: the routes that clients call. Parse, ask the gateway, render."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import gevent
from flask import Blueprint, Request, Response, current_app, request
from flask.typing import ResponseReturnValue

from opus_api.config import Settings
from opus_api.dialects import anthropic, openai
from opus_api.gateway import tokens
from opus_api.gateway.gateway import Gateway, Refusal, restarting
from opus_api.gateway.stream import Answer, ClientWatch, as_api_error
from opus_api.services import saved_settings
from opus_api.services.exchange_log import Recording
from opus_api.services.snapshot import KeyValue, Snapshots
from opus_api.transport import ClientGone
from opus_api.web import contacts, guards, overrides
from opus_api.web.bodies import BodyCut, received
from opus_api.web.client import client_ip
from opus_api.web.errors import dialect_error, dialect_of, identity
from opus_api.wire import ids, jsons
from opus_api.wire.checks import json_object
from opus_api.wire.errors import ApiError, InvalidRequest
from opus_api.wire.request import Call

bp = Blueprint("messages", __name__)

LARGEST_BODY = 32 * 2**20
LARGE_BODY = 2**18  # from here on it is understood in a thread: the hub would stand still
PIECE = 2**16  # bytes of a whole answer that are written at once
DEFAULT_PAGE = 20

Parse = Callable[[dict[str, Any], Mapping[str, str]], Call]


def route(path: str, method: str) -> Callable[[Callable[..., ResponseReturnValue]], Callable[..., ResponseReturnValue]]:
    """A path under every base URL that people type: with /v1, without, doubled, with a slash at its end."""

    def add(view: Callable[..., ResponseReturnValue]) -> Callable[..., ResponseReturnValue]:
        for prefix in ("/v1", "", "/v1/v1", "/v1/", "/v1//v1"):
            # Merging slashes means redirecting, which clients do not follow with a POST.
            options: dict[str, Any] = {"methods": [method], "strict_slashes": False, "merge_slashes": False}
            bp.add_url_rule(prefix + path, view.__name__, view, **options)
        return view

    return add


@route("/messages", "POST")
def messages() -> ResponseReturnValue:
    """A message, in the Messages API of Anthropic."""
    return _answer(anthropic)


@route("/chat/completions", "POST")
def chat_completions() -> ResponseReturnValue:
    """A completion, in Chat Completions of OpenAI."""
    return _answer(openai)


@route("/messages/count_tokens", "POST")
def count_tokens() -> ResponseReturnValue:
    """Count the tokens of a request. Local and free: no account is asked, no limit is charged."""
    request_id = ids.request_id()
    try:
        key = _key(request)
        _gateway().check_load()  # before the body is read
        _, call = _understood(anthropic.parse_count, received(request, LARGEST_BODY), _headers(request))
        if isinstance(call, ApiError):
            raise call
        _gateway().resolve(call.model, key)
        # Exact counting takes milliseconds per 100 KB: not in the thread that serves all streams.
        count = gevent.get_hub().threadpool.apply(tokens.count, (call.body,))
    except ApiError as error:
        return dialect_error(anthropic, error, request_id)
    contacts.note()
    return _json({"input_tokens": count}, identity(anthropic, request_id))


@route("/models", "GET")
def models() -> ResponseReturnValue:
    """The models that the key may use, as SDKs of both families read them."""
    dialect = dialect_of(request) or openai
    key = _key(request)
    catalog = _gateway().catalog()
    names = catalog.names(key.models if key else None)
    entries = [catalog.model_info(name, target) for name, target in names.items()]
    page = _page(entries, request)
    contacts.note()
    return _json({"object": "list", **page}, identity(dialect, ids.request_id()))


@route("/models/<path:name>", "GET")
def model(name: str) -> ResponseReturnValue:
    """One model."""
    dialect = dialect_of(request) or openai
    key = _key(request)
    name = name.removesuffix("/")
    found = _gateway().resolve(name, key).targets[0]
    contacts.note()
    return _json(_gateway().catalog().model_info(name, found), identity(dialect, ids.request_id()))


# ---- one answer


@dataclass(slots=True)
class Asking:
    """Who asks. ``answer`` is there once one has begun."""

    request_id: str
    address: str
    key: KeyValue | None
    account_id: int | None = None  # the only one that may answer
    by_client: bool = True  # no person with a browser, whose headers say nothing about upstreams
    answer: Answer | None = None


def _answer(dialect: ModuleType) -> Response:
    request_id = ids.request_id()
    address = client_ip(request, _settings())
    try:
        _check_address(address)
        key = _key(request)
    except ApiError as error:
        return dialect_error(dialect, error, request_id)
    return reply(dialect, Asking(request_id, address, key), _received)


def reply(dialect: ModuleType, asking: Asking, read: Callable[[Recording | None], bytes]) -> Response:
    """The whole way of a request that was let in; ``read`` gives its body and may raise ApiError."""
    model, recording = "", None
    try:
        _gateway().check_load()  # before the body is read
        override = (
            overrides.brought(request, asking.key, current_app.extensions["snapshots"]) if asking.by_client else None
        )
        recording = _gateway().recording(asking.request_id)
        model, call = _understood(dialect.parse, read(recording), _headers(request))
        if isinstance(call, ApiError):
            raise call
        call.session = request.headers.get("x-claude-code-session-id", "")
        key, address, account_id = asking.key, asking.address, asking.account_id
        answer = _gateway().answer(call, key, asking.request_id, address, recording, override, account_id)
    except ApiError as error:
        return _not_begun(dialect, asking, model, recording, error)
    asking.answer = answer
    watch = ClientWatch(request.environ["gunicorn.socket"], answer.dispatch.patience) if _is_served() else None
    return _streamed(dialect, call, answer, watch) if call.stream else _whole(dialect, call, answer, watch)


def _not_begun(
    dialect: ModuleType, asking: Asking, model: str, recording: Recording | None, error: ApiError
) -> Response:
    gone = isinstance(error, BodyCut)
    if gone and _gateway().ending:  # it was us who cut it
        error, gone = restarting(), False
    _gateway().refused(Refusal(asking.request_id, dialect.NAME, model, error, gone), asking.key, asking.address)
    if recording is not None:
        recording.client_out(dialect.status(error), (), dialect.error_body(error, asking.request_id))
        recording.close({"dialect": dialect.NAME, "model": model, "outcome": "refused"})
    return dialect_error(dialect, error, asking.request_id)


def _received(recording: Recording | None) -> bytes:
    """The request's body. Raises ApiError."""
    data = received(request, LARGEST_BODY)
    if recording is not None:
        recording.client_in(request.method, request.path, request.headers.items(), data)
    return data


def _is_served() -> bool:
    return "gunicorn.socket" in request.environ


def _streamed(dialect: ModuleType, call: Call, answer: Answer, watch: ClientWatch | None) -> Response:
    body = _Body(answer, watch, dialect.PING)
    try:
        answer.begin()
    except Exception as error:  # noqa: BLE001 - it is looked at there
        return _failed(dialect, answer, body, error)
    headers = _answer_headers(dialect, call, answer)
    headers |= {"cache-control": "no-cache", "x-accel-buffering": "no"}
    if recording := answer.dispatch.recording:
        recording.client_out(200, [*headers.items(), ("content-type", dialect.STREAM_TYPE)])
    return Response(body, 200, headers, content_type=dialect.STREAM_TYPE, direct_passthrough=True)


def _whole(dialect: ModuleType, call: Call, answer: Answer, watch: ClientWatch | None) -> Response:
    body = _Body(answer, watch, dialect.PING)
    try:
        data = answer.whole()
    except Exception as error:  # noqa: BLE001 - as above
        return _failed(dialect, answer, body, error)
    headers = _answer_headers(dialect, call, answer)
    if recording := answer.dispatch.recording:
        recording.client_out(200, [*headers.items(), ("content-type", "application/json")], data)
    body.close()
    headers["content-length"] = str(len(data))
    pieces = (data[at : at + PIECE] for at in range(0, len(data), PIECE))
    return Response(pieces, 200, headers, content_type="application/json", direct_passthrough=True)


def _failed(dialect: ModuleType, answer: Answer, body: "_Body", error: Exception) -> Response:
    """The answer failed before its status was chosen."""
    if isinstance(error, ClientGone):
        answer.client_gone = True
        body.close()
        return Response(status=499)  # nobody reads it; the log says client_gone
    answer.error = as_api_error(error)
    headers = _answer_headers(dialect, answer.dispatch.call, answer)
    if recording := answer.dispatch.recording:
        said = dialect.error_body(answer.error, answer.request_id)
        recording.client_out(dialect.status(answer.error), headers.items(), said)
    body.close()
    response = dialect_error(dialect, answer.error, answer.request_id)
    response.headers.update(headers)
    return response


class _Body:
    """The response's iterable. gunicorn calls ``close`` whatever happens, also when iterating never began; a
    generator's own clean-up would not run then."""

    def __init__(self, answer: Answer, watch: ClientWatch | None, ping: bytes):
        self._answer = answer
        self._ping = ping
        self._watch = watch

    def __iter__(self) -> Any:
        recording = self._answer.dispatch.recording
        return iter(self._answer) if recording is None else recording.watched(iter(self._answer), self._ping)

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._answer.close()


def _answer_headers(dialect: ModuleType, call: Call, answer: Answer) -> dict[str, str]:
    headers = identity(dialect, answer.request_id) | dict(answer.headers)
    if answer.dispatch.target is not None:
        headers["opus-provider"] = answer.dispatch.target.provider
    if call.warnings:
        headers["opus-warnings"] = ",".join(call.warnings)
    if dialect is anthropic:
        headers["anthropic-organization-id"] = _gateway().catalog().snapshot.installation_id
    return headers


# ---- what requests bring


def _gateway() -> Gateway:
    gateway: Gateway = current_app.extensions["gateway"]
    return gateway


def _settings() -> Settings:
    settings: Settings = current_app.extensions["settings"]
    return settings


def _key(request: Request) -> KeyValue | None:
    return guards.api_key(request, current_app.extensions["snapshots"], _settings())


def _check_address(address: str) -> None:
    """The limit per address; always on for who lets everybody in. Raises RateLimited, StateUnavailable."""
    snapshots: Snapshots = current_app.extensions["snapshots"]
    saved, settings = snapshots.current().settings, _settings()
    if settings.anonymous_access == "on" or saved_settings.value(saved, settings, "enableIPRateLimit"):
        most, minutes = (saved_settings.value(saved, settings, f"ipRateLimit{name}") for name in ("Max", "Window"))
        try:
            _gateway().limits.admit_address(address, most, minutes)
        except ApiError as error:
            raise guards.refused(error) from None


def _headers(request: Request) -> Mapping[str, str]:
    """The client's anthropic-* headers, lower case."""
    found = {}
    for name, value in request.environ.items():
        if name.startswith("HTTP_ANTHROPIC_"):
            found[name[5:].replace("_", "-").lower()] = value
    return found


def _understood(parse: Parse, data: bytes, headers: Mapping[str, str]) -> tuple[str, Call | ApiError]:
    """The model that was named, "" when there is none, and the call, or what is wrong with it."""
    if len(data) < LARGE_BODY:
        return _parsed(parse, data, headers)
    found: tuple[str, Call | ApiError] = gevent.get_hub().threadpool.apply(_parsed, (parse, data, headers))
    return found


def _parsed(parse: Parse, data: bytes, headers: Mapping[str, str]) -> tuple[str, Call | ApiError]:
    # Returns what it might raise: an error that leaves a thread of the pool is printed.
    model = ""
    try:
        body = json_object(data)
        model = str(body.get("model") or "")
        return model, parse(body, headers)
    except ApiError as error:
        return model, error


# ---- lists


def _page(entries: list[dict[str, Any]], request: Request) -> dict[str, Any]:
    """Anthropic's paging. Without anthropic-version the caller is an OpenAI client, which has none: all at once."""
    limit = _limit(request, len(entries) if "anthropic-version" not in request.headers else DEFAULT_PAGE)
    names = [entry["id"] for entry in entries]
    after, before = request.args.get("after_id"), request.args.get("before_id")
    start = names.index(after) + 1 if after in names else 0
    end = names.index(before) if before in names else len(entries)
    shown = entries[max(start, end - limit) : end] if before else entries[start : start + limit]
    more = (len(shown) < end - start) if before else (start + len(shown) < end)
    first, last = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    return {"data": shown, "has_more": more, "first_id": first, "last_id": last}


def _limit(request: Request, default: int) -> int:
    text = request.args.get("limit")
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1000:
        raise InvalidRequest("limit: Input should be a whole number between 1 and 1000")
    return int(text)


def _json(body: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    return Response(jsons.dumps(body), 200, dict(headers), content_type="application/json")
