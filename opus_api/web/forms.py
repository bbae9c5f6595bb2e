"""The forms of the console. A form checks that text has the right shape; services know what is allowed.

Fields are named as the JSON API names them, so that ``body()`` is what the API would have been sent.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any, Self

from flask_babel import gettext
from flask_babel import lazy_gettext as _l
from flask_wtf import FlaskForm
from wtforms import (
    BooleanField,
    Field,
    Form,
    FormField,
    HiddenField,
    IntegerField,
    PasswordField,
    SelectField,
    StringField,
    TextAreaField,
    ValidationError,
)
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined] # its stubs are of WTForms 3.2
from wtforms.validators import InputRequired, Optional
from wtforms.widgets import TextInput

from opus_api.services.values import FieldError
from opus_api.upstreams import base
from opus_api.upstreams.amazonq_login import BUILDER_ID
from opus_api.upstreams.amazonq_service import DEFAULT_REGION
from opus_api.web.brief import brief
from opus_api.web.languages import in_words
from opus_api.wire.errors import ApiError

SECRETS = ("api_key", "session_key")
MARK = 4  # characters, for a page has little room
OVERTAKEN = _l(
    "Somebody changed this after you had opened it, perhaps you in another tab. Nothing was saved: look at the fields "
    "below, then save again to put what stands there in its place."
)
OUT_OF_DATE = _l(
    "The page you came from is out of date. Nothing was saved: look through what you typed and press the button again."
)
OUTCOMES = (
    ("", _l("any")),
    ("ok", _l("OK")),
    ("client_error", _l("Client error")),
    ("upstream_error", _l("Upstream error")),
    ("upstream_cut", _l("Cut off")),
    ("gateway_error", _l("Gateway error")),
    ("client_gone", _l("Client left")),
    ("aborted", _l("Aborted")),
)


def _stripped(value: str | None) -> str:
    return (value or "").strip()


class LinesField(TextAreaField):
    """Words on lines of their own or between commas; nothing typed is None."""

    data: Any  # list[str] | None

    def _value(self) -> str:
        return self.raw_data[0] if self.raw_data else "\n".join(self.data or [])

    def process_formdata(self, valuelist: list[str]) -> None:
        words = [word.strip() for word in re.split(r"[\n,]", valuelist[0])] if valuelist else []
        self.data = [word for word in words if word] or None


class MapField(TextAreaField):
    """``pattern = model`` on each line."""

    data: Any  # dict[str, str]

    def _value(self) -> str:
        if self.raw_data:
            return str(self.raw_data[0])
        return "\n".join(f"{pattern} = {model}" for pattern, model in (self.data or {}).items())

    def process_formdata(self, valuelist: list[str]) -> None:
        self.data = {}
        for number, line in enumerate(valuelist[0].splitlines() if valuelist else [], 1):
            if not line.strip():
                continue
            pattern, sign, model = (part.strip() for part in line.partition("="))
            if not (pattern and sign and model):
                raise ValueError(gettext("Line %(number)s must read: pattern = model.", number=number))
            self.data[pattern] = model


class WholeNumberField(IntegerField):
    """A whole number, kept as it was typed when it is none; nothing typed is ``empty``."""

    widget = TextInput()

    def __init__(self, *args: Any, empty: int | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.empty = empty

    def process_formdata(self, valuelist: list[str]) -> None:
        text = valuelist[0].strip() if valuelist else ""
        try:
            self.data = int(text) if text else self.empty
        except ValueError:
            raise ValueError(gettext("Enter a whole number.")) from None


class SwitchField(SelectField):
    """On, off, or whatever the provider's default is (None)."""

    WORDS = {"": None, "true": True, "false": False}  # noqa: RUF012 - WTForms copies fields, nobody writes to this

    def process_data(self, value: Any) -> None:
        self.data = "" if value is None else str(bool(value)).lower()

    @property
    def chosen(self) -> bool | None:
        return self.WORDS[self.data or ""]


class SecretField(PasswordField):
    """A secret that is stored, not asked for again: where it is lost with a refused form, that is said."""

    def ask_again(self) -> None:
        """No page holds what was typed."""
        if self.data and not self.errors:
            self.errors = [gettext("Type this again: no page keeps it.")]


