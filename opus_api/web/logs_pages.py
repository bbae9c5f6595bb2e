"""The pages of the request log: what was asked, filtered by the URL, and what became of one request."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from flask import current_app, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import format_date, gettext
from sqlalchemy import select
from werkzeug.wrappers import Response
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined] # as in forms.py

from opus_api.extensions import db
from opus_api.models import Account, ApiKey, now
from opus_api.services import exchange_log, explanations, logs, statistics
from opus_api.services.logs import Filter
from opus_api.services.values import FieldError
from opus_api.web import brief, charts, faces
from opus_api.web.console import page_blueprint, visible
from opus_api.web.forms import OUTCOMES, LogForm
from opus_api.wire.errors import NotFound

bp = page_blueprint("logs_pages")

# A page stays under 60 KB with its sheet and script.
PER_PAGE, WORDS = 50, 5500  # bytes of models and of names of accounts and keys
MOST_CHOICES = 25  # of each list of the filter, the busiest
LONGEST_REASON = 400  # bytes of HTML: what strangers say can grow a lot where it is made visible
ROOM, ROOM_OF_A_TRY = 15_000, 700  # bytes: for what is shown of files, and what each try takes of it
PERIODS = {
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
    "all": None,
}  # what is asked for when no span is typed
USUAL_PERIOD = "24h"
ASKED = ("period", "before", "request_id", "key", "account", "model", "outcome", "status", "from", "to")
CHOICES = ("key", "account", "model")
NAMED: Mapping[str, type[Account] | type[ApiKey]] = {"key": ApiKey, "account": Account}
Said = Mapping[str, Any]  # the URL's own words
Row = Mapping[str, Any] | sa.RowMapping
Names = Mapping[str, Mapping[str, str]]  # "key" and "account": id -> name


@dataclass(frozen=True, slots=True)
class Chip:
    """One thing that is filtered by, and where it no longer is."""

    label: str
    value: str
    without: str


# --- The list -------------------------------------------------------------------------------------------------------


@bp.get("/logs")
def index() -> ResponseReturnValue:
    """A page of the log. Everything that is asked for stands in the URL."""
    given = {name: value.strip() for name, value in request.args.items() if name in ASKED}
    said: dict[str, Any] = {name: value for name, value in given.items() if value}
    if said != request.args.to_dict():  # what a form sends of fields left alone
        return redirect(url_for(".index", **said))
    if "request_id" in said and _exists(said["request_id"]):
        return redirect(url_for(".show", request_id=said["request_id"]))
    form = LogForm(request.args)
    try:
        wanted = _filter(said)
    except FieldError as error:
        form.refuse(error)
        return render_template("logs/index.html", form=form, **_listed(Filter(), said, form, None))
    if "request_id" in said:
        form.refuse(FieldError("request_id", "There is no such request in the log."))
    return render_template("logs/index.html", form=form, **_listed(wanted, said, form, said.get("before")))


def _exists(request_id: str) -> bool:
    return logs.one(db.session.connection(), request_id) is not None


def _filter(said: Said) -> Filter:
    """Raises FieldError."""
    typed = {name: _with_zone(said[name]) for name in ("from", "to") if name in said}
    wanted = logs.filter_of({**said, **typed})
    length = PERIODS.get(_period(said))
    return replace(wanted, start=now() - length) if length else wanted


def _with_zone(typed: str) -> str:
    """A browser's own field for a time leaves out the zone; ours is UTC."""
    return typed if typed.endswith("Z") or "+" in typed else f"{typed}Z"


def _listed(wanted: Filter, said: Said, form: LogForm, before: str | None) -> dict[str, Any]:
    connection = db.session.connection()
    page = logs.Page([], None) if form.errors else logs.page(connection, wanted, PER_PAGE, before)
    choices = {by: statistics.busiest(connection, by, wanted.start, wanted.end, MOST_CHOICES) for by in CHOICES}
    names = _names(page.rows, choices, said)
    _offer(form, choices, names, said)
    words = [visible(row["model"]) for row in page.rows]
    words += [names[by].get(str(row[by]), "") for row in page.rows for by in NAMED]
    kept = {name: value for name, value in said.items() if name not in ("before", "request_id")}
    return {
        "days": list(_days(page.rows)),
        "names": names,
        "longest": brief.share(words, WORDS),
        "summary": None if form.errors else logs.summary(connection, wanted),
        "chips": _chips(kept, names),
        "period": _period(kept),
        "periods": list(PERIODS),
        "others": {name: value for name, value in kept.items() if name not in ("period", "from", "to")},
        "older": _url(kept, {"before": page.next}) if page.next else None,
        "newest": _url(kept) if before else None,
    }


def _url(said: Said, changes: Said | None = None) -> str:
    """The list with some of what is asked for changed; None takes it away."""
    return url_for(".index", **{**said, **(changes or {})})


