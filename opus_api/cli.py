"""The operator's command line: `flask users|keys|accounts|models|logs …`.

Every command takes --json. What goes wrong is one line on standard error and exit code 1.
"""

import functools
import json
import sys
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click
from flask import Flask, current_app
from flask.cli import AppGroup
from sqlalchemy.exc import SQLAlchemyError

from opus_api.config import ConfigError
from opus_api.extensions import db
from opus_api.models import Account
from opus_api.services import (
    account_fields,
    accounts,
    api_keys,
    audit,
    cassettes,
    exchange_log,
    model_rules,
    retention,
    saved_settings,
    users,
)
from opus_api.services.settings import Installation
from opus_api.services.values import FieldError
from opus_api.upstreams import UPSTREAMS
from opus_api.upstreams.base import Failure
from opus_api.wire import jsons
from opus_api.wire.errors import ApiError, NotFound

F = TypeVar("F", bound=Callable[..., Any])

users_group = AppGroup("users", help="People who sign in to the console.")
keys_group = AppGroup("keys", help="API keys that clients present.")
accounts_group = AppGroup("accounts", help="Upstream credentials.")
models_group = AppGroup("models", help="The model map: what the names that clients say stand for.")
logs_group = AppGroup("logs", help="The request log.")


def register(app: Flask) -> None:
    from opus_api import cli_transfer  # noqa: F401 - adds its commands to accounts_group

    for group in (users_group, keys_group, accounts_group, models_group, logs_group):
        app.cli.add_command(group)


def command(group: AppGroup, name: str) -> Callable[[F], click.Command]:
    """A command that returns (what --json prints, what a person reads)."""

    def wrap(function: F) -> click.Command:
        @functools.wraps(function)
        def run(*args: Any, as_json: bool, **kwargs: Any) -> None:
            audit.acts("command line")
            try:
                value, text = function(*args, **kwargs)
            except ApiError as error:
                _fail(error.message)
            except Failure as failure:
                _fail(failure.message)
            except ConfigError as error:
                _fail(str(error))
            except SQLAlchemyError as error:
                missing = "installation" not in current_app.extensions
                _fail(NOT_MIGRATED if missing else f"The database refused this ({type(error).__name__}); try again.")
            click.echo(json_text(value) if as_json else plain(text))

        option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
        made: click.Command = group.command(name)(option(run))
        return made

    return wrap


NOT_MIGRATED = "The database has no tables yet; run: flask db upgrade"


def _fail(sentence: str) -> Any:
    click.echo(plain(" ".join(sentence.split())), err=True)
    sys.exit(1)


def plain(text: str) -> str:
    """Without what would steer a terminal: some of it is what another server said, or a file. Lines stay lines."""
    return "".join("\ufffd" if _steers(one) else one for one in text)


def json_text(value: Any, indent: int | None = None) -> str:
    """The same as JSON, where it can be escaped, so that nothing is lost."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return "".join(json.dumps(one)[1:-1] if _steers(one) else one for one in text)


STEERING = ("Cc", "Cs", "Cn")  # control characters, halves of a character, and what is none
BIDI = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)  # they reorder what is read


def _steers(one: str) -> bool:
    return one not in "\n\t" and (unicodedata.category(one) in STEERING or one in BIDI)


def secret(from_stdin: bool, prompt: str, confirm: bool = False) -> str:
    """One line of standard input, or what a person types."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if sys.stdin.isatty():
        typed: str = click.prompt(prompt, hide_input=True, confirmation_prompt=confirm)
        return typed
    return ""


