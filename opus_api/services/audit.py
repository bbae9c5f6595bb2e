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


def newest(limit: int = 100) -> Sequence[Change]:
    return db.session.scalars(select(Change).order_by(Change.id.desc()).limit(limit)).all()


def as_json(change: Change) -> dict[str, Any]:
    return {
        "time": rfc3339(change.created_at),
        "who": change.who,
        "what": change.what,
        "before": change.before,
        "after": change.after,
    }
