"""The routes that clients call, over real HTTP: what is refused and how, who may call, under which addresses."""

import json
import re
import socket
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.fakes.upstream import Asked, Reply, Upstream, spoken, streamed
from tests.live import KEY, Answer, Gateway, Gateways, body, gateway, read, unique, wait_until

MESSAGES, CHAT, COUNT = "/v1/messages", "/v1/chat/completions", "/v1/messages/count_tokens"
SECRET = "sk-up-very-secret"
MODEL = "served"
PING = {MESSAGES: b'event: ping\ndata: {"type":"ping"}\n\n', CHAT: b": ping\n\n"}
USER = {"role": "user", "content": "Hi"}
MIB = 2**20


@pytest.fixture(scope="module", autouse=True)
def _early(slow: dict[str, Future[Any]]) -> None:
    """What takes long begins first."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    fake = Upstream()
    yield fake
    fake.stop()


@pytest.fixture(scope="module")
def live(gateways: Gateways, upstream: Upstream) -> Iterator[Gateway]:
    """With one account of each kind; that of Anthropic serves MODEL."""
    running = gateways()
    running.api("PUT", "/v2/settings", {"pingInterval": 1})
    running.account("anthropic", upstream.url, SECRET, models=[MODEL])
    running.account("openai", f"{upstream.url}/v1", SECRET, models=[f"{MODEL}-openai"])
    yield running
    running.api("PUT", "/v2/settings", {"pingInterval": 15})
    running.forget_accounts()


def is_told(answer: Answer, path: str, status: int, type_: str, message: str) -> None:
    """The error has its status, and the shape of the dialect that the path stands for."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert re.fullmatch(r"req_[0-9A-Za-z]{24}", answer.headers["request-id"])
    found = answer.json
    assert message in found["error"]["message"]
    assert found["error"]["type"] == type_
    if "chat" in path:
        assert set(found) == {"error"}
        assert set(found["error"]) == {"message", "type", "param", "code"}
        assert answer.headers["x-request-id"] == answer.headers["request-id"]
    else:
        assert set(found) == {"type", "error", "request_id"}
        assert (found["type"], found["request_id"]) == ("error", answer.headers["request-id"])


# ---- bad input


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in body(MODEL).items() if name not in names}


