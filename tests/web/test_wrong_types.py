"""Every field of every body of the JSON API, given each type of JSON that it cannot be: refused by its name, nothing of
it stored."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from opus_api.extensions import db

Path = tuple[str | int, ...]

# Never right where text, a number, a flag, a list or an object is wanted, unless it is of that kind itself.
WRONG: list[Any] = [
    True,
    -(10**30),
    10**30,
    2**63,
    1.5,
    "\0",
    "x" * 20_000,
    [[]],
    [None],
    ["\0"],
    {"\0": "\0"},
    {"": ""},
]
# By the last name of a place: what may stand there nevertheless.
ALLOWED: dict[str, tuple[Any, ...]] = {
    "secrets": (True,),
    "debugLogUntil": tuple(WRONG),  # shown, and left alone when it comes back
}

OPENAI = {
    "provider": "openai",
    "name": "n",
    "api_key": "sk-upstream-0123456789",
    "session_key": "sk-session-0123456789",
    "base_url": "http://127.0.0.1:9/v1",
    "models": ["a"],
    "model_map": {"a": "b"},
    "options": {"vision": True},
    "priority": 1,
    "max_concurrency": 1,
    "proxy": "http://127.0.0.1:3128",
    "state": "disabled",
}
AMAZONQ = {
    "provider": "amazonq",
    "name": "n",
    "client_id": "c",
    "client_secret": "s",
    "refresh_token": "r",
    "access_token": "a",
    "oidc": {
        "start_url": "https://view.awsapps.com/start",
        "region": "us-east-1",
        "api_region": "us-east-1",
        "profile_arn": "arn:aws:codewhisperer:us-east-1:123456789012:profile/ABC",
        "wire": "rest",
    },
}
KEY = {
    "name": "k",
    "value": "sk-0123456789abcdef",
    "models": ["a"],
    "limits": {"rpm": 1, "itpm": 1, "otpm": 1, "concurrency": 1, "monthly_tokens": 1},
    "expires_at": "2030-01-01T00:00:00Z",
    "override": False,
}
EXPORT = {"format": "opus-api-accounts", "version": 1, "secrets": True}
BODIES: dict[str, dict[str, Any]] = {
    "POST /api/cookies": OPENAI,
    "POST /v2/accounts": AMAZONQ,
    "PUT /api/cookies/1": {name: value for name, value in OPENAI.items() if name != "provider"},
    "POST /api/keys": KEY,
    "PUT /api/keys/1": {name: value for name, value in KEY.items() if name != "value"},
    "POST /v2/accounts/import": {**EXPORT, "accounts": [OPENAI]},
    "POST /v2/accounts/feed": {"accounts": [AMAZONQ]},
    "POST /v2/accounts/oidc/start": {"name": "n", "start_url": "https://view.awsapps.com/start", "region": "us-east-1"},
    "POST /v2/ips/block": {"ip": "192.0.2.1", "reason": "loud", "expires_in": 5},
    "POST /v2/ips/unblock": {"cidr": "192.0.2.0/24"},
    "POST /v2/logs/cleanup": {"days": 3000},
    "PUT /v2/settings": {"apiKey": None, "adminPassword": None, "metricsToken": None},  # and what GET shows
}


def places(value: Any, at: Path = ()) -> Iterator[Path]:
    """Of every member, at any depth."""
    if at:
        yield at
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, member in members:
        yield from places(member, (*at, name))


def having(body: dict[str, Any], at: Path, value: Any) -> dict[str, Any]:
    changed: Any = deepcopy(body)
    inner = changed
    for name in at[:-1]:
        inner = inner[name]
    inner[at[-1]] = value
    return dict(changed)


def stored() -> dict[str, Any]:
    """Every row of what these calls may write."""
    tables = ("accounts", "api_keys", "ip_rules", "settings", "changes", "sign_ins", "deleted_accounts")
    found = {name: db.session.execute(sa.select(db.metadata.tables[name])).all() for name in tables}
    found["settings"] = [row for row in found["settings"] if row.key != "version"]
    db.session.rollback()
    return found


def told(answer: Any) -> str:
    """What was wrong, of the body or of its only row."""
    said = answer.json
    if answer.status_code == 200 and "errors" in said:
        assert said["created"] == 0, said
        return str(said["errors"][0]["message"]) if said["errors"] else ""
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    return str(said["error"]["message"])


@pytest.mark.parametrize("call", BODIES)
def test_a_field_of_another_type_is_refused_by_its_name_and_nothing_is_stored(api: FlaskClient, call: str) -> None:
    refuse_every_wrong_type(api, call)


def refuse_every_wrong_type(api: FlaskClient, call: str) -> None:
    for path, made in (("/api/cookies", {**OPENAI, "name": "first"}), ("/api/keys", {"name": "first"})):
        assert api.post(path, json=made).status_code == 201
    method, _, path = call.partition(" ")
    body = BODIES[call]
    if path == "/v2/settings":
        body = api.get(path).json | body  # type: ignore[operator]
    before = stored()
    for at in places(body):
        names = [name for name in at if isinstance(name, str)]
        for wrong in WRONG:
            if wrong in ALLOWED.get(names[-1], ()) or _is_right(body, at, wrong):
                continue
            within = [*names, *wrong] if isinstance(wrong, dict) else names
            within = [*within, "format"] if "version" in names else within  # one sentence names both
            sent = json.dumps(having(body, at, wrong))
            said = told(api.open(path, method=method, data=sent, content_type="application/json"))
            named = said.startswith("must be an object.") or any(name in said.partition(":")[0] for name in within)
            assert named, (at, wrong, said)
        assert stored() == before, at


@pytest.mark.parametrize("path", ["/api/auth/login", "/api/keys", "/v2/accounts/feed"])
@pytest.mark.parametrize("begin, end", [("[", "]"), ('{"a":', "}")])
def test_a_body_is_64_levels_deep_at_most(api: FlaskClient, path: str, begin: str, end: str) -> None:
    for levels in (65, 900, 990, 1023, 5000):  # some of which one of our readers takes and another does not
        sent = f'{{"name": {begin * (levels - 1)}1{end * (levels - 1)}}}'
        answer = api.post(path, data=sent, content_type="application/json")
        assert (answer.status_code, "64 levels deep" in answer.text) in ((400, True), (413, False)), levels
    sent = f'{{"name": {begin * 63}1{end * 63}}}'
    assert api.post(path, data=sent, content_type="application/json").status_code == 422


def _is_right(body: dict[str, Any], at: Path, wrong: Any) -> bool:
    """True is no number, but a flag; half a second is a time to wait."""
    present: Any = body
    for name in at:
        present = present[name]
    return (isinstance(present, bool) and wrong is True) or (isinstance(present, float) and wrong == 1.5)
