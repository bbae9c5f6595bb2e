"""Notes what the client of the present request met, for whoever sets it up (/connect)."""

import time

from flask import current_app, request

from opus_api import crypto
from opus_api.services.contacts import LONGEST, Contact, Contacts, looks_like
from opus_api.web.client import client_ip, presented_keys
from opus_api.wire.errors import ApiError


def service() -> Contacts:
    """The service of this app."""
    found: Contacts = current_app.extensions["contacts"]
    return found


def note(error: ApiError | None = None, request_id: str = "") -> None:
    """A refusal, or a call that went well and leaves no row."""
    if request.blueprint == "chat_pages":
        return  # a person's own test
    presented = presented_keys(request)
    key = presented[0] if presented else ""
    owner = current_app.extensions.get("installation")
    found = Contact(
        time=time.time(),
        request_id=request_id,
        address=client_ip(request, current_app.extensions["settings"]),
        method=request.method,
        path=request.path[:LONGEST],
        status=error.status if error else 200,
        type=error.type if error else "",
        message=error.message[:LONGEST] if error else "",
        key=crypto.keyed_hash(owner.pepper, key) if key and owner else "",
        looks_like=looks_like(key),
    )
    service().note(found)
