"""What a key and an address may use: exact side by side, settled to the truth, told by headers that hold."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from opus_api.gateway import tokens
from opus_api.gateway.limits import OUTPUT_ESTIMATE, Limits, Spent
from opus_api.services.snapshot import KeyValue
from opus_api.state import StateUnavailable
from opus_api.state.memory import MemoryState
from opus_api.state.redis_engine import RedisState
from opus_api.wire.errors import RateLimited
from opus_api.wire.request import Call
from tests.chaos.servers import Redis
from tests.fakes.upstream import Asked, Reply, Upstream, refusing, spoken
from tests.gateway.conftest import Stage
from tests.live import body, gateway, unique, wait_until

JANUARY = datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()


@dataclass
class Clock:
    now: float = JANUARY

    def __call__(self) -> float:
        return self.now


@dataclass
class Counted:
    """The limits of one worker, on a clock that a test moves."""

    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.state = MemoryState(self.clock)
        self.limits = Limits(self.state, self.clock)

    def admit(self, limits: dict[str, int], estimate: int = 10, month_tokens: int = 0, **body: Any) -> Any:
        key = KeyValue(1, "k", False, None, limits, None, "2026-01", month_tokens)
        call = Call("anthropic", "m", False, body, lambda call: call.body, input_estimate=estimate)
        return self.limits.admit(key, call)

    def refusal(self, *arguments: Any, **named: Any) -> RateLimited:
        with pytest.raises(RateLimited) as refused:
            self.admit(*arguments, **named)
        return refused.value


@pytest.fixture
def counted() -> Counted:
    return Counted()


# ---- one worker's book-keeping


def test_a_key_without_limits_is_not_counted(counted: Counted) -> None:
    assert counted.admit({}) is None


def test_a_minute_slides(counted: Counted) -> None:
    for second in (0, 20, 40):
        counted.clock.now = JANUARY + second
        counted.admit({"rpm": 3})
    assert counted.refusal({"rpm": 3}).headers["retry-after"] == "20"
    counted.clock.now = JANUARY + 61
    counted.admit({"rpm": 3})
    assert counted.refusal({"rpm": 3}).headers["retry-after"] in ("19", "20")


def test_what_was_reserved_is_settled_to_the_truth(counted: Counted) -> None:
    limits = {"itpm": 100, "otpm": 100}
    grant = counted.admit(limits, estimate=90, max_tokens=90)
    counted.refusal(limits, estimate=20, max_tokens=10)
    counted.limits.settle(grant, Spent(1, input_tokens=30, output_tokens=5, tokens=35))
    counted.admit(limits, estimate=70, max_tokens=95)
    assert counted.refusal(limits, estimate=1, max_tokens=1).message.endswith("100 input tokens per minute.")


def test_an_answer_longer_than_was_reserved_counts_whole(counted: Counted) -> None:
    grant = counted.admit({"otpm": 5000}, max_tokens=64_000)
    assert grant.charges["otpm"].amount == OUTPUT_ESTIMATE
    counted.limits.settle(grant, Spent(1, 10, 5001, 5011))
    counted.refusal({"otpm": 5000}, max_tokens=1)


def test_a_limit_below_the_guess_still_lets_one_through(counted: Counted) -> None:
    counted.admit({"otpm": 100}, max_tokens=64_000)
    counted.refusal({"otpm": 100}, max_tokens=1)


def test_nothing_is_taken_when_one_limit_refuses(counted: Counted) -> None:
    limits = {"rpm": 1, "itpm": 100, "concurrency": 1}
    counted.refusal(limits, estimate=101)
    grant = counted.admit(limits)
    counted.limits.settle(grant, Spent())  # turned away: all of it comes back
    counted.admit(limits)


def test_a_prompt_that_never_fits_is_not_worth_a_retry(counted: Counted) -> None:
    refused = counted.refusal({"itpm": 100}, estimate=500)
    assert refused.message.endswith("It needs about 500.")
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.headers


def test_places_are_given_back(counted: Counted) -> None:
    grants = [counted.admit({"concurrency": 2}) for _ in range(2)]
    refused = counted.refusal({"concurrency": 2})
    assert refused.message == "This request would exceed your API key's limit of 2 requests at the same time."
    assert refused.headers["retry-after"] == "1"
    counted.limits.settle(grants[0], Spent(1))
    counted.admit({"concurrency": 2})


def test_a_month_is_the_calendars_and_survives_a_restart(counted: Counted) -> None:
    limits = {"monthly_tokens": 1000}
    counted.admit(limits, estimate=100, month_tokens=700, max_tokens=100)  # 700 were known from before
    refused = counted.refusal(limits, estimate=100, month_tokens=700, max_tokens=100)
    assert refused.headers == {"retry-after": str(12 * 3600), "x-should-retry": "false"}
    another_worker = Limits(counted.state, counted.clock)  # must not count them again
    key = KeyValue(1, "k", False, None, limits, None, "2026-01", 700)
    another_worker.admit(key, Call("openai", "m", False, {"max_tokens": 50}, lambda c: c.body, input_estimate=50))
    counted.clock.now += 12 * 3600
    counted.admit(limits, estimate=500, month_tokens=700, max_tokens=500)  # February


def test_a_redis_that_forgot_the_month_is_told_it_again(redis_server: Redis, redis_url: str) -> None:
    state = RedisState(redis_url, patience=30.0)
    told: list[str] = []
    state.on_gap = lambda: told.append("renew")  # of the service: read anew what keys have used by now
    state.update(lambda fleet: replace(fleet, snapshot=1))
    limits, month = Limits(state), datetime.now(UTC).strftime("%Y-%m")
    key = KeyValue(1, "k", False, None, {"monthly_tokens": 1000}, None, month, 700)
    assert limits.used(key)["monthly_tokens"] == 700
    redis_server.stop()
    redis_server.start()
    state.beat()
    assert limits.used(replace(key, month_tokens=800))["monthly_tokens"] == 800
    assert told == ["renew"]
    state.stop()


def test_what_a_key_has_taken_counts_what_runs_and_what_was_used_before(counted: Counted) -> None:
    limits = {"rpm": 5, "itpm": 1000, "concurrency": 2, "monthly_tokens": 1000}
    key = KeyValue(1, "k", False, None, limits, None, "2026-01", 700)
    assert counted.limits.used(key) == {"rpm": 0, "itpm": 0, "concurrency": 0, "monthly_tokens": 700}
    grant = counted.admit(limits, estimate=100, month_tokens=700, max_tokens=50)
    assert counted.limits.used(key) == {"rpm": 1, "itpm": 100, "concurrency": 1, "monthly_tokens": 850}
    counted.limits.settle(grant, Spent(1, input_tokens=20, tokens=30))
    assert counted.limits.used(key) == {"rpm": 1, "itpm": 20, "concurrency": 0, "monthly_tokens": 730}


def test_headers_tell_what_is_left_in_both_dialects(counted: Counted) -> None:
    limits = {"rpm": 10, "itpm": 1000, "otpm": 500}
    headers = counted.admit(limits, estimate=100, max_tokens=300).headers
    assert headers == {
        "anthropic-ratelimit-requests-limit": "10",
        "anthropic-ratelimit-requests-remaining": "9",
        "anthropic-ratelimit-requests-reset": "2026-01-31T12:01:00Z",
        "anthropic-ratelimit-input-tokens-limit": "1000",
        "anthropic-ratelimit-input-tokens-remaining": "900",
        "anthropic-ratelimit-input-tokens-reset": "2026-01-31T12:01:00Z",
        "anthropic-ratelimit-output-tokens-limit": "500",
        "anthropic-ratelimit-output-tokens-remaining": "200",
        "anthropic-ratelimit-output-tokens-reset": "2026-01-31T12:01:00Z",
    }
    key = KeyValue(1, "k", False, None, limits, None, None, 0)
    call = Call("openai", "m", False, {"max_tokens": 100}, lambda c: c.body, input_estimate=100)
    grant = counted.limits.admit(key, call)
    assert grant
    assert grant.headers == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "8",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-limit-tokens": "500",
        "x-ratelimit-remaining-tokens": "100",
        "x-ratelimit-reset-tokens": "1m0s",
    }


def test_an_address_is_one_caller_with_its_64(counted: Counted) -> None:
    for ip in ("2001:db8::1", "2001:db8::2"):
        counted.limits.admit_address(ip, 2, 5)
    with pytest.raises(RateLimited) as refused:
        counted.limits.admit_address("2001:db8::ffff", 2, 5)
    assert refused.value.headers["retry-after"] == "300"
    counted.limits.admit_address("2001:db8:0:1::1", 2, 5)


def test_limits_that_cannot_be_known_let_nobody_in(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    grant = counted.admit({"rpm": 5, "concurrency": 5})

    def away(*arguments: Any) -> Any:
        raise StateUnavailable

    for method in ("spend", "settle", "let_go", "hold"):
        monkeypatch.setattr(counted.state, method, away)
    with pytest.raises(StateUnavailable):
        counted.admit({"rpm": 5})
    with pytest.raises(StateUnavailable):
        counted.limits.admit_address("192.0.2.1", 5, 1)
    counted.limits.settle(grant, Spent(1))  # and who is in can leave


# ---- through the service


@pytest.fixture(scope="module")
def own(stage: Stage) -> Iterator[Stage]:
    yield stage
    stage.clear()


def key_of(stage: Stage, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = stage.gateway.api("POST", "/api/keys", {"name": unique("key"), **fields})
    return made


def at_once(times: int, ask: Callable[[], int]) -> list[int]:
    """All begin at the same moment."""
    ready = threading.Barrier(times)

    def one(_: int) -> int:
        ready.wait()
        return ask()

    with ThreadPoolExecutor(times) as threads:
        return list(threads.map(one, range(times)))


PROMPT = tokens.estimate(body("any"))


EXACT = [
    pytest.param({"rpm": 50}, 50, id="requests"),
    pytest.param({"itpm": 20 * PROMPT + 1}, 20, id="input tokens"),
    pytest.param({"otpm": 640}, 10, id="output tokens"),
    pytest.param({"monthly_tokens": 12 * (PROMPT + 64)}, 12, id="a month's tokens"),
    pytest.param({"concurrency": 7}, 7, id="at the same time"),
]


@pytest.mark.parametrize("limits, passed", EXACT)
def test_limits_are_exact_under_200_requests_at_once(
    own: Stage, model: str, limits: dict[str, int], passed: int
) -> None:
    assert of_200_at_once(own, model, limits, passed) == {200: passed, 429: 200 - passed}


@pytest.fixture(scope="module")
def two_workers(migrated: Path, upstream: Upstream, redis_server: Redis) -> Iterator[Stage]:
    """A gateway whose two workers share their state."""
    with gateway(migrated, WEB_CONCURRENCY="2", REDIS_URL=redis_server.apart(2)) as running:
        yield Stage(running, upstream)


@pytest.mark.parametrize("limits, passed", EXACT)
def test_limits_are_exact_over_two_workers_on_redis(
    two_workers: Stage, model: str, limits: dict[str, int], passed: int
) -> None:
    assert of_200_at_once(two_workers, model, limits, passed) == {200: passed, 429: 200 - passed}


def of_200_at_once(stage: Stage, model: str, limits: dict[str, int], passed: int) -> Counter[int]:
    """The statuses of 200 requests of one key. Nobody ends, so nothing is given back, before all were decided."""
    decided = threading.Event()

    def answer(asked: Asked) -> Reply:
        return replace(spoken(asked), before=[decided])

    stage.account("openai", model, answer)
    key = key_of(stage, limits=limits)["key"]
    wait_until_every_worker_knows(stage, model, key)
    refused = threading.Semaphore(0)

    def ask() -> int:
        got = stage.gateway.post("/v1/messages", body(model), key=key)
        if got.status == 429:
            refused.release()
        return got.status

    def decide() -> None:
        for _ in range(200 - passed):
            refused.acquire(timeout=20)
        decided.set()

    threading.Thread(target=decide).start()
    return Counter(at_once(200, ask))


def wait_until_every_worker_knows(stage: Stage, model: str, key: str) -> None:
    """Both the key and the account: another worker's change is seen within a second."""

    def known() -> bool:
        seen = [stage.gateway.send("GET", f"/v1/models/{model}", key=key).status for _ in range(10)]
        return set(seen) == {200}

    if "REDIS_URL" in stage.gateway.environment:
        time.sleep(1.2)
    wait_until(known)


