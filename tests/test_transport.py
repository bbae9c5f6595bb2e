"""What goes to upstreams and how their answers are read, over real sockets in a process patched as the service is."""

import gzip
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from opus_api.config import load
from opus_api.transport import AddressRefused, check_url
from opus_api.transport.guard import is_excepted
from tests.fakes.asker import Asker, Told
from tests.fakes.certificates import authority
from tests.fakes.proxy import Proxy
from tests.fakes.upstream import CUT, FOREVER, RESET, Asked, End, Reply, Upstream
from tests.processes import free_port

OPEN = "127.0.0.0/8"
EVENTS = [b"data: one\n\n", b"data: two\n\n", b"data: three\n\n"]
WHOLE = b"".join(EVENTS)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    fake = Upstream()
    yield fake
    fake.stop()


@pytest.fixture(scope="module")
def asker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    """Its own environment names a proxy and a password for the upstream, neither of which it may use."""
    home = tmp_path_factory.mktemp("home")
    (home / ".netrc").write_text("machine 127.0.0.1 login somebody password secret\n")
    (home / ".netrc").chmod(0o600)
    dead = f"http://127.0.0.1:{free_port()}"
    running = Asker({"HOME": str(home), "HTTP_PROXY": dead, "http_proxy": dead, "ALL_PROXY": dead})
    yield running
    running.stop()


def ask(asker: Asker, upstream: Upstream, reply: Reply, path: str = "/x", **more: Any) -> Told:
    """What the transport makes of this reply."""
    upstream.answers["key"] = reply
    return asker.ask(f"{upstream.url}{path}", headers={"x-api-key": "key"}, ALLOW_PRIVATE_UPSTREAMS=OPEN, **more)


# ---- reading


def framed(body: bytes, size: int, trailer: bytes = b"") -> bytes:
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n" + trailer + b"\r\n"


CHUNKED = {"transfer-encoding": "chunked"}
FRAMINGS = {
    "chunked": Reply(body=EVENTS),
    "length": Reply(body=WHOLE),
    "until the connection ends": Reply(body=EVENTS, framing="close"),
    "chunks of one byte in one piece": Reply(body=framed(WHOLE, 1), headers=CHUNKED, framing="raw"),
    "chunks with trailers": Reply(body=framed(WHOLE, 7, b"a: b\r\nc: d\r\n"), headers=CHUNKED, framing="raw"),
    "gzip": Reply(body=gzip.compress(WHOLE), headers={"content-encoding": "gzip"}),
    "gzip in chunks": Reply(body=[gzip.compress(WHOLE)], headers={"content-encoding": "gzip"}),
    "named identity": Reply(body=EVENTS, headers={"content-encoding": "identity"}),
    "byte by byte": Reply(body=[bytes([byte]) for byte in WHOLE]),
    "with pauses": Reply(body=[EVENTS[0], 0.05, EVENTS[1], 0.05, EVENTS[2], 0.05]),
}


@pytest.mark.parametrize("framing", FRAMINGS)
def test_the_body_is_the_same_in_every_framing(asker: Asker, upstream: Upstream, framing: str) -> None:
    told = ask(asker, upstream, FRAMINGS[framing])
    assert (told.status, told.body, told.failure) == (200, WHOLE, None)


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_each_event_is_there_as_soon_as_it_was_sent(asker: Asker, upstream: Upstream, framing: str) -> None:
    steps = [EVENTS[0], 0.15, EVENTS[1], 0.15, EVENTS[2], 0.15]
    told = ask(asker, upstream, Reply(body=steps, framing=framing))
    assert [data for _, data in told.reads] == EVENTS
    for expected, (at, _) in zip((0, 150, 300), told.reads, strict=True):
        assert expected <= at < expected + 60


def test_what_came_at_once_is_read_at_once(asker: Asker, upstream: Upstream) -> None:
    body = framed(EVENTS[0] * 500, len(EVENTS[0]))
    told = ask(asker, upstream, Reply(body=body, headers=CHUNKED, framing="raw"))
    assert told.body == EVENTS[0] * 500
    assert len(told.reads) <= 4


