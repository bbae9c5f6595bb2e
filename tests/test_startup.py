"""The service starts from nothing with one command, tells its secrets once, and says in one sentence what is wrong."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import socket
import sqlite3
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from flask import Flask
from flask_migrate import downgrade, upgrade

from opus_api import config, create_app, preflight, startup
from opus_api.config import ConfigError, Settings
from opus_api.extensions import db
from opus_api.models import ModelRule
from tests.commands import Commands
from tests.conftest import LOOPBACK, Provider
from tests.forms import PASSWORD
from tests.processes import FLASK, GUNICORN, START, Service, clean, free_port, run, service

SECRET = re.compile(r"password: (\S+)|(sk-opus-\w+)")


@pytest.fixture
def nothing(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine on which the service never ran."""
    return {"DATA_DIR": str(tmp_path / "data"), "PORT": str(free_port())}


def post(url: str, body: object, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        return response.status, response.read().decode()


def ready_line(port: int | str) -> str:
    return f"Opus API {startup.__version__} on http://127.0.0.1:{port}\n"


@contextmanager
def two_at_once(environment: dict[str, str]) -> Iterator[tuple[Service, Service]]:
    """Two first starts of one installation, each on its own port: the one that tells the secrets, and the other."""
    with ExitStack() as stack, ThreadPoolExecutor(2) as side_by_side:
        both = list(
            side_by_side.map(
                lambda port: stack.enter_context(service(START, environment | {"PORT": str(port)})),
                [free_port(), free_port()],
            )
        )
        assert [one.get("/health")[0] for one in both] == [200, 200]
        told, silent = sorted(both, key=lambda one: len(one.output), reverse=True)
        yield told, silent
    assert [one.process.returncode for one in both] == [0, 0]
    assert told.output.startswith(ready_line(port_of(told)))
    assert silent.output == ready_line(port_of(silent))
    assert "Traceback" not in told.output
    assert "could not" not in told.output


def port_of(one: Service) -> str:
    return one.url.rpartition(":")[2]


def test_the_first_start_makes_everything_and_the_second_tells_nothing(
    nothing: dict[str, str], serving: Callable[[dict[str, str]], str]
) -> None:
    """The second begins while the first does, the third when both are gone."""
    with two_at_once(nothing) as (first, _):
        assert "\nuser: admin\n" in first.output
        password = re.search(r"^password: (\S+)$", first.output, re.MULTILINE)
        curl = re.search(r"^curl .*$", first.output, re.MULTILINE)
        assert password
        assert curl
        assert len(SECRET.findall(first.output)) == 2
        assert post(f"{first.url}/api/auth/login", {"username": "admin", "password": password[1]})[0] == 200
        streamed = run(shlex.split(curl[0]), nothing).stdout
    assert re.search(r"^event: message_start$.*^event: message_stop$", streamed, re.MULTILINE | re.DOTALL)
    files = {path.name: path.stat().st_mode & 0o777 for path in Path(nothing["DATA_DIR"]).iterdir() if path.is_file()}
    assert files == {"secret.key": 0o600, "opus.db": 0o600} | dict.fromkeys(files, 0o600)
    assert serving(nothing) == ready_line(nothing["PORT"])


def test_of_two_first_starts_on_postgresql_one_tells_the_key_and_none_the_given_password(
    nothing: dict[str, str], postgresql: str, provider: Provider
) -> None:
    given = {"DEFAULT_ADMIN_USERNAME": "chief", "DEFAULT_ADMIN_PASSWORD": PASSWORD}
    given |= {"DATABASE_URL": postgresql, "SECRET_KEY": "any", **LOOPBACK}
    with two_at_once(nothing | given) as (first, second):
        ((_, key),) = SECRET.findall(first.output)
        assert post(f"{first.url}/api/auth/login", {"username": "chief", "password": PASSWORD})[0] == 200
        a_change_is_seen_by_the_very_next_request(second, key, provider)
    assert "password: " not in first.output
    assert PASSWORD not in first.output
    assert "user: chief" in first.output


def a_change_is_seen_by_the_very_next_request(started: Service, key: str, provider: Provider) -> None:
    login = post(f"{started.url}/api/auth/login", {"username": "chief", "password": PASSWORD})[1]
    bearer = f"Bearer {json.loads(login)['token']}"
    for name in "abc":
        body = {"provider": "openai", "name": name, "base_url": provider.url, "models": [f"model-of-{name}"]}
        assert post(f"{started.url}/api/cookies", body, Authorization=bearer)[0] == 201
        models = urllib.request.Request(f"{started.url}/v1/models", headers={"x-api-key": key})
        assert f"model-of-{name}" in urllib.request.urlopen(models, timeout=10).read().decode()


@pytest.mark.parametrize("given, must_change", [(PASSWORD, False), ("changeme123", True), ("admin", True)])
def test_a_given_password_is_used_and_not_printed(settings: Settings, given: str, must_change: bool) -> None:
    settings = dataclasses.replace(settings, default_admin_username="chief", default_admin_password=given)
    app = create_app(settings)
    with app.app_context():
        printed = startup.first_start(settings)
        db.engine.dispose()
    client = app.test_client()
    answer = client.post("/api/auth/login", json={"username": "chief", "password": given})
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {answer.json['token']}"  # type: ignore[index]
    assert client.get("/api/cookies").status_code == (403 if must_change else 200)
    assert "user: chief" in printed
    assert not any("password: " in line or f" {given}" in line for line in printed)


def test_gunicorn_serves_a_migrated_database_that_has_no_user(nothing: dict[str, str]) -> None:
    upgrade_twice_at_once(nothing)
    made = run([*FLASK, "keys", "create", "bench", "--value", "sk-bench-0123456789abcdef"], nothing)
    assert (made.stdout, made.stderr) == ("sk-bench-0123456789abcdef\n", "")
    with service([*GUNICORN, "-b", f"127.0.0.1:{nothing['PORT']}", "wsgi:app"], nothing) as started:
        body = {"model": "any", "max_tokens": 16, "messages": [{"role": "user", "content": "Hi"}]}
        status, answer = post(f"{started.url}/v1/messages", body, **{"x-api-key": "sk-bench-0123456789abcdef"})
    assert (status, json.loads(answer)["type"]) == (200, "message")
    assert started.output == ""
    with commands(nothing) as flask:
        listed = flask.json("keys", "list")
        assert listed["data"][0]["usage"]["requests"] == 1  # written at the end of the worker


def upgrade_twice_at_once(environment: dict[str, str]) -> None:
    with ThreadPoolExecutor(2) as side_by_side:
        ended = list(side_by_side.map(lambda _: run([*FLASK, "db", "upgrade"], environment), range(2)))
    assert [done.returncode for done in ended] == [0, 0], [done.stderr for done in ended]


def test_two_upgrades_of_postgresql_at_once_both_end_right(nothing: dict[str, str], postgresql: str) -> None:
    nothing |= {"DATABASE_URL": postgresql, "SECRET_KEY": "any"}
    upgrade_twice_at_once(nothing)
    with commands(nothing) as flask:
        assert flask.json("users", "list")["data"] == []


def app_of(environment: dict[str, str]) -> Flask:
    return create_app(config.load(Path(environment["DATA_DIR"]), clean(environment)))


@contextmanager
def commands(environment: dict[str, str]) -> Iterator[Commands]:
    """Those of an app in this process."""
    app = app_of(environment)
    with app.app_context():
        yield Commands(app.test_cli_runner())
        db.session.remove()
        db.engine.dispose()


# --- What is wrong ----------------------------------------------------------------------------------------------------


def one_sentence(result: subprocess.CompletedProcess[str]) -> str:
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr.rstrip("\n")


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[[dict[str, str]], str]:
    """What `python wsgi.py` runs, in this process: the sentence that it ends with. It prints nothing."""

    def ended(environment: dict[str, str]) -> str:
        monkeypatch.setattr(os, "environ", clean(environment))
        monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("it began to serve"))
        with pytest.raises(SystemExit) as end:
            startup.main()
        sentence = str(end.value.code)
        assert "\n" not in sentence
        assert capfd.readouterr() == ("", "")
        return sentence

    return ended


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[[dict[str, str]], str]:
    """What `python wsgi.py` prints before it becomes gunicorn, in this process."""

    def printed(environment: dict[str, str]) -> str:
        monkeypatch.setattr(os, "environ", clean(environment))
        monkeypatch.setattr(os, "execv", lambda _, words: None if "gunicorn" in words else pytest.fail(str(words)))
        startup.main()
        said = capfd.readouterr()
        assert said.err == ""
        return said.out

    return printed


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


