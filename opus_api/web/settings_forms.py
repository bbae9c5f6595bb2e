"""The form of all settings, built from the table of those that can be saved; fields are named as the JSON API's."""

from collections.abc import Iterator, Mapping
from typing import Any

from flask_babel import gettext
from flask_babel import lazy_gettext as _l
from wtforms import BooleanField, Field, PasswordField, SelectField, StringField
from wtforms.validators import Optional

from opus_api.config import Settings
from opus_api.services.saved_settings import SAVED, SECRETS, SECTIONS, Saved, unsaved
from opus_api.services.values import FieldError
from opus_api.web.forms import STRATEGIES, PageForm, SecretField, WholeNumberField, _stripped

CHOICES: Mapping[str, Any] = {"rotationStrategy": STRATEGIES}
# An empty field of a page means unchanged, so the words of the JSON API do not fit.
SECRET_WORDS = {
    "apiKey": (_l("API key"), _l("Value of the API key named default; clients that have the one before are shut out.")),
    "adminPassword": (_l("Administrator's password"), _l("The first administrator's password.")),
    "metricsToken": (_l("Metrics token"), _l("What a monitor sends as its Bearer token to /metrics and /ready.")),
}


class SecondsField(StringField):
    """Seconds, kept as they were typed when they are none."""

    data: Any  # float

    def _value(self) -> str:
        if self.raw_data:
            return str(self.raw_data[0])
        return "" if self.data is None else f"{self.data:g}"

    def process_formdata(self, valuelist: list[str]) -> None:
        try:
            self.data = float(valuelist[0]) if valuelist else None
        except ValueError:
            raise ValueError(gettext("Enter a number of seconds.")) from None


class SettingsForm(PageForm):
    """``settings_form`` adds a field for each setting."""

    password = PasswordField(
        _l("Your own password"),
        [Optional()],
        description=_l("Asked again before a password is changed; good for 5 minutes."),
        render_kw={"autocomplete": "current-password"},
    )

    def sections(self) -> Iterator[tuple[str, list[Field]]]:
        """Settings that are no secrets, section by section."""
        for section in SECTIONS:
            yield section, [self[name] for name, known in SAVED.items() if known.section == section]

    def secrets(self) -> list[Field]:
        return [self[name] for name in SECRETS]

    def validate(self, extra_validators: Any = None) -> bool:
        """What services would refuse is refused here for every field, so that all of it is shown at once."""
        is_valid: bool = super().validate(extra_validators)
        for name, known in SAVED.items():
            try:
                if not self[name].errors:
                    known.check(name, self[name].data)
            except FieldError as error:
                self.refuse(error)
                is_valid = False
        return is_valid

    def changes(self, shown: Mapping[str, Any]) -> dict[str, Any]:
        """What the JSON API would be sent: what differs from ``shown``, so that the rest keeps following its source."""
        values = {name: self[name].data for name in SAVED if self[name].data != shown[name]}
        return values | {name: self[name].data for name in SECRETS if self[name].data}


def settings_form(configured: Settings) -> type[SettingsForm]:
    members = {name: _field(name, known, unsaved(configured, name)) for name, known in SAVED.items()}
    members |= {name: _secret(name) for name in SECRETS}
    return type("SettingsForm", (SettingsForm,), members)


def _field(name: str, known: Saved, default: Any) -> Any:
    label, help = gettext(known.label), gettext(known.help)
    if name in CHOICES:
        return SelectField(label, choices=CHOICES[name], description=help)
    if isinstance(default, bool):
        return BooleanField(label, description=help)
    field = WholeNumberField if isinstance(default, int) else SecondsField
    return field(label, description=help, render_kw={"inputmode": "decimal", "autocomplete": "off"})


def _secret(name: str) -> Any:
    label, help = SECRET_WORDS[name]
    is_password = name == "adminPassword"
    kept = {"autocomplete": "new-password" if is_password else "off", "placeholder": _l("unchanged")}
    filters = [] if is_password else [_stripped]
    return SecretField(label, [Optional()], filters=filters, description=help, render_kw=kept)
