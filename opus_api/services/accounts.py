"""Accounts: what may be done with them, and their JSON. Credentials never leave whole."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from gevent.pool import Pool
from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from opus_api import database
from opus_api.config import Settings
from opus_api.extensions import db
from opus_api.models import Account
from opus_api.services import account_fields, deleted_accounts, settings, validation
from opus_api.services.oidc import Tokens
from opus_api.services.values import FieldError, moment_of, rfc3339
from opus_api.transport import Transport
from opus_api.upstreams import UPSTREAMS
from opus_api.wire.errors import Conflict, NotFound, Phrase

log = logging.getLogger(__name__)

LEARN_LIMIT = 2.0  # seconds that the end of a request may wait for the database
AT_ONCE = 5  # validations that run at the same time
LOOK_SECONDS = 10.0


Tell = Callable[[Mapping[str, Any], bool], None]


class Accounts:
    """The rules of the table ``accounts``. One per app; works in the session of the current app context."""

    def __init__(self, settings: Settings, transport: Transport, engine: Engine, tokens: Tokens):
        self._settings = settings
        self._transport = transport
        self._engine = engine
        self._tokens = tokens

    def all(self) -> Sequence[Account]:
        return db.session.scalars(select(Account).order_by(Account.id)).all()

    def get(self, account_id: int) -> Account:
        """Raises NotFound."""
        account = db.session.get(Account, account_id) if account_id < 2**63 else None  # a sign-in names one in JSON
        if account is None:
            raise NotFound(Phrase("There is no account with the id %(id)s.", id=account_id))
        return account

    def named(self, name: str, provider: str | None = None) -> Account:
        """The one account of this name. Raises NotFound, and Conflict when several providers have one."""
        found = [account for account in self.all() if account.name == name and provider in (None, account.provider)]
        if not found:
            raise NotFound(Phrase("There is no account named %(name)r.", name=name))
        if len(found) > 1:
            raise Conflict(
                Phrase("Several providers have an account named %(name)r; say which one as PROVIDER/NAME.", name=name)
            )
        return found[0]

    def create(self, data: Mapping[str, Any], user_id: int | None = None) -> Account:
        """Save a new account, then look whether its provider knows it: the account stays, whatever that finds.

        Raises FieldError, and Conflict when the provider has an account of this name.
        """
        account = self.made(data, user_id)
        self.add([account])
        return self._look(account)

    def made(self, data: Mapping[str, Any], user_id: int | None) -> Account:
        """A checked account that nobody has saved yet. Raises FieldError."""
        provider = account_fields.provider(data.get("provider", "morph"))
        given = {field: value for field, value in data.items() if field not in ("provider", "state")}
        columns = account_fields.checked(provider, given, self._settings)
        account_fields.require(provider, columns)
        if provider == "amazonq":
            columns["oidc"] = {**account_fields.oidc_defaults(), **columns.get("oidc", {})}
        # State written out, because a column's default is there only once the row is.
        account = Account(provider=provider, user_id=user_id, state="active", state_version=0, **columns)
        _switch(account, data.get("state"))
        return account

    def add(self, accounts: Sequence[Account]) -> None:
        """Save new accounts, all or none. Raises Conflict when the provider of one has an account of its name."""
        settings.put(settings.REAL_ACCOUNT_SEEN, True)
        db.session.add_all(accounts)
        self._save(accounts[-1])

    def update(self, account_id: int, data: Mapping[str, Any]) -> Account:
        """Change the fields that are given. Raises NotFound, FieldError, Conflict."""
        account = self.get(account_id)
        if data.get("provider", account.provider) != account.provider:
            raise FieldError("provider", "cannot be changed; add another account instead.")
        account_fields.provider(account.provider)  # one that only another version knows cannot be edited
        columns = account_fields.checked(account.provider, data, self._settings)
        if columns.get("proxy") is not None and columns["proxy"] == shown_proxy(account.proxy):
            del columns["proxy"]  # as it was shown, without its password: unchanged
        if "oidc" in columns:
            columns["oidc"] = {**(account.oidc or {}), **columns["oidc"]}
        changed = {field for field, value in columns.items() if getattr(account, field) != value}
        for field in changed:
            setattr(account, field, columns[field])
        if changed & account_fields.CREDENTIAL:
            _forget(account)
            _forget_tokens(account, changed)
        elif "options" in changed:
            account.learned_options = {k: v for k, v in account.learned_options.items() if k not in account.options}
        _switch(account, data.get("state"))
        self._save(account)
        return self._look(account) if changed & account_fields.CREDENTIAL else account

    def delete(self, account_id: int) -> None:
        """It serves no more and can be restored for a while. Raises NotFound."""
        settings.alone()
        account = self.get(account_id)
        db.session.refresh(account, with_for_update=True)  # whoever renews its tokens now has saved them, or loses
        deleted_accounts.keep(account)
        db.session.commit()

    def enable(self, account_id: int) -> Account:
        """Raises NotFound."""
        return self.update(account_id, {"state": "active"})

    def disable(self, account_id: int) -> Account:
        """Raises NotFound."""
        return self.update(account_id, {"state": "disabled"})

    def reset(self, account_id: int) -> Account:
        """Clear cooling, counters and what made it invalid; a person's switch stays. Raises NotFound."""
        account = self.get(account_id)
        _heal(account)
        db.session.commit()
        return account

    def reset_all(self) -> None:
        """Every account that no person disabled is active at once."""
        for account in self.all():
            _heal(account)
        db.session.commit()

    def learn(self, account_id: int, options: Mapping[str, Any]) -> None:
        """Remember what a provider's refusal taught about its flags. Called between requests, so with a session of its
        own; when the database is away the next refusal teaches it again."""
        try:
            with database.within(LEARN_LIMIT), Session(self._engine) as session, session.begin():
                account = session.get(Account, account_id)
                if account is not None:
                    account.learned_options = {**account.learned_options, **options}
        except SQLAlchemyError as error:
            log.warning("options of account %d could not be saved (%s)", account_id, type(error).__name__)

    def validate(self, account_id: int, deadline: float = validation.DEADLINE) -> dict[str, Any]:
        """Ask the provider now: ``{"id","is_valid","state","latency_ms","message"}``. Raises NotFound, FieldError."""
        account = self.get(account_id)
        account_fields.provider(account.provider)
        asked = validation.question(account)
        db.session.rollback()  # the connection goes back while we wait for the provider
        return self._apply(validation.ask(self._transport, self._tokens, asked, deadline))

    def validate_all(self, accounts: Sequence[Account] | None = None, tell: Tell | None = None) -> dict[str, Any]:
        """Ask about all (or these) accounts, five at once: ``{"total","valid","invalid","results"}``; ``tell`` hears
        of each result as it comes, and whether the provider said something about the credential."""
        chosen = self.all() if accounts is None else accounts
        questions = [validation.question(account) for account in chosen if account.provider in UPSTREAMS]
        db.session.rollback()
        # Only the waiting is done side by side; the session belongs to this greenlet.
        answers = Pool(AT_ONCE).imap(lambda asked: validation.ask(self._transport, self._tokens, asked), questions)
        results = []
        for answer in answers:
            if db.session.get(Account, answer.asked.account_id) is None:
                continue  # deleted while we waited
            results.append(self._apply(answer))
            if tell:
                tell(results[-1], answer.is_clear)
        valid = sum(result["is_valid"] for result in results)
        return {"total": len(results), "valid": valid, "invalid": len(results) - valid, "results": results}

    def look_at(self, accounts: Sequence[Account], seconds: float = LOOK_SECONDS) -> None:
        """Ask about accounts that were just saved, for so long; a job asks about those that are left."""
        give_up = time.monotonic() + seconds
        ids = [account.id for account in accounts]
        while ids and time.monotonic() < give_up:
            some, ids = ids[:AT_ONCE], ids[AT_ONCE:]
            self.validate_all([self.get(account_id) for account_id in some])

    def renew_due(self) -> int:
        """Renew the tokens that come near their end; how many accounts that were."""
        return self._tokens.renew_due()

    def stats(self) -> dict[str, Any]:
        accounts = self.all()
        states = Counter(account.state for account in accounts)
        valid = sum(account.is_valid for account in accounts)
        return {
            "total": len(accounts),
            "valid": valid,
            "invalid": len(accounts) - valid,
            "cooling": states["cooling"],
            "disabled": states["disabled"],
            "usage_count": sum(account.usage_count for account in accounts),
            "error_count": sum(account.error_count for account in accounts),
            "by_provider": dict(Counter(account.provider for account in accounts)),
        }

    def _save(self, account: Account) -> None:
        provider, name = account.provider, account.name
        try:
            db.session.commit()
        except IntegrityError:
            db.session.rollback()
            raise Conflict(
                Phrase("name: %(provider)s has an account named %(name)r already.", provider=provider, name=name)
            ) from None

    def _look(self, account: Account) -> Account:
        """Learn what a just saved account may use; the person waits, so not for long."""
        self.validate(account.id, validation.QUICK_DEADLINE)
        return self.get(account.id)

    def _apply(self, answer: validation.Answer) -> dict[str, Any]:
        account = self.get(answer.asked.account_id)
        if validation.question(account) == answer.asked:  # else somebody changed it while we waited
            validation.apply(account, answer)
        shown = {
            "id": account.id,
            "is_valid": account.is_valid,
            "state": account.state,
            "latency_ms": answer.latency_ms,
            "message": answer.probe.message,
        }
        db.session.commit()  # nothing is read after it: the connection goes back while the next answer is waited for
        return shown


