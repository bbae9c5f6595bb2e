"""Who changed what: rows that are written with the change itself, and read on the page of settings."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from opus_api.extensions import db
from opus_api.models import Change
from opus_api.services.values import rfc3339


def note(who: str, what: str, before: Any = None, after: Any = None) -> None:
    """Within the caller's transaction. Of a secret say neither value."""
    db.session.add(Change(who=who, what=what, before=before, after=after))


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
