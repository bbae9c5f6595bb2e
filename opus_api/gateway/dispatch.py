"""The attempt loop: one request, tried on account after account until one answers with content.

Before the first content a failure moves to the next account unseen; after it, it ends the answer. What a failure means
for the request stands in ``attempts.py``, what it means for the account in ``pool.py``.
"""

import logging
import random
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from opus_api.config import Settings
from opus_api.gateway.attempts import Attempts, Move, as_error, exhausted
from opus_api.gateway.conversation import Conversation
from opus_api.gateway.load import LONGEST_WAIT, RETRIES, Load, Permit
from opus_api.gateway.meter import Meter, is_content
from opus_api.gateway.override import Override, refusal
from opus_api.gateway.pool import Lease, Outlook, Pool, site
from opus_api.gateway.reading import read
from opus_api.services.exchange_log import Recording
from opus_api.services.explanations import Try
from opus_api.services.oidc import LONGEST_WAIT as LONGEST_RENEWAL
from opus_api.services.oidc import Renew
from opus_api.transport import Limits, Patience, Transport
from opus_api.upstreams import UPSTREAMS
from opus_api.upstreams.base import Credentials, Failure, Relayed, Upstream, Verdict
from opus_api.upstreams.failures import names_model, request_id
from opus_api.wire.errors import ApiError
from opus_api.wire.http import HttpResponse
from opus_api.wire.request import Call

log = logging.getLogger(__name__)

LONGEST_STREAM = 3600.0
SHORT_WAIT = 5.0  # seconds until the nearest reset that are waited for instead of refused
LOOK_AGAIN = 0.25  # seconds in line until another look: places also come free in other workers, and cooldowns end
PAUSE = (0.25, 0.75)  # seconds before the same account is asked again after it said 5xx
RENEWAL_LOOK = 0.02  # seconds between two looks whether a token was renewed
MOST_LESSONS = 3
REFUSAL_WAIT = 3.0  # seconds that an upstream gets for the words of a refusal
MISTAKE_WAIT = 30.0  # and for those that tell the client what its mistake is: nothing else does

Waits = Generator[Relayed, None, None]


@dataclass(frozen=True, slots=True)
class Worker:
    """What the requests of one worker share."""

    pool: Pool
    transport: Transport
    load: Load
    renew: Renew


