"""The attempt loop: one request, tried on account after account until one answers with content.

Before the first content a failure moves to the next account unseen; after it, it ends the answer. A try whose work may
have begun counts against MAX_ATTEMPTS; refusals before any work move on free.
"""

import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from opus_api.config import Settings
from opus_api.dialects import DIALECTS
from opus_api.gateway.meter import Meter, is_content
from opus_api.gateway.pool import Lease, Outlook, Pool
from opus_api.transport import Limits, Patience, Transport
from opus_api.upstreams import UPSTREAMS
from opus_api.upstreams.base import Credentials, Failure, Relayed, Upstream, Verdict
from opus_api.upstreams.failures import broken
from opus_api.wire.errors import ApiError, NotFound
from opus_api.wire.http import HttpResponse
from opus_api.wire.messages import Event, Folder, FoldError, Message
from opus_api.wire.request import Call

FREE_MOVES, FREE_SECONDS = 10, 10.0
LONGEST_STREAM = 3600.0
SHORT_WAIT = 5.0  # seconds until the nearest reset that are waited for instead of refused
MOST_LESSONS = 3

# The account cools from now on; this request may ask it again once it has healed.
COOLING = (Verdict.RATE, Verdict.QUOTA)
# No work had begun: moving on costs nothing. Those that do not cool are not asked again by this request.
FREE = (*COOLING, Verdict.AUTH, Verdict.NO_MODEL, Verdict.UNREACHABLE)


@dataclass(slots=True)
class Attempts:
    """What was tried for one request."""

    spent: int = 0  # tries whose work may have begun
    free: int = 0
    began: float = field(default_factory=time.monotonic)
    barred: set[int] = field(default_factory=set)  # accounts not to be asked again
    failed: list[int] = field(default_factory=list)  # accounts that may be asked again when no other is left
    last: Failure | None = None
    waited: bool = False


