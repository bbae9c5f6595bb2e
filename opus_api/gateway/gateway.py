"""The gateway of one process: resolves a call, starts its dispatch, and records what became of it."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import gevent

from opus_api.config import Settings
from opus_api.dialects import DIALECTS
from opus_api.gateway import tokens
from opus_api.gateway.catalog import Catalog, Resolution, only, permits
from opus_api.gateway.conversation import identify
from opus_api.gateway.dispatch import Dispatch, Worker
from opus_api.gateway.limits import Limits, Spent
from opus_api.gateway.load import Load
from opus_api.gateway.override import Override
from opus_api.gateway.pool import Outlook, Pool
from opus_api.gateway.stream import Answer
from opus_api.services import explanations, metrics, saved_settings
from opus_api.services.exchange_log import ExchangeLog, Recording
from opus_api.services.explanations import Try
from opus_api.services.oidc import Renew
from opus_api.services.request_log import Recorder
from opus_api.services.snapshot import KeyValue, Snapshot, Snapshots
from opus_api.state import State
from opus_api.transport import Transport
from opus_api.upstreams.practice import UPSTREAM as PRACTICE
from opus_api.wire.errors import ApiError, Forbidden, Restarting
from opus_api.wire.request import Call

MOST_LIVE = 1000  # answers of one worker
LONGEST_END = 2.0  # seconds for telling clients that the service stops; who does not read by then is cut

# Remembers options that an upstream's 400 taught, for an account id.
Learn = Callable[[int, Mapping[str, Any]], None]


def restarting() -> Restarting:
    return Restarting("the gateway is restarting, retry", {"retry-after": "1"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that could not even begin."""

    request_id: str
    dialect: str
    model: str  # "" when the body could not be read
    error: ApiError
    client_gone: bool = False


@dataclass(frozen=True, slots=True)
class Live:
    """An answer that is on its way."""

    dispatch: Dispatch
    request_id: str

    @property
    def began(self) -> float:
        """Monotonic seconds."""
        return self.dispatch.meter.began

    @property
    def model(self) -> str:
        return self.dispatch.call.model

    @property
    def account(self) -> str:
        """By name; the provider's where there is none; "" before one is chosen."""
        target = self.dispatch.target
        return "" if target is None else str(target.account.name if target.account else target.provider)

    @property
    def has_content(self) -> bool:
        return self.dispatch.committed


