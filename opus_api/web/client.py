"""Who is calling, when proxies stand in between: only what a trusted proxy says about it counts."""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from flask import Request

from opus_api.config import Network, Settings

HOST = re.compile(r"[\w.-]+(:\d{1,5})?|\[[0-9a-fA-F:.]+\](:\d{1,5})?", re.ASCII)


def client_ip(request: Request, settings: Settings) -> str:
    """The address of the caller. Behind trusted proxies, the first hop from the right that is not one of them."""
    peer = request.environ.get("REMOTE_ADDR") or ""
    if not settings.trusted_proxies or not _trusted(peer, settings.trusted_proxies):
        return peer
    hops = [hop.strip() for hop in request.environ.get("HTTP_X_FORWARDED_FOR", "").split(",")]
    for hop in reversed(hops):
        address = _without_port(hop)
        if address is None:  # nonsense: what stands left of it is worth nothing either
            return peer
        if not _trusted(address, settings.trusted_proxies):
            return address
        peer = address
    return peer


def bearer(request: Request) -> str:
    """The token of ``Authorization: Bearer``, "" when there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def presented_keys(request: Request) -> list[str]:
    """What the caller shows as its API key, in the order in which it is looked at."""
    return [key for key in (request.headers.get("x-api-key"), bearer(request)) if key]


class TrustedProxies:
    """Takes ``https`` from X-Forwarded-Proto and the address that was typed from X-Forwarded-Host when a trusted proxy
    says so; a stranger's header is no evidence."""

    def __init__(self, app: Any, networks: tuple[Network, ...]):
        self._app = app
        self._networks = networks

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if _trusted(environ.get("REMOTE_ADDR") or "", self._networks):
            if (said := _last(environ, "HTTP_X_FORWARDED_PROTO").lower()) in ("http", "https"):
                environ["wsgi.url_scheme"] = said
            if HOST.fullmatch(host := _last(environ, "HTTP_X_FORWARDED_HOST")):
                environ["HTTP_HOST"] = host
        answer: Iterable[bytes] = self._app(environ, start_response)
        return answer


def _last(environ: Mapping[str, Any], name: str) -> str:
    """What the nearest proxy added."""
    return str(environ.get(name, "")).rpartition(",")[2].strip()


@lru_cache(maxsize=4096)
def _trusted(address: str, networks: tuple[Network, ...]) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return any(ip.version == network.version and ip in network for network in networks)


def _without_port(hop: str) -> str | None:
    """The address in ``1.2.3.4``, ``1.2.3.4:80``, ``::1`` or ``[::1]:80``."""
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    try:
        return str(ipaddress.ip_address(hop))
    except ValueError:
        return None
