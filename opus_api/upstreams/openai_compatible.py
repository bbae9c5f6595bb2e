"""Any server that speaks OpenAI Chat Completions: OpenAI, OpenRouter, DeepSeek, vLLM, Ollama … Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from opus_api.upstreams import bodies, chat_request
from opus_api.upstreams.base import Credentials, Failure, Field, Option, Probe, Relayed, Verdict
from opus_api.upstreams.chat_stream import ChatDecoder
from opus_api.upstreams.failures import broken, error_in, judge, message_of
from opus_api.wire import jsons, sse
from opus_api.wire.chat import read_usage
from opus_api.wire.http import Flow, HttpRequest, HttpResponse
from opus_api.wire.messages import Event, MessageWriter
from opus_api.wire.request import Body, Call

OPTIONS = (
    Option("stream_options", True, "Ask for usage at the end of a stream."),
    Option("max_completion_tokens", False, "Send max_completion_tokens instead of max_tokens."),
    Option("max_tokens", 0, "Largest max_tokens the server takes; 0: unknown."),
    Option("parallel_tool_calls", True, "The server takes parallel_tool_calls."),
    Option("vision", True, "The server takes images."),
    Option("files", True, "The server takes PDF files."),
    Option("prefill", True, "A conversation may end with an assistant message."),
    Option("structured_output", True, "The server takes response_format json_schema."),
    Option("reasoning", False, "The server takes reasoning_effort."),
    Option("replay_reasoning", False, "Send earlier reasoning_content back."),
    Option("top_k", False, "The server takes top_k."),
    Option("single_system", False, "Only one system message, at the start."),
    Option("string_content", False, "Text content as one string, never as a list of parts."),
    Option("fill_empty_tool_content", False, "Send '(no output)' for an empty tool result."),
)

# What a 400 says -> what to remember. The first that fits and changes something wins.
LESSONS: tuple[tuple[re.Pattern[str], str, Any], ...] = (
    (re.compile(r"stream_options|include_usage"), "stream_options", False),
    (re.compile(r"max_tokens.*max_completion_tokens", re.S), "max_completion_tokens", True),
    (
        re.compile(r"max_completion_tokens.*(unknown|unrecognized|not permitted|extra)", re.S | re.I),
        "max_completion_tokens",
        False,
    ),
    (re.compile(r"parallel_tool_calls"), "parallel_tool_calls", False),
    (re.compile(r"reasoning_effort"), "reasoning", False),
    (re.compile(r"\btop_k\b"), "top_k", False),
)
TOO_MANY_TOKENS = re.compile(
    r"max(?:_completion)?_tokens.*?(?:at most|maximum[^0-9]{0,40}|<=|less than or equal to) ?(\d{3,7})", re.I | re.S
)


@dataclass(eq=False)
class OpenAICompatible:
    """One kind of server; Morph is another instance."""

    name: str = "openai"
    label: str = "OpenAI-compatible"
    native: str = "openai"
    default_base_url: str = "https://api.openai.com/v1"
    fields: tuple[Field, ...] = (
        Field("api_key", "API key", secret=True, help="Leave empty for a server that needs none (Ollama, vLLM)."),
        Field("base_url", "Base URL", default="https://api.openai.com/v1", help="With /v1, without /chat/completions."),
    )
    options: tuple[Option, ...] = OPTIONS
    terms: str = "Use a key that was issued to you, within the terms of the server's operator."
    model_names: Mapping[str, str] = field(default_factory=dict)

    # ---- asking

    def request(self, call: Call, model: str, credentials: Credentials, verbatim: bool) -> HttpRequest:
        options = credentials.options
        body = self._verbatim_body(call, model, options) if verbatim else chat_request.convert(call, model, options)
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if body.get("stream") else "application/json",
        }
        return HttpRequest(
            "POST", f"{credentials.base_url}/chat/completions", headers | _auth(credentials), bodies.encoded(body)
        )

    @staticmethod
    def _verbatim_body(call: Call, model: str, options: Mapping[str, Any]) -> Body:
        body = {**call.body, "model": model}
        if call.stream and options["stream_options"]:
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        elif not options["stream_options"]:
            body.pop("stream_options", None)
        return body

    # ---- reading

    def events(self, call: Call, body: Iterator[bytes], credentials: Credentials) -> Iterator[list[Event]]:
        writer = MessageWriter(call.model, call.input_estimate, call.thinking_wanted)
        stops = call.canonical().get("stop_sequences") or []
        decoder = ChatDecoder(writer, chat_request.long_names(call), stops, credentials)
        first, body = yield from bodies.begin(body)
        if first == b"{":  # a server that ignores "stream", or an error
            decoder.chunk(bodies.parsed((yield from bodies.whole(body))))
        else:
            for batch in sse.decode(body):
                for _, data in batch:
                    if data.startswith(sse.DONE):
                        decoder.finish()
                    else:
                        decoder.chunk(bodies.parsed(data))
                yield writer.take()
        decoder.finish()
        call.usage_estimated = not decoder.saw_usage
        yield writer.take()

    def verbatim(self, call: Call, body: Iterator[bytes], credentials: Credentials) -> Iterator[Relayed]:
        first, body = yield from bodies.relayed(bodies.begin(body))
        reader = ChatReader(call.include_usage, credentials)
        if first == b"{":
            data = yield from bodies.relayed(bodies.whole(body))
            facts: list[Event] = []
            reader.read(b"", data, facts)
            reader.close()
            yield data, facts
        else:
            yield from bodies.relay(body, reader)

    # ---- judging

    def failure(self, response: HttpResponse, credentials: Credentials) -> Failure:
        message = message_of(response)
        failure = judge(response.status, message, response.headers, credentials)
        if response.status in (400, 422) and (learned := lesson(message, credentials.options)):
            return Failure(Verdict.LEARN, failure.status, failure.type, failure.message, learned=learned)
        return failure

    def probe(self, credentials: Credentials) -> Flow[Probe]:
        url = f"{credentials.base_url}/models"
        response = yield HttpRequest("GET", url, {"accept": "application/json"} | _auth(credentials))
        return read_models(response, self.failure(response, credentials), url)


def _auth(credentials: Credentials) -> dict[str, str]:
    return {"authorization": f"Bearer {credentials.api_key}"} if credentials.api_key else {}


def lesson(message: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The option that a 400 teaches, {} when none or when it is known already."""
    for pattern, name, value in LESSONS:
        if pattern.search(message) and options.get(name) != value:
            return {name: value}
    if found := TOO_MANY_TOKENS.search(message):
        limit = int(found[1])
        if not 0 < options.get("max_tokens", 0) <= limit:
            return {"max_tokens": limit}
    return {}