def test_a_request_that_nobody_could_serve_is_given_back(own: Stage, model: str) -> None:
    own.account("openai", model, refusing(429, retry_after="30"))
    served = unique("model")
    own.account("openai", served)
    key = key_of(own, limits={"rpm": 1, "itpm": 1000, "concurrency": 1})
    assert own.gateway.post("/v1/messages", body(model), key=key["key"]).status == 429
    got = own.gateway.post("/v1/messages", body(served), key=key["key"])
    assert got.status == 200
    assert got.headers["anthropic-ratelimit-requests-remaining"] == "0"
    refused = own.gateway.post("/v1/messages", body(served), key=key["key"])
    assert refused.error[:2] == (429, "rate_limit_error")
    assert 50 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["anthropic-ratelimit-requests-remaining"] == "0"
    chat = own.gateway.post("/v1/chat/completions", body(served), key=key["key"])
    assert (chat.status, chat.headers["x-ratelimit-remaining-requests"]) == (429, "0")


def test_a_place_is_free_again_when_its_client_has_left(own: Stage) -> None:
    key = key_of(own, limits={"concurrency": 1})
    slow = json.dumps(body("practice/practice", "[[practice:slow]]", stream=True))
    headers = {"content-type": "application/json", "x-api-key": key["key"]}
    with closing(own.gateway.connection()) as connection:
        connection.request("POST", "/v1/messages", slow, headers)
        assert connection.getresponse().status == 200
        assert own.gateway.post("/v1/messages", body("practice/practice"), key=key["key"]).status == 429
    wait_until(lambda: own.gateway.post("/v1/messages", body("practice/practice"), key=key["key"]).status == 200, 2)