def _switch(account: Account, wanted: Any) -> None:
    """A person's switch. Other states are the machine's: naming the present one changes nothing. Raises FieldError."""
    if wanted in (None, account.state):
        return
    if wanted == "disabled":
        account.state, account.state_reason, account.state_until = "disabled", None, None
        validation.newer(account)
    elif wanted == "active" and account.state == "disabled":
        account.state = "active"
        _heal(account)
    elif wanted != "active":
        raise FieldError("state", 'can be set to "active" or "disabled" only.')


def _heal(account: Account) -> None:
    account.error_count, account.is_valid = 0, True
    validation.newer(account)
    if account.state != "disabled":
        account.state, account.state_reason, account.state_until = "active", None, None


def _forget(account: Account) -> None:
    """It has become another account as far as its provider is concerned."""
    _heal(account)
    account.listed_models, account.listed_at, account.learned_options = None, None, {}


def _forget_tokens(account: Account, changed: set[str]) -> None:
    """Whoever is renewing the old ones must not overwrite what a person has set."""
    if not changed & account_fields.TOKENS:
        return
    account.token_version += 1
    if changed & {"client_id", "client_secret"}:
        account.oidc = {name: value for name, value in (account.oidc or {}).items() if name != "client_expires_at"}
    account.lease_owner = account.lease_until = account.token_refresh_at = account.token_expires_at = None
    if "access_token" not in changed:
        account.access_token = None