class ChatReader:
    """Reads a verbatim stream along: the first content, usage and the end as canonical events, errors as Failure."""

    NOTABLE = re.compile(rb'"finish_reason":\s*"|"usage":\s*\{|"error"|\[DONE\]')

    def __init__(self, include_usage: bool, credentials: Credentials):
        self._include_usage = include_usage
        self._credentials = credentials
        self._content = False
        self._finished = False

    def wants(self, data: bytes) -> bool:
        return not self._content or bool(self.NOTABLE.search(data))

    def read(self, name: bytes, data: bytes, facts: list[Event]) -> bool:
        """False when the client must not see this event: the usage chunk that only we asked for. Raises Failure."""
        if data.startswith(sse.DONE):
            return True
        chunk = bodies.parsed(data)
        if not isinstance(chunk, dict):
            raise broken("upstream sent invalid JSON")
        if found := error_in(chunk):
            raise judge(found[2] or 502, found[1], {}, self._credentials)
        choices = chunk.get("choices") or ()
        for choice in choices:
            self._read_choice(choice, facts)
        if usage := chunk.get("usage"):
            facts.append({"type": "message_delta", "delta": {}, "usage": read_usage(usage).as_dict()})
        return bool(choices) or not usage or self._include_usage

    def _read_choice(self, choice: Mapping[str, Any], facts: list[Event]) -> None:
        delta = choice.get("delta") or choice.get("message") or {}
        if choice.get("finish_reason"):
            self._finished = True
            facts.append({"type": "message_delta", "delta": {}})
        elif not self._content and any(value for name, value in delta.items() if name != "role"):
            facts.append({"type": "content_block_delta"})
        self._content = self._content or bool(facts)

    def close(self) -> None:
        if not self._finished:
            raise broken(bodies.EARLY)


def read_models(response: HttpResponse, failure: Failure, url: str) -> Probe:
    """What ``GET …/models`` says of a credential: 200 good, 401 and 403 bad, 402 and 429 good but spent."""
    if response.status == 200:
        names = model_names(response.body)
        if names is None:
            return Probe(
                False, f"{url} did not answer with a list of models; is the base URL right?", failure=broken("no list")
            )
        return Probe(True, f"The key works; {len(names)} models.", names)
    if failure.verdict in (Verdict.RATE, Verdict.QUOTA):
        return Probe(True, "The key works, but its rate or quota is used up.", failure=failure)
    if failure.verdict is Verdict.AUTH:
        return Probe(False, f"The key was refused ({response.status}): {failure.message}", failure=failure)
    if response.status in (404, 405):
        return Probe(False, f"{url} answered {response.status}; is the base URL right?", failure=failure)
    return Probe(False, f"{url} answered {response.status}: {failure.message}", failure=failure)


def model_names(body: bytes) -> list[str] | None:
    """The ids of a model list, None when it is none."""
    try:
        data = jsons.loads(body)
    except jsons.JsonError:
        return None
    entries = data.get("data") if isinstance(data, dict) else data
    if not isinstance(entries, list):
        return None
    return [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


UPSTREAM = OpenAICompatible()