class PageForm(FlaskForm):
    """A form of a page; ``refuse`` takes the refusal of a service to the field it names."""

    def validate(self, extra_validators: Any = None) -> bool:
        """A token of a session that has ended is said above the form; its field shows nothing."""
        is_valid: bool = super().validate(extra_validators)
        if (token := self._fields.get("csrf_token")) is not None and token.errors:
            self.form_errors.append(str(OUT_OF_DATE))
        if not is_valid:
            self.ask_again()
        return is_valid

    def ask_again(self) -> None:
        """Before the form is shown again: for the secrets that were typed."""
        for field in self:
            if isinstance(field, SecretField):
                field.ask_again()

    def refuse(self, error: ApiError) -> None:
        """Show a refusal: at its field when it names one of ours, else above the form."""
        message = in_words(error.message)
        name, _, said = message.partition(": ")
        field = self._named(name)
        if field is None or not said:
            self.form_errors.append(message)
        else:
            # A FieldError says "is required." of its field; other messages are sentences of their own.
            continues = isinstance(error, FieldError) and error.reason[:1].islower()
            field.errors = [*field.errors, f"{field.label.text} {said}" if continues else said]
        self.ask_again()

    def leaves(self) -> Iterator[Field]:
        """Every field that holds a value."""
        for field in self:
            yield from field.form if isinstance(field, FormField) else (field,)

    def _named(self, name: str) -> Field | None:
        """The field that ``name``, ``options.name`` or ``name[3]`` speaks of."""
        outer, _, inner = name.partition("[")[0].partition(".")
        field: Field | None = self._fields.get(outer)
        if isinstance(field, FormField):
            field = field.form._fields.get(inner)
        return field


class SharedForm(PageForm):
    """A form of what others change, too: saving it never undoes unseen what they saved meanwhile."""

    version = HiddenField()  # a mark of each value that the page was made from

    @classmethod
    def showing(cls, values: Mapping[str, Any]) -> Self:
        """The form as it is shown first."""
        form = cls(formdata=None, data=values)
        form.version.data = "".join(map(_mark, form._values()))
        return form

    def is_overtaken(self, present: Self) -> bool:
        """Whether saving would undo a change that came after the page was made. It is then told at its field, and the
        next save is meant."""
        marks = wrap(self.version.data or "", MARK)
        found = False
        for field, other, shown in zip(
            self._values(), present._values(), marks, strict=False
        ):  # no marks: sent by no page
            if shown != _mark(other) and (field.data or None) != (other.data or None):
                field.errors = [*field.errors, _changed_to(other)]
                found = True
        if found:
            self.form_errors.append(str(OVERTAKEN))
            self.version.data = present.version.data
            self.ask_again()
        return found

    def _values(self) -> list[Field]:
        return [field for field in self.leaves() if not isinstance(field, HiddenField)]


def _mark(field: Field) -> str:
    # Of a secret its end, which is shown.
    said = field.render_kw["placeholder"] if isinstance(field, SecretField) else repr(field.data or None)
    return hashlib.sha256(said.encode()).hexdigest()[:MARK]


def _changed_to(field: Any) -> str:
    if isinstance(field, BooleanField):
        said = gettext("On") if field.data else gettext("Off")
    elif isinstance(field, SelectField):
        said = next((str(choice[1]) for choice in field.iter_choices() if choice[2]), "")
    else:
        said = field.render_kw["placeholder"] if isinstance(field, SecretField) else field._value()
    return str(gettext("Was changed elsewhere meanwhile, to: %(value)s", value=brief(said, 150) or "–"))


# --- Sign-in --------------------------------------------------------------------------------------------------------


class LoginForm(PageForm):
    username = StringField(
        _l("User name"),
        [InputRequired(_l("Enter your user name."))],
        filters=[_stripped],
        render_kw={"autocomplete": "username", "autocapitalize": "none", "spellcheck": "false", "autofocus": True},
    )
    password = PasswordField(
        _l("Password"),
        [InputRequired(_l("Enter your password."))],
        render_kw={"autocomplete": "current-password"},
    )
    next = HiddenField()

    def ask_password_again(self) -> None:
        """The name stays, so the next thing to type is the password."""
        self.username.render_kw = {**self.username.render_kw, "autofocus": False}
        self.password.render_kw = {**self.password.render_kw, "autofocus": True}


class MyForm(PageForm):
    key = PasswordField(
        _l("API key"),
        [InputRequired(_l("Paste your API key."))],
        filters=[_stripped],
        render_kw={"autocomplete": "off", "spellcheck": "false", "autofocus": True},
    )


