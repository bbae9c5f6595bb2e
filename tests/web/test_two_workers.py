"""What one worker is told holds in the other as well, and nothing is done twice where both are asked at once: the
service with two workers on one Redis, as strangers, clients and its operator reach it.

A request goes to the worker that a test names: the other one is stopped while the connection is accepted.
"""

import http.client
import json
import os
import re
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import redis
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.servers import Redis
from tests.fakes.upstream import Upstream, refusing
from tests.gateway.conftest import Stage
from tests.live import KEY, PASSWORD, Answer, Gateway, body, gateway, read, unique, wait_until

T = TypeVar("T")

PROXY = "127.0.0.2"  # where the proxy stands that is trusted; tests themselves are 127.0.0.1
WITHIN = 1.0 + 2.0  # seconds: what is promised, and what a busy machine may add


@dataclass
class Connection:
    """Kept open to one worker."""

    raw: http.client.HTTPConnection
    token: str

    def send(self, method: str, path: str, sent: Any = None, key: str | None = None, **headers: str) -> Answer:
        """As a client with this key, else as the administrator."""
        said = {"x-api-key": key} if key is not None else {"authorization": f"Bearer {self.token}"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if sent is None else json.dumps(sent)
        self.raw.request(method, path, data, {"content-type": "application/json", **said, **named})
        return read(self.raw)

    def ask(self, model: str, key: str = KEY, **headers: str) -> Answer:
        return self.send("POST", "/v1/messages", body(model), key, **headers)


@dataclass
class Worker:
    live: Gateway
    process: psutil.Process
    other: int  # the other one's process
    token: str

    def connection(self, source: str = "127.0.0.1") -> Connection:
        raw = http.client.HTTPConnection("127.0.0.1", self.live.port, timeout=30, source_address=(source, 0))
        os.kill(self.other, signal.SIGSTOP)
        try:
            raw.request("GET", "/healthz")
            raw.getresponse().read()
        finally:
            os.kill(self.other, signal.SIGCONT)
        return Connection(raw, self.token)

    def send(self, method: str, path: str, sent: Any = None, source: str = "127.0.0.1", **more: Any) -> Answer:
        connection = self.connection(source)
        with closing(connection.raw):
            return connection.send(method, path, sent, **more)

    def ask(self, model: str, key: str = KEY) -> Answer:
        return self.send("POST", "/v1/messages", body(model), key=key)


@dataclass
class Pair:
    stage: Stage
    redis: Redis
    logs: Path
    first: Worker
    second: Worker

    @property
    def live(self) -> Gateway:
        return self.stage.gateway

    @property
    def both(self) -> tuple[Worker, Worker]:
        return self.first, self.second

    def at_once(self, asks: list[Callable[[Connection], T]]) -> list[T]:
        """All begin at the same moment, by turns at either worker."""
        connections = [self.both[number % 2].connection() for number in range(len(asks))]
        ready = threading.Barrier(len(asks))

        def one(number: int) -> T:
            ready.wait()
            return asks[number](connections[number])

        with ThreadPoolExecutor(len(asks)) as threads:
            found = list(threads.map(one, range(len(asks))))
        for connection in connections:
            connection.raw.close()
        return found

    def until_both(self, look: Callable[[Worker], bool]) -> float:
        """Seconds until it is so in both."""
        began = time.monotonic()
        wait_until(lambda: all(look(worker) for worker in self.both))
        return time.monotonic() - began

    def key(self, **fields: Any) -> dict[str, Any]:
        """A new one, which both workers know."""
        made: dict[str, Any] = self.live.api("POST", "/api/keys", {"name": unique("key"), **fields})
        self.until_both(lambda worker: worker.send("GET", "/v1/models", key=made["key"]).status == 200)
        return made

    def account(self, model: str, answer: Any = None, **fields: Any) -> dict[str, Any]:
        """A new one, which both workers know."""
        made = self.stage.account("openai", model, answer, **fields)
        known = f"/v1/models/{model}"
        self.until_both(lambda worker: worker.send("GET", known, key=KEY).status == 200)
        return made


@pytest.fixture(scope="module")
def pair(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    redis, logs, upstream = Redis(tmp_path_factory.mktemp("redis")), tmp_path_factory.mktemp("logs"), Upstream()
    settings = {"WEB_CONCURRENCY": "2", "REDIS_URL": redis.url, "TRUSTED_PROXIES": f"{PROXY}/32", "LOG_DIR": str(logs)}
    with gateway(migrated, **settings) as live:
        workers = wait_until(lambda: two if len(two := psutil.Process(live.process.pid).children()) == 2 else None)
        stage = Stage(live, upstream)
        stage.account("openai", "somebody")  # from now on practice answers to its own names alone
        live.api("GET", "/v2/settings")  # signs in
        pairs = ((workers[0], workers[1].pid), (workers[1], workers[0].pid))
        found = Pair(stage, redis, logs, *(Worker(live, one, other, live._token[0]) for one, other in pairs))
        found.until_both(lambda worker: worker.send("GET", "/v1/models/nobody", key=KEY).status == 404)
        yield found
    redis.close()
    upstream.stop()


def test_a_request_reaches_the_worker_that_a_test_names(pair: Pair) -> None:
    for worker in pair.both:
        connection = worker.connection()
        with closing(connection.raw):
            port = connection.raw.sock.getsockname()[1]
            assert port in {one.raddr.port for one in worker.process.net_connections("tcp") if one.raddr}


# ---- settings


def test_the_limit_per_address_that_one_worker_was_told_is_exact_over_both(pair: Pair) -> None:
    limit = {"enableIPRateLimit": True, "ipRateLimitMax": 7}
    assert pair.first.send("PUT", "/v2/settings", limit).status == 200
    time.sleep(WITHIN)  # asking whether they know it would count
    try:
        met = Counter(answer.status for answer in pair.at_once([lambda c: c.ask("practice/x")] * 40))
    finally:
        assert pair.second.send("PUT", "/v2/settings", {"enableIPRateLimit": False}).status == 200
    assert met == {200: 7, 429: 33}
    assert pair.until_both(lambda worker: worker.ask("practice/x").status == 200) <= WITHIN


def test_changes_of_one_setting_at_once_all_land_and_their_record_is_one_chain(pair: Pair) -> None:
    """Nothing was saved under this name before, so the first to come make the row."""
    values = list(range(11, 31))
    asks = [lambda c, v=value: c.send("PUT", "/v2/settings", {"logRetentionDays": v}) for value in values]
    answers = pair.at_once(asks)
    assert [answer.status for answer in answers] == [200] * len(values), {answer.body for answer in answers}
    changes = [row for row in pair.live.api("GET", "/v2/changes")["data"] if row["what"] == "logRetentionDays"]
    steps = [(row["before"], row["after"]) for row in reversed(changes)]
    assert steps[0][0] == 30
    assert [before for before, _ in steps[1:]] == [after for _, after in steps[:-1]]
    assert pair.live.api("GET", "/v2/settings")["logRetentionDays"] == steps[-1][1]


@pytest.mark.parametrize(
    "wrong, named",
    [({"maxAttempts": "3"}, "maxAttempts"), ({"ipRateLimitMax": None}, "ipRateLimitMax"), ({"a": 1}, "a")],
)
def test_what_is_wrong_is_named_and_changes_nothing_in_either(pair: Pair, wrong: dict[str, Any], named: str) -> None:
    before = pair.live.api("GET", "/v2/settings")
    for worker in pair.both:
        answer = worker.send("PUT", "/v2/settings", {"pingInterval": 3, **wrong})
        assert (answer.status, answer.json["error"]["message"].partition(":")[0]) == (422, named)
    assert pair.live.api("GET", "/v2/settings") == before


def test_debug_mode_begins_and_ends_by_itself_in_both(pair: Pair) -> None:
    def is_kept(worker: Worker) -> bool:
        name = worker.ask("practice/x").headers["request-id"]
        return any(path.name.endswith(name) for path in pair.logs.rglob("*") if path.is_dir())

    pair.first.send("PUT", "/v2/settings", {"debugLog": True})
    assert pair.until_both(is_kept) <= WITHIN
    with closing(sqlite3.connect(pair.live.database, timeout=5)) as connection, connection:  # its last second
        words = (
            "INSERT INTO settings (key, value, updated_at) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = ?"
        )
        for name, value in (("debugLogUntil", time.time() + 1), ("version", time.time_ns())):
            connection.execute(words, (name, json.dumps(value), "2026-01-01 00:00:00.000000", json.dumps(value)))
    assert pair.until_both(lambda worker: not is_kept(worker)) <= 1 + WITHIN


# ---- keys


def test_a_key_is_revoked_narrowed_and_expires_in_both_within_a_second(pair: Pair) -> None:
    def is_refused(key: str, status: int) -> float:
        return pair.until_both(lambda worker: worker.ask("practice/x", key).status == status)

    narrow, revoked = (pair.live.api("POST", "/api/keys", {"name": unique("key")}) for _ in range(2))
    soon = datetime.now(UTC) + timedelta(seconds=3)
    expiring = pair.key(expires_at=soon.isoformat())
    assert pair.first.send("PUT", f"/api/keys/{narrow['id']}", {"models": ["claude-*"]}).status == 200
    assert is_refused(narrow["key"], 403) <= WITHIN
    assert pair.second.send("DELETE", f"/api/keys/{revoked['id']}").status == 204
    assert is_refused(revoked["key"], 401) <= WITHIN
    assert is_refused(expiring["key"], 401) <= 3
    assert datetime.now(UTC) >= soon


def test_of_keys_made_at_once_under_one_name_one_is_made(pair: Pair) -> None:
    name = unique("twin")
    answers = pair.at_once([lambda c: c.send("POST", "/api/keys", {"name": name})] * 12)
    assert Counter(answer.status for answer in answers) == {201: 1, 409: 11}
    assert [key["name"] for key in pair.live.api("GET", "/api/keys")["data"]].count(name) == 1


def test_of_calls_at_once_with_one_idempotency_key_one_is_done_and_all_learn_its_answer(pair: Pair) -> None:
    name, key = unique("once"), {"idempotency_key": unique("call")}
    answers = pair.at_once([lambda c: c.send("POST", "/api/keys", {"name": name}, **key)] * 12)
    assert {answer.status for answer in answers} <= {201, 409}
    made = {answer.json["key"] for answer in answers if answer.status == 201}
    assert len(made) == 1
    for answer in answers:
        if answer.status == 409:
            assert (answer.headers["retry-after"], "has not ended" in answer.error[2]) == ("1", True)
    for worker in pair.both:
        again = worker.send("POST", "/api/keys", {"name": name}, **key)
        assert (again.status, {again.json["key"]}, again.headers["idempotency-replayed"]) == (201, made, "true")
    assert [one["name"] for one in pair.live.api("GET", "/api/keys")["data"]].count(name) == 1


def test_more_calls_at_once_than_the_database_has_connections_are_all_done_once(pair: Pair) -> None:
    names = [unique("crowd") for _ in range(40)]
    asks = [lambda c, n=name: c.send("POST", "/api/keys", {"name": n}, idempotency_key=n) for name in names]
    assert [answer.status for answer in pair.at_once(asks)] == [201] * len(names)


# ---- addresses


def test_an_address_that_one_worker_blocks_is_out_of_both_and_nobody_else_speaks_for_another(pair: Pair) -> None:
    def status(worker: Worker, ip: str, source: str = PROXY) -> int:
        return worker.send("GET", "/v1/models", source=source, key=KEY, x_forwarded_for=ip).status

    blocked, neighbour, other = "2001:db8:1:2::3", "2001:db8:1:2:ffff::9", "2001:db8:1:3::3"
    assert pair.first.send("POST", "/v2/ips/block", {"ip": blocked, "reason": "loud"}).status == 201
    assert pair.until_both(lambda worker: status(worker, blocked) == 403) <= WITHIN
    for worker in pair.both:
        assert status(worker, neighbour) == 403, "one customer has a /64"
        assert status(worker, other) == 200
        assert status(worker, f"{blocked}, 192.0.2.1") == 200, "what the client wrote itself stands on the left"
        assert status(worker, f"192.0.2.1, [{blocked}]:443") == 403
        assert status(worker, blocked, source="127.0.0.1") == 200, "nobody trusts this one"
    assert pair.second.send("POST", "/v2/ips/unblock", {"ip": neighbour}).status == 204
    assert pair.until_both(lambda worker: status(worker, blocked) == 200) <= WITHIN


def test_a_network_blocked_at_once_by_many_is_blocked_once(pair: Pair) -> None:
    rule = {"cidr": "192.0.2.0/24", "reason": "all say so"}
    answers = pair.at_once([lambda c: c.send("POST", "/v2/ips/block", rule)] * 12)
    assert Counter(answer.status for answer in answers) == {201: 12}
    answers = pair.at_once([lambda c: c.send("POST", "/v2/ips/unblock", {"cidr": rule["cidr"]})] * 6)
    assert Counter(answer.status for answer in answers) == {204: 1, 404: 5}
    assert rule["cidr"] not in {found["cidr"] for found in pair.live.api("GET", "/v2/ips/blocked")["data"]}


# ---- accounts


def rows_of(upstream: Upstream, who: str, count: int) -> list[dict[str, Any]]:
    """The same credentials whoever names them."""
    more: dict[str, dict[str, Any]] = {
        "openai": {"base_url": f"{upstream.url}/v1"},
        "morph": {"base_url": f"{upstream.url}/v1"},
        "anthropic": {"base_url": upstream.url},
    }
    rows = [
        {
            "provider": provider,
            "name": f"{who}-{provider}-{n}",
            "api_key": f"sk-shared-{provider}-{n}",
            "state": "disabled",
        }
        | fields
        for provider, fields in more.items()
        for n in range(count)
    ]
    tokens = {name: f"{name}-shared" for name in ("client_id", "client_secret", "refresh_token")}
    return [*rows, {"provider": "amazonq", "name": f"{who}-amazonq", "state": "disabled", **tokens}]


def test_imports_at_once_make_no_twins(pair: Pair) -> None:
    head = {"format": "opus-api-accounts", "version": 1, "secrets": True}
    documents = [{**head, "accounts": rows_of(pair.stage.upstream, who, 4)} for who in ("a", "b", "c", "d")]
    before = len(pair.live.api("GET", "/v2/accounts")["data"])
    asks = [lambda c, d=document: c.send("POST", "/v2/accounts/import", d) for document in documents]
    answers = pair.at_once(asks)
    assert [answer.status for answer in answers] == [200] * 4, {answer.body for answer in answers}
    size = len(documents[0]["accounts"])
    assert sum(answer.json["created"] for answer in answers) == size
    assert sum(answer.json["skipped"] for answer in answers) == 3 * size
    assert [answer.json["errors"] for answer in answers] == [[]] * 4
    again = pair.second.send("POST", "/v2/accounts/import", documents[0]).json
    assert again == {"created": 0, "skipped": size, "errors": []}
    assert len(pair.live.api("GET", "/v2/accounts")["data"]) == before + size
    hints = pair.first.send("GET", "/v2/accounts/export").json
    refused = pair.second.send("POST", "/v2/accounts/import", hints)
    assert (refused.status, refused.json["error"]["message"].partition(":")[0]) == (422, "secrets")


def test_an_account_deleted_restored_and_erased_at_once_is_so_once(pair: Pair) -> None:
    account = pair.stage.account("openai", unique("gone"))
    gone = f"/v2/accounts/deleted/{account['id']}"
    for method, path, done in (
        ("DELETE", f"/v2/accounts/{account['id']}", 204),
        ("POST", f"{gone}/restore", 200),
        ("DELETE", f"/api/cookies/{account['id']}", 204),
        ("DELETE", gone, 204),
    ):
        answers = pair.at_once([lambda c, m=method, p=path: c.send(m, p)] * 8)
        assert Counter(answer.status for answer in answers) == {done: 1, 404: 7}, (method, path)


# ---- the log


def test_pages_of_the_log_hold_every_row_once_while_requests_are_written_and_old_ones_deleted(pair: Pair) -> None:
    live, model, old = pair.live, unique("model"), unique("old")
    pair.account(model)
    template = live.row(live.ask(model))
    day = f"{datetime.now(UTC) - timedelta(days=40):%Y-%m-%d %H:%M:%S.%f}"
    columns = [name for name in template if name != "id"]
    with closing(sqlite3.connect(live.database, timeout=5)) as connection, connection:
        kept = {**template, "model": old}
        (time_of_row,) = connection.execute("SELECT time FROM request_logs LIMIT 1").fetchone()
        past = day if isinstance(time_of_row, str) else time_of_row - 40 * 86_400 * 1_000_000
        rows = [[{**kept, "request_id": f"req_{old}_{n}", "time": past}[c] for c in columns] for n in range(3000)]
        marks = ", ".join("?" * len(columns))
        connection.executemany(f"INSERT INTO request_logs ({', '.join(columns)}) VALUES ({marks})", rows)
    asked = []

    def write(connection: Connection) -> None:
        for _ in range(25):
            answer = connection.ask(model)
            assert answer.status == 200
            asked.append(answer.headers["request-id"])

    def clean_up(connection: Connection) -> int:
        answer = connection.send("POST", "/v2/logs/cleanup", {"days": 30})
        return int(answer.json["deleted"])

    def page_through(connection: Connection) -> list[str]:
        seen, path = list[str](), f"/v2/logs?limit=7&model={old}"
        before = ""
        while True:
            page = connection.send("GET", path + before).json
            seen += [row["request_id"] for row in page["data"]]
            if not page["next"]:
                return seen
            before = f"&before={page['next']}"

    _, deleted, _, seen = pair.at_once([write, clean_up, write, page_through])
    assert deleted == 3000
    assert len(seen) == len(set(seen))
    wait_until(lambda: set(asked) <= {row["request_id"] for row in live.rows("model = ?", model)})
    assert live.rows("model = ?", old) == []
    listed = live.api("GET", f"/v2/logs?limit=1000&model={model}")["data"]
    assert len(listed) == len(asked) + 1 == 51


@pytest.mark.parametrize(
    "query, named",
    [
        ("before=nonsense", "before"),
        ("before=0-0", None),
        ("limit=100000000000000000000", "limit"),
        ("limit=-1", "limit"),
        ("from=2026-02-30T00:00:00Z", "from"),
        ("to=9999-12-31T23:59:59-23:59", "to"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", None),
        ("status=two", "status"),
        ("key=%00", "key"),
        ("model=%00", "model"),
        ("outcome=' OR 1=1 --", None),
    ],
)
def test_odd_questions_to_the_log_are_answered(pair: Pair, query: str, named: str | None) -> None:
    answer = pair.first.send("GET", f"/v2/logs?{query.replace(' ', '%20')}")
    if named is None:
        assert (answer.status, answer.json["data"]) == (200, [])
    else:
        assert (answer.status, answer.json["error"]["message"].partition(":")[0]) == (422, named)


def test_any_request_is_explained_by_either_worker_and_to_people_alone(pair: Pair) -> None:
    served, broken = unique("served"), unique("broken")
    limited = pair.live.api("POST", "/api/keys", {"name": unique("key"), "limits": {"rpm": 1}})["key"]
    pair.stage.account("openai", broken)
    pair.stage.account("openai", broken, refusing(500), priority=5)
    pair.account(served)
    done, moved = pair.first.ask(served), pair.first.ask(broken)
    pair.first.ask(served, limited)
    refused = pair.second.ask(served, limited)
    assert [done.status, moved.status, refused.status] == [200, 200, 429]
    assert int(refused.headers["retry-after"]) in range(1, 61)
    told = {}
    for name, answer in (("done", done), ("moved", moved), ("refused", refused)):
        row = answer.headers["request-id"]
        pair.live.row(row)
        told[name] = pair.second.send("GET", f"/v2/requests/{row}").json
    assert [(told[name]["fault"], len(told[name]["attempts"])) for name in told] == [
        ("none", 1),
        ("none", 2),
        ("client", 0),
    ]
    assert [one["status"] for one in told["moved"]["attempts"]] == [500, 200]
    assert "1 requests per minute" in told["refused"]["summary"]
    for unknown in ("req_nobody", "x" * 4000, "%00", "..%2f..%2fsettings", "%ff"):
        assert pair.first.send("GET", f"/v2/requests/{unknown}").status == 404, unknown
    foreign = pair.first.send("GET", f"/v2/requests/{done.headers['request-id']}", key=KEY)
    assert foreign.status == 401, "an API key explains nothing, not even its own requests"


# ---- figures


def test_the_dashboard_of_either_worker_counts_what_both_are_answering(pair: Pair) -> None:
    with requests.Session() as browser:
        login = f"{pair.live.url}/login"
        found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', browser.get(login).text)
        assert found
        browser.post(login, {"csrf_token": found[1], "username": "admin", "password": PASSWORD})
        cookie = f"opus={browser.cookies['opus']}"

    def running(worker: Worker) -> list[str]:
        """How many there are, and which models are named."""
        page = worker.send("GET", "/dashboard", cookie=cookie).body.decode()
        card = page[page.index("<h2>Running now</h2>") :].partition("</section>")[0]
        return re.findall(r'(?<=num">)\d+(?= on this machine<)|(?<=practice/)\w+|and \d+ more', card)

    with ExitStack() as stack:
        for worker, name in zip(pair.both, ("one", "two"), strict=True):
            connection = stack.enter_context(closing(worker.connection().raw))
            sent = json.dumps(body(f"practice/{name}", "[[practice:slow]]", stream=True))
            connection.request("POST", "/v1/messages", sent, {"content-type": "application/json", "x-api-key": KEY})
            connection.getresponse().read(1)
        seen = [running(worker) for worker in pair.both]
    assert seen == [["2", name, "and 1 more"] for name in ("one", "two")]
    pair.until_both(lambda worker: running(worker) == ["0"])


def test_names_of_models_cannot_break_what_a_monitor_reads(pair: Pair) -> None:
    names = [
        'quote" and \\ back',
        "line\nbreak",
        "x" * 256,
        '{a="b"} 1',
        "ü€😀",
        "\u2028\x7f",
        "a\r\nopus_live_requests 99",
    ]
    anything = pair.account(unique("anything"), models=["*"])
    asked = [worker.ask(name).status for name in names for worker in pair.both]
    pair.live.api("DELETE", f"/v2/accounts/{anything['id']}")
    pair.until_both(lambda worker: worker.send("GET", "/v1/models/nobody", key=KEY).status == 404)
    assert set(asked) <= {200, 400}
    assert 200 in asked

    def counted() -> list[dict[str, float]]:
        text = pair.first.send("GET", "/metrics").body.decode()
        return [
            {sample.labels["model"]: sample.value}
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "opus_requests_total" and sample.labels["status"] == "200"
        ]

    labels = [label for one in counted() for label in one]
    assert max(map(len, labels)) <= 200
    assert names[0] in labels
    for foreign in ({"x_forwarded_for": "192.0.2.1"}, {"host": "gateway.example"}, {"origin": "https://evil.example"}):
        assert pair.first.send("GET", "/metrics", key=KEY, **foreign).status == 401


def test_hundreds_of_made_up_names_of_models_leave_little_behind(pair: Pair) -> None:
    """Of accounts that serve whatever is asked for: the provider lacks them all, or has them all."""
    word, asked = unique("made-up"), 300  # of either kind: together more than any of these places may hold
    pair.account(f"{word}-gone-*", refusing(404))
    pair.account(f"{word}-here-*")

    def asking(kind: str, status: int, first: int) -> Callable[[Connection], None]:
        def ask(connection: Connection) -> None:
            for number in range(first, asked, 4):
                assert connection.ask(f"{word}-{kind}-{number}-{'x' * 150}").status == status

        return ask

    pair.at_once([asking(*one, first) for one in (("gone", 404), ("here", 200)) for first in range(4)])
    with closing(redis.Redis.from_url(pair.redis.url)) as shared:
        assert str(shared.get("opus:fleet")).count(word) <= 100
        assert sum(word in str(gate) for gate in shared.hkeys("opus:gates")) <= 100
    for worker in pair.both:
        assert worker.ask(f"{word}-here-{'x' * 257}").error[:2] == (400, "invalid_request_error")
    wait_until(lambda: len(pair.live.rows("model LIKE ?", f"{word}%")) >= 2 * asked)
    with closing(sqlite3.connect(pair.live.database, timeout=5)) as connection:
        (names,) = connection.execute(
            "SELECT count(DISTINCT name) FROM usage_hours WHERE dimension = 'model'"
        ).fetchone()
    assert names <= 2 * (200 + 50)  # an hour may end meanwhile, and two workers may count at once
    metrics = pair.first.send("GET", "/metrics").body.decode()
    labels = {line.partition('model="')[2].partition('"')[0] for line in metrics.splitlines() if word in line}
    assert len(labels) <= 200  # a hundred of each worker


def test_while_redis_is_away_requests_are_served_and_it_is_said(pair: Pair) -> None:
    pair.redis.stop()
    try:
        for worker in pair.both:
            assert worker.ask("practice/x").status == 200
            said = wait_until(
                lambda w=worker: c if "away" in (c := w.send("GET", "/ready").json["checks"])["redis"] else ""
            )
            assert said["database"] == "ok"
    finally:
        pair.redis.start()
    pair.until_both(lambda worker: worker.send("GET", "/ready").json["checks"]["redis"] == "ok")
