"""A client that brings a credential of its own: where it goes, where it never goes, and what it leaves behind.

The providers' own addresses are reached through a proxy that takes every host for one server with a certificate for
them, so the service asks just as it would ask the real ones.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.certificates import authority
from tests.fakes.proxy import Proxy
from tests.fakes.upstream import Asked, Upstream, refused, spoken
from tests.live import KEY, Answer, Gateway, body, gateway, unique, wait_until

RIGHT = "sk-with-the-right-to-override"
HOSTS = {"anthropic": "api.anthropic.com", "openai": "api.openai.com", "morph": "api.morphllm.com"}
AMAZON_Q = "q.us-east-1.amazonaws.com"
PATHS = {"anthropic": "/v1/messages", "openai": "/v1/chat/completions"}


@dataclass
class Outside:
    """The gateway, and the providers as they are reached by their own names."""

    gateway: Gateway
    providers: Upstream
    proxy: Proxy

    def ask(self, model: str, headers: dict[str, str], key: str | None = RIGHT, path: str = "/v1/messages") -> Answer:
        return self.gateway.post(path, body(model), headers, key)

    def account(self, model: str, provider: str = "anthropic") -> dict[str, Any]:
        base_url = f"https://own.example/{'' if provider == 'anthropic' else 'v1'}".rstrip("/")
        return self.gateway.account(provider, base_url, models=[model])

    def asked_by(self, answer: Answer) -> Asked:
        """What the provider was asked for this answer."""
        assert answer.status == 200, answer.body
        return next(asked for asked in reversed(self.providers.asked) if asked.method == "POST")


@pytest.fixture(scope="module")
def outside(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    folder = tmp_path_factory.mktemp("outside")
    trusted, context = authority(folder, "own.example", AMAZON_Q, *HOSTS.values())
    providers = Upstream(context)
    proxy = Proxy(providers.port)
    settings = {"HTTPS_PROXY": proxy.url, "UPSTREAM_CA_BUNDLE": str(trusted), "DEBUG_MODE": "true"}
    with gateway(migrated, **settings) as running:
        running.flask("keys", "create", "right", "--value", RIGHT, "--override")
        yield Outside(running, providers, proxy)
    proxy.stop()
    providers.stop()


@pytest.fixture
def model() -> str:
    return unique("claude-model")


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("provider", HOSTS)
def test_it_goes_as_it_is_to_the_providers_own_address(
    outside: Outside, model: str, provider: str, dialect: str
) -> None:
    account = outside.account(model, provider)
    outside.proxy.asked.clear()
    answer = outside.ask(model, {"authorization": "Bearer theirs-0123"}, path=PATHS[dialect])
    asked = outside.asked_by(answer)
    assert outside.proxy.asked in ([f"CONNECT {HOSTS[provider]}:443 HTTP/1.0"], [])  # or a connection from before
    assert asked.headers["host"] == HOSTS[provider]
    assert asked.headers["authorization"] == "Bearer theirs-0123"
    assert {"x-api-key", "cookie"}.isdisjoint(asked.headers)
    assert account["key"] not in str(asked.headers)
    assert answer.headers["opus-provider"] == provider
    assert outside.gateway.shown(account)["usage_count"] == 0


def test_a_cookie_goes_without_our_own(outside: Outside, model: str) -> None:
    outside.account(model)
    cookie = "a=1; opus=ours; __Host-opus=ours; language=en; theme=dark; sessionKey=theirs"
    asked = outside.asked_by(outside.ask(model, {"cookie": cookie}))
    assert asked.headers["cookie"] == "a=1; sessionKey=theirs"
    assert {"x-api-key", "authorization"}.isdisjoint(asked.headers)


@pytest.mark.parametrize(
    "key, headers",
    [
        (KEY, {"authorization": "Bearer theirs-0123", "cookie": "a=1"}),  # it lacks the right
        (None, {"authorization": f"Bearer {RIGHT}", "cookie": "a=1"}),  # the key does not stand in x-api-key
        (RIGHT, {"authorization": f"Bearer {RIGHT}"}),  # nothing else is brought
        (RIGHT, {"authorization": f"Bearer {KEY}"}),  # a key of ours
        (RIGHT, {"authorization": "Bearer sk-opus-0123456789"}),  # one that we once gave out
        (RIGHT, {"authorization": "Basic dXNlcjpwYXNz"}),  # meant for a proxy in between
        (RIGHT, {"cookie": "opus=ours; language=en"}),  # only ours
    ],
)
def test_else_the_account_is_asked_and_gets_nothing_of_the_clients(
    outside: Outside, model: str, key: str | None, headers: dict[str, str]
) -> None:
    account = outside.account(model)
    asked = outside.asked_by(outside.ask(model, headers, key))
    assert asked.headers["host"] == "own.example"
    assert asked.headers["x-api-key"] == account["key"]
    assert {"authorization", "cookie"}.isdisjoint(asked.headers)


@pytest.mark.parametrize(
    "status, seen, kind",
    [
        (401, 401, "authentication_error"),
        (403, 403, "permission_error"),
        (429, 429, "rate_limit_error"),
        (500, 502, "api_error"),
        (529, 529, "overloaded_error"),
        (400, 400, "invalid_request_error"),
        (404, 404, "not_found_error"),
    ],
)
def test_what_fails_is_the_clients_and_touches_no_account(
    outside: Outside, model: str, status: int, seen: int, kind: str
) -> None:
    account = outside.account(model)
    outside.providers.answers["theirs-wrong"] = lambda asked: refused(status, asked, "no: theirs-wrong")
    for _ in range(4):
        answer = outside.ask(model, {"authorization": "Bearer theirs-wrong"})
        assert answer.error[:2] == (seen, kind)
        assert b"theirs-wrong" not in answer.body
    shown = outside.gateway.shown(account)
    assert (shown["state"], shown["error_count"], shown["usage_count"]) == ("active", 0, 0)
    del outside.providers.answers["theirs-wrong"]
    row = outside.gateway.row(answer)
    assert (row["account_id"], row["provider"], row["attempts"]) == (None, "anthropic", 1)
    outside.asked_by(outside.ask(model, {}))


def test_an_option_is_learned_for_this_request_alone(outside: Outside, model: str) -> None:
    account = outside.account(model, "openai")
    unknown = refused(400, None, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
    outside.providers.answers["theirs-new"] = [unknown, spoken]
    asked = outside.asked_by(outside.ask(model, {"authorization": "Bearer theirs-new"}, path="/v1/messages"))
    assert asked.json["max_completion_tokens"] == 64
    assert outside.gateway.shown(account)["options"] == account["options"]


def test_a_provider_without_an_account_is_reached_by_its_name(outside: Outside) -> None:
    asked = outside.asked_by(outside.ask("openai/gpt-x", {"authorization": "Bearer theirs-0123"}))
    assert (asked.headers["host"], asked.model) == ("api.openai.com", "gpt-x")
    asked = outside.asked_by(outside.ask("claude-sonnet-4.5", {"authorization": "Bearer theirs-0123"}))
    assert (asked.headers["host"], asked.model) == ("api.anthropic.com", "claude-sonnet-4-5")
    assert outside.ask("openai/gpt-x", {}).status == 404
    assert outside.ask("nobody-knows-it", {"authorization": "Bearer theirs-0123"}).status == 404


def test_amazon_q_is_asked_at_its_own_address_and_told_nothing_of_ours(outside: Outside) -> None:
    outside.providers.answers["theirs-q"] = lambda asked: refused(403, asked, "The bearer token theirs-q is invalid.")
    answer = outside.ask("amazonq/claude-sonnet-4.5", {"authorization": "Bearer theirs-q"})
    asked = outside.providers.asked[-1]
    assert (asked.headers["host"], asked.headers["authorization"]) == (AMAZON_Q, "Bearer theirs-q")
    assert {"x-api-key", "cookie"}.isdisjoint(asked.headers)
    assert answer.status in (401, 403)
    assert b"theirs-q" not in answer.body
    row = outside.gateway.row(answer)
    assert (row["account_id"], row["provider"], row["attempts"]) == (None, "amazonq", 1)


def test_amazon_q_knows_no_cookies(outside: Outside) -> None:
    before = len(outside.providers.asked)
    answer = outside.ask("amazonq/claude-sonnet-4.5", {"cookie": "session=theirs"})
    assert answer.error[:2] == (401, "authentication_error")
    assert len(outside.providers.asked) == before


def test_a_subscription_token_is_refused_with_a_sentence(outside: Outside, model: str) -> None:
    outside.account(model)
    before = len(outside.providers.asked)
    answer = outside.ask(model, {"authorization": "Bearer sk-ant-oat01-0123456789"})
    assert answer.error[:2] == (403, "permission_error")
    assert "Subscription tokens" in answer.error[2]
    assert len(outside.providers.asked) == before


def test_it_is_found_nowhere_afterwards(outside: Outside, model: str) -> None:
    """With debug mode on, too."""
    outside.account(model)
    secret, cookie = "canary-0123456789-authorization", "canary-0123456789-cookie"
    outside.providers.answers[secret] = lambda asked: refused(401, asked, f"wrong key {secret}, cookie {cookie}")
    answer = outside.ask(model, {"authorization": f"Bearer {secret}", "cookie": f"session={cookie}"})
    outside.gateway.row(answer)
    root = outside.gateway.folder / "logs" / "exchanges"
    wait_until(lambda: list(root.glob(f"*-{answer.headers['request-id']}/exchange.json")))
    found = []
    for path in (*outside.gateway.folder.rglob("*"), outside.gateway.log):
        with suppress(FileNotFoundError, IsADirectoryError):  # the spool's files come and go
            found += [path.name] if b"canary-0123456789" in path.read_bytes() else []
    assert found == []
    assert json.dumps(answer.json).count("canary") == 0


def test_who_is_anonymous_brings_it_in_authorization(migrated: Path, outside: Outside, model: str) -> None:
    names = ("HTTPS_PROXY", "UPSTREAM_CA_BUNDLE")
    settings = {name: outside.gateway.environment[name] for name in names}
    with gateway(migrated, ANONYMOUS_ACCESS="on", **settings) as running:
        opened = Outside(running, outside.providers, outside.proxy)
        practice = opened.ask(model, {"authorization": "Bearer anything"}, None)
        assert (practice.status, practice.headers["opus-provider"]) == (200, "practice")
        account = opened.account(model)
        asked = opened.asked_by(opened.ask(model, {"authorization": "Bearer theirs-0123", "cookie": "a=1"}, None))
        assert (asked.headers["host"], asked.headers["authorization"]) == ("api.anthropic.com", "Bearer theirs-0123")
        assert "cookie" not in asked.headers
        asked = opened.asked_by(opened.ask(model, {"cookie": "a=1"}, None))
        assert (asked.headers["host"], asked.headers["x-api-key"]) == ("own.example", account["key"])
