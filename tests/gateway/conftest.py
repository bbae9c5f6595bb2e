"""Running gateways in front of one scripted upstream."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.upstream import Answer, Asked, Upstream
from tests.live import Answer as Reply
from tests.live import Gateway, Gateways, gateway, unique, wait_until

BASE = {"anthropic": "", "openai": "/v1", "morph": "/v1"}  # what each kind's base URL ends with


@dataclass
class Stage:
    """A gateway, its upstream, and accounts that only the present test knows."""

    gateway: Gateway
    upstream: Upstream
    _left: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    _added: list[int] = field(default_factory=list)  # ids of the accounts

    def account(self, kind: str, model: str, answer: Answer | None = None, **fields: Any) -> dict[str, Any]:
        """An account that serves this model alone; ``answer`` is what its upstream says instead of the usual."""
        key = fields.pop("key", "") or unique("sk-up")
        if answer is not None:
            self.upstream.answers[key] = answer
        settled = {"base_url": self.upstream.url + BASE[kind], "key": key, "models": [model], **fields}
        added = self.gateway.account(kind, **settled)
        self._added.append(added["id"])
        return added

    def accounts(self, kind: str, answer: Answer, *rows: dict[str, Any]) -> list[dict[str, Any]]:
        """Several at once, which costs little more than one; the upstream says ``answer`` to each of them."""
        added: list[dict[str, Any]] = []
        for row in rows:
            name = unique("account")
            key = unique("sk-up")
            self.upstream.answers[key] = answer
            added.append(
                {"provider": kind, "name": name, "api_key": key, "base_url": self.upstream.url + BASE[kind], **row}
            )
        told = self.gateway.api("POST", "/v2/accounts/feed", {"accounts": added})
        assert told == {"created": len(rows), "skipped": 0, "errors": []}
        ids = {one["name"]: one["id"] for one in self.gateway.api("GET", "/api/cookies")["data"]}
        found = [{"id": ids[one["name"]], "key": one["api_key"], **one} for one in added]
        self._added += [one["id"] for one in found]
        return found

    def clear(self) -> None:
        """What the test did to the accounts, and the accounts: at each change the gateway reads all there are."""
        self.gateway.api("POST", "/v2/accounts/reset")
        self.gateway.send("GET", "/v1/models")  # takes over what was reset, the upstream's outage with it
        with closing(sqlite3.connect(self.gateway.database, timeout=5)) as connection, connection:
            connection.executemany("DELETE FROM accounts WHERE id = ?", [(added,) for added in self._added])
        self._added.clear()

    def asked(self, account: dict[str, Any]) -> list[Asked]:
        return self.upstream.of(account["key"])

    def leaves(self, answer: Reply, **fields: Any) -> None:
        """The answer's log row has these values: looked at by ``see_what_was_left``, as rows take up to a second."""
        self._left.append(("request_id", answer.headers["request-id"], fields))

    def left_behind(self, model: str, **fields: Any) -> None:
        """The same of a client that left without an answer: its model is its own."""
        self._left.append(("model", model, fields))

    def see_what_was_left(self) -> None:
        left, self._left = self._left, []
        assert left
        for column, value, fields in left:
            row = wait_until(partial(self.gateway.rows, f"{column} = ?", value))[0]
            assert {field: row[field] for field in fields} == fields, row["model"]

    def change(self, account: dict[str, Any], **fields: Any) -> None:
        self.gateway.api("PUT", f"/api/cookies/{account['id']}", fields)


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    fake = Upstream()
    yield fake
    fake.stop()


@pytest.fixture(scope="module")
def stage(gateways: Gateways, upstream: Upstream) -> Stage:
    """With the settings a new installation has."""
    return Stage(gateways(), upstream)


@pytest.fixture(scope="module")
def hasty(migrated: Path, upstream: Upstream) -> Iterator[Stage]:
    """With little patience, and another strategy."""
    limits = {"CONNECT": "0.4", "FIRST_EVENT": "0.5", "IDLE": "0.5", "TOTAL": "1.2"}
    settings = {f"UPSTREAM_{name}_TIMEOUT": value for name, value in limits.items()}
    settings |= {"ROTATION_STRATEGY": "round_robin", "COOKIE_MAX_ERROR_COUNT": "1", "MAX_ATTEMPTS": "2"}
    with gateway(migrated, **settings) as running:
        yield Stage(running, upstream)


@pytest.fixture
def model() -> str:
    return unique("model")


@pytest.fixture(params=["anthropic", "openai"])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of upstream."""
    return str(request.param)


@pytest.fixture(autouse=True)
def nobody_pays_for_another_tests_failures(request: pytest.FixtureRequest) -> Iterator[None]:
    """All tests share one upstream, so that their failures in a row would look like its outage."""
    yield
    for name in ("stage", "hasty"):
        if name in request.fixturenames:
            request.getfixturevalue(name).clear()
