"""Keeps the catalogs of translations/ in step with the console: collect what is said, update the .po, compile the .mo.

`make translations` writes; with --check nothing is written, and what a person still has to do is named with code 1.
The compiled files are kept in the repository, so that no installation needs a build step.
"""

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from opus_api.services.saved_settings import SAVED  # noqa: E402
from opus_api.upstreams import UPSTREAMS  # noqa: E402

LOCALES = ("zh_Hans_CN",)
WRITTEN = datetime(2026, 1, 1, tzinfo=UTC)
METHODS = [
    ("opus_api/web/*_pages.py", "python"),
    ("opus_api/web/checks.py", "python"),
    ("opus_api/web/priorities.py", "python"),
    ("opus_api/web/console.py", "python"),
    ("opus_api/web/errors.py", "python"),
    ("opus_api/web/forms.py", "python"),
    ("opus_api/web/*_forms.py", "python"),
    ("opus_api/services/**.py", "python"),
    ("opus_api/transport/guard.py", "python"),
    ("opus_api/upstreams/amazonq_probe.py", "python"),
    ("opus_api/upstreams/models_list.py", "python"),
    ("templates/**.html", "jinja2"),
]
# Besides the usual gettext names: refusals, whose texts forms and error pages look up when they show them.
REFUSALS = "Conflict NotFound Unauthorized RateLimited Forbidden Unprocessable TooLarge InvalidRequest ValueError"
KEYWORDS = {
    "_": None,
    "gettext": None,
    "ngettext": (1, 2),
    "_l": None,
    "Phrase": None,
    "abort": (2,),
    "FieldError": (2,),
    **dict.fromkeys([*REFUSALS.split(), "AddressRefused"], (1,)),
}
OPTIONS = {"templates/**.html": {"trimmed": "true", "silent": "false"}}


def said() -> Iterator[str | tuple[str, ...]]:
    """Every text that may be shown."""
    for _, _, text, _, _ in extract_from_dir(ROOT, METHODS, OPTIONS, KEYWORDS):
        if text:
            yield text
    for upstream in UPSTREAMS.values():
        for field in upstream.fields:
            yield from filter(None, (field.label, field.help))
        yield from filter(None, (option.help for option in upstream.options))
        if upstream.terms:
            yield upstream.terms
    for setting in SAVED.values():
        yield from (setting.section, setting.label, setting.help)


def updated(locale: str) -> Catalog:
    """The catalog as it is, plus what is new, without what nobody says any more."""
    path = po(locale)
    known = read(path, locale)
    catalog = Catalog(
        locale, project="Opus API", version="console", header_comment="# What the console says.", fuzzy=False
    )
    catalog.creation_date = catalog.revision_date = WRITTEN  # a date of its own would change with every run
    for text in sorted(set(said()), key=str):
        message = known.get(text)
        catalog.add(text, message.string if message else "")
    return catalog


def po(locale: str) -> Path:
    return ROOT / "translations" / locale / "LC_MESSAGES" / "messages.po"


def read(path: Path, locale: str) -> Catalog:
    return read_po(BytesIO(path.read_bytes() if path.exists() else b""), locale)


def compiled(catalog: Catalog) -> bytes:
    buffer = BytesIO()
    write_mo(buffer, catalog)
    return buffer.getvalue()


def untranslated(catalog: Catalog) -> list[Message]:
    return [message for message in catalog if message.id and not message.string]


def write(locale: str) -> None:
    catalog = updated(locale)
    path = po(locale)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_po(file, catalog, width=120, omit_header=False, sort_output=True, no_location=True)
    path.with_suffix(".mo").write_bytes(compiled(catalog))
    for message in untranslated(catalog):
        print(f"{locale}: no translation yet: {message.id!r}")


def wrong(locale: str) -> list[str]:
    """What `make translations`, or a translator, still has to do."""
    catalog = updated(locale)
    found = [f"{locale}: no translation of {message.id!r}" for message in untranslated(catalog)]
    found += [f"{locale}: {error}" for message, errors in catalog.check() for error in errors]
    path = po(locale).with_suffix(".mo")
    if not path.exists() or path.read_bytes() != compiled(read(po(locale), locale)):
        found.append(f"{path.relative_to(ROOT)} is out of date; type: make translations")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        for locale in LOCALES:
            write(locale)
        return 0
    problems = [problem for locale in LOCALES for problem in wrong(locale)]
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