class Dispatch:
    """One request on its way. ``pieces`` yields (bytes for the client, events); (b"", []) when only time passed."""

    def __init__(
        self, call: Call, targets: Any, worker: Worker, settings: Settings, conversation: Conversation | None = None
    ):
        self.call = call
        self.meter = Meter()
        self.patience = Patience()
        self.target: Any = None  # of the current or last attempt
        self.calls = 0  # requests sent to upstreams
        self.uses: list[tuple[int, float]] = []  # (account id, Unix seconds) of each account that was leased
        self.tries: list[Try] = []  # those that failed
        self.try_began = 0.0  # monotonic seconds
        self.try_ended = True  # it failed, or there was none
        self.outlook: Outlook | None = None  # why nobody was left to ask
        self.upstream_request_id = ""
        self.committed = False  # content has come: no other account may answer any more
        self.lessons: list[tuple[int, Mapping[str, Any]]] = []  # (account id, options) to remember
        self.override: Override | None = None  # the client's own credential
        self.recording: Recording | None = None  # in debug mode
        self.warm: bool | None = None  # this turn went where the one before it did; None: it is the first
        self._attempts = Attempts()
        self._targets = targets
        self._pool = worker.pool
        self._transport = worker.transport
        self._load = worker.load
        self._settings = settings
        self._conversation = conversation
        self._bound: int | None = None  # the account that had the turn before
        self._renew = worker.renew
        self._warnings = tuple(call.warnings)  # those of no attempt
        self._leased: Lease | None = None  # of the current or last attempt
        self._permit: Permit | None = None  # this attempt is a retry, and has no content yet

    # ---- the loop

    def pieces(self) -> Iterator[Relayed]:
        """Raises ApiError when nobody can answer, Failure when an answer broke off, ClientGone."""
        self._load.requests += 1
        self._bound = self._recall()
        try:
            yield from self._tries()
        finally:
            self._load.requests -= 1
            self._end_retry()

    def _tries(self) -> Iterator[Relayed]:
        while True:
            if self._attempts.spent:
                yield from self._permission()
            lease = yield from self._next_account()
            self.target, self._leased = lease.target, lease
            self.try_began, self.try_ended = time.monotonic(), False
            if lease.target.account is not None:
                self.uses.append((lease.target.account.id, time.time()))
            try:
                yield from self._attempt(lease.target)
                self._pool.succeeded(lease.target)
                return
            except Failure as failure:
                self.try_ended = True
                self._on_failure(lease.target, failure)
            finally:
                lease.release()
                if lease.target.account:
                    self._load.freed(lease.target.account.id)
                self._end_retry()

    def _on_failure(self, target: Any, failure: Failure) -> None:
        """Returns when another account may try; raises what the client gets else."""
        self._note(target, failure)
        self.upstream_request_id = failure.upstream_request_id or self.upstream_request_id
        if failure.verdict is Verdict.RATE and names_model(failure.message, target.model):
            failure.model_only = True
        self._pool.failed(target, failure)
        if self.committed:
            raise failure
        if target.account is None:
            raise refusal(failure, self.call.model) if self.override else as_error(failure, self.call.model)
        now = time.monotonic()
        move = self._attempts.note(target.account.id, site(target.account), failure, now)
        if move is Move.NONE:
            raise as_error(failure, self.call.model)
        if self._attempts.is_over(move, self._settings.max_attempts, now):
            raise self._exhausted()

    def _note(self, target: Any, failure: Failure) -> None:
        """For who asks later what happened. Another try may begin now."""
        if self.override is not None:
            self.override.hide(failure)
        now = time.monotonic()
        ms, self.try_began = round((now - self.try_began) * 1000), now
        account_id = target.account.id if target.account else None
        status = failure.upstream_status or None
        self.tries.append(Try(target.provider, account_id, status, failure.verdict.value, ms, failure.message))
        log.debug(
            "try %d failed: %s, account %s, model %s, %s (%s) after %d ms",
            len(self.tries),
            target.provider,
            account_id,
            target.model,
            failure.verdict.value,
            status or "no answer",
            ms,
        )

    def _exhausted(self) -> ApiError:
        outlook = self.outlook = self._outlook()
        error = exhausted(self._attempts.last, outlook, self.call.model)
        if outlook.wait is None and not outlook.absent and self._pool.outlook(self._targets).wait is None:
            error.headers = {**error.headers, "x-should-retry": "false"}  # only a person can heal this
        return error

    def _outlook(self) -> Outlook:
        """Of the accounts that this request may still ask."""
        barred = self._attempts.barred
        return self._pool.outlook([t for t in self._targets if t.account and t.account.id not in barred])

    # ---- who is next

    def _next_account(self) -> Generator[Relayed, None, Lease]:
        """Waits where that is worth it. Raises ApiError when there is none."""
        attempts = self._attempts
        if lease := self._untried():
            return lease
        if attempts.failed:  # nobody else is left: the same account again
            if attempts.must_pause:
                yield from self._sleep(random.uniform(*PAUSE))
            if lease := self._lease(attempts.barred):
                return lease
        outlook = self._outlook()
        if outlook.busy and (lease := (yield from self._in_line())):
            return lease
        if outlook.wait is None or outlook.busy or outlook.down or outlook.wait > SHORT_WAIT or attempts.waited:
            raise self._exhausted()
        attempts.waited = True
        yield from self._sleep(outlook.wait)
        return (yield from self._next_account())

    def _untried(self) -> Lease | None:
        """An account that has not failed, if possible of a server that may know the model."""
        attempts = self._attempts
        tried = attempts.barred | attempts.failed
        if attempts.lacking:
            alike = {t.account.id for t in self._targets if t.account and site(t.account) in attempts.lacking}
            if lease := self._lease(tried | alike):
                return lease
        return self._lease(tried)

    def _lease(self, without: set[int]) -> Lease | None:
        return self._pool.lease(self._targets, self._settings.rotation_strategy, without, self._bound)

    def _in_line(self) -> Generator[Relayed, None, Lease | None]:
        """All who may answer have as many requests as they may: wait for one of them."""
        if self._load.is_full:
            return None
        wanted = {t.account.id for t in self._targets if t.account} - self._attempts.barred
        give_up = time.monotonic() + LONGEST_WAIT
        with self._load.line_up(wanted) as place:
            while (left := give_up - time.monotonic()) > 0:
                place.wait(self.patience, min(left, LOOK_AGAIN))
                if lease := self._lease(self._attempts.barred):
                    return lease
                yield b"", []
        return None

    def _permission(self) -> Waits:
        """Wait for a place in the retry budget. Raises what the client gets when there is none."""
        give_up = time.monotonic() + LONGEST_WAIT
        with self._load.line_up((RETRIES,)) as place:
            while not self._load.may_retry():
                if time.monotonic() >= give_up:
                    raise self._exhausted()
                place.wait(self.patience, LOOK_AGAIN)
                yield b"", []
        self._permit = Permit(self._load)

    def _end_retry(self) -> None:
        if self._permit is not None:
            self._permit.release()

    def _sleep(self, seconds: float) -> Waits:
        """In short turns, so that a ping can be sent meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.patience.sleep(min(left, LOOK_AGAIN))
            yield b"", []

    # ---- whose turn before this one it was

    def _recall(self) -> int | None:
        talk = self._conversation
        return None if talk is None or talk.is_first_turn else self._pool.bound(talk.name)

    def _remember(self, target: Any) -> None:
        """The next turns belong to the account that answers this one. A detour leaves them where the cache is warm."""
        talk = self._conversation
        if talk is None or target.account is None:
            return
        if talk.has_history or self._bound is not None:
            self.warm = target.account.id == self._bound
        if not self.warm and not self._may_return():
            self._pool.bind(talk.name, target.account.id)

    def _may_return(self) -> bool:
        """The bound account will serve this model again without anybody's help."""
        bound = [t for t in self._targets if t.account and t.account.id == self._bound]
        return bool(bound) and self._pool.outlook(bound).wait is not None

    # ---- one attempt

    def _attempt(self, target: Any) -> Iterator[Relayed]:
        upstream = UPSTREAMS[target.provider]
        credentials = target.account.credentials if target.account else Credentials()
        if self.override is not None:
            credentials = self.override.credentials(target.provider)
        for _ in range(MOST_LESSONS):
            try:
                yield from self._ask(upstream, target, credentials)
                return
            except Failure as failure:
                if failure.verdict is Verdict.EXPIRED and not self.committed and target.account:
                    self._note(target, failure)
                    credentials = yield from self._renewed(target, credentials)
                    continue
                if failure.verdict is not Verdict.LEARN or self.committed:
                    raise
                self._note(target, failure)
                if target.account:
                    self.lessons.append((target.account.id, failure.learned))
                credentials = replace(credentials, options={**credentials.options, **failure.learned})
        yield from self._ask(upstream, target, credentials)

    def _renewed(self, target: Any, expired: Credentials) -> Generator[Relayed, None, Credentials]:
        """Newer credentials of the same account. Raises Failure when there are none, or when these were new already."""
        if expired.token_version != target.account.credentials.token_version:
            raise Failure(Verdict.AUTH, 529, "overloaded_error", "a new access token was refused")
        renewal = self._renew(target.account.id, expired)
        give_up = time.monotonic() + LONGEST_RENEWAL
        while not renewal.ready() and time.monotonic() < give_up:
            self.patience.sleep(RENEWAL_LOOK)
            yield b"", []
        if isinstance(renewal.value, Credentials):
            return renewal.value
        raise renewal.value or Failure(Verdict.UNREACHABLE, 502, "api_error", "the sign-in was not renewed in time")

    def _ask(self, upstream: Upstream, target: Any, credentials: Credentials) -> Iterator[Relayed]:
        verbatim = upstream.native == self.call.dialect
        self.call.warnings = list(self._warnings)  # what the last upstream could not take, this one may
        request = upstream.request(self.call, target.model, credentials, verbatim)
        if self.override is not None:
            request = self.override.dressed(request)
        self.calls += 1
        proxy = target.account.proxy if target.account else ""
        exchange = self._transport.exchange(request, self.patience, self._limits(), proxy)
        if self.recording is not None:
            facts = {"provider": upstream.name, "model": target.model, "verbatim": verbatim}
            facts |= {"options": dict(credentials.options), "warnings": list(self.call.warnings)}
            exchange = self.recording.upstream(exchange, request, facts, credentials)
        del request  # a prompt may be large
        try:
            for _ in exchange.open():
                yield b"", []
            self.upstream_request_id = request_id(exchange.headers)
            if exchange.status != 200:
                yield from self._refused(upstream, exchange, credentials)
            yield from self._committing(exchange, read(upstream, self.call, exchange, credentials, verbatim))
        finally:
            exchange.close()

    def _refused(self, upstream: Upstream, exchange: Any, credentials: Credentials) -> Iterator[Relayed]:
        # Its status and headers have said what matters, a cooldown above all: its words need not come, or not whole.
        wordless = upstream.failure(HttpResponse(exchange.status, exchange.headers, b""), credentials)
        exchange.last_event_came(MISTAKE_WAIT if wordless.verdict is Verdict.CLIENT else REFUSAL_WAIT)
        body, broken = b"", None
        try:
            for part in exchange.body():
                body = part  # the last one is the body, those before say that time passed
                yield b"", []
        except Failure as failure:
            broken = failure
        refused = upstream.failure(HttpResponse(exchange.status, exchange.headers, body), credentials)
        if broken and refused.verdict is Verdict.CLIENT:  # nobody can tell the client what its mistake is
            raise broken
        raise refused

    def _committing(self, exchange: Any, pieces: Iterator[Relayed]) -> Iterator[Relayed]:
        """Hold everything back until the first content; let go of what only waiting needed once it has come."""
        held: list[bytes] = []
        watch = self.meter.watch
        for data, events in pieces:
            if events:
                watch(events)
            if self.committed:
                if data:
                    self.meter.relayed(data)
                yield data, events
                continue
            if data:
                held.append(data)
            if events and any(map(is_content, events)):
                self.committed = True
                self._end_retry()
                self._pool.answering(self.target)
                if self._leased is not None:
                    self._leased.end_trial()
                self._remember(self.target)
                if not self.meter.usage.prompt_tokens:  # the upstream may tell at the end, or never
                    self.meter.usage.input_tokens = self.call.input_estimate
                exchange.no_total_limit(LONGEST_STREAM)
                self.call.forget_prompt()
                first = b"".join(held)
                self.meter.relayed(first)
                yield first, events
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
