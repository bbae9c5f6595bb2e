"""A check of several accounts as the pages begin and show it; ``services/validation_run.py`` keeps how far it is."""

from collections.abc import Sequence

import gevent
from flask import Flask, current_app, flash, request, session
from flask_babel import gettext

from opus_api.models import Account
from opus_api.services import validation_run
from opus_api.services.validation_run import Run
from opus_api.web.cookies import accounts
from opus_api.web.languages import in_words

ENOUGH_FOR_A_FEW = 0.5  # seconds that a person waits for all results before looking on
TOLD = "told_check"  # of the browser's session: the check whose end it has shown


def begin(chosen: Sequence[Account]) -> bool:
    """Five at once, for as long as it takes: the request waits for a moment only. False: others are being checked."""
    if not validation_run.begin(len(chosen)):
        flash(gettext("Accounts are being checked already. Wait until that is done."), "warning")
        return False
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined] # the greenlet outlives the request
    gevent.spawn(_validate, app, [account.id for account in chosen]).join(ENOUGH_FOR_A_FEW)
    return True


def _validate(app: Flask, account_ids: Sequence[int]) -> None:
    with app.app_context():
        validation_run.run(accounts(), account_ids)


def to_show() -> Run | None:
    """The check of accounts while it goes on, and once in each browser how it ended. A page that showed how far it was
    asks with its ``check``: it is always told the end, whichever tab was told before."""
    run = validation_run.current()
    if run is None or run.is_running:
        return run
    is_asked_for = request.args.get("check", type=float) == run.started
    if not is_asked_for and (not run.is_news or session.get(TOLD) == run.heard):
        return None
    session[TOLD] = run.heard
    return run


def ended(run: Run) -> tuple[str, str]:
    """What a check found, and how good that is."""
    if run.is_lost:
        broken = gettext(
            "The check broke off: %(done)s of %(total)s accounts were checked.", done=run.done, total=run.total
        )
        return broken, "warning"
    if run.said:  # of its only account
        return f"{run.name}: {in_words(run.said)}", "success" if run.valid else "warning" if run.unclear else "error"
    said = gettext("%(valid)s of %(total)s accounts are valid.", valid=run.valid, total=run.total)
    if refused := run.total - run.valid - run.unclear:
        said = gettext("%(said)s Refused: %(n)s.", said=said, n=refused)
    if run.unclear:
        said = gettext("%(said)s No clear answer: %(n)s.", said=said, n=run.unclear)
    return said, "success" if run.valid == run.total else "warning"
