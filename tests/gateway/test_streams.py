"""Many answers at once, clients that leave, upstreams that fall silent, and what the log tells of it."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.upstream import CUT, FOREVER, Asked, Reply, Step, Upstream, after, in_json, refusing, spoken, streamed
from tests.gateway.conftest import Stage
from tests.live import KEY, Answer, Gateway, body, gateway, unique, wait_until

HELLO = "Hello from the upstream."
PATHS = {"anthropic": "/v1/messages", "openai": "/v1/chat/completions"}


# ---- rotation, exact under concurrency


@pytest.fixture(params=["priority", "round_robin", "least_used"])
def strategy(request: pytest.FixtureRequest, stage: Stage) -> Iterator[str]:
    stage.gateway.api("PUT", "/v2/settings", {"rotationStrategy": request.param})
    yield str(request.param)
    stage.gateway.api("PUT", "/v2/settings", {"rotationStrategy": "priority"})


def test_200_requests_at_once_are_spread_over_5_accounts_exactly(stage: Stage, strategy: str, model: str) -> None:
    def unhurried(asked: Asked) -> Reply:
        reply = spoken(asked)
        reply.before = [0.02 * (len(asked.body) % 5) + 0.001 * (asked.body[-7] % 10)]
        return reply

    accounts = [stage.account("openai", model, unhurried) for _ in range(5)]
    with ThreadPoolExecutor(200 if strategy == "priority" else 50) as pool:
        answers = list(pool.map(lambda n: stage.gateway.ask(model, f"{n}", stream=n % 2 == 0), range(200)))
    assert {answer.text for answer in answers} == {HELLO}
    assert [len(stage.asked(account)) for account in accounts] == [40] * 5
    wait_until(lambda: [stage.gateway.shown(account)["usage_count"] for account in accounts] == [40] * 5)
    wait_until(lambda: len(stage.gateway.rows("model = ?", model)) == 200)
    rows = stage.gateway.rows("model = ?", model)
    assert Counter(row["account_id"] for row in rows) == {account["id"]: 40 for account in accounts}
    assert len({row["request_id"] for row in rows}) == 200


def test_the_strategy_of_the_environment_holds_while_none_is_saved(hasty: Stage, model: str) -> None:
    first, second = hasty.account("openai", model, priority=5), hasty.account("openai", model)
    assert [hasty.gateway.ask(model).text for _ in range(4)] == [HELLO] * 4
    assert [len(hasty.asked(account)) for account in (first, second)] == [2, 2]  # in turn, whatever their priorities


def test_while_one_account_fails_the_others_still_share_alike(stage: Stage, model: str) -> None:
    bad = stage.account("openai", model, refusing(429, retry_after="60"))
    good = [stage.account("openai", model) for _ in range(3)]
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda n: stage.gateway.ask(model, stream=True), range(120)))
    assert {answer.text for answer in answers} == {HELLO}
    counts = [len(stage.asked(account)) for account in good]
    assert sum(counts) == 120
    assert max(counts) - min(counts) <= len(stage.asked(bad)) + 1


# ---- concurrency


@contextmanager
def held(stage: Stage, model: str, count: int) -> Iterator[threading.Event]:
    """``count`` streams that go on until the event is set."""
    let_go = threading.Event()
    stage.upstream.answers[model] = after(4, let_go)
    with ThreadPoolExecutor(count) as pool:
        running = [pool.submit(stage.gateway.ask, model, stream=True) for _ in range(count)]
        wait_until(
            lambda: sum(asked.model == model and asked.method == "POST" for asked in stage.upstream.asked) == count
        )
        try:
            yield let_go
        finally:
            let_go.set()
            [future.result(10) for future in running]


def test_the_cap_on_concurrency_moves_to_the_next_account_and_then_refuses(stage: Stage, model: str) -> None:
    first = stage.account("openai", model, priority=2, max_concurrency=2)
    second = stage.account("openai", model, priority=1, max_concurrency=1)
    with held(stage, model, 3):
        assert (len(stage.asked(first)), len(stage.asked(second))) == (2, 1)
        began = time.monotonic()
        got = stage.gateway.ask(model)
        assert got.error == (529, "overloaded_error", "no upstream account available")
        assert got.headers["retry-after"] == "1"
        assert 0.9 < time.monotonic() - began < 2, "a moment is waited for a place"
        assert stage.gateway.chat(model).status == 503
    stage.upstream.answers[model] = spoken
    assert stage.gateway.ask(model).text == HELLO
    assert len(stage.asked(first)) == 3


def test_a_place_that_becomes_free_within_a_moment_is_taken(stage: Stage, model: str) -> None:
    stage.account("openai", model, max_concurrency=1)
    with held(stage, model, 1) as let_go, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stage.gateway.ask, model)
        time.sleep(0.3)
        stage.upstream.answers[model] = spoken
        let_go.set()
        assert waiting.result(5).text == HELLO


def test_hundreds_of_streams_run_side_by_side(stage: Stage, kind: str, model: str) -> None:
    stage.account(kind, model)
    began = time.monotonic()
    with held(stage, model, 150):
        assert stage.gateway.send("GET", "/healthz").status == 200
        assert time.monotonic() - began < 10


# ---- connections to the upstream


@pytest.mark.parametrize("dialect", PATHS)
def test_one_connection_serves_one_stream_after_another(stage: Stage, kind: str, model: str, dialect: str) -> None:
    account = stage.account(kind, model)
    ask = stage.gateway.ask if dialect == "anthropic" else stage.gateway.chat
    for n in range(30):
        assert ask(model, stream=n % 3 != 0).text == HELLO
    assert len({asked.connection for asked in stage.asked(account)}) <= 2


def test_a_connection_that_was_cut_is_not_used_again(stage: Stage, kind: str, model: str) -> None:
    account = stage.account(kind, model, [after(5), spoken, after(1), spoken])
    for _ in range(3):
        stage.gateway.ask(model, stream=True)
    numbers = [asked.connection for asked in stage.asked(account)]
    assert len(numbers) == 4
    assert stage.gateway.ask(model).text == HELLO


def test_a_kept_connection_that_the_upstream_has_closed_meanwhile_is_no_failure(
    stage: Stage, kind: str, model: str
) -> None:
    def closing_later(asked: Asked) -> Reply:
        return spoken(asked)

    account = stage.account(kind, model, closing_later)
    assert stage.gateway.ask(model).text == HELLO
    stage.upstream.hang_up()
    got = stage.gateway.ask(model)
    assert got.text == HELLO
    assert stage.gateway.shown(account)["error_count"] == 0
    stage.leaves(got, attempts=1)


# ---- clients that leave


def leave(live: Gateway, path: str, sent: dict[str, Any], stay: Callable[[socket.socket], None], how: str) -> float:
    """Ask, ``stay`` until it returns, leave; returns when."""
    data = json.dumps(sent).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: {len(data)}\r\n\r\n"
    with closing(socket.create_connection(("127.0.0.1", live.port), 10)) as sock:
        sock.sendall(head.encode() + data)
        stay(sock)
        left = time.monotonic()
        if how == "half-closed":
            sock.shutdown(socket.SHUT_WR)
            time.sleep(0.15)
        elif how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    return left


# where the upstream stands still when the client leaves
PLACES: dict[str, Callable[[Asked], Reply]] = {
    "before the head": lambda asked: Reply(before=[FOREVER]),
    "before the first event": lambda asked: streamed([FOREVER]),
    "before content": after(1, FOREVER),
    "within the answer": after(5, FOREVER),
}


@pytest.mark.parametrize(
    "place, how",
    [*((place, "closed") for place in PLACES), ("before content", "reset"), ("before content", "half-closed")],
)
def test_the_upstream_is_let_go_within_100_ms_when_the_client_leaves(
    stage: Stage, kind: str, place: str, how: str
) -> None:
    for dialect, stream in (("anthropic", True), ("openai", True), ("anthropic", False)):
        model = unique("leaver")
        account = stage.account(kind, model, PLACES[place], max_concurrency=1)

        def stay(sock: socket.socket, account: Any = account, stream: bool = stream) -> None:
            (asked,) = wait_until(lambda: stage.asked(account))
            if place == "within the answer" and stream:
                while b"from" not in sock.recv(65_536):
                    pass
            else:
                wait_until(lambda: time.monotonic() - asked.at > 0.04)

        left = leave(stage.gateway, PATHS[dialect], body(model, stream=stream), stay, how)
        (asked,) = stage.asked(account)
        gone = wait_until(lambda asked=asked: asked.gone_at)
        assert 0 <= gone - left < 0.1
        stage.upstream.answers.pop(account["key"])
        assert stage.gateway.ask(model).text == HELLO, "its place is free again"
        stage.left_behind(model, outcome="client_gone", account_id=account["id"], attempts=1, error_type=None)
        assert stage.gateway.shown(account)["error_count"] == 0


def test_a_client_that_leaves_while_practice_talks_leaves_its_row(stage: Stage) -> None:
    model = unique("practice/leaver")
    sent = body(model, "[[practice:slow]]", stream=True)

    def stay(sock: socket.socket) -> None:
        sock.recv(1)

    leave(stage.gateway, PATHS["anthropic"], sent, stay, "closed")
    stage.left_behind(model, outcome="client_gone", provider="practice")


def test_a_client_that_leaves_while_others_are_tried_ends_the_trying(stage: Stage, model: str) -> None:
    accounts = [stage.account("openai", model, refusing(500)) for _ in range(2)]

    def stay(sock: socket.socket) -> None:
        wait_until(lambda: sum(len(stage.asked(account)) for account in accounts) == 2)

    leave(stage.gateway, PATHS["anthropic"], body(model), stay, "closed")
    stage.left_behind(model, outcome="client_gone", attempts=2)
    assert sum(len(stage.asked(account)) for account in accounts) == 2


def test_a_pipelined_request_does_not_look_like_leaving(stage: Stage, model: str) -> None:
    stage.account("openai", model, lambda asked: Reply(**{**vars(spoken(asked)), "before": [0.2]}))
    data = json.dumps(body(model)).encode()
    head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: {len(data)}\r\n\r\n"
    with closing(socket.create_connection(("127.0.0.1", stage.gateway.port), 10)) as sock:
        sock.sendall((head.encode() + data) * 2)
        seen = b""
        while seen.count(HELLO.encode()) < 2:
            got = sock.recv(65_536)
            assert got
            seen += got
    assert seen.count(b"HTTP/1.1 200") == 2


# ---- upstreams that fall silent; the gateway has little patience here


@pytest.mark.parametrize("place", ["before the head", "before the first event", "before content"])
def test_silence_before_content_is_a_504_after_every_account_was_tried(hasty: Stage, model: str, place: str) -> None:
    accounts = [hasty.account(kind, model, PLACES[place]) for kind in ("openai", "anthropic")]
    began = time.monotonic()
    assert hasty.gateway.ask(model, stream=True).error == (504, "timeout_error", "upstream stayed silent for too long")
    assert 1 <= time.monotonic() - began < 3
    assert [len(hasty.asked(account)) for account in accounts] == [1, 1]
    for account in accounts:
        assert wait_until(lambda account=account: hasty.asked(account)[0].gone_at)


def test_silence_within_an_answer_ends_it(hasty: Stage, kind: str, model: str) -> None:
    hasty.account(kind, model, PLACES["within the answer"])
    began = time.monotonic()
    *_, last = hasty.gateway.ask(model, stream=True).events
    assert 0.5 <= time.monotonic() - began < 2
    assert last["error"] == {"type": "timeout_error", "message": "upstream stayed silent for too long"}


def test_every_byte_counts_against_silence(hasty: Stage, model: str) -> None:
    def murmuring(asked: Asked) -> Reply:
        steps = [step for step in spoken(asked).body if isinstance(step, bytes)]
        comments: list[Any] = [b": one moment\n\n", 0.3] * 3
        return streamed([*steps[:5], *comments, *steps[5:]])

    hasty.account("anthropic", model, murmuring)
    assert hasty.gateway.ask(model, stream=True).text == HELLO


def test_comments_alone_do_not_put_off_the_limit_for_everything(hasty: Stage, model: str) -> None:
    hasty.account("openai", model, streamed([b": one moment\n\n", 0.3] * 20))
    began = time.monotonic()
    assert hasty.gateway.ask(model, stream=True).error == (504, "timeout_error", "upstream took too long")
    assert time.monotonic() - began < 5


def test_a_stream_that_flows_may_take_longer_than_the_limit_for_everything(hasty: Stage, model: str) -> None:
    def slow(asked: Asked) -> Reply:
        steps: list[Any] = []
        for step in spoken(asked).body:
            steps += [step, 0.2]
        return streamed(steps)

    hasty.account("openai", model, slow)
    began = time.monotonic()
    assert hasty.gateway.ask(model, stream=True).text == HELLO
    assert time.monotonic() - began > 1.5


def test_a_server_that_takes_no_connection_costs_the_time_to_connect(hasty: Stage, model: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0), backlog=0)) as full:
        others = [socket.socket() for _ in range(4)]
        for other in others:  # the queue is full now: the next SYN is not answered
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        blocked = hasty.account("openai", model, base_url=url)
        other_account = hasty.account("openai", model)
        hasty.gateway.api("POST", f"/api/cookies/{blocked['id']}/reset")
        began = time.monotonic()
        answers = [hasty.gateway.ask(model) for _ in range(2)]
        assert 0.4 < time.monotonic() - began < 3
        assert {answer.text for answer in answers} == {HELLO}
        assert len(hasty.asked(other_account)) == 2
        for other in others:
            other.close()


def test_how_many_failures_take_an_account_out_is_a_setting(hasty: Stage, kind: str, model: str) -> None:
    account = hasty.account(kind, model, refusing(401))
    hasty.gateway.ask(model)
    hasty.gateway.until(account, state="invalid", error_count=1)


def test_how_many_attempts_are_made_is_a_setting(hasty: Stage, model: str) -> None:
    accounts = [hasty.account("openai", model, refusing(529)) for _ in range(4)]
    assert hasty.gateway.ask(model).status == 529
    assert sum(len(hasty.asked(account)) for account in accounts) == 2


# ---- practice, which fails on demand


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "mark, error",
    [
        ("429", (429, "rate_limit_error", "practice: HTTP 429 rate_limit_error with retry-after: 1")),
        ("529", (529, "overloaded_error", "practice: HTTP 529 overloaded_error")),
        ("cut", (502, "api_error", "upstream stream ended early")),
        ("stall", (504, "timeout_error", "upstream stayed silent for too long")),
        ("garbage", (502, "api_error", "upstream sent invalid JSON")),
    ],
)
def test_practice_fails_in_the_named_way(hasty: Stage, mark: str, error: tuple[int, str, str], stream: bool) -> None:
    got = hasty.gateway.ask("practice/any", f"Hi [[practice:{mark}]]", stream=stream)
    if stream and not mark.isdigit():
        *_, last = got.events
        assert got.text.startswith("This is practice")
        assert (last["error"]["type"], last["error"]["message"]) == error[1:]
    else:
        assert got.error == error


def test_an_unknown_mark_is_no_failure(hasty: Stage) -> None:
    assert hasty.gateway.ask("practice/any", "Hi [[practice:nothing]]").status == 200


# ---- the log


def test_a_row_tells_everything_of_a_request(stage: Stage, kind: str, model: str) -> None:
    account = stage.account(kind, model)
    got = stage.gateway.chat(model, stream=True)
    row = stage.gateway.row(got)
    assert abs(row.pop("time") / 1e6 - time.time()) < 60  # microseconds since 1970
    assert 0 <= row.pop("first_token_ms") <= row.pop("duration_ms") < 5000
    row.pop("id")
    assert row == {
        "request_id": got.headers["request-id"],
        "key_id": 1,
        "account_id": account["id"],
        "provider": kind,
        "dialect": "openai",
        "model": model,
        "upstream_model": model,
        "upstream_request_id": "req_upstream",
        "stream": 1,
        "status": 200,
        "outcome": "ok",
        "error_type": None,
        "attempts": 1,
        "input_tokens": 12,
        "output_tokens": 7,
        "cache_read_input_tokens": 3,
        "cache_creation_input_tokens": 2,
        "estimated": 0,
        "client_ip": "127.0.0.1",
        "trace": None,
    }


def test_a_row_of_a_failure_names_its_error(stage: Stage, kind: str, model: str) -> None:
    account = stage.account(kind, model, refusing(500))
    got = stage.gateway.ask(model)
    row = stage.gateway.row(got)
    expected = {"status": 502, "outcome": "upstream_error", "error_type": "api_error", "attempts": 3}
    expected |= {"account_id": account["id"], "upstream_request_id": "req_refused", "first_token_ms": None}
    assert {name: row[name] for name in expected} == expected
    assert (row["input_tokens"], row["output_tokens"]) == (0, 0)


def test_a_refused_request_leaves_a_row_and_a_stranger_none(stage: Stage) -> None:
    stranger = stage.gateway.post("/v1/messages", b"no JSON", key="sk-nobody")
    got = stage.gateway.post("/v1/messages", b"no JSON")
    unknown = stage.gateway.ask("no-such-model")
    row = stage.gateway.row(got)
    expected = {"status": 400, "outcome": "client_error", "error_type": "invalid_request_error", "key_id": 1}
    expected |= {"account_id": None, "provider": None, "model": "", "attempts": 0}
    assert {name: row[name] for name in expected} == expected
    assert (stage.gateway.row(unknown)["model"], stage.gateway.row(unknown)["status"]) == ("no-such-model", 404)
    assert stage.gateway.rows("request_id = ?", stranger.headers["request-id"]) == []


def test_what_a_client_without_usage_gets_is_estimated_in_the_log(stage: Stage, model: str) -> None:
    def uncounted(asked: Asked) -> Reply:
        return streamed([step for step in spoken(asked).body if b'"usage"' not in step])  # type: ignore[operator]

    stage.account("openai", model, uncounted)
    got = stage.gateway.ask(model, stream=True)
    row = stage.gateway.row(got)
    assert row["estimated"] == 1
    assert (row["input_tokens"] > 0, row["output_tokens"] > 0) == (True, True)


def test_an_answer_that_lacks_only_its_end_mark_is_whole(stage: Stage) -> None:
    def asked_of_one_that(end: Step, path: str) -> tuple[Answer, float]:
        def unmarked(asked: Asked) -> Reply:
            steps = [step for step in spoken(asked).body if b"[DONE]" not in step]  # type: ignore[operator]
            return streamed([*steps, end])

        model = unique("unmarked")
        stage.account("openai", model, unmarked)
        began = time.monotonic()
        got = stage.gateway.post(path, body(model, stream=True))
        return got, time.monotonic() - began

    with ThreadPoolExecutor(4) as threads:
        answers = threads.map(asked_of_one_that, [FOREVER, FOREVER, CUT, CUT], [*PATHS.values()] * 2)
    for got, seconds in answers:
        assert (got.text, seconds < 8.0) == (HELLO, True)
        assert got.events[-1] in ({"type": "message_stop"}, {"done": True})
        assert stage.gateway.row(got)["outcome"] == "ok"


def test_an_openai_client_reads_what_its_upstream_said_of_the_request(stage: Stage, model: str) -> None:
    error = {"message": "This model's maximum context length is 8 tokens.", "type": "invalid_request_error"}
    error |= {"param": "messages", "code": "context_length_exceeded"}
    stage.account("openai", model, in_json({"error": error}, 400))
    assert stage.gateway.chat(model).json == {"error": error}


@pytest.mark.parametrize("name", ["\\ud800", "a\\u0000b", "x" * 256, "\\ud83d\\ude00", "'; DROP TABLE users; --"])
def test_whatever_clients_call_a_model_is_stored(stage: Stage, model: str, name: str) -> None:
    stage.account("openai", model)  # practice serves no name any more
    sent = f'{{"model": "{name}", "max_tokens": 5, "messages": [{{"role": "user", "content": "Hi"}}]}}'
    got = stage.gateway.post("/v1/messages", sent.encode())
    assert got.status == 404
    stage.leaves(got, status=404)


def test_whatever_upstreams_tell_is_stored(stage: Stage, kind: str, model: str) -> None:
    account = stage.account(kind, model, refusing(401, "\ud800 and \0 and " + "x" * 3000))
    for _ in range(3):
        assert stage.gateway.ask(model).status == 529
    assert "and ? and xxx" in stage.gateway.until(account, state="invalid")["state_reason"]


def test_counts_that_no_database_takes_are_not_believed(stage: Stage, kind: str, model: str) -> None:
    stage.account(kind, model, lambda asked: spoken(asked, output_tokens=10**30, input_tokens=-5))
    got = stage.gateway.ask(model, stream=True)
    assert got.text == HELLO
    stage.leaves(got, outcome="ok")


def test_a_keys_usage_adds_up(stage: Stage, model: str) -> None:
    value = stage.gateway.flask("keys", "create", model)
    stage.account("anthropic", model)
    wait_until(lambda: stage.gateway.post("/v1/messages", body(model), key=value).status == 200, 1.5)

    def used() -> bool:
        keys = json.loads(stage.gateway.flask("keys", "list", "--json"))["data"]
        usage = next(key for key in keys if key["name"] == model)["usage"]
        return bool(usage == {"requests": 1, "input_tokens": 17, "output_tokens": 7})

    wait_until(used)


def test_sigterm_writes_what_was_not_written_yet(migrated: Path, upstream: Upstream) -> None:
    with gateway(migrated) as running:
        stage = Stage(running, upstream)
        account = stage.account("openai", "last")
        names = [running.ask("last").headers["request-id"] for _ in range(40)]
        assert running.stop() == 0
        assert {row["request_id"] for row in running.rows()} == set(names)
        assert "Traceback" not in running.output()
        shown = json.loads(running.flask("accounts", "list", "--json"))["data"]
        assert [(row["id"], row["usage_count"]) for row in shown] == [(account["id"], 40)]


def test_every_request_of_this_module_left_its_row(stage: Stage) -> None:
    stage.see_what_was_left()


def test_nothing_unexpected_stands_in_the_log(stage: Stage, hasty: Stage) -> None:
    for live in (stage.gateway, hasty.gateway):
        assert "Traceback" not in live.output()
        assert KEY not in live.output()
        assert "sk-up" not in live.output()