def _period(said: Said) -> str:
    """The one that is in force; "" when a span of its own was typed."""
    if "from" in said or "to" in said:
        return ""
    return said["period"] if said.get("period") in PERIODS else USUAL_PERIOD


def _days(rows: Iterable[Row]) -> list[tuple[str, list[Row]]]:
    """The rows under their day, both as they come."""
    days = groupby(rows, key=lambda row: str(row["time"])[:10])
    return [(str(format_date(date.fromisoformat(day), "full")), list(found)) for day, found in days]


def _names(rows: Sequence[Mapping[str, Any]], choices: Mapping[str, Any], said: Said) -> Names:
    found = {}
    for by, model in NAMED.items():
        ids = {str(row[by]) for row in rows} | {name for name, _ in choices[by]} | {said.get(by, "")}
        wanted = [int(name) for name in ids if name.isdecimal() and len(name) < 19]
        columns = select(model.id, model.name).where(model.id.in_(wanted))
        found[by] = {str(row_id): visible(name) for row_id, name in db.session.execute(columns)}
    return found


def _named(by: str, name: str, names: Names) -> str:
    """What a person reads for an id or an outcome; keys and accounts can be gone."""
    if by == "outcome":
        return str(dict(OUTCOMES).get(name, name))
    return names[by].get(name, f"#{name}") if by in names else name


def _offer(form: LogForm, choices: Mapping[str, Any], names: Names, said: Said) -> None:
    """The lists to choose from: who was busy in this span, and who is chosen."""
    for by in CHOICES:
        offered = [name for name, _ in choices[by] if name and brief.size(name) <= brief.LONGEST]
        if said.get(by) and said[by] not in offered:
            offered.append(said[by])
        words = {"": gettext("any"), **{name: brief.brief(_named(by, name, names), 60) for name in offered}}
        form[by].choices = [SelectChoice(*choice) for choice in words.items()]


def _chips(said: Said, names: Names) -> list[Chip]:
    labels = {
        "key": gettext("Key"),
        "account": gettext("Account"),
        "model": gettext("Model"),
        "outcome": gettext("Outcome"),
        "status": gettext("Status"),
        "from": gettext("From"),
        "to": gettext("To"),
    }
    return [
        Chip(label, _named(name, said[name], names), _url(said, {name: None}))
        for name, label in labels.items()
        if name in said
    ]


# --- One request ----------------------------------------------------------------------------------------------------


@bp.get("/logs/<request_id>")
def show(request_id: str) -> str:
    """All that is known of a request."""
    row = logs.one(db.session.connection(), request_id)
    if row is None:
        raise NotFound("There is no such request in the log.")
    names = _names([logs.as_json(row)], {"key": [], "account": []}, {})
    told = explanations.explain(db.session.connection(), request_id)
    bars = charts.timeline([one.ms for one in told.attempts], row["first_token_ms"])
    reasons = [faces.cut(visible(one.reason), LONGEST_REASON) for one in told.attempts]
    tries = list(zip(told.attempts, bars, reasons, strict=True))
    files = _files(request_id, reasons)
    return render_template("logs/show.html", row=row, names=names, told=told, tries=tries, speed=_speed(row), **files)


def _files(request_id: str, reasons: Sequence[str]) -> dict[str, Any]:
    """What debug mode kept: its beginnings, and the names of what is only handed out, the attempts before the last."""
    kept = _kept(request_id)
    names = exchange_log.faces(kept) if kept else []
    last = max(map(exchange_log.attempt_of, names), default=0)
    earlier = [name for name in names if 0 < exchange_log.attempt_of(name) < last]
    read = {name: exchange_log.read(kept, name) for name in names if name not in earlier} if kept else {}
    room = ROOM - sum(ROOM_OF_A_TRY + faces.cost(reason) for reason in reasons)
    found = {name: data for name, data in read.items() if data is not None}
    return {"excerpts": faces.excerpts(found, room), "earlier": earlier}


def _kept(request_id: str) -> Path | None:
    return exchange_log.find(exchange_log.root(current_app.extensions["settings"]), request_id)


@bp.get("/logs/<request_id>/files/<face>")
def show_file(request_id: str, face: str) -> Response:
    """One of the files that debug mode kept of a request, as it is."""
    kept = _kept(request_id)
    data = exchange_log.read(kept, face) if kept else None
    if data is None:
        raise NotFound("Debug mode has kept no such file.")
    answer = Response(data, content_type="text/plain; charset=utf-8")
    answer.headers["Content-Disposition"] = f'attachment; filename="{request_id}-{face}.txt"'
    answer.headers["X-Content-Type-Options"] = "nosniff"
    return answer


def _speed(row: Row) -> int | None:
    """Tokens per second from the first one on; None for an answer too short to tell."""
    if row["first_token_ms"] is None or row["duration_ms"] - row["first_token_ms"] < 100:
        return None
    return round(1000 * row["output_tokens"] / (row["duration_ms"] - row["first_token_ms"])) or None