def test_large_bodies_are_read_whole(asker: Asker, upstream: Upstream) -> None:
    large = bytes(range(256)) * 12_000
    for reply in (Reply(body=large), Reply(body=[large[:1_000_000], large[1_000_000:]])):
        assert ask(asker, upstream, reply).body == large


@pytest.mark.parametrize("status", [204, 307, 400, 401, 429, 500, 529])
def test_any_status_is_an_answer(asker: Asker, upstream: Upstream, status: int) -> None:
    told = ask(asker, upstream, Reply(status, b"" if status == 204 else b"told", {"X-Thing": "1"}))
    assert (told.status, told.failure) == (status, None)
    assert told.headers["x-thing"] == "1", "names are lower case"


def test_a_redirect_is_not_followed(asker: Asker, upstream: Upstream) -> None:
    upstream.asked.clear()
    told = ask(asker, upstream, Reply(307, b"", {"location": f"{upstream.url}/other"}))
    assert told.status == 307
    assert [asked.path for asked in upstream.asked] == ["/x"]


@pytest.mark.parametrize(
    "reply",
    [
        Reply(before=[CUT]),
        Reply(before=[RESET]),
        Reply(body=[EVENTS[0], CUT]),
        Reply(body=[EVENTS[0], RESET]),
        Reply(body=EVENTS[0], headers={"content-length": "999"}, framing="close"),
        Reply(body=b"zz\r\nnonsense", headers=CHUNKED, framing="raw"),
        Reply(body=b"3\r\ntoo long\r\n", headers=CHUNKED, framing="raw"),
        Reply(body=b"no gzip", headers={"content-encoding": "gzip"}),
    ],
    ids=["cut at once", "reset at once", "cut", "reset", "too short", "no chunks", "chunk too long", "no gzip"],
)
def test_a_broken_answer_is_the_upstreams_failure(asker: Asker, upstream: Upstream, reply: Reply) -> None:
    told = ask(asker, upstream, reply)
    assert told.failure is not None
    assert told.failure[:2] == ("transient", 502)
    assert "127.0.0.1" not in told.failure[2]


# ---- what is sent


def test_what_is_sent_is_what_was_asked_for_and_nothing_else(asker: Asker, upstream: Upstream) -> None:
    upstream.asked.clear()
    ask(asker, upstream, Reply(body=b"{}"), "/x?a=b")
    (asked,) = upstream.asked
    assert (asked.method, asked.path, asked.body) == ("POST", "/x?a=b", b"{}")
    named = {"host", "user-agent", "accept-encoding", "x-api-key", "content-length"}
    assert set(asked.headers) == named, "neither .netrc nor cookies nor defaults of the library"
    assert asked.headers["user-agent"].startswith("opus-api/")
    assert asked.headers["accept-encoding"] == "identity"


def test_a_cookie_of_the_upstream_is_forgotten(asker: Asker, upstream: Upstream) -> None:
    upstream.asked.clear()
    for _ in range(2):
        ask(asker, upstream, Reply(body=b"{}", headers={"set-cookie": "session=1"}))
    assert not any("cookie" in asked.headers for asked in upstream.asked)


def test_a_request_without_a_body_has_no_length(asker: Asker, upstream: Upstream) -> None:
    upstream.asked.clear()
    told = asker.ask(f"{upstream.url}/v1/models", body=None, ALLOW_PRIVATE_UPSTREAMS=OPEN)
    assert told.status == 200
    assert upstream.asked[-1].method == "GET"
    assert "content-length" not in upstream.asked[-1].headers


# ---- connections


@pytest.mark.parametrize("framing", ["chunked", "length", "gzip", "chunks with trailers", "with pauses"])
def test_a_connection_is_used_again_after_a_body_was_read_to_its_end(
    asker: Asker, upstream: Upstream, framing: str
) -> None:
    upstream.asked.clear()
    for _ in range(5):
        ask(asker, upstream, FRAMINGS[framing])
    assert len({asked.connection for asked in upstream.asked}) == 1


@pytest.mark.parametrize("end", [CUT, RESET])
def test_a_connection_is_not_used_again_after_a_failure(asker: Asker, upstream: Upstream, end: End) -> None:
    upstream.asked.clear()
    for _ in range(3):
        ask(asker, upstream, Reply(body=[EVENTS[0], end]))
    assert len({asked.connection for asked in upstream.asked}) == 3
    assert ask(asker, upstream, Reply(body=EVENTS)).body == WHOLE


