"""No address of ours can be reached by naming it to the gateway, however it is written, resolved or led to (bar 19).

"Blocked" means: refused before anything was sent, so what is counted is sockets that were told to connect.
"""

import ipaddress
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from opus_api import config
from opus_api.config import Settings
from opus_api.extensions import db
from opus_api.models import Account
from opus_api.services import api_keys
from opus_api.transport import AddressRefused, Transport, check_url
from opus_api.transport.exchange import unreachable
from opus_api.upstreams.base import Failure
from opus_api.wire.http import HttpRequest
from tests import bars

PUBLIC = "104.18.6.192"

# --- The corpus -------------------------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    return text.split()


INSIDE_4 = words(
    """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.254 100.100.100.200 127.0.0.1 127.1.2.3 127.255.255.254
168.63.129.16 169.254.0.1 169.254.169.253 169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192
192.0.2.1 192.88.99.1 192.168.0.1 192.168.255.255 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1
239.255.255.255 240.0.0.1 255.255.255.255
"""
)
INSIDE_6 = words(
    """
:: ::1 ::127.0.0.1 ::a9fe:a9fe ::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:a9fe:a9fe
::ffff:0:127.0.0.1 ::ffff:0:a9fe:a9fe 64:ff9b::127.0.0.1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::7f00:1
64:ff9b:1:ffff::a00:1 100::1 2001::1 2001:0:7f00:1:: 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1:: 2002:a9fe:a9fe::
2002:a00:1::1 2002:c0a8:101::1 3fff::1 5f00::1 fc00::1 fd00::1 fd00:ec2::254 fdff:ffff::1 fe80::1 fe80::a9fe:a9fe
febf::1 fec0::1 feff::1 ff01::1 ff02::1 ff0e::1 0:0:0:0:0:0:0:1 0000:0000:0000:0000:0000:ffff:7f00:0001
"""
)


def written(address: str) -> Iterator[str]:
    """An IPv4 address in the ways that some reader of addresses understands."""
    a, b, c, d = (int(part) for part in address.split("."))
    whole = int(ipaddress.IPv4Address(address))
    yield from (str(whole), hex(whole), f"0{whole:o}", f"0x{whole:08X}", f"00000000{whole:o}")
    yield from (".".join(f"0x{part:x}" for part in (a, b, c, d)), ".".join(f"0{part:o}" for part in (a, b, c, d)))
    yield from (".".join(f"{part:03}" for part in (a, b, c, d)), f"0x{a:x}.{b}.0{c:o}.{d}")
    yield from (f"{a}.{b}.{c * 256 + d}", f"{a}.{(b << 16) + (c << 8) + d}", f"{address}.", f"{address}..")
    yield from (address.replace(".", "。"), address.replace(".", "．"), address.replace(".", "｡"))
    yield "".join(chr(0xFF10 + int(letter)) if letter.isdigit() else letter for letter in address)
    yield "".join(f"%{ord(letter):02x}" for letter in address)
    yield "".join("⓪①②③④⑤⑥⑦⑧⑨"[int(letter)] if letter.isdigit() else letter for letter in address)
    yield str(whole + 2**32)


METADATA = words(
    """
metadata metadata.google.internal METADATA.GOOGLE.INTERNAL metadata.google.internal. metadata.goog instance-data
instance-data.ec2.internal Metadata.Google.Internal. metadata。google。internal ｍetadata.google.internal
ⓜetadata.google.internal localhost LOCALHOST localhost. localhost.localdomain ip6-localhost loｃalhost
"""
)
CONFUSING = [
    "https://user@127.0.0.1/",
    "https://api.openai.com@127.0.0.1/",
    "https://127.0.0.1@api.openai.com/",
    "https://a:b@api.openai.com/",
    "https://@api.openai.com/",
    "https://api.openai.com\\@127.0.0.1/",
    "https://api.openai.com:443@127.0.0.1/",
    "https://api.openai.com%40127.0.0.1/",
    "https://127.0.0.1#@api.openai.com/",
    "https://127.0.0.1?@api.openai.com/",
    "https://127.0.0.1\\.api.openai.com/",
    "https://127.0.0.1%00.api.openai.com/",
    "https://127.0.0.1\x00.api.openai.com/",
    "https://127.0.0.1\t/",
    "https://127.0.0.1\n/",
    "https://127.0.0.1\r\nhost: x/",
    "https://127.0.0.1 .api.openai.com/",
    "https:// 127.0.0.1/",
    "https:///127.0.0.1/",
    "https:127.0.0.1/",
    "//127.0.0.1/",
    "127.0.0.1",
    "https://[::1]:443/",
    "https://[::ffff:127.0.0.1]:443/",
    "https://[fe80::1%25eth0]/",
    "https://[::1%25lo]/",
    "https://[0:0:0:0:0:ffff:127.0.0.1]/",
    "https://[::1/",
    "https://::1/",
    "https://[127.0.0.1]/",
    "https://[v1.127.0.0.1]/",
    "file:///etc/passwd",
    "ftp://api.openai.com/",
    "gopher://127.0.0.1:6379/_x",
    "dict://127.0.0.1:11211/",
    "ldap://127.0.0.1/",
    "unix:///var/run/docker.sock",
    "javascript:alert(1)",
    "data:text/plain,x",
    "http+unix://%2fvar%2frun%2fdocker.sock/",
    "practice://127.0.0.1",
    "jar:https://127.0.0.1!/",
    "http://api.openai.com/",
    "https://api.openai.com:22/",
    "https://api.openai.com:80/",
    "https://api.openai.com:6379/",
    "https://api.openai.com:0/",
    "https://api.openai.com:65536/",
    "https://api.openai.com:-1/",
    "https://api.openai.com:443:80/",
    "https://api.openai.com:４４３/",
    "https://api.openai.com/?x=1",
    "https://api.openai.com/#x",
]
LITERAL = [f"https://{host}/" for address in ("127.0.0.1", "169.254.169.254", "10.0.0.1") for host in written(address)]
LITERAL += [f"https://{address}/" for address in INSIDE_4] + [f"https://[{address}]/" for address in INSIDE_6]
LITERAL += [f"https://{host}/" for host in METADATA] + CONFUSING