EVERYWHERE: list[tuple[Any, str]] = [
    (b"", "empty"),
    (b"  \n", "empty"),
    (b'{"model":', "not valid JSON"),
    (b"\xff\xfe", "not valid JSON"),
    (b"model=x&max_tokens=1", "not valid JSON"),
    (b'{"model": NaN}', "not valid JSON"),
    (b"[" * 100_000, "not valid JSON"),
    ([], "must be a JSON object"),
    ("text", "must be a JSON object"),
    (None, "empty"),
    ({}, "Field required"),
    (without("model"), "model: Field required"),
    (without("messages"), "messages: Field required"),
    (body(7), "model: Input should be a valid string"),  # type: ignore[arg-type]
    (body(""), "model: String should have at least 1 character"),
    (body(MODEL, max_tokens="many"), "max_tokens: Input should be a valid integer"),
    (body(MODEL, max_tokens=1.5), "max_tokens: Input should be a valid integer"),
    (body(MODEL, max_tokens=True), "max_tokens: Input should be a valid integer"),
    (body(MODEL, max_tokens=-1), "max_tokens: Input should be greater than or equal to"),
    (body(MODEL, stream="yes"), "stream: Input should be a valid boolean"),
    (body(MODEL, tools={}), "tools: Input should be a valid list"),
    (body(MODEL, temperature="hot"), "temperature: Input should be a valid number"),
    (body(MODEL, messages=[]), "messages: at least one message is required"),
    (body(MODEL, messages={}), "messages: Input should be a valid list"),
    (body(MODEL, messages=["Hi"]), "messages.0: Input should be a valid dictionary"),
    (body(MODEL, messages=[{"content": "Hi"}]), "messages.0.role: Field required"),
    (body(MODEL, messages=[{"role": "wizard", "content": "Hi"}]), "messages.0.role: Input should be '"),
    (body(MODEL, messages=[{"role": [], "content": "Hi"}]), "messages.0.role"),
    (body(MODEL, messages=[{"role": "user"}]), "messages.0.content"),
    (body(MODEL, messages=[{"role": "user", "content": 5}]), "messages.0.content: Input should be a valid"),
    (body(MODEL, messages=[{"role": "user", "content": ["Hi"]}]), "messages.0.content.0"),
    (body(MODEL, messages=[{"role": "user", "content": [{"text": "Hi"}]}]), "messages.0.content.0.type"),
]
ANTHROPIC_ONLY: list[tuple[Any, str]] = [
    (without("max_tokens"), "max_tokens: Field required"),
    (body(MODEL, max_tokens=0, stream=True), "max_tokens: 0"),
    (body(MODEL, system=5), "system: Input should be a valid string or list"),
    (body(MODEL, messages=[{"role": "user", "content": [{"type": "text"}]}]), "messages.0.content.0.text.text"),
    (body(MODEL, messages=[{"role": "user", "content": [{"type": "image"}]}]), "messages.0.content.0.image.source"),
    (body(MODEL, messages=[{"role": "user", "content": [{"type": "tool_result"}]}]), "tool_use_id: Field required"),
    (body(MODEL, tools=[{"name": "a b", "input_schema": {}}]), "tools.0.custom.name: String should match"),
    (body(MODEL, tools=[{"name": "a"}]), "tools.0.custom.input_schema: Field required"),
    (body(MODEL, tools=[{"name": "a", "input_schema": {}}] * 2), "tools: Tool names must be unique."),
    (body(MODEL, tool_choice={"type": "maybe"}), "tool_choice.type: Input should be 'auto'"),
    (body(MODEL, tool_choice={"type": "any"}), "tools must be provided"),
    (body(MODEL, thinking="yes"), "thinking: Input should be a valid dictionary"),
    (body(MODEL, stop_sequences="x"), "stop_sequences: Input should be a valid list"),
]
OPENAI_ONLY: list[tuple[Any, str]] = [
    (body(MODEL, max_tokens=0), "max_tokens: Input should be greater than or equal to 1"),
    (body(MODEL, n=2), "n: only 1 is supported"),
    (body(MODEL, stop={"a": 1}), "stop: Input should be a valid string or list"),
    (body(MODEL, tool_choice="maybe", tools=[{"function": {"name": "a"}}]), "tool_choice"),
    (body(MODEL, tools=["a"]), "tools.0"),
    (body(MODEL, modalities=["audio"]), "audio output is not supported"),
    (body(MODEL, messages=[{"role": "tool", "content": "x"}]), "messages.0.tool_call_id: Field required"),
    (body(MODEL, messages=[USER, {"role": "tool", "content": "x", "tool_call_id": "no"}]), "unexpected `tool_use_id`"),
    ({"model": MODEL, "input": "Hi"}, "Responses API"),
]
BAD = (
    [(path, sent, message) for path in (MESSAGES, CHAT) for sent, message in EVERYWHERE]
    + [(MESSAGES, sent, message) for sent, message in ANTHROPIC_ONLY]
    + [(CHAT, sent, message) for sent, message in OPENAI_ONLY]
)


def named(value: Any) -> str:
    return value if isinstance(value, str) else (repr(value) if isinstance(value, bytes) else json.dumps(value))[:40]


@pytest.mark.parametrize("path, sent, message", BAD, ids=named)
def test_bad_input_is_a_400_that_names_the_field(
    live: Gateway, upstream: Upstream, path: str, sent: Any, message: str
) -> None:
    before = len(upstream.of(SECRET))
    is_told(live.post(path, sent), path, 400, "invalid_request_error", message)
    assert len(upstream.of(SECRET)) == before


@pytest.mark.parametrize("sent, message", [(b"", "empty"), ({}, "Field required"), (b"{", "not valid JSON")])
def test_count_tokens_names_bad_fields_too(live: Gateway, sent: Any, message: str) -> None:
    is_told(live.post(COUNT, sent), COUNT, 400, "invalid_request_error", message)


@pytest.mark.parametrize("path, depth", [(MESSAGES, 500), (MESSAGES, 100_000), (CHAT, 100_000)])
def test_a_body_nested_without_end_is_a_400(live: Gateway, path: str, depth: int) -> None:
    nested = '{"a":' * depth + "1" + "}" * depth
    sent = json.dumps(body(MODEL)).replace('"Hi"', f'[{{"type":"text","text":"Hi","cache_control":{nested}}}]').encode()
    is_told(live.post(path, sent), path, 400, "invalid_request_error", "")


