"""The official SDKs, in front of one gateway that has an account of each kind with the fake upstream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests import sdks
from tests.fakes.upstream import Answer, Asked, Upstream
from tests.live import KEY, Gateway, Gateways, unique

BASE = {"anthropic": "", "openai": "/v1"}  # what each kind's base URL ends with


@dataclass
class Live:
    gateway: Gateway
    upstream: Upstream

    def model(self, kind: str, answer: Answer | None = None, accounts: int = 1, **fields: Any) -> str:
        """A new model that new accounts of this kind serve, answered by ``answer`` when it is given."""
        if kind == "practice":
            return "practice/any"
        name = unique(f"sdk-{kind}")
        if answer is not None:
            self.upstream.answers[name] = answer
        for _ in range(accounts):
            self.gateway.account(kind, self.upstream.url + BASE[kind], models=[name], **fields)
        return name

    def asked(self, model: str) -> list[Asked]:
        return [asked for asked in self.upstream.asked if asked.method == "POST" and asked.model == model]


@pytest.fixture(scope="module")
def live(gateways: Gateways) -> Iterator[Live]:
    fake = Upstream()
    running = Live(gateways(), fake)
    yield running
    running.gateway.forget_accounts()
    fake.stop()


@pytest.fixture(scope="module")
def claude(live: Live) -> Iterator[Callable[..., sdks.anthropic.Anthropic]]:
    clients: dict[str, sdks.anthropic.Anthropic] = {}  # each takes a tenth of a second to make

    def client(**options: Any) -> sdks.anthropic.Anthropic:
        if repr(options) not in clients:
            settled = {"api_key": KEY, "max_retries": 0, **options}
            clients[repr(options)] = sdks.anthropic.Anthropic(base_url=live.gateway.url, **settled)
        return clients[repr(options)]

    yield client
    for one in clients.values():
        one.close()


@pytest.fixture(scope="module")
def gpt(live: Live) -> Iterator[Callable[..., sdks.openai.OpenAI]]:
    clients: dict[str, sdks.openai.OpenAI] = {}

    def client(**options: Any) -> sdks.openai.OpenAI:
        if repr(options) not in clients:
            settled = {"api_key": KEY, "max_retries": 0, **options}
            clients[repr(options)] = sdks.openai.OpenAI(base_url=f"{live.gateway.url}/v1", **settled)
        return clients[repr(options)]

    yield client
    for one in clients.values():
        one.close()


@pytest.fixture(params=["anthropic", "openai", "practice"])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of upstream behind the gateway."""
    return str(request.param)


@pytest.fixture
def model(live: Live, kind: str) -> str:
    """A model that an upstream of this kind serves."""
    return live.model(kind, options={"reasoning": True}) if kind == "openai" else live.model(kind)
