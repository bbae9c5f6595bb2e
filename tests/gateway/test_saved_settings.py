"""What a person saves holds for the next request, in a worker that goes on running."""

from collections.abc import Iterator

import pytest

from tests.fakes.upstream import refusing
from tests.gateway.conftest import Stage


@pytest.fixture(scope="module")
def own(stage: Stage) -> Iterator[Stage]:
    yield stage
    saved = {"rotationStrategy": "priority", "maxAttempts": 3, "enableRequestLog": True}
    stage.gateway.api("PUT", "/v2/settings", saved)
    stage.clear()


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
    def requests() -> int:
        keys = own.gateway.api("GET", "/api/keys")["data"]
        return next(int(key["usage"]["requests"]) for key in keys if key["name"] == "client")

    own.account("openai", model)
    before, counted = len(own.gateway.rows("model = ''")), requests()
    own.gateway.api("PUT", "/v2/settings", {"enableRequestLog": False})
    assert own.gateway.ask(model).status == 200
    assert own.gateway.post("/v1/messages", b"{").status == 400
    own.gateway.api("PUT", "/v2/settings", {"enableRequestLog": True})
    seen = own.gateway.ask(model)
    assert own.gateway.row(seen)
    assert len(own.gateway.rows("model IN (?, '')", model)) == before + 1
    assert requests() >= counted + 3
