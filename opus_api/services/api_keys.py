"""API keys: made, listed, revoked. Checking a caller's key needs no query; ``Snapshot.keys`` has them by hash."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from opus_api import crypto
from opus_api.extensions import db
from opus_api.models import ApiKey, now
from opus_api.services import audit, settings, values
from opus_api.services.values import FieldError, rfc3339
from opus_api.wire.errors import Conflict, NotFound, Phrase

LIMITS = ("rpm", "itpm", "otpm", "concurrency", "monthly_tokens")
LIVE, REVOKED = "live", "revoked"  # what the audit calls it
MIN_LENGTH, MAX_LENGTH = 16, 500


def every() -> Sequence[ApiKey]:
    """Revoked ones too, oldest first."""
    return db.session.scalars(select(ApiKey).order_by(ApiKey.id)).all()


def create(pepper: bytes, data: Mapping[str, Any]) -> tuple[ApiKey, str]:
    """A new key and its value, which is nowhere else. ``data`` as POST /api/keys takes it, and ``value``.

    Raises FieldError, and Conflict when a live key has the name or any key has the value.
    """
    values.known(data, {"name", "value", "models", "limits", "expires_at", "override"})
    name = values.name("name", data.get("name"))
    given = data.get("value")
    value = crypto.new_api_key() if given is None else checked_value("value", given)
    settings.alone()
    if live(name) is not None:
        raise Conflict(Phrase("name: there is a key named %(name)r already.", name=name))
    key = ApiKey(
        name=name,
        key_hash=crypto.keyed_hash(pepper, value),
        hint=value[-4:],
        override=values.flag("override", data.get("override", False)),
        models=values.patterns("models", data.get("models")),
        limits=_limits(data.get("limits")),
        expires_at=_end(data.get("expires_at")),
    )
    db.session.add(key)
    audit.note_own(_noted(name), None, LIVE)
    try:
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        raise Conflict("value: this value was given to a key before; take another one.") from None
    return key, value


def update(key_id: int, data: Mapping[str, Any]) -> ApiKey:
    """Change the fields that are given; limits as a whole. Raises NotFound, FieldError, Conflict."""
    key = get(key_id)
    values.known(data, {"name", "models", "limits", "expires_at", "override"})
    changed: dict[str, Any] = {}
    if "name" in data:
        changed["name"] = values.name("name", data["name"])
    if "override" in data:
        changed["override"] = values.flag("override", data["override"])
    if "models" in data:
        changed["models"] = values.patterns("models", data["models"])
    if "limits" in data:
        changed["limits"] = _limits(data["limits"])
    if "expires_at" in data:
        changed["expires_at"] = _end(data["expires_at"], key.expires_at)
    settings.alone()
    if key.revoked_at is not None:
        raise Conflict("This key is revoked; create another one.")
    if changed.get("name", key.name) != key.name and live(changed["name"]) is not None:
        raise Conflict(Phrase("name: there is a key named %(name)r already.", name=changed["name"]))
    before = {field: getattr(key, field) for field, value in changed.items() if getattr(key, field) != value}
    after = {field: changed[field] for field in before}
    if before:
        audit.note_own(_noted(key.name), _plain(before), _plain(after))
    for field, value in after.items():
        setattr(key, field, value)
    db.session.commit()
    return key


def replace(pepper: bytes, name: str, value: str) -> None:
    """Give the key of this name another value, or make it; "" revokes it. Within the caller's transaction.

    Raises IntegrityError when another key has the value.
    """
    key = live(name)
    if not value:
        if key is not None:
            key.revoked_at = now()
        return
    key_hash = crypto.keyed_hash(pepper, value)
    if key is None:  # the same value may come back
        key = db.session.scalar(select(ApiKey).where(ApiKey.name == name, ApiKey.key_hash == key_hash))
    if key is None:
        key = ApiKey(name=name, limits={})
        db.session.add(key)
    key.key_hash, key.hint, key.revoked_at, key.expires_at = key_hash, value[-4:], None, None
    db.session.flush()


def revoke(key: ApiKey) -> None:
    """It stops working within a second, everywhere."""
    if key.revoked_at is None:
        key.revoked_at = now()
        audit.note_own(_noted(key.name), LIVE, REVOKED)
        db.session.commit()


def _noted(name: str) -> str:
    return f"key {name}"


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON keeps them."""
    return {name: rfc3339(value) if isinstance(value, datetime) else value for name, value in fields.items()}


def named(name: str) -> ApiKey:
    """The live key of this name. Raises NotFound."""
    key = live(name)
    if key is None:
        raise NotFound(Phrase("There is no key named %(name)r.", name=name))
    return key


def get(key_id: int) -> ApiKey:
    """Raises NotFound."""
    key = db.session.get(ApiKey, key_id) if key_id < 2**63 else None
    if key is None:
        raise NotFound(Phrase("There is no key with the id %(id)s.", id=key_id))
    return key


def as_json(key: ApiKey) -> dict[str, Any]:
    """The key of the JSON API; its value is not in it."""
    return {
        "id": key.id,
        "name": key.name,
        "hint": key.hint,
        "created_at": rfc3339(key.created_at),
        "expires_at": rfc3339(key.expires_at),
        "revoked_at": rfc3339(key.revoked_at),
        "last_used": rfc3339(key.last_used),
        "override": key.override,
        "models": key.models,
        "limits": {limit: key.limits.get(limit) for limit in LIMITS},
        "usage": {
            "requests": key.requests,
            "input_tokens": key.input_tokens,
            "output_tokens": key.output_tokens,
        },
    }


def live(name: str) -> ApiKey | None:
    """The key of this name that is not revoked."""
    return db.session.scalar(select(ApiKey).where(ApiKey.name == name, ApiKey.revoked_at.is_(None)))


def checked_value(field: str, given: Any) -> str:
    """A key or token that somebody chose. Raises FieldError."""
    value = values.text(field, given, limit=MAX_LENGTH)
    if len(value) < MIN_LENGTH:
        raise FieldError(field, Phrase("must be at least %(n)s characters.", n=MIN_LENGTH))
    if any(not " " < character <= "~" for character in value):
        raise FieldError(field, "must be printable ASCII without spaces, because it travels in a header.")
    return value


def _end(given: Any, before: datetime | None = None) -> datetime | None:
    """Until when a key works. One that has expired already may be sent back with its end. Raises FieldError."""
    end = values.moment("expires_at", given)
    if end is not None and end <= now() and end != before:
        raise FieldError("expires_at", "must lie ahead.")
    return end


def _limits(given: Any) -> dict[str, int]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise FieldError("limits", "must be an object.")
    values.known({f"limits.{limit}": 0 for limit in given}, {f"limits.{limit}" for limit in LIMITS})
    return {
        limit: values.whole(f"limits.{limit}", amount, 1, 10**15)
        for limit, amount in given.items()
        if amount is not None
    }
