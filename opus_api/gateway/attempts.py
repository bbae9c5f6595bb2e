"""What becomes of a request whose attempt failed: the retry table. Pure.

A failure before the first content either is the client's answer, or another account tries: free where no work had
begun, else an attempt is spent. The table is checked row by row in ``tests/gateway/test_retry_table.py``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from opus_api.gateway.pool import Outlook
from opus_api.upstreams.base import Failure, Verdict
from opus_api.wire.errors import ApiError, NotFound

FREE_MOVES, FREE_SECONDS = 10, 10.0


class Move(Enum):
    """What follows a failure."""

    NONE = "none"  # it is the client's answer
    FREE = "free"  # no work had begun: the next account, at no cost
    SPENT = "spent"  # work may have begun: the next account, and an attempt is spent


MOVES: Mapping[Verdict, Move] = {
    Verdict.CLIENT: Move.NONE,
    Verdict.LEARN: Move.NONE,  # whatever could be learned was learned and did not help
    Verdict.RATE: Move.FREE,
    Verdict.QUOTA: Move.FREE,
    Verdict.AUTH: Move.FREE,
    Verdict.EXPIRED: Move.FREE,  # renewing its token did not help
    Verdict.SUSPENDED: Move.FREE,
    Verdict.NO_MODEL: Move.FREE,
    Verdict.UNREACHABLE: Move.FREE,
    Verdict.TRANSIENT: Move.SPENT,
    Verdict.OVERLOADED: Move.SPENT,
}

# The account cools from now on, so the pool knows when it may be asked again, also by this request.
COOLING = (Verdict.RATE, Verdict.QUOTA)


@dataclass(slots=True)
class Attempts:
    """What was tried for one request. Times are monotonic seconds."""

    spent: int = 0  # tries whose work may have begun
    free: int = 0
    free_since: float = 0.0  # when the first of them failed
    barred: set[int] = field(default_factory=set)  # accounts not to be asked again
    failed: set[int] = field(default_factory=set)  # accounts that may be asked again when no other is left
    lacking: set[str] = field(default_factory=set)  # servers that do not know the model: others are asked before them
    last: Failure | None = None
    must_pause: bool = False  # before the same account is asked again
    waited: bool = False  # for a limit to end

    def note(self, account_id: int, server: str, failure: Failure, now: float) -> Move:
        """Count a failure; what it means for the request."""
        move = MOVES[failure.verdict]
        self.last = failure
        if move is Move.SPENT:
            self.spent += 1
            self.failed.add(account_id)
            self.must_pause = failure.verdict is Verdict.OVERLOADED or failure.upstream_status >= 500
        elif move is Move.FREE:
            self.free += 1
            self.free_since = self.free_since or now
            if failure.verdict not in COOLING:
                self.barred.add(account_id)
            if failure.verdict is Verdict.NO_MODEL:
                self.lacking.add(server)
        return move

    def is_over(self, move: Move, most: int, now: float) -> bool:
        """Nobody else may try, after a failure that meant ``move``. ``most``: attempts that may be spent."""
        if move is Move.FREE:
            return self.free >= FREE_MOVES or now - self.free_since > FREE_SECONDS
        return self.spent >= most


# ---- what the client gets


def as_error(failure: Failure, model: str) -> ApiError:
    """A failure that is the answer itself: the client's own mistake, or of the one upstream there is."""
    message = f"model: {model}" if failure.verdict is Verdict.NO_MODEL else failure.message
    headers = {} if failure.retry_after is None else {"retry-after": str(max(1, math.ceil(failure.retry_after)))}
    return ApiError(failure.status, failure.type, message, headers, failure.details, failure.words)


def exhausted(last: Failure | None, outlook: Outlook, model: str) -> ApiError:
    """Nobody is left: 429 when waiting for limits cures it, the upstream's own trouble as it is, else 529."""
    if last is not None and last.verdict in (Verdict.TRANSIENT, Verdict.UNREACHABLE, Verdict.OVERLOADED):
        return ApiError(last.status, last.type, last.message, _retry_headers(outlook) if outlook.wait else {})
    if outlook.absent or (last is not None and last.verdict is Verdict.NO_MODEL):
        return NotFound(f"model: {model}")
    if outlook.rate_only and not outlook.busy:
        kind = "billing_error" if last is not None and last.verdict is Verdict.QUOTA else "rate_limit_error"
        return ApiError(429, kind, "all upstream accounts have reached their limits", _retry_headers(outlook))
    return ApiError(529, "overloaded_error", "no upstream account available", _retry_headers(outlook))


def _retry_headers(outlook: Outlook) -> dict[str, str]:
    if outlook.wait is None:
        return {}
    return {"retry-after": str(max(1, math.ceil(outlook.wait)))}
