"""What may be written into an account: each field checked and brought into its stored form. No database here."""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from opus_api.config import Settings
from opus_api.services.values import FieldError, few, name, patterns, text, whole
from opus_api.transport import AddressRefused, check_url
from opus_api.upstreams import UPSTREAMS
from opus_api.upstreams.amazonq_login import BUILDER_ID, REGION
from opus_api.upstreams.amazonq_service import AWS_JSON, DEFAULT_REGION, PROFILE_ARN, WIRES
from opus_api.upstreams.base import Option, Upstream
from opus_api.wire.errors import Phrase

SECRETS = ("api_key", "session_key", "client_id", "client_secret", "refresh_token", "access_token")
WRITABLE = {
    "name",
    "base_url",
    "models",
    "model_map",
    "options",
    "priority",
    "max_concurrency",
    "proxy",
    "oidc",
    *SECRETS,
}
# What GET shows may come back in a PUT; it changes nothing.
SHOWN_ONLY = {
    *("id", "provider", "api_key_hint", "session_key_hint", "is_valid", "state", "state_reason", "state_until"),
    *("last_validated", "last_used", "usage_count", "error_count", "created_at", "updated_at"),
    *("listed_models", "learned_options"),
}
TOKENS = {"client_id", "client_secret", "refresh_token", "access_token"}
OIDC = ("start_url", "region", "api_region", "profile_arn", "wire")  # members of the object ``oidc``
OIDC_SHOWN_ONLY = {"token_expires_at", "client_expires_at", "quota", "credits"}
CREDENTIAL = {*SECRETS, "base_url", "oidc"}  # a change of these makes it another account, as far as its health goes
PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")


def provider(value: Any) -> str:
    """The name of a provider that accounts can belong to. Raises FieldError."""
    if value == "practice":
        raise FieldError("provider", "The practice provider is built in and needs no account.")
    if not isinstance(value, str) or value not in UPSTREAMS:
        raise FieldError(
            "provider", Phrase("must be one of %(names)s.", names=", ".join(p for p in UPSTREAMS if p != "practice"))
        )
    return value


