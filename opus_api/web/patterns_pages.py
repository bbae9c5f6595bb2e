"""Every widget of the console on one page, in all its states; whoever adds a macro shows it here.

The data is made up and in English, as the page is for who works on the console.
"""

import re
from datetime import timedelta
from types import SimpleNamespace

from flask import current_app, render_template
from wtforms import BooleanField, PasswordField, SelectField, StringField, TextAreaField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined] # as in forms.py

from opus_api.models import now
from opus_api.web import charts
from opus_api.web.console import page_blueprint
from opus_api.web.forms import PageForm

bp = page_blueprint("patterns_pages")

OUTCOMES = (
    *(("ok", 200), ("client_error", 400), ("upstream_error", 529), ("upstream_cut", 200)),
    *(("gateway_error", 500), ("client_gone", 499), ("aborted", 503)),
)
ICON = re.compile(r'name == "(\w+)"')


class SmallForm(PageForm):
    name = StringField("Name")


class ExampleForm(PageForm):
    text = StringField("Text", description="What it is for, in one sentence.", render_kw={"placeholder": "an example"})
    refused = StringField("Refused text")
    secret = PasswordField("Secret")
    choice = SelectField("Choice", choices=[SelectChoice("a", "The first"), SelectChoice("b", "The second")])
    lines = TextAreaField("Lines", render_kw={"rows": 3})
    tick = BooleanField("A box to tick", description="And what happens then.")


@bp.get("/patterns")
def index() -> str:
    """All of them."""
    moment = now()
    return render_template(
        "patterns.html",
        form=_form(),
        small=SmallForm(formdata=None),
        icons=_icons(),
        outcomes=OUTCOMES,
        moments=[moment + timedelta(seconds=s) for s in (-1, -42, -240, -9000, -400_000, 40, 7200)],
        meters=[
            SimpleNamespace(label=f"{used or 'unknown'} of 100", used=used, limit=100) for used in (None, 0, 42, 97)
        ],
        chips=[SimpleNamespace(label=name, value=name.lower(), without="#") for name in ("Model", "Key")],
        drawn=_charts(),
        bars=charts.timeline([300, 1200], 700),
    )


def _form() -> ExampleForm:
    form = ExampleForm(formdata=None, data={"refused": "typed and kept", "lines": "claude-* = model"})
    form.refused.errors = ["Refused text must be a whole number."]
    form.form_errors.append("What could not be tied to one field.")
    return form


def _icons() -> list[str]:
    loader = current_app.jinja_env.loader
    assert loader is not None
    source = loader.get_source(current_app.jinja_env, "_macros.html")[0]
    return ICON.findall(source.partition("{%- endmacro %}")[0])


def _charts() -> list[tuple[str, charts.Chart]]:
    labels = [f"{hour:02d}:00" for hour in range(6)]
    some = [3, 5, 0, 13, 9, 4]
    wait: list[float | None] = [400, 520, None, 480, None, 700]
    return [
        ("Bars", charts.stacked(labels, some, some[::-1])),
        ("Lines with gaps and dots", charts.lines(labels, wait, [2 * (value or 0) or None for value in wait])),
        ("Nothing", charts.stacked(labels, [0] * 6)),
    ]