def _table(rows: Iterable[Iterable[Any]], header: tuple[str, ...]) -> str:
    """Columns as wide as what stands in them."""
    cells = [header, *(tuple("" if cell is None else str(cell) for cell in row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def _list(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"data": rows, "total": len(rows)}


# --- users


PASSWORD_STDIN = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")


@command(users_group, "create")
@click.argument("name")
@PASSWORD_STDIN
def users_create(name: str, password_stdin: bool) -> tuple[Any, str]:
    """Create a user; asks for the password."""
    user = users.create(name, _password(password_stdin))
    return users.as_json(user), f"Created user {user.username}."


@command(users_group, "list")
def users_list() -> tuple[Any, str]:
    """List users."""
    rows = [users.as_json(user) for user in users.every()]
    return _list(rows), _table(
        ([row["id"], row["username"], row["created_at"]] for row in rows), ("ID", "NAME", "CREATED")
    )


@command(users_group, "password")
@click.argument("name")
@PASSWORD_STDIN
def users_password(name: str, password_stdin: bool) -> tuple[Any, str]:
    """Set a new password; signs the user out everywhere."""
    user = users.named(name)
    users.set_password(user, _password(password_stdin))
    return users.as_json(user), f"Changed the password of {user.username}."


@command(users_group, "delete")
@click.argument("name")
def users_delete(name: str) -> tuple[Any, str]:
    """Delete a user who owns no accounts."""
    user = users.named(name)
    shown = users.as_json(user)
    users.delete(user)
    return shown, f"Deleted user {name}."


def _password(from_stdin: bool) -> str:
    password = secret(from_stdin, "Password", confirm=True)
    if not password:
        raise FieldError("password", "is required; pipe it in and say --password-stdin.")
    return password


# --- keys


@command(keys_group, "create")
@click.argument("name")
@click.option("--value", help="The key itself, 16 characters or more; made up when left away.")
@click.option("--override", is_flag=True, help="It may bring its own upstream credential.")
def keys_create(name: str, value: str | None, override: bool) -> tuple[Any, str]:
    """Create an API key and print it, this once."""
    owner: Installation | None = current_app.extensions.get("installation")
    if owner is None:
        raise ConfigError(NOT_MIGRATED)
    key, secret = api_keys.create(owner.pepper, {"name": name, "value": value, "override": override})
    return {**api_keys.as_json(key), "key": secret}, secret


@command(keys_group, "list")
def keys_list() -> tuple[Any, str]:
    """List API keys, revoked ones too."""
    rows = [api_keys.as_json(key) for key in api_keys.every()]
    shown = ([r["id"], r["name"], f"…{r['hint']}", r["last_used"], r["revoked_at"]] for r in rows)
    return _list(rows), _table(shown, ("ID", "NAME", "KEY", "LAST USED", "REVOKED"))


@command(keys_group, "revoke")
@click.argument("name")
def keys_revoke(name: str) -> tuple[Any, str]:
    """Revoke an API key; it stops working within a second."""
    key = api_keys.named(name)
    api_keys.revoke(key)
    return api_keys.as_json(key), f"Revoked key {name}."


# --- accounts


@command(accounts_group, "add")
@click.option("--provider", default="morph", show_default=True, help="amazonq, anthropic, openai or morph.")
@click.option("--name", required=True)
@click.option("--api-key", help="The credential; better --api-key-stdin, which leaves no trace in your shell.")
@click.option("--api-key-stdin", is_flag=True, help="Read the credential from standard input.")
@click.option("--session-key", help="Kept for export, never sent.")
@click.option("--base-url", help="Default: the provider's own.")
@click.option("--models", help="Comma-separated globs; default: what the provider lists.")
@click.option("--map", "mapped", multiple=True, metavar="PATTERN=MODEL", help="May be given several times.")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="May be given several times.")
@click.option("--priority", type=int, default=0, show_default=True, help="Larger is used first.")
@click.option("--max-concurrency", type=int, default=0, help="Requests at the same time; 0: no limit.")
@click.option("--proxy", help="For this account alone, e.g. http://proxy.example:3128.")
@click.option("--refresh-token-stdin", is_flag=True, help="amazonq: read it from standard input, alone or in JSON.")
@click.option("--client-id", help="amazonq: the client that the refresh token was issued to.")
@click.option("--client-secret", help="amazonq: better in the JSON of --refresh-token-stdin.")
@click.option("--region", help="amazonq: where it was signed in to, e.g. us-east-1.")
@click.option("--start-url", help="amazonq: default https://view.awsapps.com/start.")
@click.option("--profile-arn", help="amazonq: of an organisation's account.")
def accounts_add(
    provider: str,
    api_key: str | None,
    api_key_stdin: bool,
    models: str | None,
    mapped: tuple[str, ...],
    options: tuple[str, ...],
    refresh_token_stdin: bool,
    client_id: str | None,
    client_secret: str | None,
    region: str | None,
    start_url: str | None,
    profile_arn: str | None,
    **plain: Any,
) -> tuple[Any, str]:
    """Add an account; it is saved even when its provider cannot be reached."""
    provider = account_fields.provider(provider)
    if not api_key and (api_key_stdin or _needs_key(provider)):
        api_key = secret(api_key_stdin, "API key")
    data: dict[str, Any] = {
        "provider": provider,
        "api_key": api_key,
        "models": None if models is None else [glob.strip() for glob in models.split(",") if glob.strip()],
        "model_map": dict(_pair(pair) for pair in mapped),
        "options": dict(account_fields.option_from_text(provider, word) for word in options),
    }
    if oidc := _given(region=region, start_url=start_url, profile_arn=profile_arn):
        data["oidc"] = oidc
    data |= _given(client_id=client_id, client_secret=client_secret)
    if refresh_token_stdin:
        data |= _tokens(sys.stdin.read().strip())
    first = all(account.provider != provider for account in service().all())
    account = service().create(data | plain)
    return accounts.as_json(account), _added(account, first)


def _given(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def _tokens(text: str) -> dict[str, str]:
    """A bare refresh token, or JSON as sign-in tools keep it: refreshToken, clientId, clientSecret."""
    try:
        found = jsons.loads(text) if text.lstrip().startswith("{") else {"refreshToken": text}
    except jsons.JsonError:
        raise FieldError("refresh_token", "is no JSON.") from None
    names = {"refresh_token": "refreshToken", "client_id": "clientId", "client_secret": "clientSecret"}
    return _given(**{name: found.get(camel) or found.get(name) for name, camel in names.items()})


def _needs_key(provider: str) -> bool:
    return any(field.name == "api_key" and field.required for field in UPSTREAMS[provider].fields)


def _pair(word: str) -> tuple[str, str]:
    pattern, equals, model = word.partition("=")
    if not equals:
        raise FieldError("map", "must be given as PATTERN=MODEL.")
    return pattern, model


def _added(account: Account, first: bool) -> str:
    lines = [f"Added {account.provider} account {account.name} (id {account.id}), {account.state}."]
    if account.state_reason:
        lines.append(account.state_reason)
    if account.listed_models is not None:
        lines.append(f"It lists {len(account.listed_models)} models.")
    if first and not account.model_map and account.models is None and not UPSTREAMS[account.provider].model_names:
        model = next(iter(account.listed_models or []), "MODEL")
        lines.append(
            "Claude's model names reach it once a rule says so, for example: "
            f"flask models map 'claude-*' '{account.provider}/{model}'"
        )
    return "\n".join(lines)


@command(accounts_group, "list")
def accounts_list() -> tuple[Any, str]:
    """List accounts."""
    rows = [accounts.as_json(account) for account in service().all()]
    shown = ([r["id"], r["provider"], r["name"], r["state"], r["state_reason"], r["usage_count"]] for r in rows)
    return _list(rows), _table(shown, ("ID", "PROVIDER", "NAME", "STATE", "REASON", "USED"))


@command(accounts_group, "validate")
@click.argument("names", nargs=-1)
def accounts_validate(names: tuple[str, ...]) -> tuple[Any, str]:
    """Ask the providers whether credentials work; without a name, of all accounts."""
    result = service().validate_all(_named(names))
    by_id = {account.id: account for account in service().all()}
    rows = ([by_id[r["id"]].name, r["state"], f"{r['latency_ms']} ms", r["message"]] for r in result["results"])
    return result, _table(rows, ("NAME", "STATE", "TOOK", "ANSWER"))


@command(accounts_group, "reset")
@click.argument("names", nargs=-1)
def accounts_reset(names: tuple[str, ...]) -> tuple[Any, str]:
    """Clear cooling and counters; without a name, of all accounts."""
    return _each(names, service().reset, "Reset")


@command(accounts_group, "enable")
@click.argument("names", nargs=-1, required=True)
def accounts_enable(names: tuple[str, ...]) -> tuple[Any, str]:
    """Let accounts be used again."""
    return _each(names, service().enable, "Enabled")


@command(accounts_group, "disable")
@click.argument("names", nargs=-1, required=True)
def accounts_disable(names: tuple[str, ...]) -> tuple[Any, str]:
    """Take accounts out until they are enabled."""
    return _each(names, service().disable, "Disabled")


@command(accounts_group, "delete")
@click.argument("names", nargs=-1, required=True)
def accounts_delete(names: tuple[str, ...]) -> tuple[Any, str]:
    """Delete accounts; for 30 days the console can restore them."""
    rows = [accounts.as_json(account) for account in _named(names)]
    for row in rows:
        service().delete(row["id"])
    return _list(rows), f"Deleted {', '.join(row['name'] for row in rows)}."


def service() -> accounts.Accounts:
    service: accounts.Accounts = current_app.extensions["accounts"]
    return service


def _named(names: tuple[str, ...]) -> list[Account]:
    """All of them when no name is given. A name may be PROVIDER/NAME. Raises NotFound, Conflict."""
    return [_account(name) for name in names] if names else list(service().all())


def _account(name: str) -> Account:
    provider, slash, rest = name.partition("/")
    if slash and provider in UPSTREAMS:
        try:
            return service().named(rest, provider)
        except NotFound:  # a name may hold a slash of its own
            pass
    return service().named(name)


def _each(names: tuple[str, ...], change: Callable[[int], Account], done: str) -> tuple[Any, str]:
    found = [account.id for account in _named(names)]
    rows = [accounts.as_json(change(account_id)) for account_id in found]
    return _list(rows), f"{done} {', '.join(row['name'] for row in rows) or 'nothing: there are no accounts'}."


# --- models


@command(models_group, "list")
def models_list() -> tuple[Any, str]:
    """List the rules of the model map."""
    rows = [model_rules.as_json(rule) for rule in model_rules.every()]
    return _list(rows), _table(([row["pattern"], row["target"]] for row in rows), ("PATTERN", "TARGET"))


@command(models_group, "map")
@click.argument("pattern")
@click.argument("target")
def models_map(pattern: str, target: str) -> tuple[Any, str]:
    """Let PATTERN (a name or a glob) stand for TARGET (PROVIDER/MODEL or a model)."""
    rule = model_rules.put(pattern, target)
    return model_rules.as_json(rule), f"{rule.pattern} now stands for {rule.target}."


@command(models_group, "unmap")
@click.argument("pattern")
def models_unmap(pattern: str) -> tuple[Any, str]:
    """Remove a rule."""
    model_rules.remove(pattern)
    return {"pattern": pattern}, f"Removed the rule for {pattern}."


# --- logs


@command(logs_group, "cassette")
@click.argument("request_id")
@click.option("--to", "target", type=click.Path(path_type=Path), help="Folder to write; default: its id, here.")
def logs_cassette(request_id: str, target: Path | None) -> tuple[Any, str]:
    """Make a golden folder for tests from an exchange that debugLog has kept. It holds what was said."""
    folder = exchange_log.root(current_app.extensions["settings"])
    kept = exchange_log.find(folder, request_id)
    if kept is None:
        raise NotFound(f"Nothing was kept of {request_id} in {folder}; debugLog must be on when it runs.")
    target = target or Path(request_id)
    try:
        names = cassettes.make(kept, target)
    except OSError as error:
        raise ConfigError(f"{target} cannot be written ({error.strerror}).") from None
    return {"folder": str(target), "files": names}, f"Made {target}: {', '.join(names)}. Read it before you share it."


@command(logs_group, "purge")
@click.option("--days", type=click.IntRange(0), help="Keep so many; default: logRetentionDays, and logRetentionMiB.")
def logs_purge(days: int | None) -> tuple[Any, str]:
    """Delete old rows of the request log."""
    kept = saved_settings.log_days() if days is None else days
    deleted = retention.purge_logs(db.engine, kept)
    said = f"older than {kept} days"
    if days is None:
        room = saved_settings.log_mib()
        deleted += retention.shrink_logs(db.engine, room)
        said += f" or beyond {room} MiB"
    return {"deleted": deleted}, f"Deleted {deleted} rows {said}."
