"""The priorities that the list of accounts lets a person type, one field for each account."""

import re
from collections.abc import Iterator, Mapping

from flask import current_app
from flask_babel import gettext

from opus_api.models import Account
from opus_api.services import account_fields
from opus_api.services.values import FieldError
from opus_api.web.cookies import accounts
from opus_api.web.languages import in_words

FIELD = re.compile(r"priority-([0-9]{1,18})-(-?[0-9]+)")  # of which account, and what it showed
WHOLE = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")

Words = Mapping[int, str]  # of accounts


def typed(form: Mapping[str, str]) -> dict[int, str]:
    """By account, what a person changed from what the list showed. The others may have changed since: they stay."""
    found = [(FIELD.fullmatch(name), value) for name, value in form.items()]
    return {int(field[1]): value for field, value in found if field and value.strip() != field[2]}


def save(typed: Words) -> dict[int, str]:
    """All or, when one is refused, none: by account, why."""
    known = {account.id: account for account in accounts().all()}
    refused = dict(_refused(typed, known))
    if not refused:
        for account_id, value in typed.items():
            accounts().update(account_id, {"priority": int(value)})
    return refused


def _refused(typed: Words, known: Mapping[int, Account]) -> Iterator[tuple[int, str]]:
    for account_id, value in typed.items():
        account = known.get(account_id)
        if account is None:
            yield account_id, gettext("This was deleted meanwhile.")
            continue
        try:
            account_fields.provider(account.provider)
            number = int(value) if WHOLE.fullmatch(value) else None
            account_fields.checked(account.provider, {"priority": number}, current_app.extensions["settings"])
        except FieldError as error:
            said = (
                f"{gettext('Priority')} {in_words(error.reason)}"
                if error.field == "priority"
                else in_words(error.message)
            )
            yield account_id, f"{account.name}: {said}"
