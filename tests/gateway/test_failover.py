"""One account after another, until one answers: what the client sees of it, and what becomes of the accounts."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.fakes import formats
from tests.fakes.upstream import (
    CUT,
    FOREVER,
    RESET,
    Answer,
    Asked,
    Reply,
    after,
    json_error,
    refusing,
    spoken,
    streamed,
    zipped,
)
from tests.gateway.conftest import Stage
from tests.live import body, unique, wait_until
from tests.processes import free_port

HELLO = "Hello from the upstream."


def test_a_server_that_is_not_there_costs_nothing(stage: Stage, kind: str, model: str) -> None:
    gone = [
        stage.account(kind, model, base_url=f"http://127.0.0.1:{free_port()}", priority=2, state="active")
        for _ in range(5)
    ]
    last = stage.account(kind, model, priority=1)
    for account in gone:
        stage.gateway.api("POST", f"/api/cookies/{account['id']}/reset")
    began = time.monotonic()
    got = stage.gateway.ask(model)
    assert (got.status, got.text) == (200, HELLO)
    assert time.monotonic() - began < 1
    stage.leaves(got, account_id=last["id"], attempts=6)  # more than MAX_ATTEMPTS: no work had begun


@pytest.mark.parametrize("status, moves", [(401, 10), (429, 10), (500, 3), (529, 3)])
def test_as_many_accounts_are_tried_as_the_fault_allows(stage: Stage, model: str, status: int, moves: int) -> None:
    accounts = stage.accounts("openai", refusing(status, retry_after="30"), *[{"models": [model]}] * 12)
    stage.gateway.ask(model)
    assert sum(len(stage.asked(account)) for account in accounts) == moves


def test_the_only_account_is_asked_again_after_a_moment(stage: Stage, kind: str, model: str) -> None:
    account = stage.account(kind, model, [refusing(500), refusing(529), spoken])
    began = time.monotonic()
    got = stage.gateway.ask(model)
    assert (got.status, got.text) == (200, HELLO)
    assert 0.5 <= time.monotonic() - began < 2
    assert len(stage.asked(account)) == 3


@pytest.mark.parametrize("status", [400, 413, 422])
def test_the_clients_own_mistake_is_told_and_tried_nowhere_else(
    stage: Stage, kind: str, model: str, status: int
) -> None:
    accounts = [stage.account(kind, model, refusing(status, "messages.0: is wrong")) for _ in range(2)]
    for ask in (stage.gateway.ask, stage.gateway.chat):
        for stream in (False, True):
            got = ask(model, stream=stream)
            assert got.status == (413 if status == 413 else 400)
            assert got.json["error"]["message"] == "messages.0: is wrong"
            stage.leaves(got, outcome="client_error", status=got.status)
    assert sum(len(stage.asked(account)) for account in accounts) == 4
    for account in accounts:
        assert stage.gateway.shown(account)["error_count"] == 0


def test_a_context_that_is_too_long_is_told_in_anthropics_words(stage: Stage, model: str) -> None:
    told = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens."
    stage.account("openai", model, refusing(400, told))
    assert stage.gateway.ask(model).json["error"]["message"] == "prompt is too long: 9000 tokens > 8192 maximum"


def test_an_upstreams_secrets_are_not_told(stage: Stage, kind: str, model: str) -> None:
    def answer(asked: Asked) -> Reply:
        return refusing(400, f"bad key {asked.key} at {stage.upstream.url}/v1, sk-abcdefgh12345678")(asked)

    account = stage.account(kind, model, answer)
    got = stage.gateway.ask(model)
    assert got.status == 400
    assert account["key"].encode() not in got.body
    assert str(stage.upstream.port).encode() not in got.body
    assert b"abcdefgh" not in got.body
    assert "set-cookie" not in got.headers


# ---- after the first content


@pytest.mark.parametrize(
    "end, message",
    [
        ([], "upstream stream ended early"),
        ([CUT], "upstream stream ended early"),
        ([RESET], "upstream stream ended early"),
    ],
    ids=["ended", "cut", "reset"],
)
@pytest.mark.parametrize("dialect", ["anthropic", "openai"])
def test_after_content_a_failure_ends_the_answer_and_nothing_is_replayed(
    stage: Stage, kind: str, model: str, dialect: str, end: list[Any], message: str
) -> None:
    ends_with(stage, kind, model, dialect, end, message)


@pytest.mark.parametrize("dialect", ["anthropic", "openai"])
def test_after_content_what_is_no_json_ends_the_answer(stage: Stage, kind: str, model: str, dialect: str) -> None:
    ends_with(stage, kind, model, dialect, [0.1, b"data: {nonsense\n\n"], "upstream sent invalid JSON")


def ends_with(stage: Stage, kind: str, model: str, dialect: str, end: list[Any], message: str) -> None:
    first = stage.account(kind, model, after(5, *end), priority=2)
    second = stage.account(kind, model, priority=1)
    got = (stage.gateway.ask if dialect == "anthropic" else stage.gateway.chat)(model, stream=True)
    assert got.status == 200
    assert got.text
    assert HELLO.startswith(got.text)
    *_, last = got.events
    assert last["error"]["message"] == message
    if dialect == "anthropic":
        assert (last["type"], last["error"]["type"]) == ("error", "api_error")
        assert last["request_id"] == got.headers["request-id"]
        assert got.kinds.count("message_start") == 1
        assert not {"message_delta", "message_stop"} & set(got.kinds)
    else:
        assert last["error"]["type"] == "server_error"
        assert {"done": True} not in got.events
        assert not any(choice["finish_reason"] for event in got.events for choice in event.get("choices", ()))
    assert stage.asked(second) == []
    stage.leaves(got, outcome="upstream_cut", status=200, error_type="api_error", account_id=first["id"], estimated=1)
    stage.gateway.until(first, state="active", error_count=1)


@pytest.mark.parametrize("status, type_", [(429, "rate_limit_error"), (529, "overloaded_error"), (500, "api_error")])
def test_an_error_in_the_middle_has_its_type(stage: Stage, kind: str, model: str, status: int, type_: str) -> None:
    def answer(asked: Asked) -> Reply:
        told = formats.anthropic_error if kind == "anthropic" else formats.openai_error
        error = told(status, "slow down")
        if kind == "openai":
            error["error"]["code"] = status
        data = formats.event(error) if kind == "anthropic" else formats.data(error)
        return after(5, data)(asked)

    stage.account(kind, model, answer)
    *_, last = stage.gateway.ask(model, stream=True).events
    assert (last["type"], last["error"]) == ("error", {"type": type_, "message": "slow down"})


def test_without_streaming_a_cut_answer_is_asked_for_elsewhere(stage: Stage, kind: str, model: str) -> None:
    first = stage.account(kind, model, after(5, CUT), priority=2)
    stage.account(kind, model, priority=1)
    ask = stage.gateway.chat if kind == "anthropic" else stage.gateway.ask  # the other dialect: the upstream streams
    got = ask(model)
    assert (got.status, got.text) == (200, HELLO)
    assert len(stage.asked(first)) == 1


def test_a_stream_without_its_end_mark_is_complete_with_its_finish(stage: Stage, model: str) -> None:
    def answer(asked: Asked) -> Reply:
        return streamed([step for step in spoken(asked).body if step != b"data: [DONE]\n\n"])  # type: ignore[misc]

    stage.account("openai", model, answer)
    assert stage.gateway.ask(model, stream=True).kinds[-2:] == ["message_delta", "message_stop"]
    assert stage.gateway.chat(model, stream=True).status == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", ["anthropic", "openai"])
@pytest.mark.parametrize("how", ["drip", "gzip", "close", "length"])
def test_however_the_bytes_come_the_answer_is_the_same(
    stage: Stage, kind: str, model: str, how: str, dialect: str, stream: bool
) -> None:
    def answer(asked: Asked) -> Reply:
        reply = spoken(asked)
        whole = b"".join([reply.body] if isinstance(reply.body, bytes) else reply.body)  # type: ignore[arg-type]
        if how == "drip":
            reply.body = [whole[i : i + 1] for i in range(len(whole))]
        elif how == "gzip":
            return zipped(reply)
        elif how == "close":
            reply.body, reply.framing = [whole], "close"
        else:
            reply.body = whole
        return reply

    stage.account(kind, model, answer)
    got = (stage.gateway.ask if dialect == "anthropic" else stage.gateway.chat)(model, stream=stream)
    assert (got.status, got.text) == (200, HELLO)
    counted = {"input_tokens": 12, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 3}
    stage.leaves(got, output_tokens=7, estimated=0, **counted)


# ---- when nobody is left


def test_when_all_have_reached_their_limits_the_client_waits_for_the_soonest(
    stage: Stage, kind: str, model: str
) -> None:
    accounts = [stage.account(kind, model, refusing(429, retry_after=after)) for after in ("40", "30")]
    for ask, type_ in ((stage.gateway.ask, "rate_limit_error"), (stage.gateway.chat, "rate_limit_error")):
        got = ask(model)
        assert got.error == (429, type_, "all upstream accounts have reached their limits")
        assert 28 <= int(got.headers["retry-after"]) <= 30
        assert "x-should-retry" not in got.headers
        stage.leaves(got, outcome="upstream_error", status=429)
    assert [len(stage.asked(account)) for account in accounts] == [1, 1], "nobody is asked while it cools"


@pytest.mark.parametrize(
    "answer, anthropic, openai",
    [
        (refusing(500), (502, "api_error"), (502, "server_error")),
        (refusing(529), (529, "overloaded_error"), (503, "server_error")),
        (refusing(504), (504, "timeout_error"), (504, "server_error")),
        (refusing(401), (529, "overloaded_error"), (503, "server_error")),
        (refusing(403), (529, "overloaded_error"), (503, "server_error")),
        (refusing(402, retry_after="60"), (429, "rate_limit_error"), (429, "insufficient_quota")),
        (refusing(404), (404, "not_found_error"), (404, "invalid_request_error")),
        (Reply(200, b"<html>"), (502, "api_error"), (502, "server_error")),
        (json_error(500), (502, "api_error"), (502, "server_error")),
        (Reply(before=[CUT]), (502, "api_error"), (502, "server_error")),
    ],
    ids=["500", "529", "504", "401", "403", "402", "404", "a page", "JSON error", "cut"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_when_all_fail_the_client_gets_an_error_of_its_dialect_and_no_stream(
    stage: Stage, kind: str, answer: Answer, anthropic: Any, openai: Any, stream: bool
) -> None:
    models = {unique("failing"): ("anthropic", anthropic), unique("failing"): ("openai", openai)}
    added = stage.accounts(kind, answer, *({"models": [model]} for model in models for _ in range(3)))
    for model, (dialect, expected) in models.items():
        accounts = [account for account in added if account["models"] == [model]]
        got = (stage.gateway.ask if dialect == "anthropic" else stage.gateway.chat)(model, stream=stream)
        assert got.error[:2] == expected
        assert got.headers["content-type"] == "application/json"
        assert [len(stage.asked(account)) for account in accounts] == [1, 1, 1]


def test_a_model_that_nobody_has_stays_a_404(stage: Stage, kind: str, model: str) -> None:
    account = stage.account(kind, model, refusing(404, "model: unknown"))
    for _ in range(3):
        assert stage.gateway.ask(model).error == (404, "not_found_error", f"model: {model}")
    assert len(stage.asked(account)) == 1, "it is not asked again for ten minutes"
    stage.gateway.api("POST", f"/api/cookies/{account['id']}/reset")
    stage.gateway.ask(model)
    assert len(stage.asked(account)) == 2


def test_a_limit_of_a_moment_is_waited_for(stage: Stage, kind: str, model: str) -> None:
    stage.account(kind, model, [refusing(429, retry_after="1"), spoken])
    began = time.monotonic()
    got = stage.gateway.ask(model)
    assert (got.status, got.text) == (200, HELLO)
    assert time.monotonic() - began >= 1


# ---- states


def test_three_refused_credentials_in_a_row_make_an_account_invalid(stage: Stage, kind: str, model: str) -> None:
    account = stage.account(kind, model, refusing(401, "key is dead"))
    for _ in range(3):
        assert stage.gateway.ask(model).status == 529
    found = stage.gateway.until(account, state="invalid", is_valid=False, error_count=3)
    assert found["state_reason"] == "credential refused 3 times: key is dead"
    got = stage.gateway.ask(model)
    assert (got.status, got.headers["x-should-retry"]) == (529, "false")
    assert "retry-after" not in got.headers
    assert len(stage.asked(account)) == 3
    stage.upstream.answers.pop(account["key"])
    stage.gateway.api("POST", f"/api/cookies/{account['id']}/reset")
    assert stage.gateway.ask(model).text == HELLO


def test_a_success_in_between_begins_the_count_anew(stage: Stage, model: str) -> None:
    answers = [refusing(401), refusing(401), spoken] * 3
    account = stage.account("openai", model, answers)
    for _ in answers:
        stage.gateway.ask(model)
    stage.gateway.until(account, state="active", error_count=0)
    assert len(stage.asked(account)) == len(answers)


def test_three_failures_in_a_row_cool_an_account_down(stage: Stage, kind: str, model: str) -> None:
    bad = stage.account(kind, model, refusing(500, "broken"), priority=2)
    stage.account(kind, model, priority=1)
    for _ in range(5):
        assert stage.gateway.ask(model).text == HELLO
    found = stage.gateway.until(bad, state="cooling", error_count=3)
    assert found["state_reason"] == "failed 3 times: broken"
    assert found["is_valid"]
    assert len(stage.asked(bad)) == 3


def test_a_cooldown_lasts_as_long_as_the_upstream_said_and_is_stored(stage: Stage, kind: str, model: str) -> None:
    account = stage.account(kind, model, refusing(429, retry_after="77"))
    stage.gateway.ask(model)
    found = stage.gateway.until(account, state="cooling")
    until = datetime.fromisoformat(found["state_until"])
    assert 74 < (until - datetime.now(UTC)).total_seconds() <= 77
    assert found["state_reason"] == "rate limit reached"


def test_a_cooldown_is_the_longest_of_those_that_were_said(stage: Stage, kind: str, model: str) -> None:
    """A proxy's header beside the server's own."""
    account = stage.account(kind, model, refusing(429, retry_after="77", **{"Retry-After": "1"}))
    stage.gateway.ask(model)
    until = datetime.fromisoformat(stage.gateway.until(account, state="cooling")["state_until"])
    assert 74 < (until - datetime.now(UTC)).total_seconds() <= 77


def test_a_refusal_whose_words_never_come_is_one_all_the_same(stage: Stage, kind: str, model: str) -> None:
    silent = Reply(429, [FOREVER], {"retry-after": "77"})
    account = stage.account(kind, model, silent, priority=2)
    stage.account(kind, model, priority=1)
    began = time.monotonic()
    assert stage.gateway.ask(model).text == HELLO
    assert time.monotonic() - began < 6
    assert stage.gateway.until(account, state="cooling")["state_reason"] == "rate limit reached"


def test_a_client_is_told_its_mistake_however_slowly_it_comes(stage: Stage, kind: str, model: str) -> None:
    def slow(asked: Asked) -> Reply:
        reply = refusing(400, "messages.3: too blue")(asked)
        assert isinstance(reply.body, bytes)
        reply.body = [reply.body[:20], 3.5, reply.body[20:]]
        return reply

    accounts = [stage.account(kind, model, slow, priority=priority) for priority in (2, 1)]
    assert stage.gateway.ask(model).error == (400, "invalid_request_error", "messages.3: too blue")
    assert [len(stage.asked(account)) for account in accounts] == [1, 0]


def test_a_long_answer_keeps_nobody_out_when_its_account_has_cooled_again(stage: Stage, kind: str, model: str) -> None:
    go = threading.Event()
    limit = refusing(429, retry_after="1")
    account = stage.account(kind, model, [limit, after(5, go), limit, spoken])
    with ThreadPoolExecutor(1) as threads:
        long = threads.submit(stage.gateway.ask, model, stream=True)  # tries the account after its first cooldown
        wait_until(lambda: stage.gateway.shown(account)["state"] == "active" and len(stage.asked(account)) == 2)
        assert stage.gateway.ask(model, stream=True).text == HELLO
        go.set()
        long.result()


def test_an_account_that_is_deleted_meanwhile_is_not_asked_again(stage: Stage, kind: str, model: str) -> None:
    go = threading.Event()

    def refused_late(asked: Asked) -> Reply:
        reply = refusing(429, retry_after="30")(asked)
        reply.before = [go]
        return reply

    account = stage.account(kind, model, refused_late)
    with ThreadPoolExecutor(1) as threads:
        got = threads.submit(stage.gateway.ask, model)
        wait_until(lambda: stage.asked(account))
        stage.gateway.api("DELETE", f"/api/cookies/{account['id']}")
        stage.gateway.send("GET", "/v1/models")  # the gateway has heard of it
        go.set()
        assert got.result().status == 529
    assert len(stage.asked(account)) == 1


def test_what_an_old_key_met_is_not_held_against_the_new_one(stage: Stage, kind: str, model: str) -> None:
    go = threading.Event()

    def refused_late(asked: Asked) -> Reply:
        reply = refusing(401)(asked)
        reply.before = [go]
        return reply

    account = stage.account(kind, model, refused_late)
    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(stage.gateway.ask, model) for _ in range(4)]
        wait_until(lambda: len(stage.asked(account)) == 4)
        stage.change(account, api_key=unique("sk-new"))
        assert stage.gateway.ask(model).text == HELLO
        go.set()
        assert [one.result().status for one in asking] == [529] * 4
    assert stage.gateway.ask(model).text == HELLO
    stage.gateway.until(account, state="active", error_count=0)


def test_who_waits_for_an_account_asks_it_with_the_key_that_it_has_by_then(stage: Stage, kind: str, model: str) -> None:
    account = stage.account(kind, model, refusing(429, retry_after="2"))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(stage.gateway.ask, model)
        wait_until(lambda: stage.asked(account))
        key = unique("sk-new")
        stage.change(account, api_key=key)
        stage.gateway.send("GET", "/v1/models")  # the gateway has heard of it
        assert waiting.result().text == HELLO
    assert len(stage.upstream.of(key)) == 1


def test_a_spend_cap_of_anthropic_cools_for_an_hour(stage: Stage, model: str) -> None:
    account = stage.account("anthropic", model, refusing(429))
    got = stage.gateway.ask(model)
    assert got.status == 429
    assert int(got.headers["retry-after"]) > 3500
    assert stage.gateway.until(account, state="cooling")["state_reason"] == "quota or credit used up"


# ---- what people do


def test_a_disabled_account_is_never_used_and_an_enabled_one_at_once(stage: Stage, kind: str, model: str) -> None:
    off = stage.account(kind, model, priority=2)
    stage.account(kind, model, priority=1)
    stage.change(off, state="disabled")
    for _ in range(5):
        assert stage.gateway.ask(model).text == HELLO
    assert stage.asked(off) == []
    stage.change(off, state="active")
    stage.gateway.ask(model)
    assert len(stage.asked(off)) == 1


def test_an_account_serves_from_the_request_after_it_was_added_until_it_is_deleted(
    stage: Stage, kind: str, model: str
) -> None:
    for _ in range(5):
        assert stage.gateway.ask(model).status == 404
        account = stage.account(kind, model)
        assert stage.gateway.ask(model).text == HELLO
        stage.gateway.api("DELETE", f"/api/cookies/{account['id']}")


def test_an_account_of_the_command_line_serves_within_a_second(stage: Stage, model: str) -> None:
    words = ["accounts", "add", "--provider", "anthropic", "--name", model, "--api-key-stdin", "--models", model]
    stage.gateway.flask(*words, "--base-url", stage.upstream.url, stdin="sk-up-cli\n")
    wait_until(lambda: stage.gateway.ask(model).status == 200, 1.2)
    stage.gateway.flask("accounts", "disable", model)
    wait_until(lambda: stage.gateway.ask(model).status == 529, 1.2)
    stage.gateway.flask("models", "map", f"{model}-*", "practice/x")
    wait_until(lambda: stage.gateway.ask(f"{model}-alias").status == 200, 1.2)


def test_a_new_key_of_an_account_is_used_at_once(stage: Stage, kind: str, model: str) -> None:
    account = stage.account(kind, model)
    key = unique("sk-up-new")
    stage.change(account, api_key=key)
    stage.gateway.ask(model)
    assert len(stage.upstream.of(key)) == 1


# ---- what an upstream's 400 teaches


@pytest.mark.parametrize("stream", [False, True])
def test_an_option_is_learned_from_a_400_and_remembered(stage: Stage, model: str, stream: bool) -> None:
    def answer(asked: Asked) -> Reply:
        if "stream_options" in asked.json:
            return refusing(400, "Unrecognized request argument supplied: stream_options")(asked)
        return spoken(asked)

    account = stage.account("openai", model, answer)
    got = stage.gateway.ask(model, stream=stream)
    assert (got.status, got.text) == (200, HELLO)
    assert len(stage.asked(account)) == 2
    assert stage.gateway.until(account, learned_options={"stream_options": False})["error_count"] == 0
    time.sleep(0.1)  # it is read as soon as it is written, and used when it is on the disk as well
    assert stage.gateway.ask(model, stream=stream).text == HELLO
    assert len(stage.asked(account)) == 3, "the second request knows it"


def test_the_most_tokens_an_upstream_takes_are_learned(stage: Stage, model: str) -> None:
    def answer(asked: Asked) -> Reply:
        if asked.json["max_tokens"] > 4096:
            return refusing(400, "max_tokens must be less than or equal to 4096")(asked)
        return spoken(asked)

    account = stage.account("openai", model, answer)
    for _ in range(2):
        got = stage.gateway.ask(model, max_tokens=64_000)
        assert (got.status, got.text, got.headers["opus-warnings"]) == (200, HELLO, "max_tokens_clamped")
    assert [asked.json["max_tokens"] for asked in stage.asked(account)] == [64_000, 4096, 4096]


def test_a_400_that_teaches_nothing_new_is_told(stage: Stage, model: str) -> None:
    account = stage.account("openai", model, refusing(400, "stream_options are bad"))
    assert stage.gateway.ask(model).error == (400, "invalid_request_error", "stream_options are bad")
    assert len(stage.asked(account)) == 2


# ---- mixed


def test_a_haiku_that_nobody_serves_goes_to_the_last_used_model_with_a_warning(stage: Stage, model: str) -> None:
    account = stage.account("openai", model)
    stage.gateway.ask(model)
    got = stage.gateway.ask("claude-haiku-9")
    assert (got.status, got.headers["opus-warnings"]) == (200, "model_substituted")
    assert stage.asked(account)[-1].model == model
    assert got.json["model"] == "claude-haiku-9"


def test_practice_no_longer_serves_every_name_once_an_account_existed(stage: Stage, model: str) -> None:
    stage.account("openai", model)
    assert stage.gateway.ask("any name").status == 404
    assert stage.gateway.ask("practice/any").headers["opus-provider"] == "practice"


def test_every_request_of_this_module_left_its_row(stage: Stage) -> None:
    stage.see_what_was_left()


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
def test_warnings_tell_what_the_upstream_that_answered_was_not_told(stage: Stage, model: str, path: str) -> None:
    kinds = ("openai", "anthropic") if path == "/v1/messages" else ("anthropic", "openai")
    stage.account(kinds[0], model, refusing(500), priority=2)
    answering = stage.account(kinds[1], model, priority=1)
    got = stage.gateway.post(path, body(model, top_k=5, seed=1))
    assert (got.status, len(stage.asked(answering))) == (200, 1)
    assert "opus-warnings" not in got.headers
    alone = unique("alone")
    stage.account(kinds[0], alone)
    warned = stage.gateway.post(path, body(alone, top_k=5, seed=1)).headers["opus-warnings"]
    assert warned == ("unknown_fields,top_k" if path == "/v1/messages" else "seed,unknown_fields")
