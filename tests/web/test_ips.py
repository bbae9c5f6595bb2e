"""Addresses that are kept out: over the JSON API, and at the door."""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from opus_api.extensions import db
from opus_api.models import IpRule, now
from opus_api.services.ip_rules import Blocked, source
from opus_api.services.upkeep import Means, purge_ip_rules


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    return {**environment, "TRUSTED_PROXIES": "127.0.0.1/32"}


def block(api: FlaskClient, **fields: Any) -> dict[str, Any]:
    response = api.post("/v2/ips/block", json=fields)
    assert response.status_code == 201, response.text
    return dict(response.json or {})


def status(client: FlaskClient, ip: str, path: str = "/v1/models") -> int:
    return client.get(path, headers={"x-forwarded-for": ip}).status_code


def test_a_block_as_it_is_made_listed_and_lifted(api: FlaskClient) -> None:
    assert api.get("/v2/ips/blocked").json == {"data": [], "total": 0}
    made = block(api, ip="192.0.2.1", reason="too loud", expires_in=60)
    assert set(made) == {"cidr", "reason", "created_at", "expires_at"}
    assert (made["cidr"], made["reason"]) == ("192.0.2.1/32", "too loud")
    assert api.get("/v2/ips/blocked").json == {"data": [made], "total": 1}
    assert api.post("/v2/ips/unblock", json={"ip": "192.0.2.1"}).status_code == 204
    assert api.post("/v2/ips/unblock", json={"ip": "192.0.2.1"}).status_code == 404


def test_blocking_again_changes_reason_and_end(api: FlaskClient) -> None:
    block(api, ip="192.0.2.1", reason="too loud", expires_in=60)
    again = block(api, cidr="192.0.2.1/32", reason="for good")
    assert (again["reason"], again["expires_at"]) == ("for good", None)
    assert api.get("/v2/ips/blocked").json["total"] == 1  # type: ignore[index]


@pytest.mark.parametrize(
    "given, cidr",
    [
        ({"ip": "192.0.2.1"}, "192.0.2.1/32"),
        ({"ip": "::ffff:192.0.2.1"}, "192.0.2.1/32"),
        ({"ip": "2001:db8::1"}, "2001:db8::/64"),
        ({"cidr": "192.0.2.77/24"}, "192.0.2.0/24"),
        ({"cidr": "2001:db8::1/128"}, "2001:db8::1/128"),
        ({"cidr": "::ffff:192.0.2.0/120"}, "192.0.2.0/24"),
    ],
)
def test_an_address_stands_for_what_one_caller_has(api: FlaskClient, given: dict[str, str], cidr: str) -> None:
    assert block(api, **given)["cidr"] == cidr


@pytest.mark.parametrize(
    "wrong, field",
    [
        ({}, "ip"),
        ({"ip": "192.0.2.1", "cidr": "192.0.2.0/24"}, "ip"),
        ({"ip": "nonsense"}, "ip"),
        ({"ip": 3232235777}, "ip"),
        ({"cidr": "192.0.2.0/33"}, "cidr"),
        ({"ip": "192.0.2.1", "expires_in": 0}, "expires_in"),
        ({"ip": "192.0.2.1", "expires_in": 10**12}, "expires_in"),
        ({"ip": "192.0.2.1", "reason": "x" * 300}, "reason"),
        ({"ip": "192.0.2.1", "until": 1}, "until"),
    ],
)
def test_what_is_wrong_is_named(api: FlaskClient, wrong: dict[str, Any], field: str) -> None:
    response = api.post("/v2/ips/block", json=wrong)
    assert response.status_code == 422
    assert response.json["error"]["message"].startswith(f"{field}: ")  # type: ignore[index]


# ---- at the door


def test_a_blocked_address_is_a_403_in_the_callers_dialect_before_its_key_is_looked_at(
    client: FlaskClient, api: FlaskClient
) -> None:
    block(api, cidr="192.0.2.0/24")
    headers = {"x-forwarded-for": "192.0.2.9", "content-length": "33554432"}  # a body that nobody reads
    answer = client.post("/v1/messages", headers=headers)
    assert answer.status_code == 403
    assert answer.json["type"] == "error"  # type: ignore[index]
    assert answer.json["error"]["type"] == "permission_error"  # type: ignore[index]
    assert answer.headers["request-id"]
    answer = client.post("/v1/chat/completions", headers=headers)
    assert answer.status_code == 403
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}  # type: ignore[index]
    assert client.post("/api/auth/login", headers=headers).json["error"]["type"] == "permission_error"  # type: ignore[index]
    assert status(client, "192.0.2.9", "/login") == 403
    assert status(client, "192.0.2.9", "/healthz") == 200
    assert status(client, "198.51.100.1") == 401


def test_only_a_trusted_proxy_says_who_is_calling(client: FlaskClient, api: FlaskClient) -> None:
    block(api, ip="192.0.2.9")
    stranger = {"REMOTE_ADDR": "203.0.113.1"}
    assert client.get("/v1/models", headers={"x-forwarded-for": "192.0.2.9"}, environ_base=stranger).status_code == 401


def test_who_is_signed_in_gets_in_to_unblock(client: FlaskClient, api: FlaskClient) -> None:
    block(api, cidr="127.0.0.0/8")
    assert client.get("/v1/models").status_code == 403
    assert api.post("/v2/ips/unblock", json={"cidr": "127.0.0.0/8"}).status_code == 204
    assert client.get("/v1/models").status_code == 401


def test_a_block_ends_by_itself(app: Flask, client: FlaskClient, api: FlaskClient, tmp_path: Path) -> None:
    block(api, ip="192.0.2.9", expires_in=1)
    assert status(client, "192.0.2.9") == 403
    time.sleep(1.1)
    assert status(client, "192.0.2.9") == 401
    assert api.get("/v2/ips/blocked").json["total"] == 0  # type: ignore[index]
    assert purge_ip_rules(Means(db.engine, app.extensions["accounts"], tmp_path)) == "1 blocks deleted"
    db.session.add(IpRule(cidr="192.0.2.9/32", reason="", expires_at=now() + timedelta(hours=1)))
    db.session.commit()
    assert purge_ip_rules(Means(db.engine, app.extensions["accounts"], tmp_path)) == "0 blocks deleted"


@pytest.mark.parametrize(
    "ip, inside",
    [
        ("192.0.2.1", True),
        ("::ffff:192.0.2.1", True),
        ("192.0.3.1", False),
        ("2001:db8::ffff", True),
        ("2001:db8::ffff%eth0", True),
        ("2001:db8:0:1::1", False),
        ("198.51.100.7", False),  # has expired
        ("nonsense", False),
        ("", False),
    ],
)
def test_an_address_is_found_in_every_prefix_in_use(ip: str, inside: bool) -> None:
    rules = [
        ("192.0.2.0/24", None),
        ("2001:db8::/64", time.time() + 60),
        ("198.51.100.7/32", 1.0),
        ("10.0.0.0/8", None),
    ]
    assert (ip in Blocked(rules)) is inside


def test_ten_thousand_blocks_cost_a_request_microseconds() -> None:
    many = Blocked((f"10.{i >> 8 & 255}.{i & 255}.0/24", None) for i in range(10_000))
    begun = time.perf_counter()
    for _ in range(1000):
        assert "192.0.2.1" not in many
    assert (time.perf_counter() - begun) / 1000 < 0.0005
    assert source("2001:db8::1") == "2001:db8::/64"
