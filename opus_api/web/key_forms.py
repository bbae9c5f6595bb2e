"""The form of an API key. Fields are named as the JSON API names them; services know what is allowed."""

from datetime import UTC, datetime
from typing import Any

from flask_babel import gettext
from flask_babel import lazy_gettext as _l
from wtforms import BooleanField, Form, FormField, StringField
from wtforms.validators import InputRequired, Optional
from wtforms.widgets import DateTimeLocalInput

from opus_api.services.values import rfc3339
from opus_api.web.forms import LinesField, SharedForm, WholeNumberField, _stripped

LIMIT_LABELS = {
    "rpm": _l("Requests / min"),
    "itpm": _l("Input tokens / min"),
    "otpm": _l("Output tokens / min"),
    "concurrency": _l("At once"),
    "monthly_tokens": _l("Tokens / month"),
}


class MomentField(StringField):
    """A date and a time in UTC, kept as it was typed when it is none; nothing typed is None."""

    widget = DateTimeLocalInput()
    data: Any  # datetime | None

    def _value(self) -> str:
        if self.raw_data:
            return str(self.raw_data[0])
        if not self.data:
            return ""
        exactly = "seconds" if self.data.second else "minutes"  # or whoever saves another field would shorten it
        return str(self.data.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=exactly))

    def process_formdata(self, valuelist: list[str]) -> None:
        text = valuelist[0].strip() if valuelist else ""
        try:
            self.data = datetime.fromisoformat(text) if text else None
        except ValueError:
            raise ValueError(gettext("Enter a date and a time, such as 2026-01-31T12:00.")) from None
        if self.data and self.data.tzinfo is None:
            self.data = self.data.replace(tzinfo=UTC)


LimitsForm = type(
    "LimitsForm",
    (Form,),
    {
        name: WholeNumberField(label, render_kw={"inputmode": "numeric", "placeholder": _l("no limit")})
        for name, label in LIMIT_LABELS.items()
    },
)


class KeyForm(SharedForm):
    name = StringField(
        _l("Name"),
        [InputRequired(_l("Give the key a name."))],
        filters=[_stripped],
        description=_l("Who or what uses it: a person, a machine, a project."),
        render_kw={"maxlength": 100, "autocomplete": "off"},
    )
    models = LinesField(
        _l("Models"),
        [Optional()],
        description=_l("Names or patterns that it may ask for, one per line; empty: any."),
        render_kw={"rows": 3, "spellcheck": "false", "placeholder": "claude-*"},
    )
    expires_at = MomentField(
        _l("Works until"),
        [Optional()],
        description=_l("In UTC; empty: until it is revoked."),
        render_kw={"step": "any"},
    )
    limits: "FormField[Form]" = FormField(LimitsForm, separator=".")
    override = BooleanField(
        _l("May bring its own credential"),
        description=_l(
            "Who calls with this key may send a provider's credential along in Authorization. It is used instead of "
            "your accounts, goes to the provider's own address and is never stored or logged."
        ),
    )

    def body(self) -> dict[str, Any]:
        """What the JSON API would be sent."""
        return {
            "name": self.name.data,
            "models": self.models.data,
            "limits": dict(self.limits.data),
            "expires_at": rfc3339(self.expires_at.data),
            "override": self.override.data,
        }
