"""The page of changes: who changed what and when, from what to what. Its filters live in the address."""

import json
from typing import Any

from flask import render_template, request, url_for

from opus_api.models import Change
from opus_api.services import audit, stored_words
from opus_api.web.console import page_blueprint, visible
from opus_api.web.languages import in_words
from opus_api.wire.errors import Phrase

bp = page_blueprint("changes_pages")

PER_PAGE = 25
LONGEST_LINK = 150  # bytes: what is longer is text, because the page stays under 60 KB
MOST_IN_A_COLUMN = 12  # characters, on a phone; what is longer takes the whole width there


@bp.get("/changes")
def index() -> str:
    """The newest first, page by page by the last one seen, so that a page stays the same while others are added."""
    who, what = request.args.get("who", ""), request.args.get("what", "")
    found = audit.newest(PER_PAGE + 1, request.args.get("before", type=int), who, what)
    shown = found[:PER_PAGE]
    return render_template(
        "changes.html",
        changes=[_row(change, who, what) for change in shown],
        who=who,
        what=what,
        is_first="before" not in request.args,
        older=shown[-1].id if len(found) > PER_PAGE else None,
    )


def _row(change: Change, who: str, what: str) -> dict[str, Any]:
    """``who`` and ``what``: by which the page is filtered."""
    hidden = change.before is None and change.after is None
    title = stored_words.change(change.what)
    is_ours = isinstance(title, Phrase)  # not of a setting, whose values are nobody's words
    before, after = (_said(value, is_ours) for value in (change.before, change.after))
    return {
        "time": change.created_at,
        "who": change.who,
        "what": change.what,
        "title": visible(in_words(title) if is_ours else title),
        "same_what": _link(what=change.what, who=who or None),
        "same_who": _link(who=change.who, what=what or None),
        "before": None if hidden else visible(before),
        "after": visible(after),
        "is_long": max(len(before), len(after)) > MOST_IN_A_COLUMN,
    }


def _link(**filters: Any) -> str | None:
    address = url_for(".index", **filters)
    return address if len(address) <= LONGEST_LINK else None


def _said(value: Any, is_ours: bool) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return in_words(stored_words.state(value)) if is_ours else value
    return json.dumps(value, ensure_ascii=False)
