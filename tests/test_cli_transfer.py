"""Accounts from one installation to another by the command line, and every secret under a new key."""

import base64
import json
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from flask import Flask

from opus_api import config, create_app, crypto
from opus_api.config import ConfigError
from opus_api.extensions import db
from opus_api.models import Account
from tests.bars import report
from tests.commands import Commands
from tests.conftest import Provider
from tests.live import PASSWORD, gateway

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


# --- pull


def test_accounts_are_pulled_from_another_installation_once(
    flask: Commands, migrated: Path, provider: Provider
) -> None:
    with gateway(migrated) as other:
        for name in ("one", "two"):
            other.account("openai", provider.url, f"{KEY}-{name}", name=name)
        pull = ("accounts", "pull", "--from", other.url, "--password-stdin")
        assert flask.text(*pull, stdin=PASSWORD) == "2 accounts created, 0 were here already."
        assert flask.text(*pull, stdin=PASSWORD) == "0 accounts created, 2 were here already."
        wrong = flask.error(*pull, stdin="wrong password")
    assert "refused (401)" in wrong
    assert [account.api_key for account in db.session.scalars(sa.select(Account).order_by(Account.name))] == [
        f"{KEY}-one",
        f"{KEY}-two",
    ]


def test_a_server_that_is_none_of_ours_is_one_sentence(flask: Commands, provider: Provider) -> None:
    provider.body = []
    sentence = flask.error("accounts", "pull", "--from", provider.url, "--password-stdin", stdin=PASSWORD)
    assert sentence.startswith(provider.url)


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
