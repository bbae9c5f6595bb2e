"""Accounts that were deleted: kept for 30 days under their ids, to be restored or erased.

They are rows of a table of their own, so whoever reads ``accounts`` need not leave them out, and their names are free.
"""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from opus_api.extensions import db
from opus_api.models import OVERTAKING, Account, DeletedAccount, Time
from opus_api.services import audit, settings
from opus_api.services.values import rfc3339
from opus_api.wire.errors import Conflict, NotFound, Phrase

DAYS = 30
# What belongs to the moment: another process may have been renewing the tokens, and the owner may be gone meanwhile.
NOT_KEPT = {"user_id", "lease_owner", "lease_until"}
COLUMNS = [column for column in Account.__table__.columns if column.name not in NOT_KEPT]
TIMES = {column.name for column in COLUMNS if isinstance(column.type, Time)}


def keep(account: Account) -> None:
    """Move it here, within the caller's transaction."""
    kept = DeletedAccount(
        id=account.id,
        user_id=account.user_id,
        provider=account.provider,
        name=account.name,
        deleted_by=audit.actor(db.session()),
        kept=_packed(account),
    )
    db.session.add(kept)
    db.session.delete(account)
    audit.note_own(f"account {account.name}", "live", "deleted")


def all_() -> Sequence[DeletedAccount]:
    """The last deleted first."""
    return db.session.scalars(
        select(DeletedAccount).order_by(DeletedAccount.deleted_at.desc(), DeletedAccount.id.desc())
    ).all()


def count() -> int:
    return db.session.scalar(select(func.count()).select_from(DeletedAccount)) or 0


def get(account_id: int) -> DeletedAccount:
    """Raises NotFound."""
    found = db.session.get(DeletedAccount, account_id, with_for_update=True)
    if found is None:
        raise NotFound(Phrase("There is no deleted account with the id %(id)s.", id=account_id))
    return found


def restore(account_id: int) -> Account:
    """The account is back as it was, under its id. Raises NotFound, and Conflict when its name is taken meanwhile."""
    settings.alone()
    found = get(account_id)
    provider, name = found.provider, found.name
    account = Account(user_id=found.user_id, **_unpacked(found.kept))
    account.state_version += OVERTAKING  # workers may remember it
    db.session.add(account)
    db.session.delete(found)
    audit.note_own(f"account {name}", "deleted", "live")
    try:
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        raise Conflict(
            Phrase(
                "name: %(provider)s has another account named %(name)r by now; rename that one, then restore this one.",
                provider=provider,
                name=name,
            )
        ) from None
    return account


def erase(account_id: int) -> None:
    """For good, with its credential. Raises NotFound."""
    settings.alone()
    found = get(account_id)
    db.session.delete(found)
    audit.note_own(f"account {found.name}", "deleted", "erased")
    db.session.commit()


def erased_at(deleted: DeletedAccount) -> datetime:
    """When it goes for good by itself."""
    return deleted.deleted_at + timedelta(days=DAYS)


def as_json(deleted: DeletedAccount) -> dict[str, Any]:
    """Without anything of its credential."""
    return {
        "id": deleted.id,
        "provider": deleted.provider,
        "name": deleted.name,
        "deleted_at": rfc3339(deleted.deleted_at),
        "deleted_by": deleted.deleted_by,
        "erased_at": rfc3339(erased_at(deleted)),
    }


def _packed(account: Account) -> str:
    """All columns as JSON, secrets as they are: the column that takes it encrypts."""
    values = {column.name: getattr(account, column.name) for column in COLUMNS}
    return json.dumps({name: v.isoformat() if isinstance(v, datetime) else v for name, v in values.items()})


def _unpacked(packed: str) -> dict[str, Any]:
    """Of the columns that there are now; one that is newer than the row gets its default."""
    values = {name: value for name, value in json.loads(packed).items() if name in {c.name for c in COLUMNS}}
    return {name: datetime.fromisoformat(value) if name in TIMES and value else value for name, value in values.items()}
