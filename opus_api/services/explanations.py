"""One request in plain words: what happened, whose fault it was, what was tried, when it heals.

A row of the log says most of it. What it does not say is kept beside it as its ``trace``, in few bytes, and only where
there is something to tell: ``{"tries": [[provider, account, status, how, ms, word], …], "said": word, "heals": Unix
seconds, "why": …}``, where a word is an index of ``"words"``, since many tries fail alike.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

import flask_babel
import sqlalchemy as sa
from sqlalchemy import Connection

from opus_api.logs import redacted
from opus_api.models import Account
from opus_api.services import logs
from opus_api.services.values import rfc3339
from opus_api.wire.errors import NotFound

gettext: Callable[..., str] = flask_babel.gettext  # it has no types
ngettext: Callable[..., str] = flask_babel.ngettext
_l: Callable[[str], Any] = flask_babel.lazy_gettext

Row = Mapping[str, Any] | sa.RowMapping  # a whole one of the log

ACCOUNTS = cast(sa.Table, Account.__table__)

MOST_TRIES, LONGEST_WORD = 15, 120


class Try(NamedTuple):
    """One attempt. ``status``: the upstream's own, None when it told none; ``how``: a verdict, or ok, gone, ended."""

    provider: str
    account_id: int | None
    status: int | None
    how: str
    ms: int
    message: str = ""


# Why nobody was left to ask.
BUSY, LIMITED, DOWN, PERSON = "busy", "limited", "down", "person"


def trace(tries: Sequence[Try], said: str, heals: int | None = None, why: str = "") -> dict[str, Any] | None:
    """What to keep of a request; None when its row tells it all. ``said``: the message of its error."""
    words: list[str] = []

    def word(text: str) -> int | None:
        shown = redacted(text)[:LONGEST_WORD]
        if shown and shown not in words:
            words.append(shown)
        return words.index(shown) if shown else None

    kept = {
        "tries": [[*one[:5], word(one.message)] for one in tries[:MOST_TRIES]],
        "said": word(said),
        "heals": heals,
        "why": why,
        "words": words,
    }
    return {name: value for name, value in kept.items() if value not in (None, "", [])} or None


# ---- reading it


@dataclass(frozen=True, slots=True)
class Attempt:
    """``account``: its id, and its name while it exists. ``status`` None: the upstream told none."""

    provider: str
    account: int | None
    account_name: str | None
    status: int | None
    reason: str
    ms: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """In the language of whoever asks. ``fault``: client, gateway, upstream or none."""

    request_id: str
    summary: str
    fault: str
    heals_at: datetime | None
    attempts: tuple[Attempt, ...]

    def as_json(self) -> dict[str, Any]:
        """``GET /v2/requests/{request_id}``."""
        return {**asdict(self), "heals_at": rfc3339(self.heals_at)}


def explain(connection: Connection, request_id: str) -> Explanation:
    """Raises NotFound."""
    row = logs.one(connection, request_id)
    if row is None:
        raise NotFound(
            "There is no such request in the log: it may still run, it was not let in, or its row was deleted."
        )
    return explained(row, _names(connection, [one.account_id for one in _tries(row)]))


def _names(connection: Connection, ids: Iterable[int | None]) -> dict[int, str]:
    wanted = {account_id for account_id in ids if account_id is not None}
    if not wanted:
        return {}
    found = connection.execute(sa.select(ACCOUNTS.c.id, ACCOUNTS.c.name).where(ACCOUNTS.c.id.in_(wanted)))
    return dict(map(tuple, found))


def explained(row: Row, names: Mapping[int, str]) -> Explanation:
    """``names`` of accounts by id. Within an app context, for its language."""
    kept = row["trace"] or {}
    tries = _tries(row)
    heals = datetime.fromtimestamp(kept["heals"], UTC) if "heals" in kept else None
    attempts = tuple(
        Attempt(one.provider, one.account_id, names.get(one.account_id or 0), one.status, _reason(one), one.ms)
        for one in tries
    )
    fault = _fault(row, tries)
    summary = _joined([*_happened(row, attempts), *_tried(row, tries), *_what_helps(row, fault, heals)])
    return Explanation(row["request_id"], summary, fault, heals, attempts)


def _joined(sentences: Sequence[str]) -> str:
    """A full stop of Chinese brings its own space."""
    return "".join(one if one.endswith("。") else f"{one} " for one in sentences).rstrip()


def _tries(row: Row) -> list[Try]:
    """As they were kept, or the one that the row itself tells of."""
    kept = row["trace"] or {}
    words = [*kept.get("words", ()), ""]
    if kept.get("tries"):
        return [
            Try(provider, account_id, status, how, ms, words[-1 if word is None else word])
            for provider, account_id, status, how, ms, word in kept["tries"]
        ]
    if row["provider"] is None:
        return []
    status = row["status"] if row["status"] == 200 else None
    return [Try(row["provider"], row["account_id"], status, HOW.get(row["outcome"], "ended"), row["duration_ms"])]


def _said(row: Row) -> str:
    """The error's message, as a sentence."""
    kept = row["trace"] or {}
    said = str(kept["words"][kept["said"]] if "said" in kept else row["error_type"] or "?")
    return said if said.endswith((".", "!", "?")) else f"{said}."


def took(ms: int) -> str:
    """How long something took, in the unit that reads best."""
    if ms < 1000:
        return f"{ms} ms"
    return f"{ms / 1000:.1f} s" if ms < 100_000 else f"{ms // 60_000}:{ms // 1000 % 60:02d} min"


