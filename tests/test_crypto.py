"""Secrets are encrypted under the operator's key, hashed under the installation's, and shown to nobody."""

from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from opus_api import crypto
from opus_api.config import ConfigError, Settings

OLD, NEW = Fernet.generate_key(), Fernet.generate_key()


def test_what_was_encrypted_comes_back() -> None:
    ring = crypto.Keyring([NEW])
    token = ring.encrypt("a secret, 密")
    assert "secret" not in token
    assert ring.decrypt(token) == "a secret, 密"


def test_an_older_key_still_reads_and_the_first_one_writes() -> None:
    token = crypto.Keyring([OLD]).encrypt("x")
    both = crypto.Keyring([NEW, OLD])
    assert both.decrypt(token) == "x"
    assert crypto.Keyring([NEW]).decrypt(both.rotate(token)) == "x"
    assert crypto.Keyring([NEW]).decrypt(both.encrypt("y")) == "y"


def test_a_wrong_key_is_the_operators_mistake() -> None:
    with pytest.raises(ConfigError, match="does not fit this database"):
        crypto.Keyring([NEW]).decrypt(crypto.Keyring([OLD]).encrypt("x"))


def readable(first: Settings, second: Settings) -> bool:
    token = crypto.keyring(first).encrypt("x")
    try:
        return crypto.keyring(second).decrypt(token) == "x"
    except ConfigError:
        return False


def test_the_key_comes_from_the_first_source_that_is_set(tmp_path: Path) -> None:
    here = {"data_dir": tmp_path, "database_url": "sqlite://"}
    from_keys = Settings(encryption_keys=(NEW.decode(),), secret_key="s", **here)  # type: ignore[arg-type]
    assert readable(from_keys, Settings(encryption_keys=(NEW.decode(),), **here))  # type: ignore[arg-type]
    assert readable(Settings(secret_key="s", jwt_secret="j", **here), Settings(secret_key="s", **here))  # type: ignore[arg-type]
    assert readable(Settings(jwt_secret="j", **here), Settings(jwt_secret="j", **here))  # type: ignore[arg-type]
    assert not readable(Settings(secret_key="s", **here), Settings(secret_key="t", **here))  # type: ignore[arg-type]
    assert not (tmp_path / "secret.key").exists()


def test_without_any_a_file_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    here = Settings(data_dir=tmp_path / "new", database_url="sqlite://")
    assert readable(here, here)
    assert (tmp_path / "new" / "secret.key").stat().st_mode & 0o777 == 0o600


def test_with_an_external_database_nobody_makes_a_key_that_would_be_lost(tmp_path: Path) -> None:
    outside = Settings(data_dir=tmp_path, database_url="postgresql+psycopg2://h/d")
    with pytest.raises(ConfigError, match=r"ENCRYPTION_KEYS=(\S{44})$"):
        crypto.keyring(outside)
    (tmp_path / "secret.key").write_text("one that was kept " * 3)
    assert readable(outside, outside)


def test_keys_for_different_purposes_differ() -> None:
    assert crypto.derive(b"secret", "a") != crypto.derive(b"secret", "b")
    assert crypto.derive(b"secret", "a") == crypto.derive(b"secret", "a")
    assert len(crypto.derive(b"secret", "a")) == 32


def test_api_keys_are_random_and_hashed_under_a_pepper() -> None:
    first, second = crypto.new_api_key(), crypto.new_api_key()
    assert first != second
    assert first.startswith("sk-opus-")
    assert first.removeprefix("sk-opus-").isalnum()
    assert crypto.keyed_hash(b"a", first) != crypto.keyed_hash(b"b", first)
    assert len(crypto.keyed_hash(b"a", "not ascii: ключ \udcff")) == 64
    assert crypto.token_hash("x") == crypto.token_hash("x") != crypto.token_hash("y")


@pytest.mark.parametrize("text", ["", "\n", "short"])
def test_a_damaged_secret_key_is_refused_instead_of_used(tmp_path: Path, text: str) -> None:
    (tmp_path / "secret.key").write_text(text)
    with pytest.raises(ConfigError, match="is damaged"):
        crypto.keyring(Settings(data_dir=tmp_path, database_url="sqlite://"))


def test_who_is_late_in_making_the_file_takes_the_one_that_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Settings(data_dir=tmp_path, database_url="sqlite://")
    token = crypto.keyring(here).encrypt("x")
    monkeypatch.setattr(Path, "exists", lambda _: False)  # it looked before the other had finished
    assert crypto.keyring(here).decrypt(token) == "x"
    assert [path.name for path in tmp_path.iterdir()] == ["secret.key"]


def test_a_folder_that_cannot_be_used_is_the_operators_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="make DATA_DIR writable"):
        crypto.keyring(Settings(data_dir=tmp_path / "file" / "below", database_url="sqlite://"))


def test_encryption_keys_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ENCRYPTION_KEYS must hold Fernet keys"):
        crypto.keyring(Settings(encryption_keys=("nonsense",), data_dir=tmp_path, database_url="sqlite://"))


def test_nothing_is_encrypted_before_there_is_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crypto, "_current", None)
    with pytest.raises(RuntimeError, match="was not called"):
        crypto.current()