class Dispatch:
    """One request on its way. ``pieces`` yields (bytes for the client, events); (b"", []) when only time passed."""

    def __init__(self, call: Call, targets: Any, strategy: str, pool: Pool, transport: Transport, settings: Settings):
        self.call = call
        self.meter = Meter()
        self.patience = Patience()
        self.attempts = Attempts()
        self.target: Any = None  # of the current or last attempt
        self.calls = 0  # requests sent to upstreams
        self.upstream_request_id = ""
        self.committed = False  # content has come: no other account may answer any more
        self.lessons: list[tuple[int, Mapping[str, Any]]] = []  # (account id, options) to remember
        self._targets = targets
        self._strategy = strategy
        self._pool = pool
        self._transport = transport
        self._settings = settings
        self._encoder = DIALECTS[call.dialect].Encoder(call)

    # ---- the loop

    def pieces(self) -> Iterator[Relayed]:
        """Raises ApiError when nobody can answer, Failure when an answer broke off, ClientGone."""
        while True:
            lease = self._next_account()
            self.target = lease.target
            try:
                yield from self._attempt(lease.target)
                self._pool.succeeded(lease.target)
                return
            except Failure as failure:
                self._on_failure(lease.target, failure)
            finally:
                lease.release()

    def _next_account(self) -> Lease:
        """Raises ApiError when there is none."""
        attempts = self.attempts
        tried = attempts.barred.union(attempts.failed)
        lease = self._pool.lease(self._targets, self._strategy, tried)
        if lease is None and attempts.failed:  # nobody else is left: the same account again, after a moment
            self.patience.sleep(random.uniform(0.25, 0.75))
            lease = self._pool.lease(self._targets, self._strategy, attempts.barred)
        if lease is None:
            outlook = self._outlook()
            if not attempts.waited and outlook.wait is not None and outlook.wait <= SHORT_WAIT and not attempts.failed:
                attempts.waited = True
                self.patience.sleep(outlook.wait)
                return self._next_account()
            raise self._exhausted(attempts.last, outlook)
        return lease

    def _on_failure(self, target: Any, failure: Failure) -> None:
        """Returns when another account may try; raises what the client gets else."""
        self.upstream_request_id = failure.upstream_request_id or self.upstream_request_id
        self._pool.failed(target, failure)
        if self.committed:
            raise failure
        if target.account is None or failure.verdict in (Verdict.CLIENT, Verdict.LEARN):
            raise as_error(failure, self.call.model)
        attempts = self.attempts
        attempts.last = failure
        if failure.verdict in FREE:
            attempts.free += 1
            if failure.verdict not in COOLING:
                attempts.barred.add(target.account.id)
        else:
            attempts.spent += 1
            attempts.failed.append(target.account.id)
        late = time.monotonic() - attempts.began > FREE_SECONDS
        if attempts.spent >= self._settings.max_attempts or attempts.free >= FREE_MOVES or (attempts.free and late):
            raise self._exhausted(failure, self._outlook())

    def _exhausted(self, last: Failure | None, outlook: Outlook) -> ApiError:
        error = exhausted(last, outlook, self.call.model)
        if outlook.wait is None and not outlook.absent and self._pool.outlook(self._targets).wait is None:
            error.headers = {**error.headers, "x-should-retry": "false"}  # only a person can heal this
        return error

    def _outlook(self) -> Outlook:
        """Of the accounts that this request may still ask."""
        barred = self.attempts.barred
        return self._pool.outlook([t for t in self._targets if t.account and t.account.id not in barred])

    # ---- one attempt

    def _attempt(self, target: Any) -> Iterator[Relayed]:
        upstream = UPSTREAMS[target.provider]
        credentials = target.account.credentials if target.account else Credentials()
        for _ in range(MOST_LESSONS):
            try:
                yield from self._ask(upstream, target, credentials)
                return
            except Failure as failure:
                if failure.verdict is not Verdict.LEARN or self.committed:
                    raise
                self.lessons.append((target.account.id, failure.learned))
                credentials = replace(credentials, options={**credentials.options, **failure.learned})
        yield from self._ask(upstream, target, credentials)

    def _ask(self, upstream: Upstream, target: Any, credentials: Credentials) -> Iterator[Relayed]:
        verbatim = upstream.native == self.call.dialect
        request = upstream.request(self.call, target.model, credentials, verbatim)
        self.calls += 1
        proxy = target.account.proxy if target.account else ""
        exchange = self._transport.exchange(request, self.patience, self._limits(), proxy)
        del request  # a prompt may be large
        try:
            for _ in exchange.open():
                yield b"", []
            self.upstream_request_id = _request_id(exchange.headers)
            if exchange.status != 200:
                yield from self._refused(upstream, exchange, credentials)
            yield from self._committing(exchange, self._read(upstream, exchange, credentials, verbatim))
        finally:
            exchange.close()

    def _refused(self, upstream: Upstream, exchange: Any, credentials: Credentials) -> Iterator[Relayed]:
        body = b""
        for part in exchange.body():
            body = part  # the last one is the body, those before say that time passed
            yield b"", []
        raise upstream.failure(HttpResponse(exchange.status, exchange.headers, body), credentials)

    def _read(self, upstream: Upstream, exchange: Any, credentials: Credentials, verbatim: bool) -> Iterator[Relayed]:
        if verbatim:
            pieces = _to_the_end(exchange, upstream.verbatim(self.call, exchange.chunks(), credentials))
            return pieces if self.call.stream else _joined(pieces)
        events = ((b"", batch) for batch in upstream.events(self.call, exchange.chunks(), credentials))
        batches = (batch for _, batch in _to_the_end(exchange, events))
        return self._encoded(batches) if self.call.stream else self._folded(batches)

    def _encoded(self, batches: Iterator[list[Event]]) -> Iterator[Relayed]:
        encode = self._encoder.encode
        for events in batches:
            yield (encode(events) if events else b""), events

    def _folded(self, batches: Iterator[list[Event]]) -> Iterator[Relayed]:
        """A client without streaming: the message that the events spell out. Raises Failure."""
        folder = Folder()
        try:
            for events in batches:
                for event in events:
                    folder.feed(event)
                yield b"", []
            message = folder.message()
        except FoldError as error:
            raise broken(str(error)) from None
        message["model"] = self.call.model
        yield DIALECTS[self.call.dialect].render(self.call, message), _summary(message)

    def _committing(self, exchange: Any, pieces: Iterator[Relayed]) -> Iterator[Relayed]:
        """Hold everything back until the first content; let go of what only waiting needed once it has come."""
        held: list[bytes] = []
        watch = self.meter.watch
        for data, events in pieces:
            if events:
                watch(events)
            if self.committed:
                yield data, events
                continue
            if data:
                held.append(data)
            if events and any(map(is_content, events)):
                self.committed = True
                if not self.meter.usage.prompt_tokens:  # the upstream may tell at the end, or never
                    self.meter.usage.input_tokens = self.call.input_estimate
                exchange.no_total_limit(LONGEST_STREAM)
                self.call.forget_prompt()
                yield b"".join(held), events
            else:
                yield b"", []

    def _limits(self) -> Limits:
        s = self._settings
        return Limits(
            s.upstream_connect_timeout,
            s.upstream_first_event_timeout,
            s.upstream_idle_timeout,
            s.upstream_total_timeout,
        )