@pytest.mark.parametrize("status", [103, 204, 304])
def test_what_follows_an_answer_without_a_body_is_not_the_next_answer(
    asker: Asker, upstream: Upstream, status: int
) -> None:
    head = f"HTTP/1.1 {status} Told\r\n\r\n".encode()
    assert ask(asker, upstream, Reply(body=b"of the first", before=[head, 0.1])).status == status
    assert ask(asker, upstream, Reply(body=[0.2, *EVENTS])).body == WHOLE


def test_a_connection_that_was_closed_while_it_was_kept_is_replaced(asker: Asker, upstream: Upstream) -> None:
    for _ in range(3):
        assert ask(asker, upstream, Reply(body=EVENTS)).body == WHOLE
        upstream.hang_up()


# ---- time


@pytest.mark.parametrize(
    "reply, limits, message, seconds",
    [
        (Reply(before=[FOREVER]), (5, 0.4, 5, 5), "upstream stayed silent for too long", 0.4),
        (Reply(body=[FOREVER]), (5, 0.4, 5, 5), "upstream stayed silent for too long", 0.4),
        (Reply(body=[EVENTS[0], FOREVER]), (5, 5, 0.4, 5), "upstream stayed silent for too long", 0.4),
        (Reply(body=[EVENTS[0], 0.1] * 50), (5, 5, 5, 0.8), "upstream took too long", 0.8),
        (Reply(before=[FOREVER]), (5, 5, 5, 0.4), "upstream took too long", 0.4),
    ],
    ids=["no head", "no body", "silence", "everything", "everything before the head"],
)
def test_each_limit_ends_the_wait(
    asker: Asker,
    upstream: Upstream,
    reply: Reply,
    limits: tuple[float, float, float, float],
    message: str,
    seconds: float,
) -> None:
    told = ask(asker, upstream, reply, limits=limits)
    assert told.failure == ("transient", 504, message)
    assert seconds <= told.took < seconds + 2


def test_the_first_byte_ends_the_wait_for_it_and_each_byte_the_silence(asker: Asker, upstream: Upstream) -> None:
    steps = [b":\n", 0.3, b":\n", 0.3, b":\n", 0.3, *EVENTS]
    told = ask(asker, upstream, Reply(body=steps), limits=(5, 0.5, 0.5, 5))
    assert told.failure is None
    assert told.took > 0.9


def test_time_that_passes_is_told_before_the_head_and_within_the_body(asker: Asker, upstream: Upstream) -> None:
    for reply in (Reply(before=[1.0], body=EVENTS), Reply(body=[EVENTS[0], 1.0, *EVENTS[1:]])):
        told = ask(asker, upstream, reply, wake=0.3)
        assert told.body == WHOLE
        assert 2 <= told.passed <= 3


def test_a_server_that_takes_no_connection_ends_the_wait_to_connect(asker: Asker) -> None:
    with closing(socket.create_server(("127.0.0.1", 0), backlog=0)) as full:
        others = [socket.socket() for _ in range(4)]
        for other in others:  # its queue is full now: the next one is not answered
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/"
        told = asker.ask(url, limits=(0.3, 5, 5, 5), ALLOW_PRIVATE_UPSTREAMS=OPEN)
        for other in others:
            other.close()
    assert told.failure == ("unreachable", 502, "upstream could not be reached")
    assert 0.3 <= told.took < 2


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-name.invalid"])
def test_who_is_not_there_is_unreachable(asker: Asker, host: str) -> None:
    told = asker.ask(f"http://{host}:{free_port()}/", ALLOW_PRIVATE_UPSTREAMS=OPEN)
    assert told.failure == ("unreachable", 502, "upstream could not be reached")


# ---- whole exchanges


def test_a_whole_answer_is_fetched_within_its_deadline(asker: Asker, upstream: Upstream) -> None:
    told = asker.fetch(f"{upstream.url}/v1/models", ALLOW_PRIVATE_UPSTREAMS=OPEN)
    assert told.status == 200
    assert b"model-a" in told.body
    assert asker.fetch(f"http://127.0.0.1:{free_port()}/", ALLOW_PRIVATE_UPSTREAMS=OPEN).failure