WRONG = [
    ({"PORT": "http"}, "PORT must be a whole number between 1 and 65535"),
    ({"ROTATION_STRATEGY": "random"}, "ROTATION_STRATEGY must be one of"),
    ({"DATABASE_URL": "oracle://db/opus"}, "DATABASE_URL must begin with"),
    (
        {"DATABASE_URL": "postgresql://opus:hunter22@127.0.0.1:9/opus", "SECRET_KEY": "x"},
        "The database at 127.0.0.1:9/opus",
    ),
    ({"DATABASE_URL": "postgresql://127.0.0.1:9/opus"}, "ENCRYPTION_KEYS="),
    ({"DATABASE_URL": "sqlite:////proc/none/opus.db"}, "/proc/none cannot be written"),
    ({"DATA_DIR": "/proc/none"}, "/proc/none"),
    ({"WEB_CONCURRENCY": "2"}, "WEB_CONCURRENCY above 1 needs REDIS_URL"),
    ({"WEB_CONCURRENCY": "2", "REDIS_URL": "redis://127.0.0.1:9"}, "Redis does not answer at REDIS_URL"),
    ({"REDIS_URL": "somewhere:6379"}, "it must look like redis://host:6379/0"),
    ({"JWT_SECRET": "short"}, "JWT_SECRET must be 32 bytes"),
    ({"ENCRYPTION_KEYS": "nonsense"}, "ENCRYPTION_KEYS must hold Fernet keys"),
]


