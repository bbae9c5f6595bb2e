"""Many accounts at once: export, import from an export, feed by a program. What is here already is never made twice."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select

from opus_api.extensions import db
from opus_api.models import Account, Change, now
from opus_api.services import account_fields, audit, settings, transfer_csv
from opus_api.services.accounts import Accounts, as_json
from opus_api.services.values import FieldError, rfc3339
from opus_api.upstreams import UPSTREAMS
from opus_api.upstreams.base import Failure
from opus_api.wire import jsons
from opus_api.wire.errors import ApiError, Conflict, InvalidRequest, Phrase, RateLimited, Unprocessable
from opus_api.wire.http import Flow, HttpRequest, HttpResponse

FORMAT, VERSION = "opus-api-accounts", 1
MOST = 1000  # accounts of one request
LARGEST = 5 * 2**20  # bytes of a file
EXPORTS_PER_HOUR = 3  # with secrets
EXPORTED = "accounts exported with secrets"
MOST_SAID = 300  # characters of another installation's words
# What a person set; states and counters belong to this installation.
SETTINGS = ("provider", "name", "base_url", "models", "model_map", "options", "priority", "max_concurrency")


def export(accounts: Accounts, with_secrets: bool) -> dict[str, Any]:
    """All accounts as ``import_`` reads them; without secrets, their last characters."""
    rows = [_row(account, with_secrets) for account in accounts.all()]
    head = {"format": FORMAT, "version": VERSION, "exported_at": rfc3339(now()), "secrets": with_secrets}
    return {**head, "accounts": rows}


def note_export(who: str) -> None:
    """Audit an export with secrets before it happens. Raises RateLimited."""
    recent = select(func.count()).where(Change.what == EXPORTED, Change.created_at > now() - timedelta(hours=1))
    if (db.session.scalar(recent) or 0) >= EXPORTS_PER_HOUR:
        raise RateLimited(
            Phrase("Accounts may be exported with secrets %(n)s times an hour.", n=EXPORTS_PER_HOUR),
            {"retry-after": "3600"},
        )
    audit.note(who, EXPORTED)
    db.session.commit()


def _row(account: Account, with_secrets: bool) -> dict[str, Any]:
    shown = as_json(account)
    row = {name: shown[name] for name in SETTINGS} | {"state": "disabled" if account.state == "disabled" else "active"}
    if account.oidc:
        row["oidc"] = {name: account.oidc.get(name) for name in account_fields.OIDC}
    if not with_secrets:
        return row | {"api_key_hint": shown["api_key_hint"], "session_key_hint": shown["session_key_hint"]}
    secrets = {name: value for name in account_fields.SECRETS if (value := getattr(account, name))}
    if "refresh_token" in secrets:
        secrets.pop("access_token", None)  # soon over, and its end does not travel with it
    return row | secrets | ({"proxy": account.proxy} if account.proxy else {})


def pull(url: str, username: str, password: str) -> Flow[dict[str, Any]]:
    """Sign in at another installation, ask for its export, sign out whatever came of that. Raises InvalidRequest with
    what it said, Failure when it did not answer."""
    base = url.rstrip("/")
    login = yield _request("POST", f"{base}/api/auth/login", {"username": username, "password": password})
    token = _token(base, login)
    try:
        _answer(base, (yield _request("POST", f"{base}/api/auth/confirm", {"password": password}, token)))
        found = _answer(base, (yield _request("GET", f"{base}/v2/accounts/export?secrets=1", None, token)))
    except Exception:  # not GeneratorExit: then nobody sends requests any more
        yield from _sign_out(base, token)
        raise
    yield from _sign_out(base, token)
    return found


def _sign_out(base: str, token: str) -> Flow[None]:
    with suppress(Failure):  # what was asked for is here, or the reason why not
        yield _request("POST", f"{base}/api/auth/logout", {}, token)


def _token(base: str, login: HttpResponse) -> str:
    """Of the other installation; it travels in a header. Raises InvalidRequest."""
    token = _answer(base, login).get("token")
    if not isinstance(token, str) or not re.fullmatch(r"[!-~]{1,8000}", token):
        raise _stranger(base)
    return token


def _stranger(base: str) -> InvalidRequest:
    return InvalidRequest(Phrase("%(address)s does not answer as an installation of Opus API.", address=base))


def _request(method: str, url: str, body: Mapping[str, Any] | None, token: str = "") -> HttpRequest:
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    return HttpRequest(method, url, headers, None if body is None else jsons.dumps(body))


def _answer(base: str, response: HttpResponse) -> dict[str, Any]:
    """Raises InvalidRequest when the other side refused, or is no installation of ours."""
    try:
        body = jsons.loads_strict(response.body or b"{}")
    except jsons.JsonError:
        body = None
    if not isinstance(body, dict):
        raise _stranger(base)
    if response.status >= 300:
        error = body.get("error")
        said = error.get("message") if isinstance(error, dict) else None
        said = said[:MOST_SAID] if isinstance(said, str) and said else "without a reason"
        raise InvalidRequest(
            Phrase("%(address)s refused (%(status)s): %(said)s", address=base, status=response.status, said=said)
        )
    return body


def document_of(data: bytes) -> Mapping[str, Any]:
    """A file, JSON or CSV, as ``import_`` takes it. Raises Unprocessable when it is neither, or too large."""
    if len(data) > LARGEST:
        raise Unprocessable(Phrase("file: may have at most %(n)s MiB.", n=LARGEST // 2**20))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unprocessable("file: is not text in UTF-8; save the table as CSV in UTF-8.") from None
    if text.lstrip()[:1] not in ("{", "["):
        rows, hints_only = transfer_csv.read(text)
        return {"format": FORMAT, "version": VERSION, "secrets": not hints_only, "accounts": rows}
    try:
        found = jsons.loads_strict(text)
    except jsons.JsonError:
        raise Unprocessable("file: begins as JSON, but is no valid JSON.") from None
    return found if isinstance(found, dict) else {}


@dataclass
class Found:
    """What is in a document, before any of it is saved."""

    new: list[Account]
    skipped: int  # accounts that are here already
    errors: list[dict[str, Any]]  # {"index", "message"}

    def as_json(self) -> dict[str, Any]:
        return {"created": len(self.new), "skipped": self.skipped, "errors": self.errors}


def import_(accounts: Accounts, document: Mapping[str, Any], user_id: int | None) -> dict[str, Any]:
    """Take in what ``export`` gave, as often as one likes. Raises Unprocessable when that is no export, or one without
    secrets, whose accounts could not serve."""
    _check_export(document)
    return feed(accounts, document, user_id)


def preview(accounts: Accounts, document: Mapping[str, Any], user_id: int | None) -> Found:
    """What ``import_`` would do now; nothing is saved. Raises Unprocessable as it does."""
    _check_export(document)
    return _sorted(Here(accounts), *_made_of(accounts, document, user_id))


def feed(accounts: Accounts, document: Mapping[str, Any], user_id: int | None) -> dict[str, Any]:
    """``{"accounts": […]}`` -> ``{"created", "skipped", "errors": [{"index", "message"}]}``: valid rows land together.

    A row whose credential an account has already is skipped. Raises FieldError when there is no list.
    """
    made, errors = _made_of(accounts, document, user_id)
    settings.alone()  # who feeds at the same moment waits, and finds ours
    found = _sorted(Here(accounts), made, errors)
    if found.new:
        accounts.add(found.new)
        accounts.look_at(found.new)
    return found.as_json()


def _check_export(document: Mapping[str, Any]) -> None:
    version = document.get("version")
    if document.get("format") != FORMAT or version != VERSION or isinstance(version, bool):
        raise Unprocessable(
            Phrase(
                "format: must be %(format)r, version %(version)s, as the export of accounts gives it.",
                format=FORMAT,
                version=VERSION,
            )
        )
    if document.get("secrets") is not True:
        raise Unprocessable("secrets: this export holds no credentials; export again with secrets=1.")


Made = list[tuple[int, Account]]  # the index of its row, and an account that nobody has saved yet
Errors = list[dict[str, Any]]


def _made_of(accounts: Accounts, document: Mapping[str, Any], user_id: int | None) -> tuple[Made, Errors]:
    """Raises FieldError when there is no list."""
    rows = document.get("accounts")
    if not isinstance(rows, list) or len(rows) > MOST:
        raise FieldError("accounts", Phrase("must be a list of at most %(n)s accounts.", n=MOST))
    made, errors = Made(), Errors()
    for index, row in enumerate(rows):
        try:
            made.append((index, _made(accounts, row, user_id)))
        except ApiError as error:
            errors.append({"index": index, "message": error.message})
    return made, errors


def _sorted(here: "Here", made: Made, errors: Errors) -> Found:
    """Which of them are new."""
    clashes = Errors()
    for index, account in made:
        try:
            here.take(account)
        except ApiError as error:
            clashes.append({"index": index, "message": error.message})
    skipped = len(made) - len(clashes) - len(here.new)
    return Found(here.new, skipped, sorted([*errors, *clashes], key=lambda error: error["index"]))


def _made(accounts: Accounts, row: Any, user_id: int | None) -> Account:
    """Raises FieldError, Unprocessable."""
    if not isinstance(row, dict):
        raise Unprocessable("must be an object.")
    return accounts.made(row, user_id)


class Here:
    """The accounts that are here, and those that are about to be."""

    def __init__(self, accounts: Accounts):
        known = accounts.all()
        self._identities = {identity for account in known for identity in _identities(account)}
        self._names = {(account.provider, account.name) for account in known}
        self.new: list[Account] = []

    def take(self, account: Account) -> None:
        """Raises Conflict."""
        identities = _identities(account)
        if identities & self._identities:
            return
        if (account.provider, account.name) in self._names:
            raise Conflict(
                Phrase(
                    "name: %(provider)s has an account named %(name)r with another credential.",
                    provider=account.provider,
                    name=account.name,
                )
            )
        self._identities |= identities
        self._names.add((account.provider, account.name))
        self.new.append(account)


def _identities(account: Account) -> set[tuple[str, ...]]:
    """What makes two accounts the same, any of it: where they go and as whom; without a credential, their names.

    A refresh token is another one after each renewal, so the client it was issued to stands for it, with the name,
    because one client may have signed in to several accounts.
    """
    upstream = UPSTREAMS.get(account.provider)
    base_url = account.base_url or (upstream.default_base_url if upstream else "")
    credential = account.api_key or account.refresh_token or f"name {account.name}"
    identities: set[tuple[str, ...]] = {(account.provider, base_url, credential)}
    if account.client_id:
        identities.add((account.provider, base_url, account.client_id, account.name))
    return identities
