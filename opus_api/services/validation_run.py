"""Validating all accounts while a person looks on: how far it is stands in the database, so that it survives a reload
and another worker can tell it."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from opus_api.extensions import db
from opus_api.models import now
from opus_api.services import settings
from opus_api.services.accounts import Accounts
from opus_api.services.settings import VALIDATION_RUN

LOST_AFTER = 60.0  # seconds without a word: whoever ran it is gone
SHOWN_FOR = 30.0  # seconds after its end


@dataclass(frozen=True, slots=True)
class Run:
    """``heard`` in Unix seconds: when it was last written."""

    total: int
    done: int = 0
    valid: int = 0
    heard: float = 0.0

    @property
    def is_running(self) -> bool:
        return self.done < self.total and now().timestamp() - self.heard < LOST_AFTER

    @property
    def is_over(self) -> bool:
        """It ended a moment ago."""
        return self.done >= self.total and now().timestamp() - self.heard < SHOWN_FOR


def current() -> Run | None:
    """The last one, running or not."""
    found = settings.get(VALIDATION_RUN)
    return Run(**found) if found else None


def begin(total: int) -> bool:
    """False when one is running already."""
    run = current()
    if run is not None and run.is_running:
        return False
    _write(Run(total))
    return True


def run(accounts: Accounts, account_ids: Collection[int]) -> None:
    """Ask about these accounts; ``begin`` was called. One that was deleted meanwhile is left out."""

    def tell(result: Mapping[str, Any]) -> None:
        known = current()
        if known is not None:
            _write(replace(known, done=known.done + 1, valid=known.valid + bool(result["is_valid"])))

    found = accounts.validate_all([one for one in accounts.all() if one.id in account_ids], tell)
    _write(Run(found["total"], found["total"], found["valid"]))


def _write(run: Run) -> None:
    settings.put(VALIDATION_RUN, asdict(replace(run, heard=now().timestamp())))
    db.session.commit()
