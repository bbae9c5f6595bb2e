"""Who changed what: rows that are written with the change itself, and read on the page of changes.

A session belongs to the machine until somebody says who acts.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from opus_api.extensions import db
from opus_api.models import Change
from opus_api.services.values import rfc3339

MACHINE = "machine"


def acts(who: str) -> None:
    """From now on this person changes things in the session of the current app context."""
    db.session.info["who"] = who


def actor(session: Session) -> str:
    """Who acts in this session, as the columns take it."""
    return str(session.info.get("who", MACHINE))[:80]


def note(who: str, what: str, before: Any = None, after: Any = None) -> None:
    """Within the caller's transaction. Of a secret say neither value."""
    db.session.add(Change(who=who, what=what, before=before, after=after))


def note_own(what: str, before: Any = None, after: Any = None) -> None:
    """The same by whoever acts in the current session."""
    note(actor(db.session()), what, before, after)


def newest(limit: int = 100, before: int | None = None, who: str = "", what: str = "") -> Sequence[Change]:
    """Those of an id below ``before``, by this person, of this thing; "" for any."""
    query = select(Change).order_by(Change.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Change.id < min(before, 2**63 - 1))
    for column, wanted in ((Change.who, who), (Change.what, what)):
        if wanted:
            query = query.where(column == wanted.replace("\x00", ""))
    return db.session.scalars(query).all()


def as_json(change: Change) -> dict[str, Any]:
    return {
        "time": rfc3339(change.created_at),
        "who": change.who,
        "what": change.what,
        "before": change.before,
        "after": change.after,
    }
