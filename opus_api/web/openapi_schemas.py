"""JSON Schemas (2020-12) of what the JSON API takes and gives, from the tables that check and fill it. Pure."""

from collections.abc import Mapping
from typing import Any

from opus_api.services import account_fields, saved_settings
from opus_api.services.api_keys import LIMITS
from opus_api.services.logs import NAMES, SHOWN
from opus_api.services.transfer import MOST
from opus_api.upstreams import UPSTREAMS

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
# Of a stream: each of its events. OpenAI's have no name.
STREAMED: Schema = {"type": "object", "properties": {"event": TEXT, "data": TEXT}, "required": ["data"]}
FLAG: Schema = {"type": "boolean"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TIME: Schema = {"type": "string", "format": "date-time"}
ANY: Schema = {}
OBJECT: Schema = {"type": "object"}


def one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def maybe(schema: Schema) -> Schema:
    """It, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def every(schema: Schema, most: int | None = None) -> Schema:
    return {"type": "array", "items": schema} | ({"maxItems": most} if most else {})


def by_name(schema: Schema) -> Schema:
    return {"type": "object", "additionalProperties": schema}


def shows(optional: Mapping[str, Schema] | None = None, /, **members: Schema) -> Schema:
    """An answer: all ``members``, perhaps the optional ones, nothing else."""
    properties = {name.rstrip("_"): schema for name, schema in members.items()}
    return {
        "type": "object",
        "required": list(properties),
        "properties": {**properties, **(optional or {})},
        "additionalProperties": False,
    }


def takes(*required: str, **members: Schema) -> Schema:
    """A request: ``members`` and nothing else."""
    return {"type": "object", "required": [*required], "properties": dict(members), "additionalProperties": False}


def listed(schema: Schema) -> Schema:
    return shows(data=every(schema), total=COUNT)


# --- Accounts ---------------------------------------------------------------------------------------------------------

PROVIDERS = one_of(*(name for name in UPSTREAMS if name != "practice"))
STATES = one_of("active", "cooling", "invalid", "disabled")

_OIDC = {name: maybe(TEXT) for name in account_fields.OIDC}
ACCOUNT = shows(
    {"oidc": shows(**_OIDC, token_expires_at=maybe(TIME)), "quota": maybe(OBJECT)},
    id=WHOLE,
    provider=TEXT,
    name=TEXT,
    api_key_hint=maybe(TEXT),
    session_key_hint=maybe(TEXT),
    base_url=maybe(TEXT),
    models=maybe(every(TEXT)),
    listed_models=maybe(every(TEXT)),
    model_map=by_name(TEXT),
    options=OBJECT,
    learned_options=OBJECT,
    priority=WHOLE,
    max_concurrency=COUNT,
    proxy=maybe(TEXT),
    is_valid=FLAG,
    state=STATES,
    state_reason=maybe(TEXT),
    state_until=maybe(TIME),
    last_validated=maybe(TIME),
    last_used=maybe(TIME),
    usage_count=COUNT,
    error_count=COUNT,
    created_at=TIME,
    updated_at=TIME,
)
_WRITABLE: dict[str, Schema] = {
    **dict.fromkeys(account_fields.SECRETS, maybe(TEXT)),
    "name": {"type": "string", "minLength": 1, "maxLength": 100},
    "base_url": maybe(TEXT),
    "models": maybe(every(TEXT)),
    "model_map": by_name(TEXT),
    "options": OBJECT,
    "priority": WHOLE,
    "max_concurrency": COUNT,
    "proxy": maybe(TEXT),
    "oidc": {"type": "object", "properties": {**_OIDC, "token_expires_at": ANY}, "additionalProperties": False},
}
_SHOWN: dict[str, Schema] = dict.fromkeys(sorted(account_fields.SHOWN_ONLY), ANY)  # may come back; changes nothing
NEW_ACCOUNT = takes("name", **(_SHOWN | _WRITABLE | {"provider": PROVIDERS, "state": maybe(STATES)}))
CHANGED_ACCOUNT = takes(**(_SHOWN | _WRITABLE | {"state": maybe(STATES)}))

VALIDATED = shows(id=WHOLE, is_valid=FLAG, state=STATES, latency_ms=COUNT, message=TEXT)
VALIDATED_ALL = shows(total=COUNT, valid=COUNT, invalid=COUNT, results=every(VALIDATED))
STATS = shows(
    total=COUNT,
    valid=COUNT,
    invalid=COUNT,
    cooling=COUNT,
    disabled=COUNT,
    usage_count=COUNT,
    error_count=COUNT,
    by_provider=by_name(COUNT),
)
DELETED_ACCOUNT = shows(id=WHOLE, provider=TEXT, name=TEXT, deleted_at=TIME, deleted_by=TEXT, erased_at=TIME)
EVENT = shows(time=TIME, who=TEXT, from_=maybe(TEXT), to=maybe(TEXT), reason=maybe(TEXT))

FEED: Schema = {
    "type": "object",
    "required": ["accounts"],
    "properties": {"accounts": every(OBJECT, MOST)},
}
FED = shows(created=COUNT, skipped=COUNT, errors=every(shows(index=COUNT, message=TEXT)))
EXPORT: Schema = {
    "type": "object",
    "required": ["format", "version", "secrets", "accounts"],
    "properties": FEED["properties"],
}

NEW_SIGN_IN = takes(name=TEXT, account_id=WHOLE, proxy=maybe(TEXT), **_OIDC)
SIGN_IN = shows(
    flow_id=TEXT,
    verification_uri=TEXT,
    verification_uri_complete=TEXT,
    user_code=TEXT,
    expires_at=TIME,
    interval=NUMBER,
)
SIGN_IN_STATUS = shows({"account": ACCOUNT}, status=one_of("pending", "complete", "expired", "denied"))

# --- Keys, people, settings, addresses --------------------------------------------------------------------------------

_LIMITS: dict[str, Schema] = {name: maybe({"type": "integer", "minimum": 1}) for name in LIMITS}
_KEY: dict[str, Schema] = {
    "name": {"type": "string", "minLength": 1, "maxLength": 100},
    "models": maybe(every(TEXT, 1000)),
    "limits": maybe(takes(**_LIMITS)),
    "expires_at": maybe(TIME),
    "override": FLAG,
}
NEW_KEY = takes("name", **_KEY, value=maybe({"type": "string", "minLength": 16, "maxLength": 500}))
CHANGED_KEY = takes(**_KEY)
_USED = shows(requests=COUNT, input_tokens=COUNT, output_tokens=COUNT)
KEY = shows(
    id=WHOLE,
    name=TEXT,
    hint=TEXT,
    created_at=TIME,
    expires_at=maybe(TIME),
    revoked_at=maybe(TIME),
    last_used=maybe(TIME),
    override=FLAG,
    models=maybe(every(TEXT)),
    limits=shows(**_LIMITS),
    usage=_USED,
)
CREATED_KEY = shows(**KEY["properties"], key=TEXT)

CREDENTIALS = takes("username", "password", username=TEXT, password=TEXT)
TOKEN = shows(token=TEXT, expires_at=TIME, user=shows(id=WHOLE, username=TEXT))
PERSON = shows(id=WHOLE, username=TEXT, created_at=TIME)
NEW_PASSWORD = takes("old_password", "new_password", old_password=TEXT, new_password=TEXT)
CONFIRMATION = takes("password", password=TEXT)


def _kind(default: Any) -> Schema:
    kinds: dict[type, Schema] = {bool: FLAG, int: WHOLE, float: NUMBER, str: TEXT}
    return kinds[type(default)]


def settings(configured: Any) -> tuple[Schema, Schema]:
    """All of them as they are shown, and some of them as they are changed."""
    known = {
        name: {**_kind(saved_settings.value({}, configured, name)), "description": saved.help}
        for name, saved in saved_settings.SAVED.items()
    }
    secrets = {name: {"description": help} for name, help in saved_settings.SECRETS.items()}
    hidden = {name: {"type": "null", **words} for name, words in secrets.items()}
    written = {name: {**maybe(TEXT), **words, "writeOnly": True} for name, words in secrets.items()}
    known[saved_settings.DEBUG_UNTIL] = {**maybe(TIME), "readOnly": True}
    return shows(**known, **hidden), takes(**known, **written)


BLOCK = takes(ip=maybe(TEXT), cidr=maybe(TEXT), reason=maybe(TEXT), expires_in=maybe({"type": "integer", "minimum": 1}))
UNBLOCK = takes(ip=maybe(TEXT), cidr=maybe(TEXT))
BLOCKED = shows(cidr=TEXT, reason=TEXT, created_at=TIME, expires_at=maybe(TIME))

JOB = shows(name=TEXT, last_run=maybe(TIME), last_outcome=maybe(TEXT), next_run=maybe(TIME))
CHANGE = shows(time=TIME, who=TEXT, what=TEXT, before=ANY, after=ANY)

# --- Log --------------------------------------------------------------------------------------------------------------

OUTCOMES = one_of("ok", "client_error", "upstream_error", "upstream_cut", "gateway_error", "client_gone", "aborted")
_NUMBERS: dict[str, Schema] = {"key": maybe(WHOLE), "account": maybe(WHOLE), "first_token_ms": maybe(COUNT)}
_OTHERS: dict[str, Schema] = {"time": TIME, "stream": FLAG, "outcome": OUTCOMES} | {
    name: maybe(TEXT) for name in ("provider", "upstream_model", "error_type", "client_ip")
}
_COUNTED = ("status", "attempts", "duration_ms", *(name for name in SHOWN if name.endswith("_tokens")))
_ROW = {
    **dict.fromkeys(("request_id", "dialect", "model"), TEXT),
    **dict.fromkeys(_COUNTED, COUNT),
    **_NUMBERS,
    **_OTHERS,
}
ROW = shows(**{NAMES.get(name, name): _ROW[NAMES.get(name, name)] for name in SHOWN})
PAGE = shows(data=every(ROW), next=maybe(TEXT))
STATISTICS = shows(
    data=every(
        shows(
            key={"type": ["string", "integer", "null"]},
            requests=COUNT,
            errors=COUNT,
            input_tokens=COUNT,
            output_tokens=COUNT,
            p50_ms=maybe(COUNT),
            p95_ms=maybe(COUNT),
        )
    )
)
REFUSED = shows(
    data=every(
        {
            "anyOf": [
                shows(minute=TIME, client_ip=TEXT, status=COUNT, requests=COUNT),
                shows(client_ip=TEXT, requests=COUNT, last=TIME),
            ]
        }
    )
)
EXPLANATION = shows(
    request_id=TEXT,
    summary=TEXT,
    fault=one_of("client", "gateway", "upstream", "none"),
    heals_at=maybe(TIME),
    attempts=every(
        shows(
            provider=TEXT,
            account=maybe(WHOLE),
            account_name=maybe(TEXT),
            status=maybe(WHOLE),
            reason=TEXT,
            ms=COUNT,
        )
    ),
)

# --- What clients speak: as far as every answer has it; the vendors' references say the rest --------------------------

_CONTENT: Schema = {"anyOf": [TEXT, every({"type": "object", "required": ["type"], "properties": {"type": TEXT}})]}


def _turns(*roles: str) -> Schema:
    turn = {"type": "object", "required": ["role"], "properties": {"role": one_of(*roles), "content": _CONTENT}}
    return {**every(turn), "minItems": 1}


_MODEL: Schema = {"type": "string", "minLength": 1, "description": "Of GET /v1/models, or provider/model."}
MESSAGE_REQUEST: Schema = {
    "type": "object",
    "required": ["model", "max_tokens", "messages"],
    "properties": {
        "model": _MODEL,
        "max_tokens": {"type": "integer", "minimum": 1},
        "messages": _turns("user", "assistant"),
        "system": _CONTENT,
        "stream": FLAG,
    },
}
COUNT_REQUEST: Schema = {
    "type": "object",
    "required": ["model", "messages"],
    "properties": {"model": _MODEL, "messages": _turns("user", "assistant"), "system": _CONTENT},
}
COUNTED = shows(input_tokens=COUNT)
MESSAGE: Schema = {
    "type": "object",
    "required": ["id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"],
    "properties": {
        "id": TEXT,
        "type": {"const": "message"},
        "role": {"const": "assistant"},
        "model": TEXT,
        "content": every({"type": "object", "required": ["type"], "properties": {"type": TEXT}}),
        "stop_reason": maybe(TEXT),
        "stop_sequence": maybe(TEXT),
        "usage": {
            "type": "object",
            "required": ["input_tokens", "output_tokens"],
            "properties": {"input_tokens": COUNT, "output_tokens": COUNT},
        },
    },
}
CHAT_REQUEST: Schema = {
    "type": "object",
    "required": ["model", "messages"],
    "properties": {
        "model": _MODEL,
        "messages": _turns("system", "developer", "user", "assistant", "tool", "function"),
        "max_tokens": maybe({"type": "integer", "minimum": 1}),
        "stream": maybe(FLAG),
    },
}
COMPLETION: Schema = {
    "type": "object",
    "required": ["id", "object", "created", "model", "choices", "usage"],
    "properties": {
        "id": TEXT,
        "object": {"const": "chat.completion"},
        "created": WHOLE,
        "model": TEXT,
        "choices": every(
            {
                "type": "object",
                "required": ["index", "message", "finish_reason"],
                "properties": {"index": COUNT, "message": OBJECT, "finish_reason": maybe(TEXT)},
            }
        ),
        "usage": OBJECT,
    },
}
MODEL = shows(
    type={"const": "model"},
    id=TEXT,
    display_name=TEXT,
    created_at=TIME,
    object={"const": "model"},
    created=COUNT,
    owned_by=TEXT,
)
MODELS = shows(object={"const": "list"}, data=every(MODEL), has_more=FLAG, first_id=maybe(TEXT), last_id=maybe(TEXT))

# --- Health and errors ------------------------------------------------------------------------------------------------

HEALTH = shows(status={"const": "healthy"}, timestamp=TIME, version=TEXT)
READY = shows(status=one_of("ready", "not ready"), checks=by_name(TEXT))

ERROR = shows(error=shows(type=TEXT, message=TEXT))
ANTHROPIC_ERROR = shows(
    type={"const": "error"}, error=shows({"details": OBJECT}, type=TEXT, message=TEXT), request_id=TEXT
)
OPENAI_ERROR = shows(error=shows(message=TEXT, type=TEXT, param=maybe(TEXT), code=maybe(TEXT)))

# What the document says once and then names.
NAMED: dict[str, Schema] = {
    "Account": ACCOUNT,
    "NewAccount": NEW_ACCOUNT,
    "ChangedAccount": CHANGED_ACCOUNT,
    "Key": KEY,
    "LogRow": ROW,
    "Explanation": EXPLANATION,
    "Message": MESSAGE,
    "ChatCompletion": COMPLETION,
    "Model": MODEL,
    "Error": ERROR,
    "AnthropicError": ANTHROPIC_ERROR,
    "OpenAIError": OPENAI_ERROR,
}