def test_keys_without_limits_get_no_rate_headers(own: Stage) -> None:
    got = own.gateway.post("/v1/messages", body("practice/practice"))
    assert got.status == 200
    assert not [name for name in got.headers if "ratelimit" in name]


def test_a_key_reaches_only_its_models(own: Stage, model: str) -> None:
    own.account("openai", model)
    other = unique("other")
    own.account("openai", other)
    key = key_of(own, models=[f"{model[:-1]}*"])["key"]
    assert own.gateway.post("/v1/messages", body(model), key=key).status == 200
    assert own.gateway.post("/v1/messages", body(f"openai/{model}"), key=key).status == 200
    for path in ("/v1/messages", "/v1/chat/completions", "/v1/messages/count_tokens"):
        refused = own.gateway.post(path, body(f"openai/{other}"), key=key)
        assert refused.status == 403
        assert refused.json["error"]["message"] == f"Your API key may not use the model openai/{other}."
    assert own.gateway.send("GET", f"/v1/models/{other}", key=key).status == 403
    listed = [entry["id"] for entry in own.gateway.send("GET", "/v1/models", key=key).json["data"]]
    assert (model in listed, other in listed) == (True, False)
    assert own.gateway.post("/v1/messages", body(unique("nothing")), key=key).status == 404