@pytest.mark.parametrize(
    "version, status",
    [("2023-06-01", 200), ("2026-10-21", 200), ("2031-01-01", 200), ("soon", 400), ("2023-6-1", 400), ("", 400)],
)
def test_a_malformed_version_is_a_400_and_an_unknown_one_is_passed_on(
    live: Gateway, upstream: Upstream, version: str, status: int
) -> None:
    answer = live.post(MESSAGES, body(MODEL), {"anthropic-version": version})
    assert answer.status == status
    if status == 200:
        assert upstream.of(SECRET)[-1].headers["anthropic-version"] == version


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_sampling_is_gone_from_the_newest_version(live: Gateway, name: str) -> None:
    sent = body(MODEL, **{name: 1})
    assert live.post(MESSAGES, sent, {"anthropic-version": "2023-06-01"}).status == 200
    answer = live.post(MESSAGES, sent, {"anthropic-version": "2026-10-21"})
    is_told(answer, MESSAGES, 400, "invalid_request_error", f"{name}: Extra inputs are not permitted")


@pytest.mark.parametrize("path", [MESSAGES, CHAT, COUNT])
def test_an_unknown_model_is_a_404_that_names_close_ones(live: Gateway, upstream: Upstream, path: str) -> None:
    before = len(upstream.of(SECRET))
    answer = live.post(path, body("serveed"))
    type_ = "invalid_request_error" if path == CHAT else "not_found_error"
    is_told(answer, path, 404, type_, f"model: serveed (close matches: {MODEL}, {MODEL}-openai)")
    assert len(upstream.of(SECRET)) == before


def test_a_documented_name_that_nothing_serves_says_what_it_needs(live: Gateway) -> None:
    # The account of Anthropic is limited to MODEL.
    answer = live.ask("claude-sonnet-4.5")
    is_told(answer, MESSAGES, 404, "not_found_error", "needs an account of Anthropic")


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", MESSAGES, 405),
        ("PUT", MESSAGES, 405),
        ("DELETE", CHAT, 405),
        ("GET", CHAT, 405),
        ("GET", COUNT, 405),
        ("POST", "/v1/models", 405),
        ("DELETE", "/v1/models/x", 405),
        ("POST", "/v1/complete", 404),
        ("POST", "/responses", 404),
        ("POST", "/V1/messages", 404),
        ("POST", "/some/prefix/v1/messages", 404),
        ("POST", "/openai/chat/completions", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/", 404),
        ("POST", "/v1/messages/no/such/route", 404),
        ("POST", "/v1/chat/nothing", 404),
        ("GET", "/v1/../../etc/passwd", 404),
    ],
)
def test_a_wrong_method_is_a_405_and_an_unknown_route_a_404(live: Gateway, method: str, path: str, status: int) -> None:
    for headers in ({}, {"anthropic-version": "2023-06-01"}):
        answer = live.send(method, path, b"{}", headers)
        assert answer.status == status
        assert re.fullmatch(r"req_[0-9A-Za-z]{24}", answer.headers["request-id"])
        anthropic = "chat" not in path and "responses" not in path
        assert answer.json.get("type") == ("error" if anthropic else None)
        assert answer.json["error"]["message"]
        assert ("allow" in answer.headers) == (status == 405)


def test_errors_without_a_sign_of_anthropic_are_openais(live: Gateway) -> None:
    answer = live.send("GET", "/v1/nothing", headers={"authorization": f"Bearer {KEY}"}, key=None)
    assert answer.status == 404
    assert set(answer.json) == {"error"}


@pytest.mark.parametrize("path", [MESSAGES, CHAT])
@pytest.mark.parametrize("chunked", [False, True], ids=["with length", "chunked"])
def test_a_body_of_34_mib_is_a_413_that_the_client_reads(
    live: Gateway, upstream: Upstream, path: str, chunked: bool
) -> None:
    sent = json.dumps(body(MODEL, "x" * 34 * MIB)).encode()
    before = len(upstream.of(SECRET))
    headers = {"x-api-key": KEY, "content-type": "application/json"}
    with closing(live.connection()) as connection:
        if chunked:
            pieces = (sent[i : i + 65_536] for i in range(0, len(sent), 65_536))
            connection.request("POST", path, pieces, headers, encode_chunked=True)
        else:
            connection.request("POST", path, sent, headers)
        answer = read(connection)
    type_ = "invalid_request_error" if path == CHAT else "request_too_large"
    is_told(answer, path, 413, type_, "exceeds the maximum size")
    assert len(upstream.of(SECRET)) == before


