"""What each call of the JSON API takes and gives. A route that is missing here fails a test (tests/test_app.py)."""

from collections.abc import Mapping
from dataclasses import dataclass

from opus_api.config import Settings
from opus_api.services import refusals, statistics
from opus_api.services.logs import MOST
from opus_api.web import openapi_schemas as schemas
from opus_api.web.openapi_schemas import Schema

JSON = "application/json"


@dataclass(frozen=True)
class Operation:
    """``gives``: the schema of a success, None for one without a body. ``also``: further statuses with a schema."""

    gives: Schema | None = None
    takes: Schema | None = None
    query: Mapping[str, Schema] | None = None
    status: int = 200
    is_optional: bool = False  # the body
    streams: bool = False
    media: str = JSON
    also: Mapping[int, Schema] | None = None
    fails: tuple[int, ...] = ()  # statuses beside those that every call of its kind may have


def _done(takes: Schema | None = None) -> Operation:
    return Operation(None, takes, status=204)


def _made(gives: Schema, takes: Schema, fails: tuple[int, ...] = ()) -> Operation:
    return Operation(gives, takes, status=201, fails=fails)


_SPAN = {"from": schemas.TIME, "to": schemas.TIME}
_LOG = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MOST},
    "before": schemas.TEXT,
    "key": schemas.COUNT,
    "account": schemas.COUNT,
    "model": schemas.TEXT,
    "status": schemas.COUNT,
    "outcome": schemas.TEXT,
    **_SPAN,
}
_MODELS = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 1000},
    "after_id": schemas.TEXT,
    "before_id": schemas.TEXT,
}


def operations(settings: Settings) -> Mapping[str, Operation]:
    """By endpoint."""
    shown, changed = schemas.settings(settings)
    return {**_CLIENTS, **_MANAGEMENT, **_settings(shown, changed)}


def _settings(shown: Schema, changed: Schema) -> dict[str, Operation]:
    return {
        "management.show_settings": Operation(shown),
        "management.change_settings": Operation(shown, changed),
        "management.forget_setting": _done(),
    }


_CLIENTS: dict[str, Operation] = {
    "health.health": Operation(schemas.HEALTH),
    "health.healthz": Operation(schemas.shows(status={"const": "ok"})),
    "health.show_metrics": Operation(schemas.TEXT, media="text/plain"),
    "health.ready": Operation(schemas.READY, also={503: schemas.READY}),
    "openapi.index": Operation(schemas.OBJECT),
    "messages.messages": Operation(schemas.MESSAGE, schemas.MESSAGE_REQUEST, streams=True),
    "messages.count_tokens": Operation(schemas.COUNTED, schemas.COUNT_REQUEST),
    "messages.chat_completions": Operation(schemas.COMPLETION, schemas.CHAT_REQUEST, streams=True),
    "messages.models": Operation(schemas.MODELS, query=_MODELS),
    "messages.model": Operation(schemas.MODEL),
}

_MANAGEMENT: dict[str, Operation] = {
    "auth.login": Operation(schemas.TOKEN, schemas.CREDENTIALS),
    "auth.logout": _done(),
    "auth.me": Operation(schemas.PERSON),
    "auth.password": _done(schemas.NEW_PASSWORD),
    "auth.confirm": _done(schemas.CONFIRMATION),
    "cookies.index": Operation(schemas.listed(schemas.ACCOUNT)),
    "cookies.create": _made(schemas.ACCOUNT, schemas.NEW_ACCOUNT),
    "cookies.show": Operation(schemas.ACCOUNT),
    "cookies.update": Operation(schemas.ACCOUNT, schemas.CHANGED_ACCOUNT),
    "cookies.delete": _done(),
    "cookies.validate": Operation(schemas.VALIDATED),
    "cookies.validate_all": Operation(schemas.VALIDATED_ALL),
    "cookies.reset": Operation(schemas.ACCOUNT),
    "cookies.stats": Operation(schemas.STATS),
    "keys.index": Operation(schemas.listed(schemas.KEY)),
    "keys.create": _made(schemas.CREATED_KEY, schemas.NEW_KEY),
    "keys.show": Operation(schemas.KEY),
    "keys.update": Operation(schemas.KEY, schemas.CHANGED_KEY),
    "keys.revoke": _done(),
    "management.index": Operation(schemas.listed(schemas.ACCOUNT)),
    "management.create": _made(schemas.ACCOUNT, schemas.NEW_ACCOUNT),
    "management.delete": _done(),
    "management.feed_accounts": Operation(schemas.FED, schemas.FEED),
    "management.import_accounts": Operation(schemas.FED, schemas.EXPORT),
    "management.export_accounts": Operation(schemas.EXPORT, query={"secrets": schemas.one_of("0", "1")}),
    "management.account_events_of": Operation(schemas.listed(schemas.EVENT)),
    "management.index_deleted_accounts": Operation(schemas.listed(schemas.DELETED_ACCOUNT)),
    "management.restore_account": Operation(schemas.ACCOUNT),
    "management.erase_account": _done(),
    "management.reset_accounts": _done(),
    "management.start_sign_in": Operation(schemas.SIGN_IN, schemas.NEW_SIGN_IN, fails=(502,)),
    "management.show_sign_in": Operation(schemas.SIGN_IN_STATUS),
    "management.index_jobs": Operation(schemas.listed(schemas.JOB)),
    "management.index_changes": Operation(schemas.listed(schemas.CHANGE)),
    "management.explain_request": Operation(schemas.EXPLANATION),
    "management.blocked_ips": Operation(schemas.listed(schemas.BLOCKED)),
    "management.block_ip": _made(schemas.BLOCKED, schemas.BLOCK),
    "management.unblock_ip": _done(schemas.UNBLOCK),
    "logs.index": Operation(schemas.PAGE, query=_LOG),
    "logs.stats": Operation(schemas.STATISTICS, query={"by": schemas.one_of(*statistics.BY), **_SPAN}),
    "logs.refused": Operation(
        schemas.REFUSED, query={"by": schemas.one_of(*refusals.BY), "ip": schemas.TEXT, "limit": _LOG["limit"], **_SPAN}
    ),
    "logs.cleanup": Operation(
        schemas.shows(deleted=schemas.COUNT),
        schemas.takes("days", days={"type": "integer", "minimum": 0, "maximum": 36_500}),
    ),
}
