"""What became of a client that somebody sets up: its first request, or the mistake that keeps it out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

import sqlalchemy as sa
from sqlalchemy import Connection, RowMapping, select

from opus_api.models import EPOCH, ApiKey, RequestLog
from opus_api.services.contacts import Contact

LOGS, KEYS = cast(sa.Table, RequestLog.__table__), cast(sa.Table, ApiKey.__table__)
MOST = 20  # rows that are looked at

Values = RowMapping


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose requests count: those with the key, or with any key from the address; ``since`` in Unix seconds."""

    key_id: int | None
    address: str
    since: float
    may_be_anonymous: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """``what``: waiting, connected, or the name of a mistake. ``detail``: the error's message, a path, a key's name."""

    what: str
    time: datetime = EPOCH
    detail: str = ""
    request_id: str = ""  # of a row in the log
    model: str = ""

    @property
    def kind(self) -> str:
        """waiting | connected | mistake"""
        return self.what if self.what in ("waiting", "connected") else "mistake"


def look(connection: Connection, wanted: Wanted, contacts: Sequence[Contact]) -> Finding:
    """Success wins over mistakes that came before it, the newest mistake over older ones."""
    keys = _keys(connection)
    rows = {row["request_id"]: row for row in _rows(connection, wanted)}
    told = {contact.request_id for contact in contacts}
    found = [_of_row(row, wanted, keys) for row in rows.values() if row["request_id"] not in told]
    found += [_of_contact(contact, wanted, keys, rows) for contact in contacts]
    known = sorted((one for one in found if one), key=lambda one: one.time, reverse=True)
    good = [one for one in known if one.what == "connected"]
    return (good or known or [Finding("waiting")])[0]


def _keys(connection: Connection) -> dict[str, Values]:
    """Revoked ones too, by their hash."""
    columns = KEYS.c["id", "name", "key_hash", "revoked_at", "expires_at"]
    return {row["key_hash"]: row for row in connection.execute(select(*columns)).mappings()}


def _rows(connection: Connection, wanted: Wanted) -> Sequence[Values]:
    whose = LOGS.c.client_ip == wanted.address
    if wanted.key_id is not None:
        whose |= LOGS.c.key_id == wanted.key_id
    newest = select(LOGS).where(LOGS.c.time >= datetime.fromtimestamp(wanted.since, UTC), whose)
    return connection.execute(newest.order_by(LOGS.c.time.desc()).limit(MOST)).mappings().all()


def _of_row(row: Values, wanted: Wanted, keys: Mapping[str, Values]) -> Finding | None:
    key_id = row["key_id"]
    if key_id is None and not wanted.may_be_anonymous:
        return None  # a test of a person who is signed in
    more = {"time": row["time"], "request_id": row["request_id"], "model": row["model"]}
    if wanted.key_id is not None and key_id != wanted.key_id:
        if key_id is None:
            return Finding("anonymous", **more)
        return Finding("other_key", detail=next((k["name"] for k in keys.values() if k["id"] == key_id), ""), **more)
    if row["outcome"] in ("ok", "client_gone"):
        return Finding("connected", **more)
    return Finding("invalid" if row["outcome"] == "client_error" else "no_answer", **more)


def _of_contact(
    contact: Contact, wanted: Wanted, keys: Mapping[str, Values], rows: Mapping[str, Values]
) -> Finding | None:
    key = keys.get(contact.key)
    is_ours = wanted.key_id is None or (key is not None and key["id"] == wanted.key_id)
    if contact.address != wanted.address and (wanted.key_id is None or not is_ours):
        return None
    what, detail = _meaning(contact, key, is_ours)
    row = rows.get(contact.request_id)
    logged = {"request_id": contact.request_id, "model": row["model"]} if row else {}
    return Finding(what, datetime.fromtimestamp(contact.time, UTC), detail, **logged)


def _meaning(contact: Contact, key: Values | None, is_ours: bool) -> tuple[str, str]:
    """The finding's name and its detail."""
    name = str(key["name"]) if key else ""
    if contact.status == 200:
        return ("connected", "") if is_ours else ("other_key" if key else "anonymous", name)
    if contact.status == 401:
        return _wrong_key(contact, key), name
    if contact.status == 404 and contact.message.startswith("model:"):
        return "model", contact.message
    if contact.status in (404, 405):
        return "path", f"{contact.method} {contact.path}"
    what = {403: "forbidden", 429: "limit"}.get(contact.status)
    return what or ("invalid" if contact.status < 500 else "no_answer"), contact.message


def _wrong_key(contact: Contact, key: Values | None) -> str:
    if key is not None:
        return "revoked" if key["revoked_at"] else "expired"
    if not contact.key:
        return "no_key"
    return {"placeholder": "placeholder", "anthropic": "vendor_key"}.get(contact.looks_like, "wrong_key")
