"""Accounts from one installation to another by the command line, and every secret under a new key."""

import base64
import json
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from flask import Flask

from opus_api import config, create_app, crypto
from opus_api.cli import plain
from opus_api.config import ConfigError
from opus_api.extensions import db
from opus_api.models import Account
from tests.bars import report
from tests.commands import Commands
from tests.conftest import Provider
from tests.live import PASSWORD, Gateways
from tests.loopback import serving

KEY = "sk-upstream-0123456789"


def add(name: str, provider: Provider) -> None:
    db.session.add(Account(provider="openai", name=name, api_key=f"{KEY}-{name}", base_url=provider.url))
    db.session.commit()


# --- export and import


def test_an_export_goes_into_an_import(flask: Commands, provider: Provider, tmp_path: Path) -> None:
    add("one", provider)
    file = tmp_path / "accounts.json"
    file.write_text(flask.text("accounts", "export", "--secrets"))
    flask.text("accounts", "delete", "one")
    assert flask.text("accounts", "import", str(file)) == "1 accounts created, 0 were here already."
    assert flask.json("accounts", "import", "-", stdin=file.read_text()) == {"created": 0, "skipped": 1, "errors": []}


def test_an_export_keeps_secrets_unless_asked(flask: Commands, provider: Provider) -> None:
    add("one", provider)
    assert KEY not in flask.text("accounts", "export")
    assert KEY in flask.text("accounts", "export", "--secrets", "--json")


@pytest.mark.parametrize(
    "content, sentence",
    [
        (None, "cannot be read (No such file or directory)."),
        ("{", "is not JSON."),
        ("[]", "is not an export of accounts."),
        ("{}", "format: must be 'opus-api-accounts', version 1, as the export of accounts gives it."),
    ],
)
def test_another_file_is_one_sentence(flask: Commands, tmp_path: Path, content: str | None, sentence: str) -> None:
    file = tmp_path / "file.json"
    if content is not None:
        file.write_text(content)
    assert flask.error("accounts", "import", str(file)).endswith(sentence)


@pytest.mark.parametrize("call", [("accounts", "list", "--json"), ("accounts", "export")])
def test_json_of_the_command_line_steers_no_terminal_and_loses_nothing(flask: Commands, call: tuple[str, ...]) -> None:
    name = "é\x9b2J\u202e\u3000\U0001f468\u200d\U0001f469"
    db.session.add(Account(provider="openai", name=name, api_key=KEY))
    db.session.commit()
    told = flask.text(*call)
    assert r"é\u009b2J\u202e" + "\u3000\U0001f468\u200d\U0001f469" in told
    found = json.loads(told)
    assert [account["name"] for account in found.get("data") or found["accounts"]] == [name]


def test_good_text_reaches_the_terminal_as_it_is() -> None:
    good = "a\u3000b\u00a0c\t\U0001f468\u200d\U0001f469\n"
    assert plain(good) == good
    assert plain("a\x1b\x9b\u202e\u200f\ud800\U0003fffe") == "a" + 6 * "\ufffd"


# --- pull


def test_accounts_are_pulled_from_another_installation_once(
    flask: Commands, gateways: Gateways, provider: Provider
) -> None:
    other = gateways()
    other.forget_accounts()
    for name in ("one", "two"):
        other.account("openai", provider.url, f"{KEY}-{name}", name=name)
    pull = ("accounts", "pull", "--from", other.url, "--password-stdin")
    assert flask.text(*pull, stdin=PASSWORD) == "2 accounts created, 0 were here already."
    assert flask.text(*pull, stdin=PASSWORD) == "0 accounts created, 2 were here already."
    assert "refused (401)" in flask.error(*pull, stdin="wrong password")
    other.forget_accounts()
    assert [account.api_key for account in db.session.scalars(sa.select(Account).order_by(Account.name))] == [
        f"{KEY}-one",
        f"{KEY}-two",
    ]


