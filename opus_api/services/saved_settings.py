"""Settings that a person saves while the service runs (G5): typed, checked, effective in every worker within a second.

A saved one wins over its environment variable, and that over the default.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import IntegrityError

from opus_api import crypto
from opus_api.config import Settings
from opus_api.extensions import db
from opus_api.models import Setting, UserSession
from opus_api.services import api_keys, audit, passwords, settings, users, values
from opus_api.services.values import FieldError
from opus_api.wire.errors import Conflict, Forbidden

Check = Callable[[str, Any], Any]


@dataclass(frozen=True, slots=True)
class Person:
    """Who changes settings: a name for the record, the sign-in that stays, whether the password was just confirmed."""

    name: str
    session: UserSession
    confirmed: bool


def _flag(name: str, value: Any) -> bool:
    return values.flag(name, value)


def _whole(low: int, high: int) -> Check:
    return lambda name, value: values.whole(name, value, low, high)


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 86_400:
        raise FieldError(name, "must be a number of seconds above 0, 86400 at most.")
    return float(value)


def _choice(*allowed: str) -> Check:
    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise FieldError(name, f"must be one of {', '.join(allowed)}.")
        return value

    return check


@dataclass(frozen=True, slots=True)
class Saved:
    """``field`` of config.Settings holds the value while nothing is saved; without one, ``default`` does."""

    check: Check
    help: str
    default: Any = None
    field: str = ""


SAVED: Mapping[str, Saved] = {
    "debugLog": Saved(_flag, "Keep whole exchanges in files, secrets redacted.", False),
    "enableRequestLog": Saved(_flag, "Keep a row for each request; counters and limits go on without.", True),
    "logRetentionDays": Saved(_whole(1, 3650), "Days that rows of the request log are kept.", 30),
    "enableIPRateLimit": Saved(_flag, "Limit requests per address; always on with ANONYMOUS_ACCESS=on.", False),
    "ipRateLimitWindow": Saved(_whole(1, 1440), "Minutes in which requests of an address are counted.", 1),
    "ipRateLimitMax": Saved(_whole(1, 1_000_000), "Requests of one address in that time.", 100),
    "rotationStrategy": Saved(
        _choice("priority", "round_robin", "least_used"), "Which account is next.", field="rotation_strategy"
    ),
    "sticky": Saved(_flag, "Turns of a conversation go to the account that had its first one.", True),
    "cookieMaxErrorCount": Saved(
        _whole(1, 1000), "Failures in a row before an account is taken out.", field="cookie_max_error_count"
    ),
    "maxAttempts": Saved(_whole(1, 10), "Tries of one request whose work may have begun.", field="max_attempts"),
    "pingInterval": Saved(_seconds, "Seconds of silence before a ping is sent.", field="ping_interval"),
    "upstreamConnectTimeout": Saved(_seconds, "Seconds to connect to an upstream.", field="upstream_connect_timeout"),
    "upstreamFirstEventTimeout": Saved(
        _seconds, "Seconds to an upstream's first body byte.", field="upstream_first_event_timeout"
    ),
    "upstreamIdleTimeout": Saved(
        _seconds, "Seconds an upstream may be silent within an answer.", field="upstream_idle_timeout"
    ),
    "upstreamTotalTimeout": Saved(
        _seconds, "Seconds until content, or for a whole answer without streaming.", field="upstream_total_timeout"
    ),
}

# Written, never read back; null means unchanged, so that what was read can be sent back.
SECRETS: Mapping[str, str] = {
    "apiKey": "Value of the API key named default; empty revokes it.",
    "adminPassword": "The first administrator's password.",
    "metricsToken": "Bearer token for /metrics and /ready; empty: none.",
}

NAMED_KEY = "default"


def value(saved: Mapping[str, Any], configured: Settings, name: str) -> Any:
    """What holds now: saved, from the environment, or the default."""
    known = SAVED[name]
    return saved.get(name, getattr(configured, known.field) if known.field else known.default)


def effective(configured: Settings, saved: Mapping[str, Any]) -> Settings:
    """The process's settings with what a person saved."""
    changes = {known.field: saved[name] for name, known in SAVED.items() if known.field and name in saved}
    return dataclasses.replace(configured, **changes) if changes else configured


def rows() -> dict[str, Any]:
    """What is saved, in the session of the current app context."""
    return {row.key: row.value for row in db.session.query(Setting) if row.key in SAVED}


def as_json(configured: Settings) -> dict[str, Any]:
    """All settings; secrets as null."""
    saved = rows()
    return {name: value(saved, configured, name) for name in SAVED} | dict.fromkeys(SECRETS)


def log_days() -> int:
    """``logRetentionDays``, in the session of the current app context."""
    days: int = settings.get("logRetentionDays", SAVED["logRetentionDays"].default)
    return days


# ---- changing them


def change(data: Mapping[str, Any], caller: Person, configured: Settings, pepper: bytes) -> None:
    """Save all of ``data`` or nothing; a password needs a confirmation. Raises FieldError, Forbidden, Conflict."""
    values.known(data, SAVED.keys() | SECRETS.keys())
    checked = {name: SAVED[name].check(name, given) for name, given in data.items() if name in SAVED}
    secrets = {name: given for name, given in data.items() if name in SECRETS and given is not None}
    saves = [_secret(name, given, caller, pepper) for name, given in secrets.items()]
    saved = rows()
    for name, wanted in checked.items():
        before = value(saved, configured, name)
        if name not in saved or before != wanted:
            settings.put(name, wanted)
        if before != wanted:
            audit.note(caller.name, name, before, wanted)
    try:
        for name, save in zip(secrets, saves, strict=True):
            save()
            audit.note(caller.name, name)
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        raise Conflict("apiKey: this value was given to another key before; take another one.") from None


def _secret(name: str, given: Any, caller: Person, pepper: bytes) -> Callable[[], None]:
    """Checks a secret and returns what saves it. Raises FieldError, Forbidden."""
    if name == "adminPassword":
        if not caller.confirmed:
            raise Forbidden("adminPassword: confirm with your own password first: POST /api/auth/confirm.")
        password_hash = passwords.hashed(passwords.check(name, given))
        return lambda: users.set_first_password(password_hash, caller.session)
    if not isinstance(given, str):
        raise FieldError(name, "must be text.")
    if name == "apiKey":
        key_value = api_keys.checked_value(name, given) if given else ""
        return lambda: api_keys.replace(pepper, NAMED_KEY, key_value)
    token_hash = crypto.token_hash(api_keys.checked_value(name, given)) if given else ""
    return lambda: settings.put(name, token_hash)
