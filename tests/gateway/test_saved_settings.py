"""What a person saves holds for the next request, in a worker that goes on running."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.upstream import Upstream, refusing
from tests.gateway.conftest import Stage
from tests.live import gateway


@pytest.fixture(scope="module")
def own(migrated: Path, upstream: Upstream) -> Iterator[Stage]:
    """A gateway whose settings nobody else needs."""
    with gateway(migrated) as running:
        yield Stage(running, upstream)


def test_rotation_and_attempts_are_those_that_were_saved(own: Stage, model: str) -> None:
    preferred = own.account("openai", model, priority=5)
    other = own.account("openai", model)
    own.gateway.api("PUT", "/v2/settings", {"rotationStrategy": "round_robin", "maxAttempts": 1})
    for _ in range(4):
        own.gateway.ask(model)
    assert (len(own.asked(preferred)), len(own.asked(other))) == (2, 2)
    broken = f"{model}-broken"
    accounts = [own.account("openai", broken, refusing(500)) for _ in range(3)]
    assert own.gateway.ask(broken).status >= 500
    assert sum(len(own.asked(account)) for account in accounts) == 1


def test_without_the_request_log_there_are_no_rows_and_counters_go_on(own: Stage, model: str) -> None:
    own.account("openai", model)
    own.gateway.api("PUT", "/v2/settings", {"enableRequestLog": False})
    assert own.gateway.ask(model).status == 200
    assert own.gateway.post("/v1/messages", b"{").status == 400
    own.gateway.api("PUT", "/v2/settings", {"enableRequestLog": True})
    seen = own.gateway.ask(model)
    assert own.gateway.row(seen)
    assert len(own.gateway.rows("model IN (?, '')", model)) == 1
    keys = own.gateway.api("GET", "/api/keys")["data"]
    assert keys[0]["usage"]["requests"] >= 3
