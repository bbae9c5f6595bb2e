"""Validating accounts while a person looks on: how far it is stands in the database, so that it survives a reload
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
LONGEST_SAID = 255  # characters, as an account keeps of a reason
NEWS_FOR = 600.0  # seconds: how long its end is worth telling


@dataclass(frozen=True, slots=True)
class Run:
    """``started`` and ``heard`` in Unix seconds: which check it is, and when it was last written. ``unclear`` counts
    the providers that said nothing about the credential; of a single account it keeps what was ``said``, with its
    ``name``."""

    total: int
    done: int = 0
    valid: int = 0
    unclear: int = 0
    started: float = 0.0
    heard: float = 0.0
    name: str = ""
    said: str = ""

    @property
    def is_running(self) -> bool:
        return self.done < self.total and not self._silent_for(LOST_AFTER)

    @property
    def is_lost(self) -> bool:
        return self.done < self.total and self._silent_for(LOST_AFTER)

    @property
    def is_news(self) -> bool:
        """It ended, or was lost, not long ago."""
        return not self._silent_for(NEWS_FOR)

    def _silent_for(self, seconds: float) -> bool:
        return now().timestamp() - self.heard >= seconds


def current() -> Run | None:
    """The last one, running or not."""
    found = settings.get(VALIDATION_RUN)
    return Run(**found) if found else None


def begin(total: int) -> bool:
    """False when one is running already."""
    run = current()
    if run is not None and run.is_running:
        return False
    _write(Run(total, started=now().timestamp()))
    return True


def run(accounts: Accounts, account_ids: Collection[int]) -> None:
    """Ask about these accounts; ``begin`` was called. One that was deleted meanwhile is left out."""

    begun = current()
    found = Run(0, started=begun.started if begun else 0.0)

    def tell(result: Mapping[str, Any], is_clear: bool) -> None:
        nonlocal found
        valid, unclear = is_clear and result["is_valid"], not is_clear
        found = replace(found, done=found.done + 1, valid=found.valid + valid, unclear=found.unclear + unclear)
        if len(account_ids) == 1:
            found = replace(found, name=accounts.get(result["id"]).name, said=result["message"][:LONGEST_SAID])
        _write(replace(found, total=len(account_ids)))

    accounts.validate_all([one for one in accounts.all() if one.id in account_ids], tell)
    _write(replace(found, total=found.done))


def _write(run: Run) -> None:
    settings.put(VALIDATION_RUN, asdict(replace(run, heard=now().timestamp())))
    db.session.commit()
