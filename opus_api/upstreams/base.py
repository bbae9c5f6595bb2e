"""What every upstream offers the gateway: the protocol, its words for failure, and the fields of its form."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from opus_api.wire.http import Flow, HttpRequest, HttpResponse
from opus_api.wire.messages import Event
from opus_api.wire.request import Call


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an upstream needs to speak for one account. ``base_url`` has no trailing slash."""

    api_key: str = field(default="", repr=False)
    base_url: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)  # complete: defaults, learned, set by a person
    access_token: str = field(default="", repr=False)
    token_version: int = 0  # counts renewals of the access token
    token_expires_at: float | None = None  # Unix seconds
    oidc: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Verdict(Enum):
    """What a failure means for the account and for the request."""

    CLIENT = "client"  # the request is at fault: tell the client, nobody else can serve it either
    RATE = "rate"  # cool the account down, move on free
    QUOTA = "quota"  # credit or quota is spent: cool down for long, move on free
    AUTH = "auth"  # the credential is refused: count it, move on free
    EXPIRED = "expired"  # the access token is over: renew it once, ask the same account again; not counted
    SUSPENDED = "suspended"  # the provider has locked the account: invalid until a person changes that, move on free
    NO_MODEL = "no_model"  # this account lacks the model: another provider may have it
    TRANSIENT = "transient"  # work may have begun: count it, move on, an attempt is spent
    OVERLOADED = "overloaded"  # the provider as a whole is busy: move on, the account is not to blame
    LEARN = "learn"  # a 400 that names an option: remember it, send once more to the same account
    UNREACHABLE = "unreachable"  # refused, no name, TLS: no work had begun, move on free, count it


@dataclass(eq=False)
class Failure(Exception):
    """A judged failure of one attempt. Raised through the stream, or returned by ``failure``.

    ``status`` and ``type`` are what an Anthropic client would see; ``message`` is fit for clients (no account names,
    keys or addresses). ``retry_after`` in seconds from now, None when unknown. ``learned`` are options to remember.
    """

    verdict: Verdict
    status: int
    type: str
    message: str
    retry_after: float | None = None
    model_only: bool = False  # the cooldown concerns this model of the account, not all of it
    learned: Mapping[str, Any] = field(default_factory=dict)
    upstream_status: int = 0  # that the upstream itself told; 0: it told none
    upstream_request_id: str = ""
    details: Mapping[str, Any] | None = None  # of Anthropic's error; its SDKs act on them
    words: Mapping[str, str] = field(default_factory=dict)  # OpenAI's message, param and code, for its own clients

    def __str__(self) -> str:
        return f"{self.status} {self.type}: {self.message}"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the form that adds an account; the form, the API check and the CLI follow from it."""

    name: str  # a column of accounts: api_key, base_url, …
    label: str
    required: bool = False
    secret: bool = False
    default: str = ""
    help: str = ""


@dataclass(frozen=True, slots=True)
class Option:
    """One upstream flag of an account (A7)."""

    name: str
    default: Any  # its type is the option's type
    help: str


@dataclass(frozen=True, slots=True)
class Probe:
    """What validating a credential found. ``models`` is None when the provider has no list."""

    ok: bool
    message: str  # one sentence for a person
    models: list[str] | None = None
    failure: Failure | None = None
    quota: Mapping[str, Any] | None = None  # {"used","limit","unit","resets_at"} (Unix seconds), None when not told
    places: Mapping[str, str] = field(default_factory=dict)  # members of the account's ``oidc`` that were found out


# What the verbatim edge passes on: bytes for the client, and the canonical events of note found in them (the first
# content, usage, the end). (b"", []): time passed.
Relayed = tuple[bytes, list[Event]]


class Upstream(Protocol):
    """One kind of upstream. Everything here is pure; ``gateway`` and ``transport`` do the rest."""

    name: str
    label: str  # as a person reads it
    native: str  # the dialect whose bytes it speaks ("anthropic", "openai"), or "" when none
    default_base_url: str
    fields: tuple[Field, ...]
    options: tuple[Option, ...]
    terms: str  # the sentence shown where an account is added
    model_names: Mapping[str, str]  # documented name -> this provider's model (M9)

    def request(self, call: Call, model: str, credentials: Credentials, verbatim: bool) -> HttpRequest:
        """Raises ApiError when the call cannot be said in this upstream's format."""

    def events(self, call: Call, body: Iterator[bytes], credentials: Credentials) -> Iterator[list[Event]]:
        """Body bytes (one read each, b"" = time passed) to lists of events ([] = time passed). Raises Failure."""

    def verbatim(self, call: Call, body: Iterator[bytes], credentials: Credentials) -> Iterator[Relayed]:
        """For clients of the ``native`` dialect: the body as it is, read along. Raises Failure."""

    def failure(self, response: HttpResponse, credentials: Credentials) -> Failure:
        """Judge a response that is not a success; ``response.body`` is whole, at most 64 KiB."""

    def probe(self, credentials: Credentials) -> Flow[Probe]:
        """Check the credential by a call that spends no tokens."""

    def own_name(self, name: str) -> str:
        """A model name as this provider writes it, where a rule says how; else the same."""
