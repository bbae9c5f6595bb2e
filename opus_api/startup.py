"""From nothing to a running service: `python wsgi.py` checks, migrates, makes what the first start needs, serves."""

import json
import os
import secrets
import shlex
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask_migrate import upgrade

from opus_api import config, create_app, database
from opus_api.config import ROOT, ConfigError, Settings
from opus_api.extensions import db
from opus_api.preflight import check_free, check_state
from opus_api.services import api_keys, passwords, users
from opus_api.services.settings import installation
from opus_api.version import __version__
from opus_api.wire.errors import ApiError, NotFound

MODEL = "claude-sonnet-4.5"  # the practice provider answers to every name


def main() -> None:
    """Never returns: becomes gunicorn, or ends with one sentence and code 1."""
    try:
        settings = config.load()
        check_state(settings.web_concurrency, settings.redis_url)
        check_free(settings.host, settings.port)
        app = create_app(settings)
        with app.app_context(), database.migrating(db.engine):  # of two first starts one finds everything made
            migrate(settings)
            lines = first_start(settings)
    except (ConfigError, ApiError) as error:
        sys.exit(str(error))
    sys.stdout.write("\n".join([f"Opus API {__version__} on {address(settings)}", *lines, ""]))
    sys.stdout.flush()  # exec does not
    os.chdir(ROOT)
    arguments = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]
    os.execv(sys.executable, arguments)  # noqa: S606 - our own words, no shell needed


def address(settings: Settings) -> str:
    """Where this machine reaches the service."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


# --- Migrations -------------------------------------------------------------------------------------------------------


def migrate(settings: Settings) -> None:
    """Bring the schema up to date, whole or not at all. An SQLite file with data is copied first.

    Raises ConfigError.
    """
    with database.migrating(db.engine):
        present, newest = _revisions()
        if present == newest:
            return
        try:
            if settings.on_sqlite and present:
                _backup(Path(str(db.engine.url.database)), present)
            upgrade()
        except (Exception, SystemExit) as error:  # whatever it was: never start on half a schema
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            kept = "look at it before the next start" if db.engine.dialect.name == "mysql" else "it is as it was before"
            raise ConfigError(f"The database could not be migrated ({reason}); {kept}.") from error


def _revisions() -> tuple[str | None, str | None]:
    """What the database has, and what this version brings."""
    newest = ScriptDirectory(str(ROOT / "migrations")).get_current_head()
    with db.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision(), newest


def _backup(file: Path, revision: str) -> None:
    """A consistent copy, unlike ``cp``, which misses what is still in the write-ahead log."""
    backup = file.with_name(f"{file.name}.before-upgrade-from-{revision}")
    backup.unlink(missing_ok=True)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("VACUUM INTO ?", (str(backup),))
    backup.chmod(0o600)


# --- The first start --------------------------------------------------------------------------------------------------


def first_start(settings: Settings) -> list[str]:
    """Make the first administrator and the first key; the lines to print, which hold secrets that are kept nowhere.

    With a user in the database there is nothing to make. Raises ConfigError, ApiError.
    """
    owner = installation(db.session())
    if users.every():
        return []
    given = settings.default_admin_password
    password = given or secrets.token_urlsafe(15)
    users.add(settings.default_admin_username, password, must_change=passwords.is_weak(password))
    lines = [
        "This is the first start; the lines below are shown only once.",
        "",
        f"address: {address(settings)}",
        f"user: {settings.default_admin_username}",
        "The password is the one in DEFAULT_ADMIN_PASSWORD." if given else f"password: {password}",
    ]
    if key := _first_key(owner.pepper):
        told = "It answers in a second or two. Paste this to see a streamed answer:"
        lines += ["", told, "", curl(settings, key), ""]
    return lines


def _first_key(pepper: bytes) -> str | None:
    try:
        api_keys.named("default")
        return None
    except NotFound:
        return api_keys.create(pepper, {"name": "default"})[1]


def curl(settings: Settings, key: str) -> str:
    """A command that works as it stands."""
    question = {"role": "user", "content": "Hello! What are you?"}
    body = {"model": MODEL, "max_tokens": 256, "stream": True, "messages": [question]}
    headers = [f"x-api-key: {key}", "anthropic-version: 2023-06-01", "content-type: application/json"]
    words = ["curl", "-N", f"{address(settings)}/v1/messages"]
    for header in headers:
        words += ["-H", header]
    return shlex.join([*words, "-d", json.dumps(body)])
