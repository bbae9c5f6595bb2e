"""Amazon Q Developer: the service behind the vendor's own command line client. Pure."""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from opus_api.upstreams import amazonq_failures, amazonq_probe, amazonq_request, amazonq_service, bodies
from opus_api.upstreams.amazonq_service import DEFAULT_BASE_URL
from opus_api.upstreams.amazonq_stream import AnswerReader
from opus_api.upstreams.base import Credentials, Failure, Field, Option, Probe, Relayed, Verdict
from opus_api.upstreams.failures import broken
from opus_api.wire.eventstream import Decoder, EventStreamError
from opus_api.wire.http import Flow, HttpRequest, HttpResponse
from opus_api.wire.messages import Event, MessageWriter
from opus_api.wire.request import Call

# claude-sonnet-4-5-20250929, claude-opus-4-20250514
DATED = re.compile(r"(claude-[a-z]+-\d+)(?:-(\d{1,2}))?(?:-20\d{6})?")

# Documented names -> the service's (M9); where it has no such model any more, the next of the same line.
MODEL_NAMES = {
    "claude-4.5-opus-high": "claude-opus-4.5",
    "claude-4.5-opus-low": "claude-opus-4.5",
    "claude-sonnet-4.5": "claude-sonnet-4.5",
    "claude-sonnet-3.5": "claude-sonnet-4",
    "claude-opus-4-20250514": "claude-opus-4.5",
    "claude-sonnet-4-20250514": "claude-sonnet-4",
    "claude-haiku-4-20250514": "claude-haiku-4.5",
    "claude-3-opus-20240229": "claude-opus-4.5",
}


@dataclass(eq=False)
class AmazonQ:
    name: str = "amazonq"
    label: str = "Amazon Q Developer"
    native: str = ""  # no client speaks it
    default_base_url: str = DEFAULT_BASE_URL
    fields: tuple[Field, ...] = (
        Field("refresh_token", "Refresh token", secret=True, help="From an earlier sign-in of yours."),
        Field("client_id", "Client id", secret=True, help="The refresh token was issued to it."),
        Field("client_secret", "Client secret", secret=True, help="It belongs to the client id."),
        Field("base_url", "Base URL", help="Empty: the service of the account's region."),
    )
    options: tuple[Option, ...] = (Option("origin", "CLI", "What the service is told the request comes from."),)
    terms: str = (
        "AWS documents this service for its own clients only and may refuse or suspend an account; a suspended one "
        "stays out until you bring it back. New accounts are closed since May 2026, and support of the IDE plugins "
        "ends in April 2027."
    )
    model_names: Mapping[str, str] = field(default_factory=lambda: MODEL_NAMES)

    # ---- asking

    def request(self, call: Call, model: str, credentials: Credentials, verbatim: bool) -> HttpRequest:
        if is_over(credentials):
            raise Failure(Verdict.EXPIRED, 529, "overloaded_error", "the access token has expired")
        state = amazonq_request.convert(call, model, credentials.options["origin"])
        return amazonq_service.chat(state, credentials)

    # ---- reading

    def events(self, call: Call, body: Iterator[bytes], credentials: Credentials) -> Iterator[list[Event]]:
        asked = call.canonical()
        writer = MessageWriter(call.model, call.input_estimate, call.thinking_wanted)
        names = amazonq_request.tool_names(call).long
        reader = AnswerReader(writer, names, asked.get("stop_sequences") or (), asked["max_tokens"], credentials)
        first, body = yield from bodies.begin(body)
        if first == b"{":
            raise amazonq_failures.of_json((yield from bodies.whole(body)), credentials)
        decoder = Decoder()
        for data in body:
            try:
                for message in decoder.feed(data):
                    reader.read(message)
            except (Failure, EventStreamError) as error:
                yield writer.take()  # what came before it in the same read
                raise _as_failure(error) from None
            reader.account(call)
            yield writer.take()
            if reader.done:  # the client's own limit: the rest is not wanted
                return
        try:
            decoder.close()
        except EventStreamError:
            raise broken(bodies.EARLY) from None
        reader.finish()
        yield writer.take()

    def verbatim(self, call: Call, body: Iterator[bytes], credentials: Credentials) -> Iterator[Relayed]:
        """No client speaks this format, so this is never asked for."""
        yield from ()

    # ---- judging

    def failure(self, response: HttpResponse, credentials: Credentials) -> Failure:
        return amazonq_failures.of_response(response, credentials)

    def probe(self, credentials: Credentials) -> Flow[Probe]:
        """The models, then the usage: neither costs anything."""
        if is_over(credentials):
            over = Failure(Verdict.EXPIRED, 529, "overloaded_error", "no access token")
            return amazonq_probe.refused(HttpResponse(403), over)
        return (yield from amazonq_probe.probe(credentials))

    def own_name(self, name: str) -> str:
        found = DATED.fullmatch(name)
        if not found:
            return name
        return f"{found[1]}.{found[2]}" if found[2] else found[1]


def is_over(credentials: Credentials) -> bool:
    """There is no access token, or its time has passed: asking would only be refused."""
    ends = credentials.token_expires_at
    return not credentials.access_token or (ends is not None and ends <= time.time())


def _as_failure(error: Exception) -> Failure:
    return error if isinstance(error, Failure) else broken(f"upstream sent a broken event stream: {error}")


UPSTREAM = AmazonQ()