def hint(secret: str | None) -> str | None:
    """What is shown of a secret: its last 4 characters, unless that would be too much of it."""
    if not secret:
        return None
    return secret[-4:] if len(secret) >= 12 else "****"


def shown_proxy(proxy: str | None) -> str | None:
    """The proxy's address with its password masked."""
    if not proxy:
        return None
    parts = urlsplit(proxy)
    if parts.password is None:
        return proxy
    login, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{login.partition(':')[0]}:***@{host}"))


def as_json(account: Account) -> dict[str, Any]:
    """The Account of the JSON API."""
    upstream = UPSTREAMS.get(account.provider)
    return {
        "id": account.id,
        "provider": account.provider,
        "name": account.name,
        "api_key_hint": hint(account.api_key),
        "session_key_hint": hint(account.session_key),
        "base_url": account.base_url or (upstream.default_base_url if upstream else None),
        "models": account.models,
        "listed_models": account.listed_models,
        "model_map": account.model_map,
        "options": account.options,
        "learned_options": account.learned_options,
        "priority": account.priority,
        "max_concurrency": account.max_concurrency,
        "proxy": shown_proxy(account.proxy),
        "is_valid": account.is_valid,
        "state": account.state,
        "state_reason": account.state_reason,
        "state_until": rfc3339(account.state_until),
        "last_validated": rfc3339(account.last_validated),
        "last_used": rfc3339(account.last_used),
        "usage_count": account.usage_count,
        "error_count": account.error_count,
        "created_at": rfc3339(account.created_at),
        "updated_at": rfc3339(account.updated_at),
        **(_signed_in(account) if account.provider == "amazonq" else {}),
    }


def _signed_in(account: Account) -> dict[str, Any]:
    """What only accounts have that are signed in to by OIDC."""
    places = account.oidc or {}
    quota = dict(account.quota) if account.quota else None
    if quota:
        quota["resets_at"] = rfc3339(moment_of(quota["resets_at"]))
    shown = {name: places.get(name) for name in account_fields.OIDC}
    shown["token_expires_at"] = rfc3339(account.token_expires_at)
    shown["client_expires_at"] = rfc3339(moment_of(places.get("client_expires_at")))
    return {"oidc": {**shown, "quota": quota, "credits": round(account.credits or 0.0, 4)}}
