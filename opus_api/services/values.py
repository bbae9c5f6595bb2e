"""Checking what a person sends, field by field, and saying what is wrong in one sentence that names the field."""

import re
from collections.abc import Collection, Mapping, Sized
from datetime import UTC, datetime
from typing import Any

from opus_api.wire.errors import Phrase, Unprocessable

MOST_PATTERNS = 200
NAME = re.compile(r"[^\x00-\x1f\x7f]{1,100}")


class FieldError(Unprocessable):
    """One field's value is not acceptable; ``field`` is its name in the JSON API, in forms and in the CLI."""

    def __init__(self, field: str, reason: str):
        self.field = field
        self.reason = reason if isinstance(reason, Phrase) else Phrase(reason)
        super().__init__(Phrase("%(field)s: %(reason)s", field=field, reason=self.reason))


def rfc3339(moment: datetime | None) -> str | None:
    """As the JSON API writes times: UTC, whole seconds, ``Z``."""
    # Not strftime: it writes the year 299 with three digits.
    return f"{moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat()}Z" if moment else None


def moment_of(unix: float | None) -> datetime | None:
    return datetime.fromtimestamp(unix, UTC) if unix else None


def month_of(unix: float) -> str:
    """The calendar month of a Unix time in UTC, as 2026-01."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m")


def moment(field: str, value: Any) -> datetime | None:
    """An RFC 3339 time with its zone, or None. Raises FieldError."""
    if value is None:
        return None
    try:
        parsed = datetime.fromisoformat(value)
        if parsed.tzinfo is not None:
            return parsed.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):  # the last: in UTC it is in the year 0 or 10000
        pass
    raise FieldError(field, "must be a time such as 2026-01-31T12:00:00Z, or null.")


def known(data: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Raises FieldError for the first field that nobody reads."""
    for field in data:
        if field not in allowed:
            raise FieldError(field, "is not a field of this request.")


def text(field: str, value: Any, limit: int = 500, required: bool = False) -> str:
    """Text without surrounding white space; null is empty. Raises FieldError."""
    if value is not None and not isinstance(value, str):
        raise FieldError(field, "must be text.")
    cleaned: str = (value or "").strip()
    if required and not cleaned:
        raise FieldError(field, "is required.")
    if len(cleaned) > limit:
        raise FieldError(field, Phrase("must be at most %(n)s characters.", n=limit))
    if "\x00" in cleaned:
        raise FieldError(field, "must not contain a NUL character.")
    if any("\ud800" <= one <= "\udfff" for one in cleaned):  # a file's JSON may spell one; no database keeps it
        raise FieldError(field, "must not contain half of a character.")
    return cleaned


def name(field: str, value: Any) -> str:
    """1 to 100 printable characters. Raises FieldError."""
    cleaned = text(field, value, limit=100, required=True)
    if not NAME.fullmatch(cleaned):
        raise FieldError(field, "must not contain control characters.")
    return cleaned


def whole(field: str, value: Any, low: int, high: int) -> int:
    """Raises FieldError."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise FieldError(field, Phrase("must be a whole number between %(low)s and %(high)s.", low=low, high=high))
    return value


def flag(field: str, value: Any) -> bool:
    """Raises FieldError."""
    if not isinstance(value, bool):
        raise FieldError(field, "must be true or false.")
    return value


def few(field: str, value: Sized) -> None:
    """Raises FieldError when it has more entries than a form shows and a request can be compared with."""
    if len(value) > MOST_PATTERNS:
        told = Phrase("has more than %(n)s entries; one such as claude-* stands for several.", n=MOST_PATTERNS)
        raise FieldError(field, told)


def patterns(field: str, value: Any) -> list[str] | None:
    """A list of globs, or None. Raises FieldError."""
    if value is None:
        return None
    if not isinstance(value, list):
        raise FieldError(field, "must be null or a list of model names such as claude-*.")
    few(field, value)
    return [text(f"{field}[{i}]", item, limit=200, required=True) for i, item in enumerate(value)]
