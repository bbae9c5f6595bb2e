"""The fault server does what a script says, and a plan is the same each time it is drawn."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.chaos import faults, plan
from tests.chaos.ledgers import Call, read_calls
from tests.chaos.stage import fault_server
from tests.fakes.upstream import Asked
from tests.live import wait_until


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faultd") / "calls"


@pytest.fixture(scope="module")
def server(ledger: Path) -> Iterator[http.client.HTTPConnection]:
    with fault_server(ledger) as url, closing(http.client.HTTPConnection(url.removeprefix("http://"))) as connection:
        yield connection


def ask(server: http.client.HTTPConnection, model: str, path: str = "/v1/messages") -> http.client.HTTPResponse:
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    server.request("POST", path, json.dumps(body), {"x-api-key": "sk-a"})
    return server.getresponse()


def calls(ledger: Path, tag: str) -> list[Call]:
    def ended() -> list[Call]:
        found = [call for call in read_calls(ledger) if call.tag == tag]
        return found if found and all(call.ended for call in found) else []

    return wait_until(ended)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
def test_each_call_gets_the_next_fault_of_its_script(
    server: http.client.HTTPConnection, ledger: Path, path: str
) -> None:
    tag = "a" + str(len(path))
    answers = [ask(server, f"any~{tag}~status:503~limit:7", path) for _ in range(1)]
    answers[0].read()
    limited = ask(server, f"any~{tag}~status:503~limit:7", path)
    limited.read()
    said = ask(server, f"any~{tag}~status:503~limit:7", path).read().decode()
    assert (answers[0].status, limited.status, limited.headers["retry-after"]) == (503, 429, "7")
    assert all(word in said for word in faults.words(tag, 3))
    assert [(call.call, call.fault, call.account, call.retry_after) for call in calls(ledger, tag)] == [
        (1, "status:503", "sk-a", None),
        (2, "limit:7", "sk-a", 7),
        (3, "ok", "sk-a", None),
    ]


def test_a_call_that_is_cut_is_in_the_ledger_as_sent(server: http.client.HTTPConnection, ledger: Path) -> None:
    answer = ask(server, "any~cut1~cut:3")
    with pytest.raises(http.client.IncompleteRead) as cut:
        answer.read()
    server.close()
    assert cut.value.partial.count(b"event: ") == 3
    assert [call.left for call in calls(ledger, "cut1")] == [False]


def test_a_call_whose_asker_leaves_is_in_the_ledger_as_left(server: http.client.HTTPConnection, ledger: Path) -> None:
    ask(server, "any~left1~stall:2").close()
    server.close()
    assert [call.left for call in calls(ledger, "left1")] == [True]


@pytest.mark.parametrize("fault", [fault for fault in faults.FAULTS if fault not in ("line", "bomb")])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [True, False])
def test_every_fault_can_be_told_in_both_formats(fault: str, path: str, stream: bool) -> None:
    body = json.dumps({"model": "any", "stream": stream, "messages": [{"role": "user", "content": "Hi"}]})
    asked = Asked("POST", path, {"x-api-key": "sk-a"}, body.encode(), 1)
    assert faults.reply(asked, "q1", 1, f"{fault}:400").status in (200, 307, 400, 429)


def test_a_plan_names_only_faults_that_exist_and_is_the_same_each_time() -> None:
    drawn = plan.jobs(7, seconds=60, rate=50)
    assert drawn == plan.jobs(7, seconds=60, rate=50) != plan.jobs(8, seconds=60, rate=50)
    named = {fault.partition(":")[0] for job in drawn for fault in job.script.faults}
    assert named <= set(faults.FAULTS)
    assert len(named) > 15
    assert plan.acts(7, 60, [("kill", 0.0)], every=5) == plan.acts(7, 60, [("kill", 0.0)], every=5)