class Gateway:
    """One per process; ``web`` calls it."""

    def __init__(
        self,
        settings: Settings,
        snapshots: Snapshots,
        recorder: Recorder,
        transport: Transport,
        learn: Learn,
        state: State,
        renew: Renew,
        exchange_log: ExchangeLog,
    ):
        self._settings = settings  # of the process; ``_saved`` has what a person saved over them
        self._saved = settings
        self._sticky = True
        self._snapshots = snapshots
        self._recorder = recorder
        self._learn = learn
        self._pool = Pool(recorder, settings.cookie_max_error_count, state)
        self._worker = Worker(self._pool, transport, Load(), renew)
        self._catalog: Catalog | None = None
        self._last_model = ""
        self.limits = Limits(state)
        self._exchange_log = exchange_log
        self._began = time.time()
        self._live: set[Answer] = set()
        self.ending = False  # no time is left: nothing new begins

    def catalog(self) -> Catalog:
        """Of the current snapshot; the pool learns of changes here, too."""
        snapshot = self._snapshots.current()
        if self._catalog is None or self._catalog.snapshot is not snapshot:
            self._catalog = Catalog(snapshot, self._settings.practice_only)
            self._saved = saved_settings.effective(self._settings, snapshot.settings)
            self._sticky = saved_settings.value(snapshot.settings, self._settings, "sticky")
            self._pool.max_errors = self._saved.cookie_max_error_count
            self._pool.adopt(snapshot)
            self._exchange_log.until = saved_settings.debug_until(snapshot.settings, self._settings, self._began)
        return self._catalog

    def recording(self, request_id: str) -> Recording | None:
        """Where to keep what goes in and out; None unless debug mode is on."""
        self.catalog()
        return self._exchange_log.begin(request_id)

    def check_load(self) -> None:
        """Raises ApiError when nothing more may begin: too much runs already, or no time is left."""
        if self.ending:
            raise restarting()
        if len(self._live) >= MOST_LIVE:
            raise ApiError(529, "overloaded_error", "too many requests at once, retry", {"retry-after": "1"})

    def live(self) -> list[Live]:
        """What this process is answering now, the longest first."""
        return sorted((Live(answer.dispatch, answer.request_id) for answer in self._live), key=lambda one: one.began)

    def answer(
        self,
        call: Call,
        key: KeyValue | None,
        request_id: str,
        client_ip: str,
        recording: Recording | None = None,
        override: Override | None = None,
        account_id: int | None = None,
    ) -> Answer:
        """Begin the answer to a call; nothing was sent yet. ``account_id``: nobody else may answer it.

        Raises ApiError: an unknown model, one that is not for this key, a limit of the key, or ``check_load``.
        """
        self.check_load()
        foreign = self._foreign(call.model, key) if override else None
        resolution = foreign or self.resolve(call.model, key, self._last_model)
        if account_id is not None:
            resolution = only(resolution, account_id, call.model)
        if resolution.substituted:
            call.warn("model_substituted")
        elif "haiku" not in call.model and not foreign:
            self._last_model = call.model
        call.input_estimate = tokens.estimate(call.body)
        conversation = identify(call, str(key.id) if key else "") if self._sticky and account_id is None else None
        dispatch = Dispatch(call, resolution.targets, self._worker, self._saved, conversation)
        dispatch.recording, dispatch.override = recording, override if foreign else None
        began, logged = time.time(), _is_logging(self.catalog().snapshot)

        def closed(answer: Answer) -> None:
            self._live.discard(answer)
            metrics.LIVE.dec()
            dispatch.meter.settle(call.model)
            if dispatch.warm is not None:
                metrics.LATER_TURNS.labels("warm" if dispatch.warm else "cold").inc()
            if grant:
                self.limits.settle(grant, spent(answer))
            entry = row(answer, key, began, client_ip)
            self._record(entry, logged)
            metrics.count(entry, dispatch.tries)
            if recording is not None:
                recording.close(facts(answer))
            for learner, options in dispatch.lessons:
                self._learn(learner, options)

        grant = self.limits.admit(key, call) if key else None
        answer = Answer(dispatch, request_id, self._saved.ping_interval, closed)
        if grant:
            answer.headers = grant.headers
        self._live.add(answer)
        metrics.LIVE.inc()
        if logged:
            self._recorder.began(first_words(answer, key, began, client_ip))
        return answer

    def _foreign(self, name: str, key: KeyValue | None) -> Resolution | None:
        """The same for who brings a credential; None where none is needed. Raises NotFound, Forbidden."""
        target = self.catalog().without_account(name)
        if target.provider == PRACTICE.name:
            return None
        return self._permitted(name, key, Resolution((target,)))

    def resolve(self, name: str, key: KeyValue | None, last_model: str = "") -> Resolution:
        """What a model's name means to the holder of a key. Raises NotFound, Forbidden."""
        return self._permitted(name, key, self.catalog().resolve(name, last_model))

    def _permitted(self, name: str, key: KeyValue | None, resolution: Resolution) -> Resolution:
        if key and not permits(key.models, name, resolution):
            raise Forbidden(f"Your API key may not use the model {name}.")
        return resolution

    def end(self) -> None:
        """End every live answer in its protocol, and refuse new ones; returns when none is left, or in 2 s."""
        self.ending = True
        give_up = time.monotonic() + LONGEST_END
        while self._live and time.monotonic() < give_up:
            for answer in list(self._live):
                answer.dispatch.patience.interrupt(restarting())
            gevent.sleep(0.1)

    def refused(self, refusal: Refusal, key: KeyValue | None, client_ip: str) -> None:
        """The row of a request that was let in, but has no answer to close: its body or its model was wrong."""
        entry = {
            "request_id": refusal.request_id,
            "time": datetime.fromtimestamp(time.time(), UTC),
            "key_id": key.id if key else None,
            "dialect": refusal.dialect,
            "model": refusal.model[:200],
            "stream": False,
            "status": DIALECTS[refusal.dialect].status(refusal.error),
            "outcome": _refused(refusal),
            "error_type": refusal.error.type,
            "client_ip": client_ip,
            "trace": explanations.trace((), refusal.error.message, _heals(refusal.error)),
        }
        metrics.count(entry)
        self._record(entry, _is_logging(self.catalog().snapshot))

    def _record(self, entry: Mapping[str, Any], logged: bool) -> None:
        """Counters go on also when a person saved that requests are not logged."""
        self._recorder.record(entry if logged else {**entry, "logged": False})


def _is_logging(snapshot: Snapshot) -> bool:
    return bool(snapshot.settings.get("enableRequestLog", True))


def first_words(answer: Answer, key: KeyValue | None, began: float, client_ip: str) -> dict[str, Any]:
    """What the row will say in any case."""
    call = answer.dispatch.call
    return {
        "request_id": answer.request_id,
        "time": datetime.fromtimestamp(began, UTC),
        "key_id": key.id if key else None,
        "dialect": call.dialect,
        "model": call.model[:200],
        "stream": call.stream,
        "client_ip": client_ip,
    }


