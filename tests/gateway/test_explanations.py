"""What the running service can tell of a request afterwards."""

from typing import Any

from tests.fakes.upstream import CUT, after, refused, refusing, spoken
from tests.gateway.conftest import Stage
from tests.live import KEY, Answer, body


def told(stage: Stage, answer: Answer) -> dict[str, Any]:
    row = stage.gateway.row(answer)
    found: dict[str, Any] = stage.gateway.api("GET", f"/v2/requests/{row['request_id']}")
    return found


def tried(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(one["account"], one["status"], one["reason"].partition(":")[0]) for one in found["attempts"]]


def test_an_answer_after_two_failures(stage: Stage, kind: str, model: str) -> None:
    limited = stage.account(kind, model, refusing(429, retry_after="60"), priority=3)
    broken = stage.account(kind, model, refusing(500), priority=2)
    good = stage.account(kind, model, priority=1)
    found = told(stage, stage.gateway.ask(model))
    assert tried(found) == [
        (limited["id"], 429, "has reached its rate limit"),
        (broken["id"], 500, "failed, broke off or took too long"),
        (good["id"], 200, "answered"),
    ]
    assert (found["fault"], found["heals_at"]) == ("none", None)
    assert found["summary"].startswith(f"{good['name']} answered within ")
    assert found["summary"].endswith("2 tries before it failed.")


def test_limits_of_all_accounts(stage: Stage, kind: str, model: str) -> None:
    stage.account(kind, model, refusing(429, retry_after="60"))
    first, second = told(stage, stage.gateway.ask(model)), told(stage, stage.gateway.ask(model))
    assert (first["fault"], second["fault"]) == ("upstream", "upstream")
    assert first["heals_at"] is not None
    assert first["heals_at"] <= second["heals_at"]
    assert len(first["attempts"]) == 1
    assert second["attempts"] == []
    assert second["summary"].startswith("Every account with this model had reached its limit. It may be asked again")


def test_a_refused_credential_is_for_a_person(stage: Stage, kind: str, model: str) -> None:
    account = stage.account(kind, model, refusing(401))
    for _ in range(3):
        stage.gateway.ask(model)
    stage.gateway.until(account, state="invalid")
    found = told(stage, stage.gateway.ask(model))
    assert (found["fault"], found["heals_at"], found["attempts"]) == ("gateway", None, [])
    assert found["summary"].endswith("A person has to look after the accounts first.")


def test_an_answer_that_broke_off(stage: Stage, kind: str, model: str) -> None:
    account = stage.account(kind, model, after(4, CUT))
    answer = stage.gateway.ask(model, stream=True)
    assert answer.status == 200
    found = told(stage, answer)
    assert found["summary"].startswith("The upstream broke off within its answer")
    assert (found["fault"], found["attempts"][-1]["account"]) == ("upstream", account["id"])


def test_a_mistake_of_the_client(stage: Stage, kind: str, model: str) -> None:
    stage.account(kind, model, refusing(400, "prompt: too long"))
    of_the_upstream = told(stage, stage.gateway.ask(model))
    ours = told(stage, stage.gateway.post("/v1/messages", {**body(model), "max_tokens": "many"}))
    assert (of_the_upstream["fault"], ours["fault"]) == ("client", "client")
    assert "too long" in of_the_upstream["summary"]
    assert "max_tokens" in ours["summary"]
    assert (len(of_the_upstream["attempts"]), ours["attempts"]) == (1, [])


def test_an_option_that_was_learned_is_a_try_of_its_own(stage: Stage, model: str) -> None:
    unknown = refused(400, None, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
    account = stage.account("openai", model, [lambda _: unknown, spoken])
    found = told(stage, stage.gateway.chat(model))
    assert tried(found) == [
        (account["id"], 400, "refused a field; it was asked again without it"),
        (account["id"], 200, "answered"),
    ]


def test_a_failure_leaves_no_secret(stage: Stage, model: str) -> None:
    account = stage.account("openai", model, refusing(401, "Incorrect API key provided: sk-proj-abcdefghijkl"))
    found = str(told(stage, stage.gateway.ask(model)))
    assert "abcdefghijkl" not in found
    assert account["key"] not in found
    assert KEY not in found
