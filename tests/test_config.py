"""Settings come from the environment, then .env, then config.yaml, then defaults; a mistake is one sentence."""

import ipaddress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from opus_api import config
from opus_api.config import ConfigError, Settings


def load(folder: Path, **environment: str) -> Settings:
    return config.load(folder, environment)


def test_nothing_need_be_set(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert (settings.host, settings.port, settings.web_concurrency) == ("0.0.0.0", 7860, 1)
    assert settings.data_dir == config.ROOT / "data"
    assert settings.database_url == f"sqlite:///{config.ROOT / 'data' / 'opus.db'}"
    assert settings.on_sqlite
    assert (settings.anonymous_access, settings.rotation_strategy) == ("off", "priority")
    assert (settings.cookie_max_error_count, settings.max_attempts) == (3, 3)
    assert settings.jwt_secret == settings.secret_key == settings.default_admin_password == ""


def test_the_environment_wins_over_dotenv_and_that_over_config_yaml(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("server: {host: from-yaml, port: 1001}\ndebug: true\n")
    assert (load(tmp_path).host, load(tmp_path).port, load(tmp_path).debug_mode) == ("from-yaml", 1001, True)
    (tmp_path / ".env").write_text("HOST=from-dotenv\nPORT=1002\n")
    assert (load(tmp_path).host, load(tmp_path).port) == ("from-dotenv", 1002)
    assert (load(tmp_path, PORT="1003").host, load(tmp_path, PORT="1003").port) == ("from-dotenv", 1003)


def test_empty_means_not_set(tmp_path: Path) -> None:
    assert load(tmp_path, PORT="", HOST=" ").port == 7860


@pytest.mark.parametrize(
    "given, used",
    [
        ("postgresql://u:p@h/d", "postgresql+psycopg2://u:p@h/d"),
        ("postgres://u:p@h/d", "postgresql+psycopg2://u:p@h/d"),
        ("mysql+pymysql://u:p@h/d", "mysql+pymysql://u:p@h/d"),
        ("sqlite:////tmp/x.db", "sqlite:////tmp/x.db"),
    ],
)
def test_the_database_address_names_our_driver(tmp_path: Path, given: str, used: str) -> None:
    assert load(tmp_path, DATABASE_URL=given).database_url == used


@pytest.mark.parametrize(
    "yaml, url",
    [
        ("database: {type: sqlite, sqlite: {path: x/y.db}}", "sqlite:///{folder}/x/y.db"),
        (
            "database: {type: mysql, mysql: {port: 3307, user: u, password: 'p@ss', database: d, charset: utf8mb4}}",
            "mysql+pymysql://u:p%40ss@localhost:3307/d?charset=utf8mb4",
        ),
        (
            "database: {type: postgresql, postgresql: {host: db, user: u, password: p, database: d}}",
            "postgresql+psycopg2://u:p@db:5432/d",
        ),
    ],
)
def test_config_yaml_names_the_database(tmp_path: Path, yaml: str, url: str) -> None:
    (tmp_path / "config.yaml").write_text(yaml)
    assert load(tmp_path).database_url == url.format(folder=tmp_path)


def test_test_true_means_the_practice_provider_only(tmp_path: Path) -> None:
    assert not load(tmp_path).practice_only
    (tmp_path / "config.yaml").write_text("test: true\n")
    assert load(tmp_path).practice_only


@pytest.mark.parametrize(
    "name, given, value",
    [
        ("ALLOW_PRIVATE_UPSTREAMS", "127.0.0.0/8, 192.168.1.7", ("127.0.0.0/8", "192.168.1.7/32")),
        ("TRUSTED_PROXIES", "docker,::1", ("172.16.0.0/12", "::1/128")),
        ("TRUSTED_PROXIES", "HF", ("10.0.0.0/8", "172.16.0.0/12")),
    ],
)
def test_lists_of_networks(tmp_path: Path, name: str, given: str, value: tuple[str, ...]) -> None:
    assert getattr(load(tmp_path, **{name: given}), name.lower()) == tuple(map(ipaddress.ip_network, value))


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_proxies_are_read_in_both_cases(tmp_path: Path, name: str) -> None:
    settings = load(tmp_path, **{name: "http://proxy:3128"})
    assert (settings.proxy_for("https"), settings.proxy_for("http")) == ("http://proxy:3128", "")


@pytest.mark.parametrize(
    "name, value",
    [
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "80a"),
        ("WEB_CONCURRENCY", "0"),
        ("DEBUG_MODE", "perhaps"),
        ("ANONYMOUS_ACCESS", "sometimes"),
        ("ROTATION_STRATEGY", "random"),
        ("LOG_LEVEL", "loud"),
        ("PING_INTERVAL", "0"),
        ("PING_INTERVAL", "nan"),
        ("UPSTREAM_IDLE_TIMEOUT", "-1"),
        ("MAX_ATTEMPTS", "11"),
        ("ALLOW_PRIVATE_UPSTREAMS", "localhost"),
        ("TRUSTED_PROXIES", "10.0.0.0/99"),
        ("DATABASE_URL", "mysql://u:hunter22@h/d"),
        ("DATABASE_URL", "sqlite://"),
        ("JWT_SECRET", "hunter22"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_setting(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        load(tmp_path, **{name: value})
    said = str(refusal.value)
    assert name in said
    assert said.endswith(".")
    assert "\n" not in said
    assert "hunter22" not in said


@pytest.mark.parametrize("yaml", ["[", "- a\n- b\n", "server: 5", "database: {type: oracle}", "server: {port: many}"])
def test_a_config_yaml_that_cannot_be_read_is_one_sentence(tmp_path: Path, yaml: str) -> None:
    (tmp_path / "config.yaml").write_text(yaml)
    with pytest.raises(ConfigError) as refusal:
        load(tmp_path)
    assert "\n" not in str(refusal.value)


def test_several_workers_need_redis(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs REDIS_URL"):
        load(tmp_path, WEB_CONCURRENCY="2")


def test_on_a_space_its_proxy_is_trusted_and_data_falls_back_to_the_home(tmp_path: Path) -> None:
    settings = load(tmp_path, SPACE_ID="me/space", DATA_DIR=str(tmp_path))
    assert settings.data_dir == tmp_path
    assert len(settings.trusted_proxies) == 2


def test_every_setting_is_documented() -> None:
    rows: list[Any] = config.documented()
    assert {row[0] for row in rows} == {item.metadata["env"] for item in fields(Settings) if item.metadata}
    assert all(row[1] and row[2].endswith(".") for row in rows)


def test_a_repr_shows_no_secret(tmp_path: Path) -> None:
    secret = "s" * 40
    environment = dict.fromkeys(("JWT_SECRET", "SECRET_KEY", "DEFAULT_ADMIN_PASSWORD", "HTTPS_PROXY"), secret)
    assert secret not in repr(config.load(tmp_path, environment))
