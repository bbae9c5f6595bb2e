"""Which addresses an upstream may have: public ones over https, private ones only where the operator allows them.

The literal part of the check runs when an account is saved; the rest at each new connection, on the address that is
then connected to, so that a name cannot change its mind in between.
"""

import ipaddress
import re
import socket
import unicodedata
from typing import Any
from urllib.parse import urlsplit

from opus_api.config import Settings

# Names under which clouds serve credentials to whoever asks from inside.
METADATA_HOSTS = {
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
}
METADATA_NETWORKS = [
    ipaddress.ip_network(n) for n in ("169.254.0.0/16", "fd00:ec2::/32", "100.100.100.200/32", "168.63.129.16/32")
]
# Networks that reach inside, or nowhere, although some Python calls them global: NAT64, 6to4, translated IPv4, …
TUNNELS = [
    ipaddress.ip_network(n)
    for n in (
        *("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "::/96", "::ffff:0:0:0/96", "fec0::/10", "3fff::/20"),
        *("5f00::/16", "192.0.0.0/24", "192.88.99.0/24"),
    )
]


class AddressRefused(ValueError):
    """An upstream's address is not allowed; the message is a sentence for the operator."""


def check_url(url: str, settings: Settings) -> None:
    """The part of the address guard that needs no name resolution. Raises AddressRefused."""
    if not url.isprintable() or " " in url:
        raise AddressRefused("The base URL must not contain spaces or control characters.")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise AddressRefused("The base URL has an invalid host.") from None
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise AddressRefused("The base URL has an invalid port.") from None
    if parts.scheme not in ("http", "https") or not host:
        raise AddressRefused("The base URL must look like https://host/path.")
    if parts.username or parts.password or "@" in parts.netloc:
        raise AddressRefused("The base URL must not contain a user name or password.")
    if parts.query or parts.fragment:
        raise AddressRefused("The base URL must not contain a query or a fragment.")
    host = plain(host)
    if host in METADATA_HOSTS:
        raise AddressRefused("The base URL points to a cloud's metadata service.")
    address = _literal(host)
    if address:
        check_address(address, settings)
    private = bool(address and _inside(address, settings.allow_private_upstreams))
    if (
        not private
        and (parts.scheme != "https" or port not in (None, 443))
        and (address or not _may_be_private(settings))
    ):
        raise AddressRefused("The base URL must use https on port 443; other addresses need ALLOW_PRIVATE_UPSTREAMS.")


def check_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address, settings: Settings) -> None:
    """Raises AddressRefused for an address that is neither public nor allowed by ALLOW_PRIVATE_UPSTREAMS."""
    address = getattr(address, "ipv4_mapped", None) or address
    if _inside(address, METADATA_NETWORKS):
        raise AddressRefused("The base URL points to a cloud's metadata service.")
    if _inside(address, settings.allow_private_upstreams):
        return
    if not address.is_global or address.is_multicast or _inside(address, TUNNELS):
        raise AddressRefused(
            "The base URL is not at a public address; list its network in ALLOW_PRIVATE_UPSTREAMS to allow it."
        )


def plain(host: str) -> str:
    """As a resolver reads it: ``１２７。0。0。1.`` is 127.0.0.1.

    Raises AddressRefused for what ends in a number and is no IPv4 address in four plain ones: readers differ about it
    (010.0.0.1 is 8.0.0.1 to some).
    """
    host = unicodedata.normalize("NFKC", host).replace("。", ".").rstrip(".").lower()
    last = host.rpartition(".")[2]
    if ":" not in host and re.fullmatch(r"[0-9]+|0x[0-9a-f]*", last):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise AddressRefused("The base URL must write an IPv4 address as four plain numbers.") from None
    return host


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:  # 127.1, 0x7f000001, 2130706433: forms that the C library reads as addresses
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


def _inside(address: Any, networks: Any) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _may_be_private(settings: Settings) -> bool:
    """A name may resolve into an allowed private network; the check at connect time decides."""
    return bool(settings.allow_private_upstreams)


def resolve(host: str, port: int, settings: Settings, secure: bool) -> list[tuple[Any, ...]]:
    """Addresses of a host, every one checked. Raises AddressRefused, or OSError when the name is unknown."""
    host = plain(host.strip("[]"))
    if host in METADATA_HOSTS:
        raise AddressRefused("The base URL points to a cloud's metadata service.")
    found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in found]
    for address in addresses:
        check_address(address, settings)
        if not _inside(address, settings.allow_private_upstreams) and (not secure or port != 443):
            raise AddressRefused(
                "The base URL must use https on port 443; other addresses need ALLOW_PRIVATE_UPSTREAMS."
            )
    return found


def is_excepted(host: str, names: tuple[str, ...]) -> bool:
    """NO_PROXY: names with all below them, addresses, networks, or *."""
    address = _literal(host)
    for name in names:
        if name in ("*", host) or host.endswith("." + name.lstrip(".")):
            return True
        if address and "/" in name and _inside(address, [ipaddress.ip_network(name, strict=False)]):
            return True
    return False
