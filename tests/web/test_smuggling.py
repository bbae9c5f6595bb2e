"""Requests that two readers of HTTP may understand differently: each gets at most one answer, in JSON, and the end.

Behind each stands a second request. Were it answered, somebody could hide it from a proxy in front.
"""

import json
import re

import pytest

from tests import bars
from tests.live import KEY, Gateway, Gateways
from tests.raw import CHAT, COUNT, MESSAGES, answer, connected, head, to_the_end

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
BODY = json.dumps({"model": "practice/x", "messages": [{"role": "user", "content": "Hi"}]}).encode()
LENGTH = f"content-length: {len(BODY)}".encode()
CHUNKED = b"transfer-encoding: chunked"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


def post(*lines: bytes, body: bytes = BODY, first: bytes = b"POST /v1/messages/count_tokens HTTP/1.1") -> bytes:
    """Counting tokens, so that a good request is a 200 without an account."""
    return b"\r\n".join([first, b"host: localhost", b"x-api-key: " + KEY.encode(), *lines, b"", b""]) + body


def get(line: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join([line, *lines, b"", b""])


# What is sent -> the status of its only answer. None: no answer at all, only the end.
CORPUS: dict[str, tuple[bytes, int | None]] = {
    # two lengths, or a length that is no number
    "length and chunks": (post(LENGTH, CHUNKED, body=CHUNKS), 400),
    "chunks and length": (post(CHUNKED, LENGTH, body=CHUNKS), 400),
    "length 0 and chunks": (post(b"content-length: 0", CHUNKED, body=CHUNKS), 400),
    "two lengths": (post(LENGTH, b"content-length: 0"), 400),
    "the same length twice": (post(LENGTH, LENGTH), 400),
    "a list of lengths": (post(b"content-length: 5, 5"), 400),
    "a length with a sign": (post(b"content-length: +5"), 400),
    "a length below zero": (post(b"content-length: -5"), 400),
    "a length in hex": (post(b"content-length: 0x10"), 400),
    "a length with a point": (post(b"content-length: 5.0"), 400),
    "a length with an exponent": (post(b"content-length: 1e1"), 400),
    "a length with a line": (post(b"content-length: 1_0"), 400),
    "a length in words": (post(b"content-length: five"), 400),
    "no length after its name": (post(b"content-length:"), 400),
    "a length in other digits": (post("content-length: ٥".encode()), 400),
    "a superscript length": (post(b"content-length: \xb2"), 400),
    "a length with a null": (post(b"content-length: 5\x00"), 400),
    "a length without end": (post(b"content-length: " + b"9" * 5000), 400),
    # transfer codings
    "an unknown coding": (post(b"transfer-encoding: xchunked", body=CHUNKS), 400),
    "a quoted coding": (post(b'transfer-encoding: "chunked"', body=CHUNKS), 400),
    "chunked twice": (post(b"transfer-encoding: chunked, chunked", body=CHUNKS), 400),
    "chunked in two headers": (post(CHUNKED, CHUNKED, body=CHUNKS), 400),
    "chunked is not the last": (post(b"transfer-encoding: chunked, gzip", body=CHUNKS), 400),
    "chunked, then identity": (post(b"transfer-encoding: chunked, identity", body=CHUNKS), 400),
    "identity alone": (post(b"transfer-encoding: identity", LENGTH), 400),
    "gzip alone": (post(b"transfer-encoding: gzip", LENGTH), 400),
    "no coding after its name": (post(b"transfer-encoding:", LENGTH), 400),
    "a coding before a vertical tab": (post(b"transfer-encoding: \x0bchunked", body=CHUNKS), 400),
    "a coding after a null": (post(b"transfer-encoding: \x00chunked", body=CHUNKS), 400),
    "a coding of another alphabet": (post("transfer-encoding: сhunked".encode(), body=CHUNKS), 400),
    "chunks in HTTP/1.0": (post(CHUNKED, body=CHUNKS, first=b"POST /v1/messages/count_tokens HTTP/1.0"), 400),
    "a coding with a parameter": (post(b"transfer-encoding: chunked;q=1", body=CHUNKS), 400),
    # names of headers
    "a blank before the colon": (post(b"transfer-encoding : chunked", LENGTH), 400),
    "a tab before the colon": (post(b"content-length\t: 5"), 400),
    "a blank before the name": (post(b" transfer-encoding: chunked", LENGTH), 400),
    "a header over two lines": (post(LENGTH, b"x-a: b", b" c"), 400),
    "a coding over two lines": (post(b"transfer-encoding:", b" chunked", body=CHUNKS), 400),
    "no name": (post(LENGTH, b": x"), 400),
    "no colon": (post(LENGTH, b"nothing"), 400),
    "a null in a name": (post(LENGTH, b"x\x00a: b"), 400),
    "a null in a value": (post(LENGTH, b"x-a: b\x00"), 400),
    "a CR in a value": (post(LENGTH, b"x-a: b\rx-b: c"), 400),
    "a control character in a value": (post(LENGTH, b"x-a: b\x01"), 400),
    "brackets in a name": (post(LENGTH, b"x[a]: b"), 400),
    "another alphabet in a name": (post(LENGTH, "ä: b".encode()), 400),
    # ends of lines
    "LF alone after the first line": (post(LENGTH).replace(b"\r\n", b"\n", 1), 400),
    "LF alone after a header": (post(LENGTH).replace(b"localhost\r\n", b"localhost\n"), 400),
    "LF alone everywhere": (post(LENGTH).replace(b"\r\n", b"\n"), 400),
    "CR alone after a header": (post(LENGTH).replace(b"localhost\r\n", b"localhost\r"), 400),
    # chunks
    "a size that is no number": (post(CHUNKED, body=b"zz\r\n{}\r\n0\r\n\r\n"), 400),
    "a size with 0x": (post(CHUNKED, body=b"0x2\r\n{}\r\n0\r\n\r\n"), 400),
    "a size with a sign": (post(CHUNKED, body=b"+2\r\n{}\r\n0\r\n\r\n"), 400),
    "a size below zero": (post(CHUNKED, body=b"-2\r\n{}\r\n0\r\n\r\n"), 400),
    "a size with a line": (post(CHUNKED, body=b"1_0\r\n{}\r\n0\r\n\r\n"), 400),
    "no size": (post(CHUNKED, body=b"\r\n{}\r\n0\r\n\r\n"), 400),
    "a blank before the size": (post(CHUNKED, body=b" 2\r\n{}\r\n0\r\n\r\n"), 400),
    "a blank after the size": (post(CHUNKED, body=b"2 \r\n{}\r\n0\r\n\r\n"), 400),
    "more than the size": (post(CHUNKED, body=b"2\r\n{}XX\r\n0\r\n\r\n"), 400),
    "LF alone after a chunk": (post(CHUNKED, body=b"2\r\n{}\n0\r\n\r\n"), 400),
    "LF alone after a size": (post(CHUNKED, body=b"2\n{}\r\n0\r\n\r\n"), 400),
    "CR alone in an extension": (post(CHUNKED, body=b"2;a\rb\r\n{}\r\n0\r\n\r\n"), 400),
    "LF alone in an extension": (post(CHUNKED, body=b"2;a\nb\r\n{}\r\n0\r\n\r\n"), 400),
    "an extension without end": (post(CHUNKED, body=b"2;" + b"a" * 40_000 + b"\r\n{}\r\n0\r\n\r\n"), 400),
    "a length after the chunks": (post(CHUNKED, body=CHUNKS[:-2] + b"content-length: 5\r\n\r\n"), 400),
    "a host after the chunks": (post(CHUNKED, body=CHUNKS[:-2] + b"host: evil\r\n\r\n"), 400),
    "a key after the chunks": (post(CHUNKED, body=CHUNKS[:-2] + b"authorization: x\r\n\r\n"), 400),
    # the host
    "no host": (get(b"GET /healthz HTTP/1.1"), 400),
    "an empty host": (get(b"GET /healthz HTTP/1.1", b"host:"), 400),
    "two hosts": (get(b"GET /healthz HTTP/1.1", b"host: a", b"host: b"), 400),
    "the same host twice": (get(b"GET /healthz HTTP/1.1", b"host: a", b"host: a"), 400),
    "a host with a path": (get(b"GET /healthz HTTP/1.1", b"host: a/b"), 400),
    "a host with a user": (get(b"GET /healthz HTTP/1.1", b"host: a@b"), 400),
    "a host with a blank": (get(b"GET /healthz HTTP/1.1", b"host: a b"), 400),
    "a list of hosts": (get(b"GET /healthz HTTP/1.1", b"host: a, b"), 400),
    "a port that is no number": (get(b"GET /healthz HTTP/1.1", b"host: a:b"), 400),
    "a host of another alphabet": (get(b"GET /healthz HTTP/1.1", "host: ä".encode()), 400),
    "a host in quotes": (get(b"GET /healthz HTTP/1.1", b'host: "a"'), 400),
    # the first line
    "no version": (get(b"GET /healthz", b"host: a"), 400),
    "an unknown version": (get(b"GET /healthz HTTP/3.0", b"host: a"), 400),
    "a version with a letter": (get(b"GET /healthz HTTP/1.x", b"host: a"), 400),
    "a method in small letters": (get(b"get /healthz HTTP/1.1", b"host: a"), 400),
    "a method with a blank before it": (get(b" GET /healthz HTTP/1.1", b"host: a"), 400),
    "two blanks": (get(b"GET  /healthz HTTP/1.1", b"host: a"), 400),
    "a null in the path": (get(b"GET /health\x00z HTTP/1.1", b"host: a"), 400),
    "another alphabet in the path": (get("GET /ä HTTP/1.1".encode(), b"host: a"), 400),
    "a path without end": (get(b"GET /" + b"a" * 20_000 + b" HTTP/1.1", b"host: a"), 414),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    # too much, or what nobody can expect
    "a header without end": (get(b"GET /healthz HTTP/1.1", b"host: a", b"x: " + b"a" * 20_000), 431),
    "too many headers": (get(b"GET /healthz HTTP/1.1", b"host: a", *[b"x: y"] * 200), 431),
    "an unknown expectation": (post(LENGTH, b"expect: 200-ok"), 417),
}


@pytest.fixture(scope="module")
def live(gateways: Gateways) -> Gateway:
    return gateways()


@pytest.mark.parametrize("name", CORPUS)
def test_a_request_that_can_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read(
    live: Gateway, name: str
) -> None:
    sent, status = CORPUS[name]
    with connected(live.port, 5) as sock:
        sock.sendall(sent + SMUGGLED)
        seen = to_the_end(sock)
    got = answer(seen)  # and nothing after it
    assert got.status == status
    assert got.headers["connection"] == "close"
    assert got.headers["content-type"] == "application/json"
    assert got.json["error"]["message"]
    assert b"smuggled" not in seen
    if b"request-id" in seen:
        assert re.fullmatch(r"req_[0-9A-Za-z]{24}", got.headers["request-id"])


def test_good_requests_pass_one_after_another(live: Gateway) -> None:
    good = [
        post(LENGTH),
        post(CHUNKED, body=CHUNKS),
        post(b"Transfer-Encoding: Chunked", body=CHUNKS),
        post(CHUNKED, body=b"%X;a=b\r\n%b\r\n0\r\nx-trailer: y\r\n\r\n" % (len(BODY), BODY)),
        post(LENGTH, b"expect: 100-continue"),
        get(b"GET /healthz HTTP/1.1", b"host: [::1]:80"),
        get(b"GET http://localhost/healthz HTTP/1.1", b"host: my_gateway.example:7860"),
        b"\r\n" + get(b"GET /healthz HTTP/1.1", b"host: a"),
        get(b"GET /healthz HTTP/1.0"),  # the last one: it closes
    ]
    with connected(live.port, 5) as sock:
        sock.sendall(b"".join(good))
        seen = to_the_end(sock)
    assert re.findall(rb"HTTP/1\.[01] (\d+)", seen) == [b"200"] * 4 + [b"100"] + [b"200"] * 5


@pytest.mark.parametrize("path", [MESSAGES, CHAT, COUNT, "/v1/models", "/api/cookies", "/login"])
def test_a_refusal_has_the_shape_of_its_path(live: Gateway, path: str) -> None:
    with connected(live.port, 5) as sock:
        sock.sendall(head(path, "content-length: x"))
        got = answer(to_the_end(sock))
    assert "content-length" in got.json["error"]["message"]
    assert re.fullmatch(r"req_[0-9A-Za-z]{24}", got.headers["request-id"])
    shape = {"type", "error", "request_id"} if "messages" in path or "models" in path else {"error"}
    assert set(got.json) == shape
    assert ("x-request-id" in got.headers) == (path == CHAT)
    assert set(got.json["error"]) == ({"message", "type", "param", "code"} if path == CHAT else {"type", "message"})


INJECTED = b"x%0d%0ainjected: yes"


@pytest.mark.parametrize(
    "sent",
    [
        get(b"GET /v1/models/%b HTTP/1.1" % INJECTED, b"host: a", b"x-api-key: " + KEY.encode()),
        get(b"GET /%b HTTP/1.1" % INJECTED, b"host: a"),
        get(b"GET /login?next=/%b HTTP/1.1" % INJECTED, b"host: a"),
        get(b"GET /static/%b HTTP/1.1" % INJECTED, b"host: a"),
        get(b"OPTIONS /v1/messages HTTP/1.1", b"host: a", b"origin: https://a%0d%0ainjected: yes"),
        post(b"anthropic-version: %b" % INJECTED, LENGTH),
        post(LENGTH, body=BODY.replace(b"practice/x", b"x\\r\\ninjected: yes")[: len(BODY)]),
        get(b"GET %0d%0ainjected:%20yes HTTP/1.1", b"host: a"),
        get(b"GET / HTTP/1.1\r\ninjected\r: yes", b"host: a"),
    ],
)
def test_no_value_becomes_a_header(live: Gateway, sent: bytes) -> None:
    with connected(live.port, 2) as sock:
        sock.sendall(sent.replace(b"host: a", b"host: a\r\nconnection: close"))
        sock.shutdown(1)
        seen = to_the_end(sock)
    top = seen.partition(b"\r\n\r\n")[0]
    assert re.match(rb"HTTP/1\.1 [234]", top)
    assert b"\r\ninjected" not in top.lower()
    assert b"\ninjected" not in top.lower()


def test_all_of_it_is_counted(live: Gateway) -> None:
    bars.report(19, smuggling=f"{len(CORPUS)}/{len(CORPUS)}")
    assert len(CORPUS) >= 60
    assert "Traceback" not in live.output()
