"""The errors a client can see, raised where they happen and rendered once (``dialects``, ``web/errors.py``)."""

from collections.abc import Mapping
from typing import Any, ClassVar

Details = Mapping[str, Any]


class Phrase(str):
    """English for clients and logs; pages may say ``template``, filled with ``values``, in another language. A value
    may be a Phrase itself."""

    template: str
    values: Mapping[str, object]

    def __new__(cls, template: str, **values: object) -> "Phrase":
        phrase = super().__new__(cls, template % values if values else template)
        phrase.template, phrase.values = template, values
        return phrase


class ApiError(Exception):
    """``type`` is Anthropic's word; dialects translate it. ``message`` is for the caller and free of secrets.

    ``details`` is what Anthropic's SDKs read beside the message (``error_code`` and its data), None when there is none.
    ``words``: message, param and code of an OpenAI upstream, as far as it said them.
    """

    def __init__(
        self,
        status: int,
        type: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        details: Details | None = None,
        words: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.words = words or {}
        self.details = details
        self.status = status
        self.type = type
        self.message = message
        self.headers = headers or {}


class _Kind(ApiError):
    """An ApiError whose status and type are fixed."""

    STATUS: ClassVar[int]
    TYPE: ClassVar[str]

    def __init__(
        self,
        message: str,
        headers: Mapping[str, str] | None = None,
        details: Details | None = None,
        words: Mapping[str, str] | None = None,
    ):
        super().__init__(self.STATUS, self.TYPE, message, headers, details, words)


class InvalidRequest(_Kind):
    """The body, a header or a parameter is wrong; the message names the field."""

    STATUS = 400
    TYPE = "invalid_request_error"


class Unauthorized(_Kind):
    """No key, a wrong key, no session."""

    STATUS = 401
    TYPE = "authentication_error"


class Forbidden(_Kind):
    """Known, but not allowed."""

    STATUS = 403
    TYPE = "permission_error"


class NotFound(_Kind):
    """No such route, id or model."""

    STATUS = 404
    TYPE = "not_found_error"


class MethodNotAllowed(_Kind):
    """The route exists, not for this method."""

    STATUS = 405
    TYPE = "invalid_request_error"


class RequestTimeout(_Kind):
    """The client took too long to send its body."""

    STATUS = 408
    TYPE = "timeout_error"


class Conflict(_Kind):
    """The name is taken, or the state forbids it."""

    STATUS = 409
    TYPE = "conflict_error"


class TooLarge(_Kind):
    """The body passes the size limit."""

    STATUS = 413
    TYPE = "request_too_large"


class Unprocessable(_Kind):
    """Of /api and /v2: well-formed JSON, a field's value is not acceptable."""

    STATUS = 422
    TYPE = "invalid_request_error"


class RateLimited(_Kind):
    """Too many calls; ``retry-after`` says when."""

    STATUS = 429
    TYPE = "rate_limit_error"


class Restarting(_Kind):
    """We stop before this answer is complete."""

    STATUS = 529
    TYPE = "overloaded_error"


class Unavailable(_Kind):
    """Something we need (the database) is away; try again."""

    STATUS = 503
    TYPE = "api_error"