def test_a_deadline_holds_whatever_comes(asker: Asker) -> None:
    class Slow(Upstream):
        def _reply(self, asked: Asked) -> Reply:
            return Reply(body=[b"x", 0.1] * 100)

    fake = Slow()
    told = asker.fetch(f"{fake.url}/v1/models", deadline=0.5, ALLOW_PRIVATE_UPSTREAMS=OPEN)
    fake.stop()
    assert told.failure == ("transient", 504, "upstream took too long")
    assert told.took < 3


# ---- TLS


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Upstream, Path]]:
    """An upstream over TLS, and the authority that vouches for it."""
    trusted, context = authority(tmp_path_factory.mktemp("tls"), "127.0.0.1", "upstream.test")
    fake = Upstream(context)
    yield fake, trusted
    fake.stop()


def test_a_certificate_is_checked_against_the_bundle(asker: Asker, secure: tuple[Upstream, Path]) -> None:
    fake, trusted = secure
    settings = {"ALLOW_PRIVATE_UPSTREAMS": OPEN, "UPSTREAM_CA_BUNDLE": str(trusted)}
    assert asker.ask(f"{fake.url}/v1/models", body=None, **settings).status == 200
    failure = ("unreachable", 502, "upstream's certificate could not be verified")
    assert asker.ask(f"{fake.url}/v1/models", body=None, ALLOW_PRIVATE_UPSTREAMS=OPEN).failure == failure
    other_name = f"https://localhost:{fake.port}/v1/models"
    assert asker.ask(other_name, body=None, **settings).failure == failure


def test_streams_are_read_at_once_over_tls_too(asker: Asker, secure: tuple[Upstream, Path]) -> None:
    fake, trusted = secure
    settings = {"ALLOW_PRIVATE_UPSTREAMS": OPEN, "UPSTREAM_CA_BUNDLE": str(trusted)}
    fake.answers["key"] = Reply(body=EVENTS)
    fake.asked.clear()
    for _ in range(3):
        assert asker.ask(f"{fake.url}/x", headers={"x-api-key": "key"}, **settings).body == WHOLE
    assert len({asked.connection for asked in fake.asked}) == 1


def test_plain_http_to_a_tls_server_is_a_failure(asker: Asker, secure: tuple[Upstream, Path]) -> None:
    told = asker.ask(f"http://127.0.0.1:{secure[0].port}/", ALLOW_PRIVATE_UPSTREAMS=OPEN)
    assert told.failure is not None


# ---- proxies


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[Proxy]:
    running = Proxy(upstream.port)
    yield running
    running.stop()


def test_http_goes_through_the_proxy_which_resolves_the_name(asker: Asker, upstream: Upstream, proxy: Proxy) -> None:
    told = asker.ask("http://upstream.test/v1/models", body=None, proxy=proxy.url, ALLOW_PRIVATE_UPSTREAMS=OPEN)
    assert told.status == 200
    assert proxy.asked == ["GET http://upstream.test/v1/models HTTP/1.1"]


def test_https_goes_through_a_tunnel_and_is_verified_by_its_name(asker: Asker, secure: tuple[Upstream, Path]) -> None:
    fake, trusted = secure
    proxy = Proxy(fake.port)
    settings = {"UPSTREAM_CA_BUNDLE": str(trusted), "HTTPS_PROXY": proxy.url}
    assert asker.ask("https://upstream.test/v1/models", body=None, **settings).status == 200
    assert [line.rpartition(" ")[0] for line in proxy.asked] == ["CONNECT upstream.test:443"]
    told = asker.ask("https://stranger.test/v1/models", body=None, **settings)
    assert told.failure == ("unreachable", 502, "upstream's certificate could not be verified")
    proxy.stop()


def test_the_accounts_proxy_stands_before_the_settings(asker: Asker, proxy: Proxy) -> None:
    settings = {"ALLOW_PRIVATE_UPSTREAMS": OPEN, "HTTP_PROXY": f"http://127.0.0.1:{free_port()}"}
    url = "http://upstream.test/v1/models"
    assert asker.ask(url, body=None, **settings).failure == ("unreachable", 502, "upstream could not be reached")
    assert asker.ask(url, body=None, proxy=proxy.url, **settings).status == 200