def test_a_413_does_not_wait_for_the_body(live: Gateway) -> None:
    began = time.monotonic()
    with closing(live.connection()) as connection:
        connection.putrequest("POST", MESSAGES)
        connection.putheader("x-api-key", KEY)
        connection.putheader("content-length", str(34 * MIB))
        connection.endheaders()
        assert connection.getresponse().status == 413
        assert time.monotonic() - began < 3


def test_32_mib_are_taken(live: Gateway, upstream: Upstream) -> None:
    sent = json.dumps(body(MODEL, "")).encode()
    sent = json.dumps(body(MODEL, "x" * (32 * MIB - len(sent)))).encode()
    assert len(sent) == 32 * MIB
    assert live.post(MESSAGES, sent).status == 200
    assert len(upstream.of(SECRET)[-1].body) > 31 * MIB
    upstream.asked.clear()


@pytest.mark.parametrize(
    "framing",
    [b"zz\r\n{}\r\n0\r\n\r\n", b"-1\r\n\r\n", b"2\r\n{}XX\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n"],
)
def test_broken_chunks_are_a_400(live: Gateway, framing: bytes) -> None:
    with closing(socket.create_connection(("127.0.0.1", live.port), 10)) as sock:
        head = f"POST {MESSAGES} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ntransfer-encoding: chunked\r\n\r\n"
        sock.sendall(head.encode() + framing)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(65_536).startswith(b"HTTP/1.1 400")


# ---- who may call


@pytest.mark.parametrize("path", [MESSAGES, CHAT, COUNT])
@pytest.mark.parametrize(
    "headers, message",
    [
        ({}, "x-api-key header is required"),
        ({"x-api-key": ""}, "x-api-key header is required"),
        ({"authorization": "Basic abc"}, "x-api-key header is required"),
        ({"x-api-key": "sk-nobody"}, "invalid x-api-key"),
        ({"authorization": "Bearer sk-nobody"}, "invalid x-api-key"),
        ({"x-api-key": KEY[:-1]}, "invalid x-api-key"),
        ({"x-api-key": KEY + "x"}, "invalid x-api-key"),
        ({"x-api-key": "sk-nobody", "authorization": "Bearer sk-nobody"}, "invalid x-api-key"),
        ({"cookie": f"session={KEY}"}, "x-api-key header is required"),
    ],
)
def test_a_caller_without_a_good_key_is_a_401(
    live: Gateway, upstream: Upstream, path: str, headers: dict[str, str], message: str
) -> None:
    before = len(upstream.of(SECRET))
    type_ = "invalid_request_error" if path == CHAT else "authentication_error"
    answer = live.post(path, body(MODEL), headers, key=None)
    is_told(answer, path, 401, type_, message)
    if path == CHAT:
        assert answer.json["error"]["code"] == "invalid_api_key"
    assert len(upstream.of(SECRET)) == before


def test_the_key_is_asked_for_before_the_body_is_read(live: Gateway) -> None:
    assert live.post(MESSAGES, b"no JSON", key=None).status == 401
    assert live.send("GET", "/v1/models", key=None).status == 401
    assert live.send("GET", "/v1/models/x", key=None).status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": KEY},
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY} "},
        {"x-api-key": "bad", "authorization": f"Bearer {KEY}"},
        {"x-api-key": KEY, "authorization": "Bearer bad"},
        {"x-api-key": KEY, "authorization": f"Bearer {KEY}"},
    ],
)
@pytest.mark.parametrize("path", [MESSAGES, CHAT, COUNT])
def test_the_first_valid_key_of_both_headers_counts(live: Gateway, path: str, headers: dict[str, str]) -> None:
    assert live.post(path, body(MODEL), headers, key=None).status == 200