def test_a_key_expires_and_is_revoked_within_a_second(own: Stage) -> None:
    soon = datetime.fromtimestamp(time.time() + 2, UTC).isoformat()
    key, revoked = key_of(own, expires_at=soon), key_of(own)

    def status(key: dict[str, Any]) -> int:
        return own.gateway.send("GET", "/v1/models", key=key["key"]).status

    assert (status(key), status(revoked)) == (200, 200)
    own.gateway.api("DELETE", f"/api/keys/{revoked['id']}")
    assert status(revoked) == 401
    wait_until(lambda: status(key) == 401, 3.5)


def test_the_limit_per_address_follows_the_settings_and_spares_counting(own: Stage) -> None:
    own.gateway.api("PUT", "/v2/settings", {"enableIPRateLimit": True, "ipRateLimitMax": 3, "ipRateLimitWindow": 2})
    try:
        asked = [own.gateway.post("/v1/messages", body("practice/practice")) for _ in range(5)]
        assert [got.status for got in asked] == [200, 200, 200, 429, 429]
        assert asked[4].error == (429, "rate_limit_error", "Too many requests from your address; try again later.")
        assert 110 <= int(asked[4].headers["retry-after"]) <= 120
        counted = own.gateway.post("/v1/messages/count_tokens", body("practice/practice"))
        assert counted.status == 200
    finally:
        own.gateway.api("PUT", "/v2/settings", {"enableIPRateLimit": False})
    assert own.gateway.post("/v1/messages", body("practice/practice")).status == 200


def test_who_lets_everybody_in_has_the_limit_per_address(migrated: Path) -> None:
    with gateway(migrated, ANONYMOUS_ACCESS="on") as opened:
        opened.api("PUT", "/v2/settings", {"ipRateLimitMax": 1})
        asked = [opened.post("/v1/messages", body("practice/practice"), key=None).status for _ in range(2)]
    assert asked == [200, 429]
