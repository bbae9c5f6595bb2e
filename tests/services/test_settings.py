"""The installation has one identity and one secret, and starts with no other key than the one it was made with."""

from pathlib import Path

import pytest
from flask import Flask

from opus_api import config, create_app, crypto
from opus_api.config import ConfigError
from opus_api.extensions import db
from opus_api.models import Setting
from opus_api.services import model_rules
from opus_api.services import settings as saved
from opus_api.services.settings import Installation, installation
from opus_api.services.values import FieldError
from opus_api.wire.errors import NotFound


def test_the_installation_is_made_once(app: Flask) -> None:
    first, second = installation(db.session()), installation(db.session())
    assert first == second
    assert len(first.secret) == 32


def test_who_comes_second_takes_what_the_first_has_made(app: Flask) -> None:
    before = installation(db.session())
    saved._make_installation(db.session())
    assert installation(db.session()) == before


def test_the_secret_is_encrypted_at_rest(app: Flask) -> None:
    row = db.session.get_one(Setting, saved.INSTALLATION)
    assert row.value["secret"].startswith("gAAAA")  # a Fernet token


def test_keys_are_derived_apart(app: Flask) -> None:
    owner: Installation = app.extensions["installation"]
    keys = {owner.pepper, owner.session_key(""), owner.jwt_key(""), owner.secret}
    assert len(keys) == 4
    assert owner.session_key("configured") == b"configured"
    assert owner.jwt_key("configured") == b"configured"
    assert repr(owner) == f"Installation(id={owner.id!r})"


def test_a_wrong_encryption_key_is_refused_at_the_start(tmp_path: Path, environment: dict[str, str]) -> None:
    (Path(environment["DATA_DIR"]) / "secret.key").write_text("another secret, from another machine")
    with pytest.raises(ConfigError, match="The encryption key does not fit this database"):
        create_app(config.load(tmp_path, environment))


def test_settings_are_saved_and_replaced(app: Flask) -> None:
    assert saved.get("colour", "none") == "none"
    for value in ("red", {"a": [1]}, None):
        saved.put("colour", value)
        db.session.commit()
        assert saved.get("colour") == value


def test_model_rules_are_made_replaced_and_removed(app: Flask) -> None:
    model_rules.put("claude-*", "openai/a")
    model_rules.put(" claude-* ", "openai/b")
    assert [model_rules.as_json(rule) for rule in model_rules.every()] == [
        {"pattern": "claude-*", "target": "openai/b"}
    ]
    model_rules.remove("claude-*")
    with pytest.raises(NotFound):
        model_rules.remove("claude-*")
    with pytest.raises(FieldError, match=r"^target: is required"):
        model_rules.put("claude-*", " ")


def test_the_keyring_of_the_app_is_the_one_in_use(app: Flask) -> None:
    assert crypto.current() is app.extensions["keyring"]