def test_a_revoked_key_is_refused_within_a_second(live: Gateway) -> None:
    value = live.flask("keys", "create", "leaver")
    wait_until(lambda: live.post(COUNT, body(MODEL), key=value).status == 200, 1.5)
    live.flask("keys", "revoke", "leaver")
    wait_until(lambda: live.post(COUNT, body(MODEL), key=value).status == 401, 1.5)


def test_an_expired_key_is_refused(live: Gateway) -> None:
    value = live.flask("keys", "create", "short")
    wait_until(lambda: live.post(COUNT, body(MODEL), key=value).status == 200, 1.5)
    with closing(sqlite3.connect(live.database, timeout=5)) as connection, connection:
        connection.execute("UPDATE api_keys SET expires_at = '2020-01-01 00:00:00.000000' WHERE name = 'short'")
        connection.execute("UPDATE settings SET value = '1' WHERE key = 'version'")
    wait_until(lambda: live.post(COUNT, body(MODEL), key=value).status == 401, 2.5)


@pytest.fixture(scope="module")
def open_to_loopback(migrated: Path) -> Iterator[Gateway]:
    with gateway(migrated, ANONYMOUS_ACCESS="loopback") as running:
        yield running


@pytest.mark.parametrize(
    "headers, status",
    [
        ({}, 200),
        ({"host": "localhost"}, 200),
        ({"host": "localhost:7860"}, 200),
        ({"host": "[::1]:7860"}, 200),
        ({"host": "gateway.example"}, 401),
        ({"host": "127.0.0.1.example"}, 401),
        ({"x-forwarded-for": "127.0.0.1"}, 401),
        ({"forwarded": "for=127.0.0.1"}, 401),
        ({"x-real-ip": "127.0.0.1"}, 401),
        ({"via": "1.1 proxy"}, 401),
        ({"origin": "https://site.example"}, 401),
    ],
)
def test_loopback_needs_no_key_when_nothing_hints_at_another_place(
    open_to_loopback: Gateway, headers: dict[str, str], status: int
) -> None:
    assert open_to_loopback.post(COUNT, body("any"), headers, key=None).status == status


def test_an_anonymous_request_is_logged_without_a_key(open_to_loopback: Gateway) -> None:
    answer = open_to_loopback.post(MESSAGES, body("any"), key=None)
    assert answer.text.startswith("This is practice")
    assert open_to_loopback.row(answer)["key_id"] is None


# ---- addresses


@pytest.mark.parametrize("prefix", ["/v1", "", "/v1/v1", "//v1", "/v1//v1", "/v1/"])
@pytest.mark.parametrize("end", ["", "/"])
@pytest.mark.parametrize("query", ["", "?beta=true"])
def test_every_base_url_that_people_type_works(live: Gateway, prefix: str, end: str, query: str) -> None:
    statuses = {
        path: live.send(method, f"{prefix}{path}{end}{query}", sent).status
        for method, path, sent in (
            ("POST", "/messages", body(MODEL)),
            ("POST", "/messages/count_tokens", body(MODEL)),
            ("POST", "/chat/completions", body(MODEL)),
            ("GET", "/models", None),
            ("GET", f"/models/{MODEL}", None),
        )
    }
    assert set(statuses.values()) == {200}, statuses


@pytest.mark.parametrize("path", ["/", "/api/hello", "/v1", "/v1/messages"])
def test_a_probe_by_head_is_quick_and_needs_no_key(live: Gateway, path: str) -> None:
    began = time.monotonic()
    answer = live.send("HEAD", path, key=None)
    assert answer.status < 500
    assert answer.body == b""
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("written", ["a%2Fb", "a/b", "a%2fb"])
def test_a_models_id_is_decoded_once(live: Gateway, upstream: Upstream, written: str) -> None:
    name = unique("claude/x y%41")
    live.account("openai", f"{upstream.url}/v1", models=[name])
    path = name.replace("%", "%25").replace(" ", "%20").replace("/", written[1:-1])
    assert live.send("GET", f"/v1/models/{path}").json["id"] == name


