"""Addresses that are kept out: blocked, unblocked, and looked up without a query."""

import ipaddress
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import select

from opus_api.extensions import db
from opus_api.models import IpRule, now
from opus_api.services import audit, settings, values
from opus_api.services.values import FieldError, rfc3339
from opus_api.wire.errors import NotFound, Phrase

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LONGEST = 10 * 365 * 86_400  # seconds that an expiry may lie ahead


class Blocked:
    """Networks and until when (Unix seconds; None: for good). A look-up costs one step per prefix length in use."""

    def __init__(self, rules: Iterable[tuple[str, float | None]]):
        self._ends: dict[tuple[int, int], dict[int, float]] = {}  # (version, prefix length): first address -> end
        for cidr, end in rules:
            network = ipaddress.ip_network(cidr)
            ends = self._ends.setdefault((network.version, network.prefixlen), {})
            ends[int(network.network_address)] = float("inf") if end is None else end

    def __contains__(self, ip: str) -> bool:
        if not self._ends:
            return False
        address = parsed(ip)
        if address is None:
            return False
        return any(
            ends.get(int(address) >> (bits := address.max_prefixlen - length) << bits, 0.0) > time.time()
            for (version, length), ends in self._ends.items()
            if version == address.version
        )


def parsed(ip: str) -> Address | None:
    """None for what is no address; ``::ffff:192.0.2.1`` is ``192.0.2.1``, and a zone (``%eth0``) does not count."""
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def source(ip: str) -> str:
    """Who counts as one caller: an IPv4 address, or the /64 that one IPv6 customer has."""
    address = parsed(ip)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address or ip)


def live() -> Sequence[IpRule]:
    """Those that have not expired, newest first."""
    query = select(IpRule).where(sa.or_(IpRule.expires_at.is_(None), IpRule.expires_at > now()))
    return db.session.scalars(query.order_by(IpRule.id.desc())).all()


def block(data: Mapping[str, Any]) -> IpRule:
    """As POST /v2/ips/block takes it; a network that is blocked already gets the new reason and end.

    Raises FieldError.
    """
    values.known(data, {"ip", "cidr", "reason", "expires_in"})
    cidr = str(_network(data))
    reason = values.text("reason", data.get("reason"), limit=255)
    seconds = data.get("expires_in")
    if seconds is not None:
        seconds = values.whole("expires_in", seconds, 1, LONGEST)
    settings.alone()
    rule = _find(cidr)
    before = None if rule is None else _terms(rule)
    if rule is None:
        rule = IpRule(cidr=cidr)
        db.session.add(rule)
    rule.reason = reason
    rule.expires_at = None if seconds is None else now() + timedelta(seconds=seconds)
    audit.note_own(_noted(cidr), before, _terms(rule))
    db.session.commit()
    return rule


def covers(data: Mapping[str, Any], ip: str) -> bool:
    """Whether blocking ``data`` would keep this address out, too. Raises FieldError."""
    address, network = parsed(ip), _network({name: data.get(name) for name in ("ip", "cidr")})
    return address is not None and address in network


def unblock(data: Mapping[str, Any]) -> None:
    """As POST /v2/ips/unblock takes it. Raises FieldError, NotFound."""
    values.known(data, {"ip", "cidr"})
    cidr = str(_network(data))
    settings.alone()
    rule = _find(cidr)
    if rule is None:
        raise NotFound(Phrase("%(cidr)s is not blocked.", cidr=cidr))
    audit.note_own(_noted(cidr), _terms(rule), None)
    db.session.delete(rule)
    db.session.commit()


def _noted(cidr: str) -> str:
    return f"block {cidr}"


def _terms(rule: IpRule) -> dict[str, Any]:
    return {"reason": rule.reason, "expires_at": rfc3339(rule.expires_at)}


def as_json(rule: IpRule) -> dict[str, Any]:
    return {
        "cidr": rule.cidr,
        "reason": rule.reason,
        "created_at": rfc3339(rule.created_at),
        "expires_at": rfc3339(rule.expires_at),
    }


def _find(cidr: str) -> IpRule | None:
    return db.session.scalar(select(IpRule).where(IpRule.cidr == cidr))


def _network(data: Mapping[str, Any]) -> Network:
    """Of the one field that is given. An IPv6 address stands for its /64. Raises FieldError."""
    if (data.get("ip") is None) == (data.get("cidr") is None):
        raise FieldError("ip", "must be given, or else cidr.")
    if data.get("ip") is not None:
        address = parsed(values.text("ip", data["ip"], limit=50))
        if address is None:
            raise FieldError("ip", "must be an address such as 192.0.2.1 or 2001:db8::1.")
        return ipaddress.ip_network(source(str(address)))
    cidr = values.text("cidr", data["cidr"], limit=50)
    try:
        network = ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        raise FieldError("cidr", "must be a network such as 192.0.2.0/24.") from None
    return _unmapped(network)


def _unmapped(network: Network) -> Network:
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped:
        return ipaddress.ip_network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network
