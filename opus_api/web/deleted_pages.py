"""The pages of accounts that were deleted: list, restore, erase."""

from typing import Any

from flask import flash, redirect, render_template, request, url_for
from flask_babel import gettext
from werkzeug.wrappers import Response

from opus_api.models import DeletedAccount
from opus_api.services import deleted_accounts
from opus_api.upstreams import UPSTREAMS
from opus_api.web.console import page_blueprint, visible
from opus_api.wire.errors import Conflict

bp = page_blueprint("deleted_pages")

PER_PAGE = 20


@bp.get("/cookies/deleted")
def index() -> str:
    """Which there are, who deleted them, when they are erased."""
    rows = [_row(found) for found in deleted_accounts.all_()]
    pages = max(1, -(-len(rows) // PER_PAGE))
    page = min(max(1, request.args.get("page", 1, type=int)), pages)
    shown = rows[(page - 1) * PER_PAGE : page * PER_PAGE]
    return render_template("cookies/deleted.html", rows=shown, page=page, pages=pages)


def _row(found: DeletedAccount) -> dict[str, Any]:
    upstream = UPSTREAMS.get(found.provider)
    return {
        "id": found.id,
        "name": visible(found.name),
        "label": upstream.label if upstream else found.provider,
        "deleted_at": found.deleted_at,
        "deleted_by": visible(found.deleted_by),
        "erased_at": deleted_accounts.erased_at(found),
    }


@bp.post("/cookies/deleted/<int:deleted_id>/restore")
def restore(deleted_id: int) -> Response:
    """It serves again, unless it was disabled."""
    name = deleted_accounts.get(deleted_id).name
    try:
        deleted_accounts.restore(deleted_id)
    except Conflict:
        said = gettext("Another account is named %(name)s by now. Rename that one, then restore this one.", name=name)
        flash(said, "error")
        return redirect(url_for(".index"))
    flash(gettext("%(name)s is back as it was.", name=name), "success")
    return redirect(url_for("cookies_pages.edit", account_id=deleted_id))


@bp.get("/cookies/deleted/<int:deleted_id>/erase")
def erasing(deleted_id: int) -> str:
    """Asks first."""
    return render_template("cookies/erase.html", row=_row(deleted_accounts.get(deleted_id)))


@bp.post("/cookies/deleted/<int:deleted_id>/erase")
def erase(deleted_id: int) -> Response:
    """Erases the account with its credential."""
    name = deleted_accounts.get(deleted_id).name
    deleted_accounts.erase(deleted_id)
    flash(gettext("%(name)s was erased with its credential.", name=name), "success")
    return redirect(url_for(".index"))
