"""Accounts as a table: what an export holds as CSV, and back. Pure."""

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from opus_api.services.account_fields import SECRETS
from opus_api.wire import jsons
from opus_api.wire.errors import Phrase, Unprocessable

PLAIN = ("provider", "name", "state", "base_url", "proxy", *SECRETS)  # text as it is
NUMBERS = ("priority", "max_concurrency")
STRUCTURED = ("models", "model_map", "options", "oidc")  # JSON in a cell; models may be names between commas as well
HINTS = ("api_key_hint", "session_key_hint")
NEEDED = ("provider", "name")
COLUMNS = ("provider", "name", "state", *NUMBERS, "base_url", *STRUCTURED, "proxy", *HINTS, *SECRETS)
# A spreadsheet reads a cell that begins with one of these as a formula; the quote makes it text, and quotes itself.
FORMULA = ("=", "+", "-", "@", "\t", "\r")
QUOTE = "'"


def written(accounts: Iterable[Mapping[str, Any]]) -> str:
    """A header line with the columns that any account fills, then a line for each."""
    rows = [{name: _cell(value) for name, value in account.items()} for account in accounts]
    used = [name for name in COLUMNS if name in NEEDED or any(row.get(name) for row in rows)]
    out = io.StringIO()
    writer = csv.DictWriter(out, used, restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _cell(value: Any) -> str:
    if value is None or value in ([], {}):
        return ""
    text = jsons.dumps(value).decode() if isinstance(value, list | dict) else str(value)
    return QUOTE + text if text.startswith((*FORMULA, QUOTE)) else text


def read(text: str) -> tuple[list[dict[str, Any]], bool]:
    """The accounts of a table, and whether it has no column of credentials. Commas or semicolons are between cells.

    Raises Unprocessable, which names the column or the line.
    """
    head, _, _ = text.partition("\n")
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=";" if head.count(";") > head.count(",") else ",")
    try:
        names = _header(next(rows, []))
        accounts = [_account(names, cells, rows.line_num) for cells in rows if any(cells)]
    except csv.Error as error:
        raise Unprocessable(
            Phrase("line %(line)s: is no line of a CSV table (%(error)s).", line=rows.line_num, error=error)
        ) from None
    return accounts, not set(SECRETS) & set(names)


def _header(cells: list[str]) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    for name in NEEDED:
        if name not in names:
            raise Unprocessable(
                Phrase("%(name)s: there is no such column; the first line must name the columns.", name=name)
            )
    for number, name in enumerate(names):
        if name not in COLUMNS:
            raise Unprocessable(
                Phrase("%(name)s: is no column of an account.", name=name[:40] or Phrase("column %(n)s", n=number + 1))
            )
        if name in names[:number]:
            raise Unprocessable(Phrase("%(name)s: there are two columns of that name.", name=name))
    return names


def _account(names: list[str], cells: list[str], line: int) -> dict[str, Any]:
    if len(cells) > len(names):
        raise Unprocessable(
            Phrase(
                "line %(line)s: has %(cells)s cells, %(columns)s columns are named.",
                line=line,
                cells=len(cells),
                columns=len(names),
            )
        )
    given = {name: _text(cell) for name, cell in zip(names, cells, strict=False)}
    return {name: _value(name, text) for name, text in given.items() if text and name not in HINTS}


def _text(cell: str) -> str:
    return cell[1:] if cell.startswith(QUOTE) and cell[1:].startswith((*FORMULA, QUOTE)) else cell


def _value(name: str, text: str) -> Any:
    """What is no number or no JSON stays text: the check of the field says what it must be."""
    if name in NUMBERS:
        return int(text) if text.strip().removeprefix("-").isdecimal() and len(text) < 20 else text
    if name not in STRUCTURED:
        return text
    if name == "models" and not text.lstrip().startswith("["):
        return [word.strip() for word in text.split(",") if word.strip()]
    try:
        return jsons.loads_strict(text)  # it is to be stored
    except jsons.JsonError:
        return text
