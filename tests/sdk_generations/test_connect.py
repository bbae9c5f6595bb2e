"""What /connect gives to copy works: each snippet is run as it stands on the page, against a running gateway."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.live import Gateway, wait_until
from tests.sdk_generations.conftest import FOLDER, NODE
from tests.sdk_generations.pages import ConnectPage, connect_page

MODEL = "practice/told"
# Stands in for Claude Code: sends what it sends, from the variables that it reads.
CLAUDE = r"""#!/bin/sh
exec curl -sS "$ANTHROPIC_BASE_URL/v1/messages?beta=true" -H "authorization: Bearer $ANTHROPIC_AUTH_TOKEN" \
  -H "content-type: application/json" -d '{"model": "'"$ANTHROPIC_MODEL"'", "max_tokens": 99, "stream": true,
  "messages": [{"role": "user", "content": "Hello"}]}'
"""
RUNS = ("curl", "curl_chat", "curl_models", "claude_env", "claude_settings")
RUNS += ("anthropic_python", "openai_python", "anthropic_node", "openai_node")


@pytest.fixture(scope="module")
def page(live: Gateway) -> ConnectPage:
    return connect_page(live, MODEL)


def run(name: str, text: str, folder: Path) -> str:
    """What it prints."""
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder)}
    if name == "claude_settings":
        environment |= json.loads(text)["env"]
        words = [str(folder / "claude")]
    elif name.endswith("_python"):
        words = [sys.executable, "-c", text]
    elif name.endswith("_node"):
        (folder / f"{name}.mjs").write_text(text, encoding="utf-8")
        words = [str(NODE), str(folder / f"{name}.mjs")]
    else:
        words = ["bash", "-ec", text]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def printed(page: ConnectPage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[str]]]:
    """All of them at once."""
    assert NODE.exists(), "The generations of SDKs are not installed; type: make generations"
    folder = tmp_path_factory.mktemp("client")
    (folder / "node_modules").symlink_to(FOLDER / "node_modules")
    (folder / "claude").write_text(CLAUDE)
    (folder / "claude").chmod(0o755)
    with ThreadPoolExecutor(max_workers=4) as pool:
        yield {name: pool.submit(run, name, page.code(name), folder) for name in RUNS}


@pytest.mark.parametrize("name", RUNS)
def test_a_snippet_works_as_it_stands_on_the_page(printed: dict[str, Future[str]], name: str) -> None:
    assert ("told-claude" if name == "curl_models" else "practice") in printed[name].result()


def test_the_page_turns_green_when_they_have_run(page: ConnectPage, printed: dict[str, Future[str]]) -> None:
    printed["curl"].result()
    wait_until(page.is_green)
