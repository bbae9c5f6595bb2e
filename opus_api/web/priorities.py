"""The priorities that the list of accounts lets a person type, one field for each account."""

import re
from collections.abc import Mapping

from flask import current_app
from flask_babel import gettext

from opus_api.models import Account
from opus_api.services import account_fields
from opus_api.services.values import FieldError
from opus_api.web.brief import LONGEST, brief
from opus_api.web.cookies import accounts
from opus_api.web.languages import in_words

FIELD = re.compile(r"priority-([0-9]{1,18})-(-?[0-9]+)")  # of which account, and what it showed
WHOLE = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")

Words = Mapping[int, str]  # of accounts


def typed(form: Mapping[str, str]) -> dict[int, str]:
    """By account, what a person changed from what the list showed. The others may have changed since: they stay."""
    found = [(FIELD.fullmatch(name), value) for name, value in form.items()]
    return {int(field[1]): value for field, value in found if field and value.strip() != field[2]}


def save(typed: Words) -> tuple[dict[int, str], dict[int, str]]:
    """All or, when one is refused, none: by account, why. Then those that were deleted meanwhile: they are left out,
    because nobody can mend them."""
    known = {account.id: account for account in accounts().all()}
    gone = {account_id: gettext("This was deleted meanwhile.") for account_id in typed if account_id not in known}
    left = {account_id: value for account_id, value in typed.items() if account_id in known}
    refused = {account_id: why for account_id, value in left.items() if (why := _refusal(known[account_id], value))}
    if not refused:
        for account_id, value in left.items():
            accounts().update(account_id, {"priority": int(value)})
    return refused, gone


def _refusal(account: Account, value: str) -> str | None:
    try:
        account_fields.provider(account.provider)
        number = int(value) if WHOLE.fullmatch(value) else None
        account_fields.checked(account.provider, {"priority": number}, current_app.extensions["settings"])
    except FieldError as error:
        if error.field == "priority":
            return f"{gettext('Priority')} {in_words(error.reason)}"
        return in_words(error.message)
    return None


def in_a_line(refused: Words) -> str:
    """Why, where the accounts do not stand beside it."""
    names = {account.id: brief(account.name, LONGEST) for account in accounts().all()}
    return " ".join(f"{names[account_id]}: {why}" for account_id, why in refused.items())