def test_all_models_are_listed_without_a_version_and_20_with_one(live: Gateway, upstream: Upstream) -> None:
    names = [unique("listed") for _ in range(25)]
    live.account("openai", f"{upstream.url}/v1", models=names)
    every = live.send("GET", "/v1/models").json
    assert set(names) <= {entry["id"] for entry in every["data"]}
    assert (every["object"], every["has_more"]) == ("list", False)
    page = live.send("GET", "/v1/models", headers={"anthropic-version": "2023-06-01"}).json
    assert (len(page["data"]), page["has_more"]) == (20, True)
    assert page["last_id"] == page["data"][-1]["id"]
    entry = page["data"][0]
    assert {"type", "id", "display_name", "created_at", "object", "created", "owned_by"} <= set(entry)


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "1.5", "", "٣"])
def test_a_page_size_out_of_range_is_a_400(live: Gateway, limit: str) -> None:
    answer = live.send("GET", f"/v1/models?limit={quote(limit)}", headers={"anthropic-version": "2023-06-01"})
    is_told(answer, "/v1/models", 400, "invalid_request_error", "limit")


# ---- headers


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [MESSAGES, CHAT])
@pytest.mark.parametrize(
    "model, provider", [(MODEL, "anthropic"), (f"{MODEL}-openai", "openai"), ("practice/x", "practice")]
)
def test_an_answer_says_who_gave_it(live: Gateway, path: str, model: str, provider: str, stream: bool) -> None:
    answer = live.post(path, body(model, stream=stream))
    headers = answer.headers
    assert answer.status == 200
    assert re.fullmatch(r"req_[0-9A-Za-z]{24}", headers["request-id"])
    assert headers["opus-provider"] == provider
    assert headers.get("x-request-id") == (headers["request-id"] if path == CHAT else None)
    assert ("anthropic-organization-id" in headers) == (path == MESSAGES)
    assert not {"set-cookie", "x-api-key"} & set(headers)
    assert headers["server"] != "fake"
    if stream:
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-cache", "no")
    else:
        assert headers["content-type"] == "application/json"


def test_the_organization_is_one_uuid_for_the_installation(live: Gateway) -> None:
    found = {live.ask(model).headers["anthropic-organization-id"] for model in (MODEL, "practice/x")}
    assert len(found) == 1
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", found.pop())


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_dropped_stands_in_the_warnings(live: Gateway, stream: bool) -> None:
    answer = live.ask(f"{MODEL}-openai", top_k=5, foo=1, stream=stream)
    assert answer.status == 200
    assert set(answer.headers["opus-warnings"].split(",")) == {"top_k", "unknown_fields"}
    assert "opus-warnings" not in live.ask(MODEL, foo=1, stream=stream).headers


def test_anthropic_is_sent_unknown_fields_and_headers_as_they_are(live: Gateway, upstream: Upstream) -> None:
    sent = body(MODEL, foo={"bar": [1]}, base_url="http://evil.example", api_key="mine")
    live.post(
        MESSAGES, sent, {"anthropic-beta": "a-2025-01-01,b", "anthropic-new": "x", "x-other": "y", "cookie": "c=1"}
    )
    asked = upstream.of(SECRET)[-1]
    assert asked.json == sent
    assert asked.headers["anthropic-beta"] == "a-2025-01-01,b"
    assert asked.headers["anthropic-new"] == "x"
    assert asked.headers["x-api-key"] == SECRET
    assert not {"x-other", "cookie", "authorization", "x-forwarded-for"} & set(asked.headers)


def test_the_stream_of_anthropic_is_relayed_byte_for_byte(live: Gateway, upstream: Upstream) -> None:
    name, key = unique("verbatim"), unique("sk-up")
    live.account("anthropic", upstream.url, key, models=[name])
    strange = b'event: novelty\ndata: {"type":"novelty","index":0}\n\nevent: ping\ndata: {"type": "ping"}\n\n'
    sent: list[bytes] = []

    def answer(asked: Asked) -> Reply:
        events = [step for step in spoken(asked).body if isinstance(step, bytes)]
        sent.extend([events[0], strange, *events[1:]])
        return streamed(sent)

    upstream.answers[key] = answer
    assert live.ask(name, stream=True).body == b"".join(sent)


def test_keep_alive_serves_one_request_after_another(live: Gateway) -> None:
    with closing(live.connection()) as connection:
        for stream in (True, False, True):
            sent = json.dumps(body(MODEL, stream=stream))
            connection.request("POST", MESSAGES, sent, {"x-api-key": KEY, "content-type": "application/json"})
            assert read(connection).text == "Hello from the upstream."