def checked(provider: str, data: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The columns that ``data`` sets; a secret that is absent, null or empty is left out. Raises FieldError."""
    upstream = UPSTREAMS[provider]
    columns: dict[str, Any] = {}
    for field, value in data.items():
        if field in SECRETS:
            columns |= _secret(field, value)
        elif field in WRITABLE:
            columns[field] = _CHECKS[field](value, upstream, settings)
        elif field not in SHOWN_ONLY:
            raise FieldError(field, "is not a field of an account.")
    return columns


def require(provider: str, columns: Mapping[str, Any]) -> None:
    """A new account has a name and what its provider's form requires. Raises FieldError."""
    for field in ("name", *(f.name for f in UPSTREAMS[provider].fields if f.required)):
        if not columns.get(field):
            raise FieldError(field, "is required.")
    if provider == "amazonq":
        _require_tokens(columns)


def _require_tokens(columns: Mapping[str, Any]) -> None:
    """A refresh token is only good together with the client that it was issued to. Raises FieldError."""
    if not columns.get("refresh_token") and not columns.get("access_token"):
        raise FieldError("refresh_token", "is required; or begin a sign-in, which brings one.")
    for field in ("client_id", "client_secret"):
        if columns.get("refresh_token") and not columns.get(field):
            raise FieldError(field, "is required with a refresh token.")


def _secret(field: str, value: Any) -> dict[str, str]:
    cleaned = text(field, value, limit=10_000)
    if cleaned.startswith("sk-ant-oat"):
        raise FieldError(
            field, "Subscription tokens (sk-ant-oat…) may not be used here; create an API key in the Anthropic Console."
        )
    # It travels in a header.
    if any(not " " < character <= "~" for character in cleaned):
        raise FieldError(field, "must be printable ASCII without spaces.")
    return {field: cleaned} if cleaned else {}


def _base_url(value: Any, upstream: Upstream, settings: Settings) -> str | None:
    cleaned = text("base_url", value)
    if not cleaned:
        return None
    url = normalised(upstream.name, cleaned)
    try:
        check_url(url, settings)
    except AddressRefused as error:
        raise FieldError("base_url", error.args[0]) from None
    return url


def normalised(provider: str, url: str) -> str:
    """By the convention of each SDK: Anthropic's base has no ``/v1``, OpenAI's has one when it has no path at all."""
    url = url.rstrip("/").removesuffix("/chat/completions").rstrip("/")
    if provider == "amazonq":
        return url
    if provider == "anthropic":
        return url.removesuffix("/messages").removesuffix("/v1").rstrip("/")
    return url if "/" in url.partition("://")[2] else f"{url}/v1"


def _proxy(value: Any, upstream: Upstream, settings: Settings) -> str | None:
    cleaned = text("proxy", value)
    if not cleaned:
        return None
    parts = _split("proxy", cleaned)
    if parts.scheme not in PROXY_SCHEMES[:2] or not parts.hostname or parts.path.strip("/") or parts.query:
        raise FieldError("proxy", "must be an address such as http://user:password@proxy.example:3128.")
    return cleaned.rstrip("/")


def _split(field: str, url: str) -> Any:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError:
        raise FieldError(field, "is not an address.") from None
    return parts


def _model_map(value: Any, upstream: Upstream, settings: Settings) -> dict[str, str]:
    """Glob to the provider's own model; ``provider/`` before the model is the same provider said twice."""
    if not isinstance(value, dict):
        raise FieldError("model_map", 'must be an object such as {"claude-*": "some-model"}.')
    few("model_map", value)
    checked = {}
    for pattern, target in value.items():
        glob = text("model_map", pattern, limit=200, required=True)
        model = text(f"model_map.{glob}", target, limit=200, required=True)
        checked[glob] = model.removeprefix(f"{upstream.name}/")
    return checked


def oidc(value: Any, upstream: Upstream) -> dict[str, Any]:
    """The members that are given, each checked; one that is null or empty takes its default. Raises FieldError."""
    if upstream.name != "amazonq":
        raise FieldError("oidc", Phrase("is no field of %(provider)s.", provider=upstream.name))
    if not isinstance(value, dict):
        raise FieldError("oidc", "must be an object.")
    out: dict[str, Any] = {}
    for field, given in value.items():
        if field in OIDC:
            cleaned = text(f"oidc.{field}", given, limit=500)
            pattern, default, words = _OIDC[field]
            if cleaned and not pattern.fullmatch(cleaned):
                raise FieldError(f"oidc.{field}", words)
            out[field] = cleaned or default
        elif field not in OIDC_SHOWN_ONLY:
            raise FieldError(f"oidc.{field}", "is not a field of an account.")
    return out


def oidc_defaults() -> dict[str, Any]:
    """All members, where a person said nothing."""
    return {name: default for name, (_, default, _) in _OIDC.items()}


_IS_REGION = Phrase("must be a region such as us-east-1.")
_IS_ADDRESS = Phrase("must be an address such as https://view.awsapps.com/start.")
_OIDC: dict[str, tuple[re.Pattern[str], str | None, str]] = {
    "start_url": (re.compile(r"https://[^\s/]+(/\S*)?"), BUILDER_ID, _IS_ADDRESS),
    "region": (REGION, DEFAULT_REGION, _IS_REGION),
    "api_region": (REGION, None, _IS_REGION),
    "profile_arn": (PROFILE_ARN, None, Phrase("must be the ARN of a profile (arn:aws:codewhisperer:…).")),
    "wire": (re.compile("|".join(WIRES)), AWS_JSON, Phrase("must be one of %(names)s.", names=", ".join(WIRES))),
}


def _options(value: Any, upstream: Upstream, settings: Settings) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FieldError("options", "must be an object.")
    table = {option.name: option for option in upstream.options}
    for field, given in value.items():
        if field not in table:
            known = ", ".join(table) or Phrase("none")
            raise FieldError(
                f"options.{field}",
                Phrase("is no option of %(provider)s; there are: %(names)s.", provider=upstream.name, names=known),
            )
        _check_option(table[field], given)
    return value


def _check_option(option: Option, value: Any) -> None:
    kind = type(option.default)
    if option.default is not None and type(value) is not kind and not (kind is float and type(value) is int):
        raise FieldError(f"options.{option.name}", _KINDS[kind])
    if isinstance(value, str):  # half of a character is text as well, and no page can show it
        text(f"options.{option.name}", value)


_KINDS = {
    bool: Phrase("must be true or false."),
    int: Phrase("must be a whole number."),
    float: Phrase("must be a number."),
    str: Phrase("must be text."),
    list: Phrase("must be a list."),
    dict: Phrase("must be an object."),
}

_CHECKS: dict[str, Callable[[Any, Upstream, Settings], Any]] = {
    "name": lambda value, *_: name("name", value),
    "base_url": _base_url,
    "models": lambda value, *_: patterns("models", value),
    "model_map": _model_map,
    "options": _options,
    "priority": lambda value, *_: whole("priority", value, -1_000_000, 1_000_000),
    "max_concurrency": lambda value, *_: whole("max_concurrency", value, 0, 1_000_000),
    "proxy": _proxy,
    "oidc": lambda value, upstream, _: oidc(value, upstream),
}


def option_from_text(provider: str, word: str) -> tuple[str, Any]:
    """``name=value`` of a command line, typed by the provider's option table. Raises FieldError."""
    field, equals, given = word.partition("=")
    option = next((o for o in UPSTREAMS[provider].options if o.name == field), None)
    if not equals or option is None:
        _options({field: given}, UPSTREAMS[provider], Settings())
        raise FieldError(f"options.{field}", "must be given as NAME=VALUE.")
    if isinstance(option.default, bool):
        return field, _SWITCH.get(given.lower(), given)
    if isinstance(option.default, int | float) and re.fullmatch(r"-?\d+(\.\d+)?", given):
        return field, float(given) if isinstance(option.default, float) else int(float(given))
    return field, given


_SWITCH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
