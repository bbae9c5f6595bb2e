"""A gateway with its ordinary settings, and accounts that a test makes for itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.fakes.upstream import Answer, Asked, Upstream
from tests.live import Gateway, Gateways, unique, wait_until

BASE = {"anthropic": "", "openai": "/v1"}


@dataclass
class Live:
    gateway: Gateway
    upstream: Upstream

    def model(self, kind: str, answer: Answer | None = None, **fields: Any) -> str:
        """A name that one new account of this kind serves, answered by ``answer`` when there is one."""
        if kind == "practice":
            return f"practice/{unique('claude')}"
        name = unique(f"claude-{kind}")
        if answer is not None:
            self.upstream.answers[name] = answer
        self.gateway.account(kind, self.upstream.url + BASE[kind], models=[name], **fields)
        return name

    def asked(self, model: str) -> list[Asked]:
        """What reached the upstream for a model."""
        return [asked for asked in self.upstream.asked if asked.method == "POST" and asked.model == model]

    def rows(self, model: str, least: int) -> list[dict[str, Any]]:
        """Of the request log; so many are waited for."""
        query = self.gateway.rows
        return wait_until(lambda: found if len(found := query("model = ?", model)) >= least else [])


@pytest.fixture(scope="module")
def live(gateways: Gateways) -> Iterator[Live]:
    fake = Upstream()
    running = gateways()
    # Practice serves only its own names once there is an account.
    running.account("anthropic", fake.url, models=["nobody"])
    yield Live(running, fake)
    running.forget_accounts()
    fake.stop()
