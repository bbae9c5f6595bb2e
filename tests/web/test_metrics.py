"""What a monitor reads, in the running service too."""

import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from opus_api.extensions import db
from opus_api.models import Account
from opus_api.services.metrics import OTHERS, Models
from tests.live import KEY, Gateway, Gateways, gateway, wait_until

ANSWERS, STREAMS = 6, 3


def read(text: str) -> dict[tuple[str, ...], float]:
    """(name, label values …) -> value."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, *(value for _, value in sorted(sample.labels.items()))] = sample.value
    return found


def read_from(running: Gateway) -> dict[tuple[str, ...], float]:
    answer = running.send("GET", "/metrics", key=None)
    assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, "text/plain")
    assert KEY not in answer.body.decode()
    return read(answer.body.decode())


def requests(found: dict[tuple[str, ...], float], *labels: str) -> float:
    """Labels by name: dialect, model, outcome, status."""
    return found.get(("opus_requests_total", *labels), 0.0)


def test_two_workers_are_added_up(migrated: Path, redis_url: str) -> None:
    with gateway(migrated, WEB_CONCURRENCY="2", REDIS_URL=redis_url) as running:
        for number in range(ANSWERS):
            assert running.ask("claude-sonnet-4.5", stream=number < STREAMS).status == 200
        assert running.chat("claude-sonnet-4.5").status == 200
        assert running.ask("claude-sonnet-4.5", temperature="hot").status == 400
        assert running.post("/v1/messages", {}, key="sk-wrong").status == 401
        wait_until(lambda: requests(read_from(running), "anthropic", "claude-sonnet-4.5", "ok", "200") == ANSWERS)
        found = read_from(running)
    assert requests(found, "openai", "claude-sonnet-4.5", "ok", "200") == 1
    assert requests(found, "anthropic", "", "client_error", "400") == 1
    assert found["opus_refused_requests_total", "401"] == 1
    assert found["opus_upstream_attempts_total", "practice", "ok"] == ANSWERS + 1
    assert found["opus_tokens_total", "output", "claude-sonnet-4.5"] > ANSWERS
    assert found["opus_request_duration_seconds_count", "anthropic"] == ANSWERS
    assert found["opus_first_token_seconds_count", "openai"] == 1
    assert found["opus_live_requests",] == 0
    assert found["opus_log_rows_dropped_total",] == 0
    assert found["opus_state_away_seconds",] == 0


def test_live_streams_are_counted_while_they_live(gateways: Gateways) -> None:
    running = gateways()
    wait_until(lambda: read_from(running).get(("opus_live_requests",), 0) == 0)  # those of other tests have left
    with running.streaming("practice/claude", prompt="[[practice:slow]]") as response:
        response.read(1)
        assert read_from(running)["opus_live_requests",] == 1
    wait_until(lambda: read_from(running)["opus_live_requests",] == 0)


def test_accounts_are_counted_by_state(api: FlaskClient) -> None:
    for number, state in enumerate(("active", "active", "disabled")):
        db.session.add(Account(provider="openai", name=str(number), state=state))
    db.session.commit()
    found = read(api.get("/metrics").text)
    assert found["opus_accounts", "openai", "active"] == 2
    assert found["opus_accounts", "openai", "disabled"] == 1


FOREIGN = {"X-Forwarded-For": "203.0.113.1"}


def test_strangers_see_nothing(client: FlaskClient, api: FlaskClient) -> None:
    assert client.get("/metrics", headers=FOREIGN).status_code == 401
    assert api.get("/metrics", headers=FOREIGN).status_code == 200
    assert client.get("/metrics").status_code == 200  # from this machine
    api.put("/v2/settings", json={"metricsToken": "a-token-of-a-monitor"})
    shown = {**FOREIGN, "Authorization": "Bearer a-token-of-a-monitor"}
    assert client.get("/metrics", headers=shown).status_code == 200


def test_a_name_that_nobody_answers_to_takes_no_label_away() -> None:
    models = Models(most=1)
    assert {models.label(f"made-up-{number}", answered=False) for number in range(9)} == {OTHERS}
    assert (models.label("real"), models.label("real", answered=False)) == ("real", "real")
    assert models.label("next") == OTHERS


@pytest.mark.parametrize("names, labels", [(2, 2), (500, 4)])
def test_clients_cannot_make_ever_more_labels(names: int, labels: int) -> None:
    models = Models(most=3)
    seen = {models.label(f"model-{number}") for number in range(names)}
    assert len(seen) == labels
    assert (OTHERS in seen) == (names > 3)
    assert all(re.fullmatch(r"model-\d+|other", label) for label in seen)