def test_a_host_of_no_proxy_is_reached_without_one(asker: Asker, upstream: Upstream, proxy: Proxy) -> None:
    settings = {"ALLOW_PRIVATE_UPSTREAMS": OPEN, "HTTP_PROXY": proxy.url, "NO_PROXY": "example.com,127.0.0.0/8"}
    assert asker.ask(f"{upstream.url}/v1/models", body=None, **settings).status == 200
    assert proxy.asked == []


def test_a_proxys_password_goes_to_the_proxy_alone(asker: Asker, upstream: Upstream, proxy: Proxy) -> None:
    upstream.asked.clear()
    url = proxy.url.replace("http://", "http://me:secret@")
    asker.ask("http://upstream.test/v1/models", body=None, proxy=url, ALLOW_PRIVATE_UPSTREAMS=OPEN)
    assert "proxy-authorization: basic" in proxy.headers[0].lower()
    assert "authorization" not in upstream.asked[-1].headers


def test_a_literal_address_is_checked_although_a_proxy_stands_between(asker: Asker, proxy: Proxy) -> None:
    for url in ("https://10.0.0.1/", "https://169.254.169.254/", "https://[::1]/", "https://127.1/"):
        told = asker.ask(url, proxy=proxy.url)
        assert told.failure is not None
        assert told.failure[0] == "unreachable"
    assert proxy.asked == []


@pytest.mark.parametrize(
    "host, names, excepted",
    [
        ("a.example.com", ("example.com",), True),
        ("a.example.com", (".example.com",), True),
        ("example.com", ("example.com",), True),
        ("notexample.com", ("example.com",), False),
        ("10.1.2.3", ("10.0.0.0/8",), True),
        ("11.1.2.3", ("10.0.0.0/8",), False),
        ("10.1.2.3", ("10.1.2.3",), True),
        ("anything", ("*",), True),
        ("anything", (), False),
    ],
)
def test_no_proxy_names_hosts_domains_and_networks(host: str, names: tuple[str, ...], excepted: bool) -> None:
    assert is_excepted(host, names) == excepted


# ---- the address guard


PRIVATE = "The base URL is not at a public address"
FORM = "as four plain numbers"
METADATA = "The base URL points to a cloud's metadata service"
HTTPS = "The base URL must use https on port 443"


@pytest.mark.parametrize(
    "url, sentence",
    [
        ("https://127.0.0.1/", PRIVATE),
        ("https://127.1/", FORM),
        ("https://0/", FORM),
        ("https://0.0.0.0/", PRIVATE),
        ("https://0x7f000001/", FORM),
        ("https://0x7f.1/", FORM),
        ("https://0177.0.0.1/", FORM),
        ("https://2130706433/", FORM),
        ("https://10.0.0.1/", PRIVATE),
        ("https://172.16.0.1/", PRIVATE),
        ("https://192.168.1.1/", PRIVATE),
        ("https://100.64.0.1/", PRIVATE),
        ("https://198.18.0.1/", PRIVATE),
        ("https://224.0.0.1/", PRIVATE),
        ("https://255.255.255.255/", PRIVATE),
        ("https://[::1]/", PRIVATE),
        ("https://[::]/", PRIVATE),
        ("https://[fc00::1]/", PRIVATE),
        ("https://[fe80::1]/", PRIVATE),
        ("https://[fe80::1%25eth0]/", PRIVATE),
        ("https://[ff02::1]/", PRIVATE),
        ("https://[::ffff:127.0.0.1]/", PRIVATE),
        ("https://[::ffff:7f00:1]/", PRIVATE),
        ("https://[::ffff:10.0.0.1]/", PRIVATE),
        ("https://[64:ff9b::7f00:1]/", PRIVATE),
        ("https://[64:ff9b:1::a00:1]/", PRIVATE),
        ("https://[2002:7f00:1::]/", PRIVATE),
        ("https://169.254.169.254/latest", METADATA),
        ("https://[::ffff:169.254.169.254]/", METADATA),
        ("https://[fd00:ec2::254]/", METADATA),
        ("https://100.100.100.200/", METADATA),
        ("https://metadata.google.internal/", METADATA),
        ("https://METADATA.google.internal./", METADATA),
        ("https://metadata/", METADATA),
        ("https://instance-data/", METADATA),
        ("http://api.example.com/", HTTPS),
        ("https://api.example.com:8443/", HTTPS),
        ("http://93.184.216.34/", HTTPS),
        ("https://93.184.216.34:8080/", HTTPS),
        ("https://user@api.example.com/", "must not contain a user name"),
        ("https://user:pass@api.example.com/", "must not contain a user name"),
        ("https://@api.example.com/", "must not contain a user name"),
        ("https://api.example.com/?a=b", "must not contain a query"),
        ("https://api.example.com/#a", "must not contain a query"),
        ("https://api.example.com:99999/", "invalid port"),
        ("https://api.example.com:x/", "invalid port"),
        ("ftp://api.example.com/", "must look like https://host/path"),
        ("file:///etc/passwd", "must look like https://host/path"),
        ("gopher://api.example.com/", "must look like https://host/path"),
        ("practice://x", "must look like https://host/path"),
        ("api.example.com", "must look like https://host/path"),
        ("https://", "must look like https://host/path"),
        ("", "must look like https://host/path"),
    ],
)
def test_addresses_that_reach_inside_are_refused_with_a_sentence(url: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(AddressRefused) as caught:
        check_url(url, load(tmp_path, {}))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com",
        "https://api.example.com/v1",
        "https://api.example.com:443/v1",
        "https://93.184.216.34/",
        "https://[2606:2800:220:1::1]/",
        "https://bücher.example/v1",
    ],
)
def test_public_addresses_are_taken(url: str, tmp_path: Path) -> None:
    check_url(url, load(tmp_path, {}))