# ---- what takes long, all at the same time


@pytest.fixture(scope="module")
def slow(live: Gateway, upstream: Upstream) -> Iterator[dict[str, Future[Any]]]:
    """Begins with the first test of this module; the tests at its end look at what has come of it."""
    names = {}
    for kind, url in (("anthropic", upstream.url), ("openai", f"{upstream.url}/v1")):
        for place, answer in (("before", _late), ("within", _pausing)):
            name = names[kind, place] = unique(f"slow-{kind}")
            live.account(kind, url, models=[name])
            upstream.answers[name] = answer
    jobs = {
        f"{kind} {place} {path}": (name, path) for (kind, place), name in names.items() for path in (MESSAGES, CHAT)
    }
    with ThreadPoolExecutor(len(jobs) + 1) as pool:
        running: dict[str, Future[Any]] = {job: pool.submit(_timed, live, *what) for job, what in jobs.items()}
        yield {**running, "endless": pool.submit(_never_ending, live)}


def _late(asked: Asked) -> Reply:
    reply = spoken(asked)
    reply.before = [12.2]
    return reply


def _pausing(asked: Asked) -> Reply:
    reply = spoken(asked)
    reply.body = [*reply.body[:4], 3.3, *reply.body[4:]]  # type: ignore[list-item]
    return reply


def _timed(live: Gateway, name: str, path: str) -> tuple[Answer, float]:
    """A streamed answer, and how long its head took."""
    with closing(live.connection()) as connection:
        began = time.monotonic()
        headers = {"x-api-key": KEY, "content-type": "application/json"}
        connection.request("POST", path, json.dumps(body(name, stream=True)), headers)
        response = connection.getresponse()
        waited = time.monotonic() - began
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, response.read()), waited


def _never_ending(live: Gateway) -> tuple[bytes, float]:
    """What a client reads that goes on sending whatever it is told, and how long it could."""
    began = time.monotonic()
    with closing(socket.create_connection(("127.0.0.1", live.port), 10)) as sock:
        head = f"POST {MESSAGES} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: {34 * MIB}\r\n\r\n"
        sock.sendall(head.encode())
        read = sock.recv(65_536)
        with suppress(OSError):
            while time.monotonic() - began < 9:
                sock.sendall(b"x")
                time.sleep(0.05)
    return read, time.monotonic() - began


@pytest.mark.parametrize("path", [MESSAGES, CHAT])
@pytest.mark.parametrize("kind", ["anthropic", "openai"])
def test_waiting_for_the_first_content_is_filled_with_pings(slow: dict[str, Future[Any]], kind: str, path: str) -> None:
    answer, waited = slow[f"{kind} before {path}"].result(30)
    assert 9.9 < waited < 10.6, "the status is sent after 10 s"
    assert answer.status == 200
    assert answer.body.startswith(PING[path])
    assert answer.text == "Hello from the upstream."
    assert 2 <= len(answer.body.split(b"upstream", 1)[0].split(PING[path])) - 1 <= 4, (
        "one with the status, then one a second"
    )


@pytest.mark.parametrize("path", [MESSAGES, CHAT])
@pytest.mark.parametrize("kind", ["anthropic", "openai"])
def test_silence_within_an_answer_is_filled_with_pings(slow: dict[str, Future[Any]], kind: str, path: str) -> None:
    answer, waited = slow[f"{kind} within {path}"].result(30)
    assert waited < 2
    assert answer.text == "Hello from the upstream."
    within = answer.body.split(b"Hello", 1)[1].split(b" upstream", 1)[0]
    assert 2 <= within.count(PING[path]) <= 4, "one a second, for three seconds"


def test_a_client_that_goes_on_sending_after_a_413_is_cut_off_after_5_s(slow: dict[str, Future[Any]]) -> None:
    read, lasted = slow["endless"].result(30)
    assert read.startswith(b"HTTP/1.1 413")
    assert 4.5 < lasted < 7


# ---- last of all: what this module's requests have left in the log


def test_no_secret_and_no_prompt_was_logged(live: Gateway) -> None:
    live.ask(MODEL, "my private prompt")
    output = live.output()
    for secret in (KEY, SECRET, "my private prompt", "sk-nobody"):
        assert secret not in output
    assert "Traceback" not in output
