"""The front page: how today goes, what happened over time, which accounts need somebody, what runs now."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from babel.dates import format_skeleton
from flask import current_app, redirect, render_template, request, url_for
from flask_babel import format_datetime, get_locale, gettext
from werkzeug.wrappers import Response

from opus_api.extensions import db
from opus_api.gateway.gateway import Live
from opus_api.models import now
from opus_api.services import metrics, overview, statistics
from opus_api.services.overview import Period
from opus_api.web import charts
from opus_api.web.console import page_blueprint
from opus_api.web.cookies import accounts
from opus_api.web.cookies_pages import Row, row_of, summary_of

bp = page_blueprint("dashboard_pages")

MOST_MODELS = MOST_TROUBLED = MOST_LIVE = 8


@bp.get("/dashboard")
def index() -> str:
    """Everything at a glance; one period for all charts."""
    period = overview.PERIODS.get(request.args.get("period", ""), overview.PERIODS["24h"])
    moment, connection = now(), db.session.connection()
    entries = overview.series(connection, period, moment)
    models = statistics.answer(connection, "model", moment - period.length * period.count, None)
    rows = [row_of(account) for account in accounts().all()]
    live = current_app.extensions["gateway"].live()[:MOST_LIVE]
    # Only how many there are is known of other workers, a moment apart from this one's list.
    live_count = max(metrics.live(), len(live))
    settings = current_app.extensions["settings"]
    steps = overview.first_steps(connection, moment, settings.anonymous_access)
    return render_template(
        "dashboard.html",
        period=period,
        periods=list(overview.PERIODS),
        steps=steps,
        figures=overview.figures(connection, moment),
        charts=_charts(entries, period),
        models=models[:MOST_MODELS],
        summary=summary_of(rows),
        troubled=_troubled(rows),
        live=[_live(one) for one in live],
        live_count=live_count,
        is_one_of_several=bool(settings.redis_url),  # machines, perhaps: the count ends with this one
        live_more=live_count - len(live),
        is_new=not (rows or all(steps.values()) or any(entry["requests"] for entry in entries)),
    )


@bp.get("/static/dashboard.html")
@bp.get("/static/index.html")
def old_address() -> Response:
    """Where older documents say the console is."""
    return redirect(url_for(".index"))


def _charts(entries: Sequence[dict[str, Any]], period: Period) -> dict[str, charts.Chart]:
    labels = [_label(entry["key"], period) for entry in entries]

    def column(name: str) -> list[Any]:
        return [entry[name] for entry in entries]

    good = [entry["requests"] - entry["errors"] for entry in entries]
    return {
        "requests": charts.stacked(labels, good, column("errors")),
        "tokens": charts.stacked(labels, column("input_tokens"), column("output_tokens")),
        "errors": charts.stacked(labels, column("errors")),
        "latency": charts.lines(labels, column("p50_ms"), column("p95_ms")),
    }


def _label(key: str, period: Period) -> str:
    if period.by == "hour":
        return str(format_datetime(datetime.fromisoformat(key), "HH:mm", rebase=False))
    return str(format_skeleton("MMMd", datetime.fromisoformat(key), locale=get_locale())) if key else key


def _troubled(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.state in ("cooling", "invalid")][:MOST_TROUBLED]


def _live(one: Live) -> dict[str, Any]:
    return {
        "model": one.model,
        "account": one.account,
        "seconds": round(time.monotonic() - one.began),
        "state": gettext("answering") if one.has_content else gettext("waiting"),
        "request_id": one.request_id,
    }