@pytest.mark.parametrize(
    "allowed, url, taken",
    [
        ("127.0.0.0/8", "http://127.0.0.1:11434/v1", True),
        ("127.0.0.0/8", "https://127.0.0.1:8443/v1", True),
        ("127.0.0.0/8", "http://127.1:11434", False),  # readers differ about such forms
        ("127.0.0.0/8", "http://[::ffff:127.0.0.1]:11434", False),  # nobody needs this form
        ("127.0.0.0/8", "http://[::1]:11434", False),
        ("::1/128", "http://[::1]:11434", True),
        ("127.0.0.0/8", "http://10.0.0.1", False),
        ("127.0.0.0/8,10.0.0.0/8", "http://10.0.0.1", True),
        ("127.0.0.0/8", "http://93.184.216.34", False),
        ("127.0.0.0/8", "http://localhost:11434/v1", True),  # what it resolves to is checked when connecting
        ("0.0.0.0/0", "http://169.254.169.254/", False),
        ("0.0.0.0/0", "http://metadata.google.internal/", False),
        ("127.0.0.0/8", "http://user@127.0.0.1/", False),
    ],
)
def test_private_networks_are_reached_only_where_the_operator_allows_it(
    allowed: str, url: str, taken: bool, tmp_path: Path
) -> None:
    settings = load(tmp_path, {"ALLOW_PRIVATE_UPSTREAMS": allowed})
    if taken:
        check_url(url, settings)
    else:
        with pytest.raises(AddressRefused):
            check_url(url, settings)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "0x7f000001", "2130706433", "[::ffff:127.0.0.1]"])
@pytest.mark.parametrize("allowed", ["", "10.0.0.0/8"])
def test_what_a_name_resolves_to_is_checked_when_connecting(
    asker: Asker, upstream: Upstream, host: str, allowed: str
) -> None:
    before = upstream.open_connections
    for scheme in ("http", "https"):
        told = asker.ask(f"{scheme}://{host}:{upstream.port}/", ALLOW_PRIVATE_UPSTREAMS=allowed)
        assert told.failure is not None
        assert told.failure[0] == "unreachable"
        assert PRIVATE in told.failure[2] or FORM in told.failure[2]
    assert upstream.open_connections == before


def test_a_public_address_needs_https_on_its_port_when_connecting_too(asker: Asker) -> None:
    for url in ("http://93.184.216.34/", "https://93.184.216.34:8443/"):
        told = asker.ask(url, limits=(0.5, 1, 1, 1), ALLOW_PRIVATE_UPSTREAMS=OPEN)
        assert told.failure is not None
        assert HTTPS in told.failure[2]