# ---- whose fault it was


HOW = {"ok": "ok", "client_gone": "gone"}  # outcome -> how its last try ended
OURS = ("auth", "expired", "suspended", "quota")  # an account that a person has to look after
FAULTS = {
    "ok": "none",
    "client_gone": "client",
    "client_error": "client",
    "upstream_cut": "upstream",
    "gateway_error": "gateway",
    "aborted": "gateway",
}


def _fault(row: Row, tries: Sequence[Try]) -> str:
    """Accounts that cannot be used, or not more of, are the gateway's: its operator can help, the upstream cannot."""
    if row["outcome"] in FAULTS:
        return FAULTS[row["outcome"]]
    why = (row["trace"] or {}).get("why")
    if tries:
        return "gateway" if all(one.how in OURS for one in tries) else "upstream"
    return "gateway" if why in (BUSY, PERSON) else "upstream"


# ---- the words


REASONS = {
    "ok": _l("answered"),
    "gone": _l("was asked when the client hung up"),
    "ended": _l("was asked when the request ended"),
    "client": _l("refused the request as wrong"),
    "rate": _l("has reached its rate limit"),
    "quota": _l("has used up its credit or quota"),
    "auth": _l("refused the credential"),
    "expired": _l("said that the sign-in is over"),
    "suspended": _l("has locked the account"),
    "no_model": _l("does not have the model"),
    "transient": _l("failed, broke off or took too long"),
    "overloaded": _l("is overloaded"),
    "learn": _l("refused a field; it was asked again without it"),
    "unreachable": _l("could not be reached"),
}
NOBODY: Mapping[str, Any] = {
    BUSY: _l("Every account with this model had as many requests at once as it may."),
    LIMITED: _l("Every account with this model had reached its limit."),
    DOWN: _l("The providers of all accounts with this model did not answer."),
    PERSON: _l("No account with this model could be used: each is invalid or disabled."),
}


def _reason(one: Try) -> str:
    words = str(REASONS.get(one.how, one.how))
    return f"{words}: {one.message}" if one.message else words


def _happened(row: Row, attempts: Sequence[Attempt]) -> Iterator[str]:
    yield HAPPENED[row["outcome"]](row, attempts)


def _answered(row: Row, attempts: Sequence[Attempt]) -> str:
    last = attempts[-1] if attempts else None
    who = (last.account_name or last.provider) if last else "?"
    return gettext("%(who)s answered within %(time)s.", who=who, time=took(row["duration_ms"]))


def _left(row: Row, attempts: Sequence[Attempt]) -> str:
    if row["status"] == 200:
        time = took(row["duration_ms"])
        return gettext("The client hung up after %(time)s, while its answer was on the way.", time=time)
    return gettext("The client hung up before its answer began.")


def _clients_mistake(row: Row, attempts: Sequence[Attempt]) -> str:
    if row["status"] == 429:
        return gettext("The API key had reached one of its limits: %(said)s", said=_said(row))
    if row["status"] == 404:
        return gettext("Nobody has what was asked for: %(said)s", said=_said(row))
    if row["status"] in (401, 403) and attempts:
        return gettext("The upstream refused the credential that the client brought along: %(said)s", said=_said(row))
    if attempts:
        return gettext("The upstream refused the request as wrong: %(said)s", said=_said(row))
    return gettext("The request was refused as wrong, and no upstream was asked: %(said)s", said=_said(row))


def _nobody_answered(row: Row, attempts: Sequence[Attempt]) -> str:
    why = (row["trace"] or {}).get("why", "")
    if why in NOBODY and not attempts:
        return str(NOBODY[why])
    return gettext("No account could answer: %(said)s", said=_said(row))


def _broke_off(row: Row, attempts: Sequence[Attempt]) -> str:
    said = _said(row)
    return gettext("The upstream broke off within its answer, and the client was told: %(said)s", said=said)


def _our_mistake(row: Row, attempts: Sequence[Attempt]) -> str:
    return gettext("The gateway itself failed: %(said)s", said=_said(row))


def _stopped(row: Row, attempts: Sequence[Attempt]) -> str:
    if row["status"] == 0:
        return gettext("The service was killed while it worked on this request; how far it came is not known.")
    return gettext("The service was stopped or restarted before the answer was complete, and the client was told.")


HAPPENED: Mapping[str, Callable[[Row, Sequence[Attempt]], str]] = {
    "ok": _answered,
    "client_gone": _left,
    "client_error": _clients_mistake,
    "upstream_error": _nobody_answered,
    "upstream_cut": _broke_off,
    "gateway_error": _our_mistake,
    "aborted": _stopped,
}


def _tried(row: Row, tries: Sequence[Try]) -> Iterator[str]:
    failed = sum(one.how not in ("ok", "gone", "ended") for one in tries)
    if failed and row["outcome"] == "ok":
        yield ngettext("%(num)s try before it failed.", "%(num)s tries before it failed.", failed)
    elif failed > 1:
        yield ngettext("%(num)s try failed.", "%(num)s tries failed.", failed)


def _what_helps(row: Row, fault: str, heals: datetime | None) -> Iterator[str]:
    if heals is not None:
        yield gettext("It may be asked again from %(time)s on.", time=rfc3339(heals))
    elif (row["trace"] or {}).get("why") == PERSON:
        yield gettext("A person has to look after the accounts first.")
    elif row["outcome"] == "client_error" and row["status"] in (400, 404, 413):
        yield gettext("The same request would be refused again.")