def spent(answer: Answer) -> Spent:
    """What counts against its key's limits."""
    dispatch = answer.dispatch
    usage, error = dispatch.meter.usage, answer.error
    if error is not None and not dispatch.committed:
        return Spent(requests=1 if error.status < 429 else 0)  # a request with a mistake of its client still counts
    tokens_in, tokens_out = usage.prompt_tokens, usage.output_tokens
    limited = usage.input_tokens + usage.cache_creation_input_tokens
    if not tokens_in and dispatch.calls:  # the client left before the upstream said anything
        tokens_in = limited = dispatch.call.input_estimate
    return Spent(1, limited, tokens_out, tokens_in + tokens_out)


def row(answer: Answer, key: KeyValue | None, began: float, client_ip: str) -> dict[str, Any]:
    """The request's row in the log."""
    dispatch, call = answer.dispatch, answer.dispatch.call
    target, meter = dispatch.target, dispatch.meter
    account = target.account if target else None
    return {
        **first_words(answer, key, began, client_ip),
        "account_id": account.id if account else None,
        "provider": target.provider if target else None,
        "uses": dispatch.uses,
        "credits": call.credits,
        "upstream_model": target.model[:200] if target else None,
        "upstream_request_id": dispatch.upstream_request_id or None,
        "status": status(answer),
        "outcome": outcome(answer),
        "error_type": answer.error.type if answer.error else None,
        "attempts": dispatch.calls,
        "input_tokens": meter.usage.input_tokens,
        "output_tokens": meter.usage.output_tokens,
        "cache_read_input_tokens": meter.usage.cache_read_input_tokens,
        "cache_creation_input_tokens": meter.usage.cache_creation_input_tokens,
        "estimated": call.usage_estimated or not meter.usage_seen,
        "first_token_ms": meter.first_token_ms,
        "duration_ms": meter.duration_ms,
        "trace": trace(answer),
    }


def facts(answer: Answer) -> dict[str, Any]:
    """What the files of debug mode do not say by themselves."""
    call = answer.dispatch.call
    told = {"dialect": call.dialect, "model": call.model, "stream": call.stream, "headers": dict(call.headers)}
    return {**told, "estimate": call.input_estimate, "status": status(answer), "outcome": outcome(answer)}


def trace(answer: Answer) -> dict[str, Any] | None:
    """What there is to tell besides the row: tries that failed, the error's words, and when it heals."""
    dispatch, error = answer.dispatch, answer.error
    if error is None and not dispatch.tries:
        return None
    last = _last_try(answer)
    tries = [*dispatch.tries, last] if last else dispatch.tries
    if error is None or answer.client_gone:
        return explanations.trace(tries, "")
    return explanations.trace(tries, error.message, _heals(error), _why(dispatch.outlook, error))


def _last_try(answer: Answer) -> Try | None:
    """The one that did not fail, although the request may have."""
    dispatch, target = answer.dispatch, answer.dispatch.target
    if target is None or dispatch.try_ended:
        return None
    how = "gone" if answer.client_gone else "ended" if answer.error else "ok"
    ms = round((time.monotonic() - dispatch.try_began) * 1000)
    return Try(target.provider, target.account.id if target.account else None, 200 if how == "ok" else None, how, ms)


def _heals(error: ApiError) -> int | None:
    """When it is worth asking again, in Unix seconds."""
    seconds = error.headers.get("retry-after")
    return None if seconds is None else math.ceil(time.time()) + int(seconds)


def _why(outlook: Outlook | None, error: ApiError) -> str:
    if outlook is None or outlook.absent:
        return ""
    if outlook.wait is None:
        return explanations.PERSON if error.headers.get("x-should-retry") == "false" else ""
    if outlook.busy:
        return explanations.BUSY
    if outlook.down:
        return explanations.DOWN
    return explanations.LIMITED if outlook.rate_only else ""


LEFT = 499  # nginx's word for a client that closed its request


def status(answer: Answer) -> int:
    """The HTTP status as the client saw it; LEFT when it went before there was one."""
    if answer.begun:
        return 200
    if answer.client_gone:
        return LEFT
    return DIALECTS[answer.dispatch.call.dialect].status(answer.error) if answer.error else 200


def _refused(refusal: Refusal) -> str:
    if refusal.client_gone:
        return "client_gone"
    return "client_error" if refusal.error.status < 500 else "gateway_error"


def outcome(answer: Answer) -> str:
    """How it ended, in the log's words.

    ok, client_gone, client_error, upstream_error, upstream_cut (after content), gateway_error (our own mistake or
    something we need is away), aborted (we stopped before it was complete).
    """
    error = answer.error
    if answer.client_gone:
        return "client_gone"
    if error is None:
        return "ok"
    if isinstance(error, Restarting):
        return "aborted"
    if error.status in (500, 503):  # an upstream's own are 502 and 504 by now
        return "gateway_error"
    if answer.dispatch.committed:
        return "upstream_cut"
    return "client_error" if error.status < 429 else "upstream_error"