class PasswordForm(PageForm):
    old_password = PasswordField(
        _l("Current password"),
        [InputRequired(_l("Enter the password you have now."))],
        render_kw={"autocomplete": "current-password"},
    )
    new_password = PasswordField(
        _l("New password"),
        [InputRequired(_l("Enter a new password."))],
        description=_l("At least 8 characters; a few words in a row are easier to remember and harder to guess."),
        render_kw={"autocomplete": "new-password"},
    )


# --- Accounts -------------------------------------------------------------------------------------------------------


class AccountForm(SharedForm):
    """What every provider's accounts have; ``account_form`` adds what one provider asks for."""

    name = StringField(
        _l("Name"),
        [InputRequired(_l("Give the account a name."))],
        filters=[_stripped],
        description=_l("For you; it shows in lists and logs."),
        render_kw={"maxlength": 100, "autocomplete": "off"},
    )
    priority = WholeNumberField(
        _l("Priority"),
        default=0,
        empty=0,
        description=_l("Larger is used first; equals take turns."),
        render_kw={"inputmode": "numeric"},
    )
    max_concurrency = WholeNumberField(
        _l("Requests at once"),
        default=0,
        empty=0,
        description=_l("0 means no limit."),
        render_kw={"inputmode": "numeric"},
    )
    models = LinesField(
        _l("Models"),
        [Optional()],
        description=_l("Names or patterns, one per line; empty: what the provider lists; *: any name."),
        render_kw={"rows": 3, "spellcheck": "false"},
    )
    model_map = MapField(
        _l("Model map"),
        [Optional()],
        description=_l("What clients ask for = the provider's model that answers."),
        render_kw={"rows": 3, "spellcheck": "false", "placeholder": "claude-* = model"},
    )
    proxy = StringField(
        _l("Proxy"),
        [Optional()],
        filters=[_stripped],
        description=_l("For this account only, in place of the installation's own."),
        render_kw={"placeholder": "http://host:port", "autocomplete": "off", "spellcheck": "false"},
    )

    SHARED = ("name", "priority", "max_concurrency", "models", "model_map", "proxy")
    asked: tuple[str, ...] = ()  # the fields this provider adds, in its order

    def own_fields(self) -> list[Field]:
        """What this provider asks for."""
        return [self[name] for name in self.asked]

    @property
    def options_used(self) -> bool:
        """Whether an option is set or refused, so that the page shows them at once."""
        return any(field.errors or field.data not in ("", None) for field in self.options.form)

    def body(self) -> dict[str, Any]:
        """What the JSON API would be sent. A secret left empty stays out, so that it stays as it is."""
        values = {name: self[name].data for name in (*self.asked, *self.SHARED)}
        values["proxy"] = values["proxy"] or None
        values["options"] = self._options()
        return {name: value for name, value in values.items() if value or name not in SECRETS}

    def _options(self) -> dict[str, Any]:
        chosen = {field.short_name: _option_value(field) for field in self.options.form}
        return {name: value for name, value in chosen.items() if value is not None}


def _option_value(field: Field) -> Any:
    if isinstance(field, SwitchField):
        return field.chosen
    return None if field.data == "" else field.data


def account_form(
    upstream: base.Upstream, hints: Mapping[str, str] | None = None, learned: Mapping[str, Any] | None = None
) -> type[AccountForm]:
    """The form of one provider. ``hints`` are the last characters of secrets that an account already has."""
    members: dict[str, Any] = {item.name: _own_field(item, hints) for item in upstream.fields}
    options = {item.name: _option_field(item, (learned or {}).get(item.name)) for item in upstream.options}
    members["options"] = FormField(type("OptionsForm", (Form,), options), separator=".")
    members["asked"] = tuple(item.name for item in upstream.fields)
    return type("AccountForm", (AccountForm,), members)


def _own_field(item: base.Field, hints: Mapping[str, str] | None) -> Any:
    if item.secret:
        return _secret_field(item, hints)
    return StringField(
        gettext(item.label),
        [_needed(item)] if item.required else [Optional()],
        filters=[_stripped],
        default=item.default,
        description=_help(item),
        render_kw={"autocomplete": "off", "spellcheck": "false", "autocapitalize": "none"},
    )