def _names() -> dict[str, list[str]]:
    """Names as an attacker's own name server answers for them."""
    found = {f"inside-{n}.example": [address] for n, address in enumerate([*INSIDE_4, *INSIDE_6])}
    found["mixed.example"] = [PUBLIC, "10.0.0.1"]
    found["mixed-6.example"] = [PUBLIC, "::ffff:127.0.0.1"]
    found["last.example"] = ["127.0.0.1", PUBLIC]
    found["127.0.0.1.nip.example"] = ["127.0.0.1"]
    found |= {"xn--fiqs8s.example": ["10.0.0.1"], "中国.example": ["10.0.0.1"], "api.openai.com.evil.example": ["::1"]}
    return found


NAMES = _names()
NAMED = [f"https://{name}/v1" for name in NAMES]


# --- What is counted --------------------------------------------------------------------------------------------------


class Network:
    """Counts who is connected to, and answers for names; nothing leaves the process."""

    def __init__(self) -> None:
        self.connected: list[Any] = []
        self.asked: list[str] = []
        self.names: dict[str, list[str] | Iterator[list[str]]] = {**NAMES, "api.openai.com": [PUBLIC]}
        self._real = socket.getaddrinfo

    def connect(self, _: socket.socket, address: Any) -> None:
        self.connected.append(address)
        raise ConnectionRefusedError(111, "refused")

    def resolve(self, host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else str(host)
        self.asked.append(name)
        found = self.names.get(name)
        if found is None:
            local = name.rstrip(".").lower().startswith("localhost") or name == "ip6-localhost"
            found = ["127.0.0.1"] if local else [name]
        addresses = found if isinstance(found, list) else next(found)
        return [
            info
            for address in addresses
            for info in self._real(address, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
        ]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    found = Network()

    def connect(sock: socket.socket, address: Any) -> None:
        found.connect(sock, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", found.resolve)
    return found


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Without ALLOW_PRIVATE_UPSTREAMS, as a new installation has it."""
    folder = tmp_path_factory.mktemp("closed")
    return config.load(folder, {"DATA_DIR": str(folder)})


def send(settings: Settings, url: str, proxy: str = "") -> Any:
    return Transport(settings).send(HttpRequest("GET", url.rstrip("/") + "/models", {}, None), proxy, 1.0)


# --- Facts ------------------------------------------------------------------------------------------------------------


def test_a_public_address_is_connected_to(network: Network, closed: Settings) -> None:
    """What is counted below can be counted."""
    check_url("https://api.openai.com/v1", closed)
    assert isinstance(send(closed, "https://api.openai.com/v1"), Failure)
    assert [address[:2] for address in network.connected] == [(PUBLIC, 443)]


@pytest.mark.parametrize("url", LITERAL)
def test_an_address_inside_is_refused_when_it_is_saved(network: Network, closed: Settings, url: str) -> None:
    """Names that only a resolver knows to lie inside are refused when they are connected to."""
    with suppress(AddressRefused):
        check_url(url, closed)
        assert any(letter.isalpha() for letter in url.removeprefix("https://")), url
    assert not network.connected


def test_no_address_inside_is_connected_to(network: Network, closed: Settings) -> None:
    """Even when it was saved by an older version, or came by an import: the check stands before each connection."""
    let_through = []
    for url in [*LITERAL, *NAMED]:
        if "api.openai.com" in url and "evil" not in url and check(url, closed):
            continue  # a public name behind a trick: refused when it is saved
        outcome = send(closed, url)
        if network.connected or not isinstance(outcome, Failure):
            let_through.append((url, network.connected[:]))
            network.connected.clear()
    total = len([*LITERAL, *NAMED])
    assert total >= 200
    assert not let_through
    bars.report(19, ssrf=f"{total - len(let_through)}/{total}", packets=0)


def check(url: str, settings: Settings) -> bool:
    """Whether it is refused at once."""
    try:
        check_url(url, settings)
    except AddressRefused:
        return True
    return False


def test_a_name_that_changes_its_mind_is_connected_to_where_it_was_checked(network: Network, closed: Settings) -> None:
    """Rebinding with a TTL of 0: the second answer never counts, because nobody asks for one."""
    for turn in range(20):
        answers = iter([[PUBLIC], ["127.0.0.1"], ["169.254.169.254"]])
        network.names["rebinds.example"] = answers
        network.asked.clear()
        send(closed, "https://rebinds.example/v1")
        assert network.asked == ["rebinds.example"]
        assert {address[0] for address in network.connected} == {PUBLIC}
        assert isinstance(send(closed, "https://rebinds.example/v1"), Failure)  # now inside
        assert len(network.connected) == turn + 1


@pytest.mark.parametrize("url", [*LITERAL[:30], "https://[::1]/", "https://metadata.google.internal/"])
def test_a_proxy_is_not_asked_for_an_address_inside(network: Network, closed: Settings, url: str) -> None:
    if check(url, closed):
        send(closed, url, proxy="http://proxy.example:3128")
        assert not network.connected


@pytest.fixture
def inside() -> Iterator[tuple[str, list[str]]]:
    """A server on 127.0.0.2 that must never be asked, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

        def do_POST(self) -> None:
            asked.append(self.path)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.2", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.2:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
@pytest.mark.parametrize("allowed", ["127.0.0.1/32", "127.0.0.0/8"])
def test_no_redirect_is_followed(inside: tuple[str, list[str]], tmp_path: Path, status: int, allowed: str) -> None:
    """Also not to where an account of its own might lead."""
    target, asked = inside

    class Redirecting(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.send_header("location", f"{target}/led")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Redirecting)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    settings = config.load(tmp_path, {"DATA_DIR": str(tmp_path), "ALLOW_PRIVATE_UPSTREAMS": allowed})
    request = HttpRequest("POST", f"http://127.0.0.1:{server.server_port}/v1/messages", {"x-api-key": "k"}, b"{}")
    answer = Transport(settings).fetch(request)
    server.shutdown()
    server.server_close()
    assert answer.status == status
    assert not asked


# --- What clients say -------------------------------------------------------------------------------------------------

STEERING = {
    "api_base": "{}",
    "api_key": "sk-of-the-client",
    "base_url": "{}",
    "endpoint": "{}",
    "proxy": "{}",
    "user_config": {"model_list": [{"litellm_params": {"api_base": "{}", "api_key": "x"}}]},
    "extra_headers": {"authorization": "Bearer of-the-client", "host": "127.0.0.2"},
    "extra_body": {"api_base": "{}"},
    "fallbacks": [{"model": "x", "api_base": "{}"}],
    "account": 1,
    "metadata": {"user_id": "{}"},
}


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
def test_nothing_in_a_body_or_header_steers_where_a_call_goes_or_as_whom(
    app: Flask, client: FlaskClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CVE-2024-6587 was an ``api_base`` in the body. An image's address is handed on, never looked up."""
    sent: list[HttpRequest] = []

    def remember(_: Transport, request: HttpRequest, *__: object) -> Failure:
        sent.append(request)
        return unreachable("no")

    monkeypatch.setattr(Transport, "send", remember)
    where = "http://127.0.0.2:9"
    for kind in ("anthropic", "openai"):
        db.session.add(
            Account(provider=kind, name=kind, api_key="sk-of-the-account", base_url="http://127.0.0.1:1", models=[kind])
        )
    db.session.commit()
    key = api_keys.create(app.extensions["installation"].pepper, {"name": "one"})[1]
    image = {"type": "image", "source": {"type": "url", "url": f"{where}/x.png"}}
    if "chat" in path:
        image = {"type": "image_url", "image_url": {"url": f"{where}/x.png"}}
    turn = {"role": "user", "content": [{"type": "text", "text": "Hi"}, image]}
    steering = _filled(STEERING, where)
    headers = {"x-api-key": key, "x-api-base": where, "x-opus-account": "2", "x-forwarded-host": "127.0.0.2"}
    for kind in ("anthropic", "openai"):
        for name, value in steering.items():
            asked = {"model": kind, "max_tokens": 5, "messages": [turn], name: value}
            client.post(path, json=asked, headers=headers)
    assert len(sent) >= len(steering)
    for request in sent:
        assert request.url.startswith("http://127.0.0.1:1/")
        credentials = {value for name, value in request.headers.items() if name in ("x-api-key", "authorization")}
        assert credentials <= {"sk-of-the-account", "Bearer sk-of-the-account"}
        assert "host" not in {name.lower() for name in request.headers}


def _filled(value: Any, where: str) -> Any:
    if isinstance(value, str):
        return value.format(where)
    if isinstance(value, list):
        return [_filled(item, where) for item in value]
    return {name: _filled(item, where) for name, item in value.items()} if isinstance(value, dict) else value
