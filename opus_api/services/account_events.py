"""What happened to accounts: each change of state leaves a row in the transaction that makes it.

Rows of the pool's changes are written by the Recorder; here is what changes through a session: persons, validation,
sign-ins, in the name of whoever acts in it.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import event, inspect, select
from sqlalchemy.orm import Session

from opus_api.extensions import db
from opus_api.models import Account, AccountEvent
from opus_api.services import audit
from opus_api.services.values import rfc3339


def newest(account_id: int, limit: int = 100) -> Sequence[AccountEvent]:
    query = select(AccountEvent).where(AccountEvent.account_id == account_id)
    return db.session.scalars(query.order_by(AccountEvent.id.desc()).limit(limit)).all()


def as_json(found: AccountEvent) -> dict[str, Any]:
    return {
        "time": rfc3339(found.time),
        "who": found.who,
        "from": found.before,
        "to": found.after,
        "reason": found.reason,
    }


@event.listens_for(Session, "before_flush")
def _note(session: Session, *_: object) -> None:
    for row in list(session.dirty):
        if isinstance(row, Account) and (was := inspect(row).attrs.state.history.deleted):
            session.add(noted(session, row.id, str(was[0]), row.state, row.state_reason))


def noted(session: Session, account_id: int, before: str, after: str, reason: str | None) -> AccountEvent:
    who = audit.actor(session)
    return AccountEvent(account_id=account_id, who=who, before=before, after=after, reason=reason)
