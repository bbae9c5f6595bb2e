"""The pages that export accounts to a file and import them from one. Both ask for the password again."""

from typing import Any

from flask import Response, current_app, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from flask_babel import lazy_gettext as _l
from flask_login import current_user
from flask_wtf.file import FileField, FileRequired
from wtforms import BooleanField, PasswordField, SelectField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined] # its stubs are of WTForms 3.2

from opus_api.models import now
from opus_api.services import transfer, transfer_csv, users
from opus_api.services.values import FieldError
from opus_api.web import auth
from opus_api.web.console import page_blueprint
from opus_api.web.cookies import accounts
from opus_api.web.forms import PageForm
from opus_api.web.languages import in_words
from opus_api.wire.errors import ApiError, Unprocessable

bp = page_blueprint("transfer_pages")

MOST_ERRORS = 50  # that a page shows
TYPES = {"json": "application/json", "csv": "text/csv; charset=utf-8"}


def _password() -> PasswordField:
    return PasswordField(
        _l("Your password"),
        description=_l("Asked again, because credentials are moved."),
        render_kw={"autocomplete": "current-password"},
    )


class ExportForm(PageForm):
    format = SelectField(
        _l("Format"), choices=[SelectChoice("json", "JSON"), SelectChoice("csv", _l("CSV, for a spreadsheet"))]
    )
    secrets = BooleanField(
        _l("With credentials"),
        description=_l("Needed to import the accounts elsewhere. Keep such a file as you keep a password."),
    )
    password = _password()


class ImportForm(PageForm):
    file = FileField(
        _l("File"),
        [FileRequired(_l("Choose a file."))],
        description=_l("JSON or CSV as the export writes it, with credentials; at most 5 MiB and 1,000 accounts."),
        render_kw={"accept": ".json,.csv,application/json,text/csv"},
    )
    password = _password()


@bp.get("/cookies/export")
def export() -> str:
    """What to export, and how."""
    return _export_page(ExportForm(formdata=None))


@bp.post("/cookies/export")
def download() -> ResponseReturnValue:
    """The file. With credentials it is noted before it is made, and made three times an hour at most."""
    form = ExportForm()
    if not form.validate_on_submit():
        return _export_page(form)
    try:
        if form.secrets.data:
            auth.confirm_again(form.password.data, gettext("is needed."))
            transfer.note_export(current_user.username)
    except ApiError as error:
        form.refuse(error)
        return _export_page(form)
    found = transfer.export(accounts(), with_secrets=form.secrets.data)
    return _file(found, form.format.data)


def _export_page(form: ExportForm) -> str:
    is_confirmed = users.is_confirmed(current_user.session)
    return render_template("cookies/export.html", form=form, is_confirmed=is_confirmed, total=len(accounts().all()))


def _file(found: dict[str, Any], kind: str) -> Response:
    text = transfer_csv.written(found["accounts"]) if kind == "csv" else current_app.json.dumps(found, indent=2) + "\n"
    response = Response(text, content_type=TYPES[kind])
    response.headers["Content-Disposition"] = f'attachment; filename="opus-accounts-{now():%Y-%m-%d}.{kind}"'
    return response


@bp.get("/cookies/import")
def choose() -> str:
    """Which file."""
    return _import_page(ImportForm(formdata=None))


@bp.post("/cookies/import")
def import_() -> ResponseReturnValue:
    """Says what is in a file, or (``save``) takes it in. The page never holds the file: it is chosen again."""
    form = ImportForm()
    if not form.validate_on_submit():
        return _import_page(form)
    try:
        auth.confirm_again(form.password.data, gettext("is needed."))
        document = transfer.document_of(form.file.data.read(transfer.LARGEST + 1))
        if "save" not in request.form:
            found = transfer.preview(accounts(), document, current_user.id).as_json()
            return _import_page(form, found, document)
        found = transfer.import_(accounts(), document, current_user.id)
    except ApiError as error:
        _refuse(form, error)
        return _import_page(form)
    flash(gettext("%(created)s accounts were imported, %(skipped)s were here already.", **_counts(found)), "success")
    return (
        _import_page(form, found, document, saved=True) if found["errors"] else redirect(url_for("cookies_pages.index"))
    )


def _refuse(form: ImportForm, error: ApiError) -> None:
    """What is wrong with the file's content belongs to the field of the file."""
    is_own = isinstance(error, FieldError) and error.field == "password"
    if isinstance(error, Unprocessable) and not is_own:
        form.file.errors = [*form.file.errors, in_words(error.message).removeprefix("file: ")]
    else:
        form.refuse(error)


def _counts(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in ("created", "skipped")}


def _import_page(form: ImportForm, found: Any = None, document: Any = None, saved: bool = False) -> str:
    errors = [_told(error, document) for error in (found or {"errors": []})["errors"]]
    return render_template(
        "cookies/import.html",
        form=form,
        found=found,
        saved=saved,
        errors=errors[:MOST_ERRORS],
        more=max(0, len(errors) - MOST_ERRORS),
        is_confirmed=users.is_confirmed(current_user.session),
    )


def _told(error: dict[str, Any], document: Any) -> dict[str, Any]:
    """An error with the number and the name of its account."""
    row = document["accounts"][error["index"]]
    name = row.get("name") if isinstance(row, dict) else None
    return {"number": error["index"] + 1, "name": str(name or "")[:100], "message": in_words(error["message"])}
