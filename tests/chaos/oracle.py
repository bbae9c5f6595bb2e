"""Joins what clients, upstream and database wrote down, and says what does not fit. Pure.

Each check returns sentences, one per violation; none is the only good answer.

    I1  one row per request            I5  nothing is in flight a second after the end
    I2  attempts are upstream calls    I6  no secret is seen anywhere
    I3  content of one call only       I7  each stream ends in its protocol
    I4  no call inside a cooldown      I8  usage is what the upstream said
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tests.chaos.faults import WORDS
from tests.chaos.ledgers import Call, Ledgers, Request

COOLDOWN_GRACE = 0.05  # seconds until a 429 is known
FREE_WITHIN = 1.0  # seconds until the upstream of an ended request is let go
DRAIN = 12.0  # seconds that an old worker may still be there beside a new one
RECONNECT = 2.0  # seconds until workers find a Redis that is back
KILL_GRACE = 1.0  # seconds around a kill -9 in which what ends, ended because of it


def violations(ledgers: Ledgers) -> list[str]:
    return [sentence for check in CHECKS for sentence in check(ledgers)]


def one_row_per_request(ledgers: Ledgers) -> Iterator[str]:
    """I1. A request that got a head has its row under its id; one that reached the upstream has one, too.

    One that was refused before its body was read has a row without a model."""
    models = {request.request_id: request.model for request in ledgers.requests if request.request_id}
    rows = Counter(row["model"] or models.get(row["request_id"], "") for row in ledgers.rows)
    ids = {row["request_id"] for row in ledgers.rows}
    called = {call.tag for call in ledgers.calls}
    for request in ledgers.requests:
        count = rows[request.model]
        acknowledged = bool(request.request_id)
        if count > 1 or (count == 0 and (acknowledged or request.tag in called)):
            yield f"I1 {request.tag}: {count} rows"
        elif acknowledged and request.request_id not in ids:
            yield f"I1 {request.tag}: its row has another request id"
    for model in rows.keys() - {request.model for request in ledgers.requests}:
        yield f"I1 {model}: a row without a request"


def attempts_are_calls(ledgers: Ledgers) -> Iterator[str]:
    """I2. A client that leaves, or a worker that is killed, may end a call on its way to the upstream."""
    calls = _by_tag(ledgers.calls)
    for request, row in _joined(ledgers):
        seen = calls[request.tag]
        if row["outcome"] == "aborted":
            continue
        on_its_way = row["outcome"] == "client_gone" and row["attempts"] == len(seen) + 1
        if row["attempts"] != len(seen) and not on_its_way:
            yield f"I2 {request.tag}: {row['attempts']} attempts, {len(seen)} calls"
        elif seen and not on_its_way and row["account_id"] != ledgers.accounts[seen[-1].account]:
            yield f"I2 {request.tag}: its row names another account than the last call"


def content_of_one_call(ledgers: Ledgers) -> Iterator[str]:
    """I3. The words of an answer are the first words of one call, each once; of a complete answer, all of them."""
    calls = {(call.tag, call.call): call for call in ledgers.calls}
    for request in ledgers.requests:
        said = request.text.split()
        if request.end == "complete" and len(said) != WORDS:
            yield f"I3 {request.tag}: complete with {len(said)} of {WORDS} words"
        if not said:
            continue
        call = calls.get((request.tag, _call_of(said[0])))
        if call is None:
            yield f"I3 {request.tag}: words that no call has said: {said[0]}"
        elif said != _words(call, len(said)):
            yield f"I3 {request.tag}: not the words of one call: {request.text}"


def no_call_inside_a_cooldown(ledgers: Ledgers) -> Iterator[str]:
    """I4. Of calls whose account was certainly chosen after the cooldown was known: the machine may be slow."""
    chosen = dict(_chosen_after(ledgers))
    by_account = defaultdict(list)
    for call in ledgers.calls:
        by_account[call.account].append(call)
    for limit, known in _cooldowns_known(ledgers):
        assert limit.ended is not None
        assert limit.retry_after is not None
        if any(done.began <= known <= done.ended + DRAIN for done in ledgers.done if done.what in ("hup", "term")):
            known += ledgers.told_after
        over = limit.ended + limit.retry_after
        for call in by_account[limit.account]:
            if chosen[call.number] > known + COOLDOWN_GRACE and call.began < over - COOLDOWN_GRACE:
                yield f"I4 {call.tag}: {over - call.began:.2f} s before the end of the cooldown that {limit.tag} met"


def _chosen_after(ledgers: Ledgers) -> Iterator[tuple[int, float]]:
    """For each call, by number: a time before which its account cannot have been chosen."""
    began = {request.tag: request.began for request in ledgers.requests}
    for calls in _by_tag(ledgers.calls).values():
        for before, call in zip([None, *calls], calls, strict=False):
            ended = before.ended if before is not None else began.get(call.tag)
            yield call.number, ended or call.began


def _cooldowns_known(ledgers: Ledgers) -> Iterator[tuple[Call, float]]:
    """Refusals that told a time, and when the gateway knew: its next step came after that. Without one, and around the
    death of a worker, it may never have known."""
    requests = {request.tag: request for request in ledgers.requests}
    for calls in _by_tag(ledgers.calls).values():
        for call, after in zip(calls, [*calls[1:], None], strict=False):
            request = requests.get(call.tag)
            if call.retry_after is None or call.ended is None or call.left or request is None:
                continue
            if after is not None:
                known = after.began
            elif request.end in ("complete", "error"):
                known = request.ended
            else:
                continue
            if not _near_a_kill(call.ended, known, ledgers) and not _without_redis(known, ledgers):
                yield call, known


def _without_redis(when: float, ledgers: Ledgers) -> bool:
    """Each worker goes on with its last view then, and learns from itself alone."""
    away = (done for done in ledgers.done if done.what.endswith(" redis"))
    return any(done.began - RECONNECT <= when <= done.ended + RECONNECT for done in away)


def _near_a_kill(began: float, ended: float, ledgers: Ledgers) -> bool:
    kills = (done for done in ledgers.done if done.what == "kill")
    return any(kill.began - KILL_GRACE <= ended and began <= kill.ended + KILL_GRACE for kill in kills)


def nothing_left_in_flight(ledgers: Ledgers) -> Iterator[str]:
    """I5. Of calls, at the upstream; of places, by asking for all of them at once in the end."""
    ended = {request.tag: request.ended for request in ledgers.requests}
    for call in ledgers.calls:
        if call.tag not in ended:
            continue
        unwanted = max(ended[call.tag], call.began)  # a client may leave before its request was even read
        if call.ended is None or call.ended > unwanted + FREE_WITHIN:
            late = "never" if call.ended is None else f"after {call.ended - unwanted:.1f} s"
            yield f"I5 {call.tag}: the upstream was let go {late}"
    if ledgers.places_lost:
        yield f"I5 {ledgers.places_lost} places of accounts are still taken"


def no_secret_seen(ledgers: Ledgers) -> Iterator[str]:
    """I6."""
    for request in ledgers.requests:
        if request.leaked:
            yield f"I6 {request.tag}: a secret in the answer"
    for place in ledgers.secrets_in:
        yield f"I6 a secret in {place}"


def streams_end_in_their_protocol(ledgers: Ledgers) -> Iterator[str]:
    """I7. Whole answers and refusals, too. What ends with a worker that is killed is excused."""
    for request in ledgers.requests:
        if request.end in ("complete", "error", "left"):
            continue
        if request.end == "unended" or not _near_a_kill(request.ended, request.ended, ledgers):
            yield f"I7 {request.tag}: {request.end} (status {request.status}) {request.error_type} {request.model}"


def usage_is_what_was_said(ledgers: Ledgers) -> Iterator[str]:
    """I8. Of answers that are complete: upstream, row and client agree."""
    calls = {(call.tag, call.call): call for call in ledgers.calls}
    for request, row in _joined(ledgers):
        if request.end != "complete" or row["outcome"] != "ok" or not request.text:
            continue
        call = calls.get((request.tag, _call_of(request.text.split()[0])))
        if call is None:
            continue
        kept, said = (row["input_tokens"], row["output_tokens"]), (call.input_tokens, call.output_tokens)
        if kept != said:
            yield f"I8 {request.tag}: the row has {kept}, the upstream said {said}"
        if request.output_tokens != call.output_tokens:
            yield f"I8 {request.tag}: the client was told {request.output_tokens}, not {call.output_tokens}"


CHECKS = (
    one_row_per_request,
    attempts_are_calls,
    content_of_one_call,
    no_call_inside_a_cooldown,
    nothing_left_in_flight,
    no_secret_seen,
    streams_end_in_their_protocol,
    usage_is_what_was_said,
)


def _by_tag(calls: Iterable[Call]) -> Mapping[str, list[Call]]:
    found: dict[str, list[Call]] = defaultdict(list)
    for call in sorted(calls, key=lambda call: call.call):
        found[call.tag].append(call)
    return found


def _joined(ledgers: Ledgers) -> Iterator[tuple[Request, Mapping[str, Any]]]:
    rows = {row["model"]: row for row in ledgers.rows}
    return ((request, rows[request.model]) for request in ledgers.requests if request.model in rows)


def _call_of(word: str) -> int:
    parts = word.split(".")
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else 0


def _words(call: Call, count: int) -> list[str]:
    return [f"{call.tag}.{call.call}.{n}" for n in range(count)]
