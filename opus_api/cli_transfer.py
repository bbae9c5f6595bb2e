"""`flask accounts export|import|pull|rotate-key`: accounts between installations, and under another encryption key."""

import sys
from pathlib import Path
from typing import Any

import click
from flask import current_app

from opus_api.cli import PASSWORD_STDIN, accounts_group, command, json_text, secret, service
from opus_api.extensions import db
from opus_api.services import rekeying, transfer
from opus_api.wire import jsons
from opus_api.wire.errors import InvalidRequest


@accounts_group.command("export")
@click.option("--secrets", is_flag=True, help="With credentials in plain text, as `import` needs them.")
@click.option("--json", "_", is_flag=True, help="It is JSON either way.")
def accounts_export(secrets: bool, _: bool) -> None:
    """Print all accounts, for `flask accounts import` elsewhere."""
    click.echo(json_text(transfer.export(service(), secrets), indent=1))


@command(accounts_group, "import")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True, dir_okay=False))
def accounts_import(file: Path) -> tuple[Any, str]:
    """Take in an export; accounts that are here already are skipped. FILE - reads standard input."""
    result = transfer.import_(service(), _document(file), None)
    return result, _told(result)


def _document(file: Path) -> dict[str, Any]:
    try:
        text = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        document = jsons.loads_strict(text)
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read ({error.strerror}).") from None
    except jsons.JsonError:
        raise InvalidRequest(f"{file} is not JSON.") from None
    if not isinstance(document, dict):
        raise InvalidRequest(f"{file} is not an export of accounts.")
    return document


@command(accounts_group, "pull")
@click.option("--from", "url", required=True, metavar="URL", help="Address of the other installation.")
@click.option("--username", default="admin", show_default=True, help="A user there.")
@PASSWORD_STDIN
def accounts_pull(url: str, username: str, password_stdin: bool) -> tuple[Any, str]:
    """Copy accounts with their credentials from another installation; again and again without duplicates."""
    password = secret(password_stdin, f"Password of {username} at {url}")
    document = current_app.extensions["transport"].run(transfer.pull(url, username, password), deadline=60.0)
    result = transfer.import_(service(), document, None)
    return result, _told(result)


@command(accounts_group, "rotate-key")
def accounts_rotate_key() -> tuple[Any, str]:
    """Encrypt every stored secret with the first key of ENCRYPTION_KEYS; the service may go on meanwhile."""
    done = rekeying.rotate(db.engine)
    return {"rotated": done}, f"{done} secrets are encrypted with the first key; older keys may be taken out."


def _told(result: dict[str, Any]) -> str:
    lines = [f"{result['created']} accounts created, {result['skipped']} were here already."]
    return "\n".join([*lines, *(f"account {row['index']}: {row['message']}" for row in result["errors"])])
