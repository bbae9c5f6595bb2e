"""Settings that a person saves while the service runs (G5): typed, checked, effective in every worker within a second.

A saved one wins over its environment variable, and that over the default.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.exc import IntegrityError

from opus_api import crypto
from opus_api.config import Settings
from opus_api.extensions import db
from opus_api.models import Setting, UserSession
from opus_api.services import api_keys, audit, passwords, settings, users, values
from opus_api.services.values import FieldError, rfc3339
from opus_api.wire.errors import Conflict, Forbidden, Phrase

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
            raise FieldError(name, Phrase("must be one of %(names)s.", names=", ".join(allowed)))
        return value

    return check


@dataclass(frozen=True, slots=True)
class Saved:
    """``field`` of config.Settings holds the value while nothing is saved; without one, ``default`` does."""

    section: str
    label: str
    check: Check
    help: str
    default: Any = None
    field: str = ""


# In the order of the page.
SECTIONS = ACCOUNTS, ADDRESSES, LOG, WAITING = (
    "Accounts and retries",
    "Limit per address",
    "Request log",
    "Waiting for providers",
)

SAVED: Mapping[str, Saved] = {
    "debugLog": Saved(LOG, "Debug log", _flag, "Keep whole exchanges in files, secrets redacted.", field="debug_mode"),
    "debugLogMinutes": Saved(
        LOG, "Minutes of debug log", _whole(1, 1440), "Minutes after which debugLog switches itself off.", 60
    ),
    "enableRequestLog": Saved(
        LOG, "Keep a log", _flag, "Keep a row for each request; counters and limits go on without.", True
    ),
    "logRetentionDays": Saved(LOG, "Days to keep", _whole(1, 3650), "Days that rows of the request log are kept.", 30),
    "logRetentionMiB": Saved(
        LOG, "MiB to keep", _whole(1, 1_048_576), "MiB that the request log may take; the oldest rows go first.", 1024
    ),
    "enableIPRateLimit": Saved(
        ADDRESSES, "Limit each address", _flag, "Limit requests per address; always on with ANONYMOUS_ACCESS=on.", False
    ),
    "ipRateLimitWindow": Saved(
        ADDRESSES, "Minutes", _whole(1, 1440), "Minutes in which requests of an address are counted.", 1
    ),
    "ipRateLimitMax": Saved(ADDRESSES, "Requests", _whole(1, 1_000_000), "Requests of one address in that time.", 100),
    "rotationStrategy": Saved(
        ACCOUNTS,
        "Who answers next",
        _choice("priority", "round_robin", "least_used"),
        "Which account is next.",
        field="rotation_strategy",
    ),
    "sticky": Saved(
        ACCOUNTS,
        "Keep conversations together",
        _flag,
        "Turns of a conversation go to the account that had its first one.",
        True,
    ),
    "cookieMaxErrorCount": Saved(
        ACCOUNTS,
        "Failures allowed",
        _whole(1, 1000),
        "Failures in a row before an account is taken out.",
        field="cookie_max_error_count",
    ),
    "maxAttempts": Saved(
        ACCOUNTS,
        "Tries of a request",
        _whole(1, 10),
        "Tries of one request whose work may have begun.",
        field="max_attempts",
    ),
    "pingInterval": Saved(
        WAITING, "Ping after", _seconds, "Seconds of silence before a ping is sent.", field="ping_interval"
    ),
    "upstreamConnectTimeout": Saved(
        WAITING, "Connect within", _seconds, "Seconds to connect to an upstream.", field="upstream_connect_timeout"
    ),
    "upstreamFirstEventTimeout": Saved(
        WAITING,
        "First byte within",
        _seconds,
        "Seconds to an upstream's first body byte.",
        field="upstream_first_event_timeout",
    ),
    "upstreamIdleTimeout": Saved(
        WAITING,
        "Longest silence",
        _seconds,
        "Seconds an upstream may be silent within an answer.",
        field="upstream_idle_timeout",
    ),
    "upstreamTotalTimeout": Saved(
        WAITING,
        "Content within",
        _seconds,
        "Seconds until content, or for a whole answer without streaming.",
        field="upstream_total_timeout",
    ),
}

# Written, never read back; null means unchanged, so that what was read can be sent back.
SECRETS: Mapping[str, str] = {
    "apiKey": "Value of the API key named default; empty revokes it.",
    "adminPassword": "The first administrator's password.",
    "metricsToken": "Bearer token for /metrics and /ready; empty: none.",
}

# Shown, and left alone when it is sent back: when debugLog switches itself off.
DEBUG_UNTIL = "debugLogUntil"

NAMED_KEY = "default"


def value(saved: Mapping[str, Any], configured: Settings, name: str) -> Any:
    """What holds now: saved, from the environment, or the default."""
    known = SAVED[name]
    return saved.get(name, getattr(configured, known.field) if known.field else known.default)


def unsaved(configured: Settings, name: str) -> Any:
    """What holds while nothing is saved: the environment's, or the default."""
    return value({}, configured, name)


