"""What a failure means for its request: the retry table as values."""

import pytest

from opus_api.gateway.attempts import MOVES, Attempts, Move, exhausted
from opus_api.gateway.pool import Outlook
from opus_api.upstreams.base import Failure, Verdict
from tests.gateway.values import failure

# verdict, the status that the upstream told -> move, the same account may be asked again, after a pause
ROWS: dict[tuple[Verdict, int], tuple[Move, bool, bool]] = {
    (Verdict.CLIENT, 400): (Move.NONE, False, False),
    (Verdict.LEARN, 400): (Move.NONE, False, False),
    (Verdict.AUTH, 401): (Move.FREE, False, False),
    (Verdict.EXPIRED, 401): (Move.FREE, False, False),
    (Verdict.SUSPENDED, 403): (Move.FREE, False, False),
    (Verdict.QUOTA, 402): (Move.FREE, True, False),
    (Verdict.NO_MODEL, 404): (Move.FREE, False, False),
    (Verdict.RATE, 429): (Move.FREE, True, False),
    (Verdict.UNREACHABLE, 0): (Move.FREE, False, False),
    (Verdict.TRANSIENT, 408): (Move.SPENT, True, False),
    (Verdict.TRANSIENT, 409): (Move.SPENT, True, False),
    (Verdict.TRANSIENT, 500): (Move.SPENT, True, True),
    (Verdict.TRANSIENT, 503): (Move.SPENT, True, True),
    (Verdict.TRANSIENT, 0): (Move.SPENT, True, False),  # cut, stalled, malformed
    (Verdict.OVERLOADED, 529): (Move.SPENT, True, True),
}


@pytest.mark.parametrize("cause, row", ROWS.items(), ids=lambda value: str(value[1]))
def test_a_failure_means_for_its_request_what_the_table_says(
    cause: tuple[Verdict, int], row: tuple[Move, bool, bool]
) -> None:
    verdict, status = cause
    move, again, pause = row
    attempts = Attempts()
    assert attempts.note(7, "server", failure(verdict, upstream_status=status), now=1.0) is move
    assert (attempts.spent, attempts.free) == (int(move is Move.SPENT), int(move is Move.FREE))
    if move is not Move.NONE:
        assert (7 not in attempts.barred) is again
    assert attempts.must_pause is pause
    assert attempts.lacking == ({"server"} if verdict is Verdict.NO_MODEL else set())


def test_every_verdict_is_in_the_table() -> None:
    assert set(MOVES) == set(Verdict) == {verdict for verdict, _ in ROWS}


@pytest.mark.parametrize("verdict, moves", [(Verdict.RATE, 10), (Verdict.AUTH, 10), (Verdict.TRANSIENT, 3)])
def test_as_many_accounts_are_tried_as_the_move_allows(verdict: Verdict, moves: int) -> None:
    attempts = Attempts()
    tried = 0
    while True:
        tried += 1
        if attempts.is_over(attempts.note(tried, "", failure(verdict), now=5.0), 3, now=5.0):
            break
    assert tried == moves


def test_free_moves_end_ten_seconds_after_the_first_of_them_and_not_after_the_request_began() -> None:
    attempts = Attempts()
    assert attempts.note(1, "", failure(Verdict.TRANSIENT), now=300.0) is Move.SPENT
    for now, over in ((300.1, False), (310.0, False), (310.2, True)):
        assert attempts.is_over(attempts.note(2, "", failure(Verdict.AUTH), now=now), 3, now=now) is over
    assert not attempts.is_over(Move.SPENT, 3, now=400.0), "that bound is for free moves alone"


RATE_ONLY = Outlook(12.3, rate_only=True)


@pytest.mark.parametrize(
    "last, outlook, status, headers",
    [
        (failure(Verdict.RATE), RATE_ONLY, 429, {"retry-after": "13"}),
        (None, RATE_ONLY, 429, {"retry-after": "13"}),
        (failure(Verdict.AUTH), Outlook(40.0, rate_only=False), 529, {"retry-after": "40"}),
        (None, Outlook(1.0, rate_only=True, busy=True), 529, {"retry-after": "1"}),
        (None, Outlook(None, rate_only=False), 529, {}),
        (failure(Verdict.NO_MODEL), Outlook(None, rate_only=False, absent=True), 404, {}),
        (failure(Verdict.TRANSIENT), RATE_ONLY, 500, {"retry-after": "13"}),
        (failure(Verdict.TRANSIENT), Outlook(None, rate_only=False), 500, {}),
    ],
)
def test_when_nobody_is_left_the_client_learns_why_and_when_to_come_back(
    last: Failure | None, outlook: Outlook, status: int, headers: dict[str, str]
) -> None:
    error = exhausted(last, outlook, "m")
    assert (error.status, error.headers) == (status, headers)