def _to_the_end(exchange: Any, pieces: Iterator[Relayed]) -> Iterator[Relayed]:
    """What follows the last event is read, to use the connection again, but neither passed on nor judged."""
    ended = False
    try:
        for data, events in pieces:
            if ended:
                yield b"", []
                continue
            if any(event["type"] == "message_stop" for event in events):
                ended = True
                exchange.last_event_came()
            yield data, events
    except Failure:
        if not ended:
            raise


def _joined(pieces: Iterator[Relayed]) -> Iterator[Relayed]:
    """A whole JSON answer in one piece, so that it commits only when it is complete."""
    parts: list[bytes] = []
    facts: list[Event] = []
    for data, events in pieces:
        parts.append(data)
        facts += events
        yield b"", []
    yield b"".join(parts), facts


def _summary(message: Message) -> list[Event]:
    """What the meter needs to know of a folded message."""
    return [
        {"type": "content_block_start"},
        {"type": "message_delta", "delta": {}, "usage": message.get("usage") or {}},
        {"type": "message_stop"},
    ]


def _request_id(headers: Mapping[str, str]) -> str:
    return (headers.get("request-id") or headers.get("x-request-id") or "")[:100]


# ---- what the client gets


def as_error(failure: Failure, model: str) -> ApiError:
    """A failure that is the answer itself: the client's own mistake, or of the one upstream there is."""
    message = f"model: {model}" if failure.verdict is Verdict.NO_MODEL else failure.message
    headers = {} if failure.retry_after is None else {"retry-after": str(max(1, round(failure.retry_after)))}
    return ApiError(failure.status, failure.type, message, headers, failure.details)


def exhausted(last: Failure | None, outlook: Outlook, model: str) -> ApiError:
    """Nobody is left: 429 when waiting for limits cures it, the upstream's own trouble as it is, else 529."""
    if last is not None and last.verdict in (Verdict.TRANSIENT, Verdict.UNREACHABLE, Verdict.OVERLOADED):
        return ApiError(last.status, last.type, last.message, _retry_headers(outlook) if outlook.wait else {})
    if outlook.absent or (last is not None and last.verdict is Verdict.NO_MODEL):
        return NotFound(f"model: {model}")
    if outlook.rate_only and not outlook.busy:
        return ApiError(
            429, "rate_limit_error", "all upstream accounts have reached their limits", _retry_headers(outlook)
        )
    return ApiError(529, "overloaded_error", "no upstream account available", _retry_headers(outlook))


def _retry_headers(outlook: Outlook) -> dict[str, str]:
    if outlook.wait is None:
        return {}
    return {"retry-after": str(max(1, round(outlook.wait)))}
