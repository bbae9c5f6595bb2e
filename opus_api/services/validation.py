"""Asking a provider whether a credential works. The question is asked outside of any transaction."""

import time
from dataclasses import dataclass, replace
from datetime import timedelta

from opus_api.models import OVERTAKING, Account, now
from opus_api.services.oidc import Tokens
from opus_api.services.snapshot import credentials
from opus_api.state.standing import QUOTA_REASON, RATE_REASON
from opus_api.transport import Transport
from opus_api.upstreams import UPSTREAMS
from opus_api.upstreams.base import Credentials, Failure, Probe, Verdict

DEADLINE = 15.0  # seconds for one account
QUICK_DEADLINE = 5.0  # when somebody waits for an account to be saved

# How long an account rests when its provider does not say.
REFUSED = (Verdict.AUTH, Verdict.EXPIRED, Verdict.SUSPENDED)
REST = {Verdict.RATE: 30.0, Verdict.QUOTA: 3600.0}
REASONS = {Verdict.RATE: RATE_REASON, Verdict.QUOTA: QUOTA_REASON}  # by which the pool knows that it will come back


@dataclass(frozen=True, slots=True)
class Question:
    """What has to be known of an account to ask about it."""

    account_id: int
    provider: str
    credentials: Credentials
    proxy: str


@dataclass(frozen=True, slots=True)
class Answer:
    asked: Question
    probe: Probe
    latency_ms: int

    @property
    def is_clear(self) -> bool:
        """Whether it says something about the credential."""
        failure = self.probe.failure
        return self.probe.ok or (failure is not None and failure.verdict in (*REST, *REFUSED))


def question(account: Account) -> Question:
    return Question(account.id, account.provider, credentials(account), account.proxy or "")


def ask(transport: Transport, tokens: Tokens, asked: Question, deadline: float = DEADLINE) -> Answer:
    """Never raises for what the provider does: that is the answer. An access token that is over is renewed once."""
    begun = time.monotonic()
    try:
        probe = _probe(transport, asked, deadline)
        if probe.failure and probe.failure.verdict is Verdict.EXPIRED:
            asked = replace(asked, credentials=tokens.renewed(asked.account_id, asked.credentials))
            probe = _probe(transport, asked, deadline)
    except Failure as failure:
        probe = Probe(ok=False, message=failure.message, failure=failure)
    return Answer(asked, probe, round((time.monotonic() - begun) * 1000))


def _probe(transport: Transport, asked: Question, deadline: float) -> Probe:
    """Raises Failure."""
    return transport.run(UPSTREAMS[asked.provider].probe(asked.credentials), proxy=asked.proxy, deadline=deadline)


def apply(account: Account, answer: Answer) -> None:
    """Write into the account what the answer says about its health. A person's switch is left alone."""
    if not answer.is_clear:
        return
    probe, failure = answer.probe, answer.probe.failure
    verdict = failure.verdict if failure else None
    if failure is not None and verdict in REST:
        _rest(account, REASONS[verdict], failure.retry_after or REST[verdict])
    elif probe.ok:
        # A list of models says nothing about a rate or a quota; and whoever is well keeps what is known of its models.
        if account.state != "active" and not _is_resting(account):
            _set(account, "active", None)
        account.error_count = 0
        if probe.models is not None:
            account.listed_models, account.listed_at = probe.models, now()
        account.quota = dict(probe.quota) if probe.quota else account.quota
        if probe.places:
            account.oidc = {**(account.oidc or {}), **probe.places}
    else:
        _set(account, "invalid", probe.message)
        account.is_valid = False
    account.last_validated = now()


def _is_resting(account: Account) -> bool:
    return account.state == "cooling" and account.state_until is not None and account.state_until > now()


def _rest(account: Account, reason: str, seconds: float) -> None:
    """The credential is good but may not be used for a while; a shorter rest never replaces a longer one."""
    until = now() + timedelta(seconds=seconds)
    if account.state == "cooling" and account.state_until and account.state_until > until:
        until = account.state_until
    _set(account, "cooling", reason)
    if account.state == "cooling":
        account.state_until = until


def _set(account: Account, state: str, reason: str | None) -> None:
    account.is_valid = True
    if account.state == "disabled":
        return
    account.state, account.state_until = state, None
    account.state_reason = reason[:255] if reason else None
    newer(account)


def newer(account: Account) -> None:
    """This change of state is newer than what any worker knows; added up in the database, where workers count too."""
    account.state_version = Account.state_version + OVERTAKING if account.id else OVERTAKING
