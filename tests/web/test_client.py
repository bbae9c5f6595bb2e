"""Who is calling: a trusted proxy may say so, a stranger may not."""

import ipaddress
from typing import Any

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from opus_api.config import Settings
from opus_api.web.client import TrustedProxies, client_ip

TRUSTING = Settings(trusted_proxies=tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "::1/128"))))  # type: ignore[arg-type]


def request(peer: str, **headers: str) -> Request:
    environ = EnvironBuilder(headers={name.replace("_", "-"): value for name, value in headers.items()}).get_environ()
    return Request(environ | {"REMOTE_ADDR": peer})


@pytest.mark.parametrize(
    "peer, forwarded, ip",
    [
        ("192.0.2.9", "", "192.0.2.9"),
        ("192.0.2.9", "198.51.100.1", "192.0.2.9"),  # a stranger's word
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "203.0.113.5, 198.51.100.1", "198.51.100.1"),  # what the client wrote itself stands left
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "198.51.100.1, nonsense", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("::1", "2001:db8::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("", "198.51.100.1", ""),
    ],
)
def test_the_first_hop_from_the_right_that_nobody_trusts_is_the_client(peer: str, forwarded: str, ip: str) -> None:
    assert client_ip(request(peer, X_Forwarded_For=forwarded), TRUSTING) == ip


def test_without_trusted_proxies_the_peer_is_the_client() -> None:
    assert client_ip(request("10.0.0.1", X_Forwarded_For="198.51.100.1"), Settings()) == "10.0.0.1"


@pytest.mark.parametrize(
    "peer, said, scheme",
    [
        ("10.0.0.1", "https", "https"),
        ("10.0.0.1", "HTTPS", "https"),
        ("10.0.0.1", "http, https", "https"),
        ("10.0.0.1", "https, http", "http"),
        ("10.0.0.1", "gopher", "http"),
        ("10.0.0.1", "", "http"),
        ("192.0.2.9", "https", "http"),
        ("", "https", "http"),
    ],
)
def test_only_a_trusted_proxy_says_that_the_client_came_by_https(peer: str, said: str, scheme: str) -> None:
    seen: list[str] = []

    def app(environ: dict[str, Any], start_response: object) -> list[bytes]:
        seen.append(environ["wsgi.url_scheme"])
        return []

    environ = request(peer, X_Forwarded_Proto=said).environ
    TrustedProxies(app, TRUSTING.trusted_proxies)(environ, None)
    assert seen == [scheme]


@pytest.mark.parametrize(
    "peer, said, host",
    [
        ("10.0.0.1", "opus.example", "opus.example"),
        ("10.0.0.1", "opus.example:8443", "opus.example:8443"),
        ("10.0.0.1", "spoofed.example, opus.example", "opus.example"),
        ("10.0.0.1", "[2001:db8::1]:8080", "[2001:db8::1]:8080"),
        ("10.0.0.1", "opus.example/evil", "localhost"),
        ("10.0.0.1", "", "localhost"),
        ("192.0.2.9", "opus.example", "localhost"),
    ],
)
def test_only_a_trusted_proxy_says_which_address_was_typed(peer: str, said: str, host: str) -> None:
    environ = request(peer, X_Forwarded_Host=said).environ
    TrustedProxies(lambda environ, _: [], TRUSTING.trusted_proxies)(environ, None)
    assert Request(environ).host == host
