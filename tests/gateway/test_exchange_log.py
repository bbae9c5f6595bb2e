"""Debug mode: what went in and out of the running service, in files, and what can be made of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opus_api.services import cassettes
from opus_api.services.exchange_log import LARGEST_BODY
from opus_api.wire.errors import Conflict
from tests.fakes.upstream import CUT, Asked, Reply, after, refusing, spoken, zipped
from tests.gateway.conftest import Stage
from tests.golden import test_golden as golden
from tests.live import KEY, Answer, body, unique, wait_until

PATHS = {"anthropic": "/v1/messages", "openai": "/v1/chat/completions"}
TOOL = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def debugged(stage: Stage) -> Iterator[Stage]:
    stage.gateway.api("PUT", "/v2/settings", {"debugLog": True, "pingInterval": 0.1})
    yield stage
    stage.gateway.api("PUT", "/v2/settings", {"debugLog": False, "pingInterval": 15})


def kept(stage: Stage, answer: Answer | str) -> Path:
    """The folder of a request that has ended."""
    name = answer if isinstance(answer, str) else answer.headers["request-id"]
    root = stage.gateway.folder / "logs" / "exchanges"
    return wait_until(lambda: [path.parent for path in root.glob(f"*-{name}/exchange.json")])[0]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def face(folder: Path, name: str) -> tuple[str, str]:
    head, _, said = (folder / f"{name}.http").read_text().partition("\n\n")
    return head, said


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("stream", [True, False])
def test_the_four_faces_of_an_exchange(debugged: Stage, kind: str, model: str, dialect: str, stream: bool) -> None:
    debugged.account(kind, model)
    sent = body(model, "What is said here?", stream=stream)
    answer = debugged.gateway.post(PATHS[dialect], sent)
    folder = kept(debugged, answer)
    assert names(folder) == {
        *("client-in.http", "upstream-out-1.http", "upstream-in-1.http", "client-out.http", "exchange.json")
    }
    head, said = face(folder, "client-in")
    assert head.startswith(f"POST {PATHS[dialect]}\n")
    assert json.loads(said) == sent
    assert "What is said here?" in face(folder, "upstream-out-1")[1]
    assert face(folder, "upstream-in-1")[0].startswith("HTTP 200\n")
    head, said = face(folder, "client-out")
    assert head.startswith("HTTP 200\n")
    assert said.encode() == answer.body


def test_attempts_are_numbered_and_refusals_kept_too(debugged: Stage, kind: str, model: str) -> None:
    debugged.account(kind, model, refusing(429, "slow down"), priority=1)
    debugged.account(kind, model)
    folder = kept(debugged, debugged.gateway.ask(model))
    assert {"upstream-out-1.http", "upstream-in-1.http", "upstream-out-2.http", "upstream-in-2.http"} < names(folder)
    head, said = face(folder, "upstream-in-1")
    assert head.startswith("HTTP 429\n")
    assert "slow down" in said


def test_a_request_that_was_refused_is_kept_with_its_answer(debugged: Stage) -> None:
    answer = debugged.gateway.post("/v1/messages", {"model": "m", "max_tokens": "many"})
    folder = kept(debugged, answer)
    assert names(folder) == {"client-in.http", "client-out.http", "exchange.json"}
    assert face(folder, "client-out")[1].encode() == answer.body


def test_no_secret_is_in_the_files(debugged: Stage, kind: str, model: str) -> None:
    account = debugged.account(kind, model, key=unique("sk-of-an-account"))
    sent = body(model, f"My key is {KEY}, the account's is {account['key']}, another sk-proj-0123456789.")
    headers = {"authorization": "Bearer a-secret-of-the-client", "cookie": "session=a-secret-cookie"}
    folder = kept(debugged, debugged.gateway.post("/v1/messages", sent, headers))
    text = "".join(path.read_text() for path in folder.iterdir())
    secrets = (KEY, account["key"], "sk-proj-0123456789", "a-secret-of-the-client", "a-secret-cookie")
    assert not [secret for secret in secrets if secret in text]
    assert "My key is ***" in text
    assert [path for path in folder.iterdir() if path.stat().st_mode & 0o077] == []


def test_what_is_long_is_cut_and_says_so(debugged: Stage, kind: str, model: str) -> None:
    debugged.account(kind, model)
    folder = kept(debugged, debugged.gateway.ask(model, "x" * 2 * LARGEST_BODY))
    head, said = face(folder, "client-in")
    assert f"opus-kept: {LARGEST_BODY} of " in head
    assert len(said) == LARGEST_BODY
    with pytest.raises(Conflict, match=r"Of client-in only 65536 of .* were kept, so it cannot be played again"):
        cassettes.make(folder, folder / "case")


# ---- golden folders


def with_a_pause(asked: Asked) -> Reply:
    reply = spoken(asked)
    if not isinstance(reply.body, bytes):
        reply.body = [*reply.body[:4], 0.6, *reply.body[4:]]
    return reply


# What the upstream answers, what else the client sends: in its body, in its headers.
SCENES: dict[str, tuple[Any, dict[str, Any], dict[str, str]]] = {
    "text": (None, {}, {}),
    "a beta": (None, {}, {"anthropic-beta": "some-beta-2026-01-01"}),
    "a tool": (None, {"tools": [TOOL]}, {}),
    "refused": (refusing(400, "messages: not like this"), {}, {}),
    "zipped": (lambda asked: zipped(spoken(asked)), {}, {}),
    "pinged": (with_a_pause, {}, {}),
    "cut": (after(4, CUT), {}, {}),  # only of a stream: what was cut before anybody saw it is asked for again
}
PLAYED = [*(("anthropic", scene, "stream") for scene in SCENES), ("openai", "a tool", "stream")]
PLAYED += [*((dialect, "text", "whole") for dialect in PATHS), ("anthropic", "refused", "whole")]


@pytest.mark.parametrize("dialect, scene, form", PLAYED)
def test_a_golden_folder_is_made_that_the_golden_tests_play(
    debugged: Stage, kind: str, model: str, dialect: str, scene: str, form: str, tmp_path: Path
) -> None:
    answer, more, headers = SCENES[scene]
    if "tools" in more and dialect == "openai":
        more = {"tools": [{"type": "function", "function": {"name": "look", "parameters": TOOL["input_schema"]}}]}
    debugged.account(kind, model, answer)
    sent = body(model, "Hello, you", stream=form == "stream", **more)
    got = debugged.gateway.post(PATHS[dialect], sent, headers)
    pings = json.loads((kept(debugged, got) / "exchange.json").read_text())["pings"]
    assert bool(pings) == (scene == "pinged")
    assert cassettes.make(kept(debugged, got), tmp_path)
    play(tmp_path)


def test_the_command_line_makes_one(debugged: Stage, model: str, tmp_path: Path) -> None:
    debugged.account("openai", model)
    name = debugged.gateway.ask(model).headers["request-id"]
    kept(debugged, name)
    told = debugged.gateway.flask("logs", "cassette", name, "--to", str(tmp_path / "case"))
    assert told.startswith(f"Made {tmp_path / 'case'}: case.json, client-in.json, client-out.json, upstream-in.")
    play(tmp_path / "case")


def test_while_it_is_off_an_answer_is_passed_on_as_it_is(stage: Stage, model: str) -> None:
    stage.gateway.api("PUT", "/v2/settings", {"debugLog": False})
    stage.account("openai", model)
    answer = stage.gateway.ask(model, stream=True)
    stage.gateway.row(answer)
    assert not list((stage.gateway.folder / "logs").rglob(f"*{answer.headers['request-id']}*"))


def play(folder: Path) -> None:
    """What the golden tests do with a folder of theirs."""
    name = str(folder)
    golden.test_the_upstream_gets_the_request_in_its_own_format(name)
    for size in golden.SIZES:
        if (folder / "upstream-in.sse").exists():
            for line_end in golden.LINE_ENDS:
                golden.test_the_client_gets_the_same_wherever_the_bytes_were_cut(name, size, line_end)
        else:
            golden.test_the_client_gets_an_answer_that_was_no_stream(name, size)