def _secret_field(item: base.Field, hints: Mapping[str, str] | None) -> Any:
    placeholder, needed = "", item.required
    if hints and hints.get(item.name):
        placeholder, needed = gettext("•••• %(hint)s, leave empty to keep", hint=hints[item.name]), False
    return SecretField(
        gettext(item.label),
        [_needed(item)] if needed else [] if placeholder else [Optional()],
        filters=[_stripped],
        description=_help(item),
        render_kw={"autocomplete": "off", "spellcheck": "false", "placeholder": placeholder},
    )


def _needed(item: base.Field) -> InputRequired:
    return InputRequired(gettext("%(label)s is needed.", label=gettext(item.label)))


def _help(item: base.Field | base.Option) -> str:
    return str(gettext(item.help) if item.help else "")  # gettext("") is the catalog's header


def _option_field(item: base.Option, learned: Any) -> Any:
    default = _said(item.default if learned is None else learned)
    origin = gettext("default") if learned is None else gettext("learned")
    if isinstance(item.default, bool):
        choices: Any = {"": f"{default.capitalize()} ({origin})", "true": gettext("On"), "false": gettext("Off")}
        return SwitchField(item.name, choices=choices, description=_help(item))
    field = WholeNumberField if isinstance(item.default, int) else StringField
    placeholder = f"{default} ({origin})" if default else ""
    return field(item.name, [Optional()], description=_help(item), render_kw={"placeholder": placeholder})


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return str(gettext("on") if value else gettext("off"))
    return "" if value is None else str(value)


STRATEGIES: list[SelectChoice] = [
    SelectChoice("priority", _l("By priority, equals in turn")),
    SelectChoice("round_robin", _l("All in turn")),
    SelectChoice("least_used", _l("Least used first")),
]


class RotationForm(PageForm):
    rotation_strategy = SelectField(_l("Who answers next"), choices=STRATEGIES)


class DeviceSignInForm(PageForm):
    """Where a person signs in to Amazon Q."""

    name = StringField(
        _l("Name"),
        [InputRequired(_l("Give the account a name."))],
        filters=[_stripped],
        description=_l("For you; it shows in lists and logs."),
        render_kw={"maxlength": 100, "autocomplete": "off"},
    )
    start_url = StringField(
        _l("Start URL"),
        [InputRequired(_l("Give the start URL."))],
        filters=[_stripped],
        default=BUILDER_ID,
        description=_l("For a Builder ID as it is; for IAM Identity Center the one of your organisation."),
        render_kw={"autocomplete": "off", "spellcheck": "false", "autocapitalize": "none"},
    )
    region = StringField(
        _l("Region"),
        [InputRequired(_l("Give the region."))],
        filters=[_stripped],
        default=DEFAULT_REGION,
        description=_l("Where you sign in; us-east-1 for a Builder ID."),
        render_kw={"autocomplete": "off", "spellcheck": "false", "autocapitalize": "none"},
    )

    def refuse(self, error: ApiError) -> None:
        """The service names a field of the account's ``oidc``; here it stands by itself."""
        if isinstance(error, FieldError):
            error = FieldError(error.field.removeprefix("oidc."), error.reason)
        super().refuse(error)


class RuleForm(PageForm):
    """The consent to let one of an account's models answer Claude names."""

    model = StringField(_l("Model"), render_kw={"list": "listed", "autocomplete": "off", "spellcheck": "false"})
    listed: Sequence[str] = ()

    def validate_model(self, field: StringField) -> None:
        if field.data not in self.listed:
            raise ValidationError(gettext("The provider lists no model of this name."))


# --- The log --------------------------------------------------------------------------------------------------------


class LogForm(PageForm):
    """What the log is filtered by. It only asks, so it needs no token; its URL can be passed on."""

    class Meta:
        csrf = False

    key = SelectField(_l("Key"), validate_choice=False)
    account = SelectField(_l("Account"), validate_choice=False)
    model = SelectField(_l("Model"), validate_choice=False)
    outcome = SelectField(
        _l("Outcome"), validate_choice=False, choices=[SelectChoice(name, word) for name, word in OUTCOMES]
    )
    status = StringField(_l("Status"), render_kw={"inputmode": "numeric", "maxlength": 3})
    request_id = StringField(_l("Request id"), render_kw={"placeholder": "req_…", "spellcheck": "false"})


for _name, _label in (("from", _l("From")), ("to", _l("To"))):  # words of Python
    setattr(LogForm, _name, StringField(_label, render_kw={"placeholder": "2026-01-31T12:00"}))