def variable(configured: Settings, name: str) -> str:
    """The environment variable that gives the value while nothing is saved; "" for the default."""
    item = Settings.__dataclass_fields__.get(SAVED[name].field)
    variable = str(item.metadata["env"]) if item else ""
    return variable if variable in configured.given else ""


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
    shown = {name: value(saved, configured, name) for name in SAVED}
    until = settings.get(DEBUG_UNTIL) if saved.get("debugLog") else None
    return {**shown, DEBUG_UNTIL: until and rfc3339(datetime.fromtimestamp(until, UTC)), **dict.fromkeys(SECRETS)}


def debug_until(saved: Mapping[str, Any], configured: Settings, began: float) -> float:
    """Until when exchanges are kept in files (Unix seconds; 0: they are not). DEBUG_MODE counts from ``began``, when
    the process did."""
    if not value(saved, configured, "debugLog"):
        return 0.0
    if "debugLog" in saved:
        return float(saved.get(DEBUG_UNTIL, 0.0))
    return began + 60.0 * int(value(saved, configured, "debugLogMinutes"))


def end_debug_log() -> bool:
    """Switch debugLog off if its time is over; whether it was."""
    if not settings.get("debugLog") or settings.get(DEBUG_UNTIL, 0.0) > time.time():
        return False
    settings.put("debugLog", False)
    audit.note(audit.MACHINE, "debugLog", True, False)
    db.session.commit()
    return True


def log_days() -> int:
    """``logRetentionDays``, in the session of the current app context."""
    days: int = settings.get("logRetentionDays", SAVED["logRetentionDays"].default)
    return days


def log_mib() -> int:
    """``logRetentionMiB``, likewise."""
    mib: int = settings.get("logRetentionMiB", SAVED["logRetentionMiB"].default)
    return mib


# ---- changing them


def change(data: Mapping[str, Any], caller: Person, configured: Settings, pepper: bytes) -> None:
    """Save all of ``data`` or nothing; a password needs a confirmation. Raises FieldError, Forbidden, Conflict."""
    values.known(data, {*SAVED, *SECRETS, DEBUG_UNTIL})
    checked = {name: SAVED[name].check(name, given) for name, given in data.items() if name in SAVED}
    secrets = {name: given for name, given in data.items() if name in SECRETS and given is not None}
    saves = [_secret(name, given, caller, pepper) for name, given in secrets.items()]
    settings.alone()
    saved = rows()
    for name, wanted in checked.items():
        before = value(saved, configured, name)
        if name not in saved or before != wanted:
            settings.put(name, wanted)
        if before != wanted:
            audit.note(caller.name, name, before, wanted)
    _set_debug_end(saved, checked, configured)
    try:
        for name, save in zip(secrets, saves, strict=True):
            save()
            audit.note(caller.name, name)
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        raise Conflict("apiKey: this value was given to another key before; take another one.") from None


def _set_debug_end(saved: Mapping[str, Any], checked: Mapping[str, Any], configured: Settings) -> None:
    """Counted anew when debugLog is switched on, and when a person changes for how long."""
    before = value(saved, configured, "debugLogMinutes")
    minutes = checked.get("debugLogMinutes", before)
    was_on, is_on = bool(saved.get("debugLog")), checked.get("debugLog", saved.get("debugLog"))
    if is_on and (not was_on or minutes != before):
        settings.put(DEBUG_UNTIL, time.time() + 60 * minutes)


def forget(name: str, caller: Person, configured: Settings) -> None:
    """Back to what the environment says, or the default. Raises FieldError for what cannot be saved at all."""
    values.known({name: None}, SAVED)
    settings.alone()
    saved = rows()
    if name not in saved:
        return
    settings.drop(name)
    before, after = saved[name], unsaved(configured, name)
    if before != after:
        audit.note(caller.name, name, before, after)
    db.session.commit()


def has_secret(name: str) -> bool:
    """Whether a value of ``metricsToken`` or ``apiKey`` is in force."""
    if name == "apiKey":
        return api_keys.live(NAMED_KEY) is not None
    return bool(settings.get(name))


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
