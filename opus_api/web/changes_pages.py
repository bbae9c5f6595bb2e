"""The page of changes: who changed what and when, from what to what. Its filters live in the address."""

import json
from typing import Any

from flask import render_template, request

from opus_api.models import Change
from opus_api.services import audit
from opus_api.web.console import page_blueprint

bp = page_blueprint("changes_pages")

PER_PAGE = 30


@bp.get("/changes")
def index() -> str:
    """The newest first, page by page by the last one seen, so that a page stays the same while others are added."""
    who, what = request.args.get("who", ""), request.args.get("what", "")
    found = audit.newest(PER_PAGE + 1, request.args.get("before", type=int), who, what)
    shown = found[:PER_PAGE]
    return render_template(
        "changes.html",
        changes=[_row(change) for change in shown],
        who=who,
        what=what,
        is_first="before" not in request.args,
        older=shown[-1].id if len(found) > PER_PAGE else None,
    )


def _row(change: Change) -> dict[str, Any]:
    hidden = change.before is None and change.after is None
    return {
        "time": change.created_at,
        "who": change.who,
        "what": change.what,
        "before": None if hidden else _said(change.before),
        "after": None if hidden else _said(change.after),
    }


def _said(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