def test_a_server_that_is_none_of_ours_is_one_sentence(flask: Commands, provider: Provider) -> None:
    provider.body = []
    sentence = flask.error("accounts", "pull", "--from", provider.url, "--password-stdin", stdin=PASSWORD)
    assert sentence.startswith(provider.url)


# --- pull from a server that means no good


EXPORT = {"format": "opus-api-accounts", "version": 1, "secrets": True, "accounts": []}
GOOD: dict[str, Any] = {"/api/auth/login": {"token": "t"}, "/api/auth/confirm": {}, "/v2/accounts/export": EXPORT}


@dataclass
class Stranger:
    """Answers the four calls of a pull as a test says: a status with what goes with it, by path."""

    url: str
    says: dict[str, Any]
    asked: list[str]


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    known = Stranger("", dict(GOOD), [])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            path = self.path.partition("?")[0]
            known.asked.append(path)
            said = known.says.get(path, {})
            if callable(said):
                said(self)
                return
            body = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815 - the name that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as address:
        known.url = address
        yield known


def pull_from(stranger: Stranger) -> tuple[str, ...]:
    return ("accounts", "pull", "--from", stranger.url, "--password-stdin")


def redirecting(to: str, status: int) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("location", to)
        handler.send_header("content-length", "0")
        handler.end_headers()

    return answer


