"""A credential that a client brings along for the provider. Pure.

It goes to the provider's default base URL and never to an account's own, as it is; what fails with it is its owner's
affair: no account is touched, and its refusal is the client's answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from opus_api.gateway.attempts import as_error
from opus_api.upstreams import UPSTREAMS
from opus_api.upstreams.base import Credentials, Failure, Verdict
from opus_api.wire.errors import ApiError, Forbidden, Unauthorized
from opus_api.wire.http import HttpRequest

OWN_HEADERS = ("authorization", "cookie", "x-api-key")  # by which upstreams know who asks
SHORTEST_SECRET = 8  # characters: masking shorter ones would spoil the text
REFUSED = (Verdict.AUTH, Verdict.EXPIRED, Verdict.SUSPENDED)


@dataclass(frozen=True, slots=True)
class Override:
    """``headers`` as they go out, names in lower case."""

    headers: Mapping[str, str] = field(repr=False)

    def credentials(self, provider: str) -> Credentials:
        """Of nobody's account."""
        upstream = UPSTREAMS[provider]
        options = {option.name: option.default for option in upstream.options}
        return Credentials("", upstream.default_base_url, options, access_token=self._token)

    @property
    def _token(self) -> str:
        return self.headers.get("authorization", "").rpartition(" ")[2]

    def hide(self, failure: Failure) -> None:
        """Mask it in what the upstream said."""
        cookies = (part.partition("=")[2] for part in self.headers.get("cookie", "").split("; "))
        secrets = [secret for secret in (self._token, *cookies) if len(secret) >= SHORTEST_SECRET]
        for secret in secrets:
            failure.message = failure.message.replace(secret, "***")
            failure.words = {name: text.replace(secret, "***") for name, text in failure.words.items()}
        if any(secret in str(failure.details) for secret in secrets):
            failure.details = None

    def dressed(self, request: HttpRequest) -> HttpRequest:
        """The request with this credential and no other."""
        kept = {name: value for name, value in request.headers.items() if name.lower() not in OWN_HEADERS}
        return replace(request, headers={**kept, **self.headers})


def refusal(failure: Failure, model: str) -> ApiError:
    """What the client gets: of its credential it is told, as nobody else's could help."""
    if failure.verdict not in REFUSED:
        return as_error(failure, model)
    if failure.upstream_status == 403 or failure.verdict is Verdict.SUSPENDED:
        return Forbidden(failure.message)
    return Unauthorized(failure.message)