@pytest.mark.parametrize("change, sentence", WRONG)
def test_a_wrong_setting_is_one_sentence(
    main: Callable[[dict[str, str]], str], nothing: dict[str, str], change: dict[str, str], sentence: str
) -> None:
    said = main(nothing | change)
    assert sentence in said
    assert "hunter22" not in said


UNREACHABLE = WRONG[3]


def test_the_command_says_it_in_one_sentence(nothing: dict[str, str]) -> None:
    change, sentence = UNREACHABLE
    assert sentence in one_sentence(run(START, nothing | change))


@pytest.mark.parametrize("change, sentence", [WRONG[0], UNREACHABLE])
def test_gunicorn_says_it_in_one_sentence_too(nothing: dict[str, str], change: dict[str, str], sentence: str) -> None:
    assert sentence in one_sentence(run([*GUNICORN, "wsgi:app"], nothing | change))


def test_commands_say_it_in_one_sentence_too(nothing: dict[str, str]) -> None:
    change, sentence = UNREACHABLE
    assert sentence in one_sentence(run([*FLASK, "keys", "list"], nothing | change))


@pytest.mark.parametrize("change, sentence", [WRONG[0], UNREACHABLE])
def test_the_app_that_commands_and_workers_load_says_it_as_well(
    nothing: dict[str, str], change: dict[str, str], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        app_of(nothing | change)
    assert "\n" not in str(caught.value)


def test_a_data_folder_below_a_file_is_one_sentence(
    main: Callable[[dict[str, str]], str], nothing: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    said = main(nothing | {"DATA_DIR": str(tmp_path / "file" / "data")})
    assert "make DATA_DIR writable" in said or "cannot be written" in said


def test_a_taken_port_is_one_sentence(
    main: Callable[[dict[str, str]], str], nothing: dict[str, str], taken: int
) -> None:
    expected = f"Port {taken} on 127.0.0.1 cannot be used (Address already in use); set PORT or HOST to another."
    assert one_sentence(run([*GUNICORN, "-b", f"127.0.0.1:{taken}", "wsgi:app"], nothing)) == expected
    assert main(nothing | {"PORT": str(taken)}) == expected


def test_gunicorns_own_option_for_workers_is_refused_as_well(nothing: dict[str, str]) -> None:
    assert "set REDIS_URL" in one_sentence(run([*GUNICORN, "-w", "2", "wsgi:app"], nothing))


def before_workers(environment: dict[str, str]) -> str:
    """What gunicorn's master says before it listens; how it says it is told above."""
    with pytest.raises(ConfigError) as caught:
        preflight.check_before_workers(config.load(Path(environment["DATA_DIR"]), clean(environment)), 1, [])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_gunicorn_on_a_database_without_tables_says_what_to_run(nothing: dict[str, str]) -> None:
    assert before_workers(nothing).endswith("run: flask db upgrade")
    with commands(nothing) as flask:
        assert flask.error("users", "list").endswith("run: flask db upgrade")


WRONG_KEY = {"SECRET_KEY": "not the one it was made with"}


def test_a_wrong_encryption_key_is_one_sentence(environment: dict[str, str]) -> None:
    changed = environment | WRONG_KEY
    assert "The encryption key does not fit this database" in before_workers(changed)
    with pytest.raises(ConfigError, match=r"\AThe encryption key does not fit this database.*\Z"):
        app_of(changed)


def test_a_wrong_encryption_key_is_one_sentence_of_the_first_command_too(
    main: Callable[[dict[str, str]], str], environment: dict[str, str]
) -> None:
    changed = environment | WRONG_KEY | {"PORT": str(free_port())}
    assert "The encryption key does not fit this database" in main(changed)


# --- Migrations -------------------------------------------------------------------------------------------------------


@pytest.fixture
def before_the_last_migration(settings: Settings) -> Path:
    """An SQLite file with data whose revision is older than the newest."""
    file = Path(settings.data_dir) / "opus.db"
    with create_app(settings).app_context():
        db.session.add(ModelRule(pattern="claude-*", target="kept"))
        db.session.commit()
        db.engine.dispose()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    return file


def rules(file: Path) -> list[str]:
    with sqlite3.connect(file) as connection:
        found = [row[0] for row in connection.execute("SELECT target FROM model_rules")]
    connection.close()
    return found


def migrate_with(settings: Settings, monkeypatch: pytest.MonkeyPatch, upgrade_by: object) -> None:
    monkeypatch.setattr(startup, "upgrade", upgrade_by)
    monkeypatch.setattr(startup, "_revisions", lambda: ("0001", "9999"))
    with create_app(settings).app_context():
        startup.migrate(settings)
        db.engine.dispose()


def test_a_file_with_data_is_copied_before_it_is_migrated(
    settings: Settings, before_the_last_migration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate_with(settings, monkeypatch, lambda: None)
    backup = before_the_last_migration.with_name("opus.db.before-upgrade-from-0001")
    assert rules(backup) == ["kept"]
    assert backup.stat().st_mode & 0o777 == 0o600


def test_a_failed_migration_leaves_the_database_as_it_was(settings: Settings) -> None:
    file = settings.data_dir / "opus.db"
    with create_app(settings).app_context():
        db.session.add(ModelRule(pattern="claude-*", target="kept"))
        db.session.commit()
        downgrade(revision="0001")
        db.engine.dispose()
    with sqlite3.connect(file) as connection:  # what the last migration will stumble over, after others have run
        connection.execute(f"CREATE TABLE {LAST_TABLE} (id INTEGER)")
    connection.close()
    before = schema(file)
    with create_app(settings).app_context():
        with pytest.raises(ConfigError, match=r"could not be migrated \(.*already exists.*\); it is as it was before"):
            startup.migrate(settings)
        assert db.session.query(ModelRule).one().target == "kept"
        db.engine.dispose()
    assert schema(file) == before


LAST_TABLE = "refusals"


def schema(file: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(file) as connection:
        found = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
        found += connection.execute("SELECT version_num, '' FROM alembic_version").fetchall()
    connection.close()
    return found


def test_nothing_is_copied_when_nothing_is_to_be_migrated(settings: Settings) -> None:
    with create_app(settings).app_context():
        startup.migrate(settings)
        db.engine.dispose()
    assert sorted(path.name for path in settings.data_dir.iterdir() if "before" in path.name) == []


# --- Where it is reached ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host, address",
    [
        ("0.0.0.0", "http://127.0.0.1:7860"),
        ("127.0.0.1", "http://127.0.0.1:7860"),
        ("::", "http://[::1]:7860"),
        ("fd00::1", "http://[fd00::1]:7860"),
        ("gateway.lan", "http://gateway.lan:7860"),
    ],
)
def test_the_address_that_is_printed_reaches_the_service(host: str, address: str) -> None:
    assert startup.address(Settings(host=host)) == address


def test_a_first_start_beside_an_existing_default_key_makes_no_other(settings: Settings) -> None:
    with create_app(settings).app_context():
        assert any(line.startswith("curl ") for line in startup.first_start(settings))
        assert startup.first_start(settings) == []
        db.engine.dispose()


def test_two_first_starts_of_which_one_made_the_key(tmp_path: Path, migrated: Path) -> None:
    shutil.copytree(migrated, tmp_path / "data")
    settings = config.load(tmp_path, {"DATA_DIR": str(tmp_path / "data")})
    with create_app(settings).app_context():
        upgrade()
        assert startup._first_key(b"pepper")
        lines = startup.first_start(settings)
        assert not any(line.startswith("curl ") for line in lines)
        assert any(line.startswith("password: ") for line in lines)
        db.engine.dispose()