def dropped(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def refusing(status: int, message: Any) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = json.dumps({"error": {"message": message}}).encode()
        handler.send_response(status)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def bomb(handler: BaseHTTPRequestHandler) -> None:
    """300 MiB in 300 KiB."""
    packed = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = b"".join(packed.compress(b" " * 2**20) for _ in range(300)) + packed.flush()
    handler.send_response(200)
    handler.send_header("content-encoding", "gzip")
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    with suppress(OSError):
        handler.wfile.write(body)


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    with suppress(OSError):
        while True:
            handler.wfile.write(b" " * 65536)


@pytest.mark.parametrize(
    "path, said",
    [
        ("/api/auth/login", dropped),
        ("/api/auth/login", {}),
        ("/api/auth/login", b""),
        ("/api/auth/login", {"token": None}),
        ("/api/auth/login", {"token": ["x"]}),
        ("/api/auth/login", {"token": "a\r\nx-more: 1"}),
        ("/api/auth/login", {"token": "\ud800"}),
        ("/api/auth/login", {"token": "é€"}),
        ("/api/auth/login", refusing(401, "\x1b[2J\x07 \ud800 " + "x" * 100_000)),
        ("/api/auth/login", refusing(500, {"a": 1})),
        ("/api/auth/login", redirecting("http://169.254.169.254/", 307)),
        ("/api/auth/confirm", dropped),
        ("/api/auth/confirm", []),
        ("/v2/accounts/export", dropped),
        ("/v2/accounts/export", redirecting("/elsewhere", 302)),
        ("/v2/accounts/export", bomb),
        ("/v2/accounts/export", endless),
        ("/v2/accounts/export", b"\xff\xfe{}"),
        ("/v2/accounts/export", b"[" * 1_000_000),
        ("/v2/accounts/export", {**EXPORT, "accounts": [{"provider": "openai", "name": "\ud800"}]}),
        ("/v2/accounts/export", b'{"accounts":[' + b"[]," * 1_500_000 + b"[]]}"),
        ("/v2/accounts/export", {}),
        ("/v2/accounts/export", {**EXPORT, "accounts": {}}),
        ("/v2/accounts/export", {**EXPORT, "accounts": [{}] * 1001}),
        ("/v2/accounts/export", {**EXPORT, "secrets": "yes"}),
        ("/v2/accounts/export", {**EXPORT, "version": "1"}),
        ("/v2/accounts/export", {**EXPORT, "version": True}),
    ],
)
def test_a_server_that_lies_is_one_sentence_and_leaves_nothing(
    flask: Commands, stranger: Stranger, path: str, said: Any
) -> None:
    stranger.says[path] = said
    began = time.monotonic()
    sentence = flask.error(*pull_from(stranger), stdin=PASSWORD)
    assert sentence.isprintable(), sentence
    assert len(sentence) < 1000
    assert time.monotonic() - began < 5
    assert "/elsewhere" not in stranger.asked
    assert db.session.scalars(sa.select(Account)).all() == []


def test_what_is_wrong_with_rows_is_told_without_their_control_characters(flask: Commands, stranger: Stranger) -> None:
    rows = [{"\x1b]0;title\x07": 1}, {"provider": "\x1b[2J"}, {"\x85": 1}, 7]
    stranger.says["/v2/accounts/export"] = {**EXPORT, "accounts": rows}
    told = flask.text(*pull_from(stranger), stdin=PASSWORD)
    assert told.splitlines()[0] == "0 accounts created, 0 were here already."
    assert len(told.splitlines()) == 5
    assert all(line.isprintable() for line in told.splitlines()), told


def test_a_server_that_fails_at_the_sign_out_has_given_its_accounts_all_the_same(
    flask: Commands, stranger: Stranger
) -> None:
    row = {"provider": "openai", "name": "one", "api_key": KEY, "base_url": stranger.url, "state": "disabled"}
    stranger.says["/v2/accounts/export"] = {**EXPORT, "accounts": [row]}
    stranger.says["/api/auth/logout"] = dropped
    assert flask.text(*pull_from(stranger), stdin=PASSWORD).startswith("1 accounts created")


def test_whoever_was_signed_in_there_is_signed_out_although_the_export_was_refused(
    flask: Commands, stranger: Stranger
) -> None:
    stranger.says["/v2/accounts/export"] = refusing(429, "three an hour")
    assert "three an hour" in flask.error(*pull_from(stranger), stdin=PASSWORD)
    assert stranger.asked[-1] == "/api/auth/logout"


# --- rotate-key


def test_after_rotation_the_old_key_opens_nothing(
    flask: Commands, provider: Provider, app: Flask, settings: config.Settings, tmp_path: Path
) -> None:
    for number in range(1000):
        db.session.add(Account(provider="openai", name=f"a{number}", api_key=f"{KEY}-{number}", proxy="http://p:1"))
    db.session.commit()
    old, new = crypto.current(), Fernet.generate_key()
    crypto.use(crypto.Keyring([new, *_keys_of(settings)]))
    began = time.monotonic()
    found = flask.json("accounts", "rotate-key")
    report(18, accounts_rotated=1000, seconds=round(time.monotonic() - began, 2))
    assert found == {"rotated": 2001}
    crypto.use(crypto.Keyring([new]))
    assert db.session.scalars(sa.select(Account.api_key).where(Account.name == "a999")).one() == f"{KEY}-999"
    stored = db.session.execute(sa.text("SELECT api_key FROM accounts UNION ALL SELECT proxy FROM accounts")).scalars()
    for secret in stored:
        with pytest.raises(ConfigError):
            old.decrypt(secret)
    crypto.use(old)
    with pytest.raises(ConfigError):
        create_app(settings)


def _keys_of(settings: config.Settings) -> list[bytes]:
    """The key that the installation began with, as ENCRYPTION_KEYS would name it."""
    secret = (settings.data_dir / "secret.key").read_bytes().strip()
    return [base64.urlsafe_b64encode(crypto.derive(secret, "credentials"))]


def test_encryption_keys_can_follow_a_secret_file(tmp_path: Path) -> None:
    environment = {"DATA_DIR": str(tmp_path)}
    token = crypto.keyring(config.load(tmp_path, environment)).encrypt("credential")
    later = crypto.keyring(config.load(tmp_path, environment | {"ENCRYPTION_KEYS": Fernet.generate_key().decode()}))
    assert later.decrypt(token) == "credential"
    assert json.dumps(later.rotate(token)) != json.dumps(token)
