"""Any server that speaks OpenAI Chat Completions: OpenAI, OpenRouter, DeepSeek, vLLM, Ollama … Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from opus_api.upstreams import bodies, chat_request
from opus_api.upstreams.base import Credentials, Failure, Field, Option, Probe, Relayed, Verdict
from opus_api.upstreams.chat_reader import ChatReader, as_stream
from opus_api.upstreams.chat_stream import ChatDecoder
from opus_api.upstreams.failures import LONGEST_MESSAGE, judge, message_of, words_of
from opus_api.upstreams.models_list import read_models
from opus_api.wire import sse
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
    Option("reasoning_none", True, "It takes reasoning_effort none, to switch reasoning off."),
    Option("replay_reasoning", False, "Send earlier reasoning_content back."),
    Option("think_tags", False, "Answers begin with their reasoning between <think> and </think>."),
    Option("top_k", False, "The server takes top_k."),
    Option("safety_identifier", False, "Send a hash of metadata.user_id as safety_identifier."),
    Option("system_role", "system", "The role of system messages: system, developer or user."),
    Option("single_system", False, "Only one system message, at the start."),
    Option("string_content", False, "Text content as one string, never as a list of parts."),
    Option("fill_empty_tool_content", False, "Send '(no output)' for an empty tool result."),
    Option("tool_id_length", 0, "Longest tool call id the server takes; 0: no limit."),
)


def _lesson(pattern: str, name: str, value: Any) -> tuple[re.Pattern[str], str, Any]:
    return re.compile(pattern, re.I | re.S), name, value


# What a 400 says -> what to remember. The first that fits and changes something wins.
LESSONS = (
    _lesson(r"stream_options|include_usage", "stream_options", False),
    _lesson(r"max_tokens.*max_completion_tokens", "max_completion_tokens", True),
    _lesson(r"max_completion_tokens.*(unknown|unrecognized|not permitted|extra)", "max_completion_tokens", False),
    _lesson(r"parallel_tool_calls", "parallel_tool_calls", False),
    _lesson(r"(unsupported|invalid) value:? '?none.*reasoning_effort", "reasoning_none", False),
    _lesson(r"reasoning_effort", "reasoning", False),
    _lesson(r"\btop_k\b", "top_k", False),
    _lesson(r"does not support 'system'", "system_role", "developer"),
    _lesson(r"does not support 'developer'|unexpected role[^a-z]*developer", "system_role", "user"),
    _lesson(r"system (message|role).{0,40}(at the beginning|be (the )?first)", "single_system", True),
    _lesson(r"\bcontent\b.{0,80}(must be|should be|expected) a (valid )?string", "string_content", True),
)
# The same for those that tell a number.
LIMITS = (
    (
        re.compile(
            r"max(?:_completion)?_tokens.*?(?:at most|maximum[^0-9]{0,40}|<=|less than or equal to) ?(\d{3,7})",
            re.I | re.S,
        ),
        "max_tokens",
    ),
    (re.compile(r"tool_call.{0,40}id.{0,20}string too long.*?maximum length (\d{1,3})", re.I | re.S), "tool_id_length"),
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
        if call.stream and options["stream_options"]:  # usage is for the log, whether the client wants it or not
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        elif not options["stream_options"]:
            body.pop("stream_options", None)
        return body

    # ---- reading

    def events(self, call: Call, body: Iterator[bytes], credentials: Credentials) -> Iterator[list[Event]]:
        writer = MessageWriter(call.model, call.input_estimate, call.thinking_wanted)
        stops = call.canonical().get("stop_sequences") or []
        decoder = ChatDecoder(writer, chat_request.long_names(call), stops, credentials, mends=call.stream)
        first, body = yield from bodies.begin(body)
        if first == b"{":  # a server that ignores "stream", or an error
            decoder.chunk(bodies.parsed((yield from bodies.whole(body))))
        else:
            for batch in bodies.events(bodies.until_finished(decoder, body)):
                try:
                    _decode(batch, decoder)
                except Failure:
                    yield writer.take()  # what came before it in the same read
                    raise
                call.said_all = decoder.said_all
                yield writer.take()
        decoder.finish()
        call.usage_estimated = not decoder.saw_usage
        yield writer.take()

    def verbatim(self, call: Call, body: Iterator[bytes], credentials: Credentials) -> Iterator[Relayed]:
        first, body = yield from bodies.relayed(bodies.begin(body))
        reader = ChatReader(call.include_usage, credentials)
        if first != b"{":
            for piece in bodies.relay(bodies.until_finished(reader, body), reader, call.stream):
                call.said_all = reader.said_all
                yield piece
            return
        data = yield from bodies.relayed(bodies.whole(body))
        facts: list[Event] = []
        completion = reader.completion(data, facts)
        yield as_stream(completion, call.include_usage) if call.stream else data, facts

    # ---- judging

    def failure(self, response: HttpResponse, credentials: Credentials) -> Failure:
        message = message_of(response)
        failure = judge(response.status, message, response.headers, credentials)
        if failure.verdict is Verdict.CLIENT:
            failure.words = words_of(response, credentials)
        if response.status in (400, 422):
            hint = f"{message[:LONGEST_MESSAGE]} {failure.words.get('param', '')}"
            if learned := lesson(hint, credentials.options):
                failure.verdict, failure.learned = Verdict.LEARN, learned
        return failure

    def probe(self, credentials: Credentials) -> Flow[Probe]:
        url = f"{credentials.base_url}/models"
        response = yield HttpRequest("GET", url, {"accept": "application/json"} | _auth(credentials))
        return read_models(response, self.failure(response, credentials), url)

    def own_name(self, name: str) -> str:
        return name


def _auth(credentials: Credentials) -> dict[str, str]:
    return {"authorization": f"Bearer {credentials.api_key}"} if credentials.api_key else {}


def _decode(batch: list[sse.SseEvent], decoder: ChatDecoder) -> None:
    for _, data in batch:
        if data.startswith(sse.DONE):
            decoder.finish()
        else:
            decoder.chunk(bodies.parsed(data))


def lesson(message: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The option that a 400 teaches, {} when none or when it is known already."""
    for pattern, name, value in LESSONS:
        if pattern.search(message) and options.get(name) != value:
            return {name: value}
    if "context length" in message:  # how much is left of it depends on the prompt
        return {}
    for pattern, name in LIMITS:
        found = pattern.search(message)
        if found and not 0 < options.get(name, 0) <= int(found[1]):
            return {name: int(found[1])}
    return {}


UPSTREAM = OpenAICompatible()
