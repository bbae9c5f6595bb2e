"""The form of /chat and the request that it asks for. The conversation travels in it, so the server keeps nothing."""

from typing import Any

from flask_babel import gettext
from flask_babel import lazy_gettext as _l
from wtforms import HiddenField, SelectField, StringField, TextAreaField, ValidationError
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined] # its stubs are of WTForms 3.2
from wtforms.validators import DataRequired

from opus_api.web.forms import PageForm, WholeNumberField
from opus_api.wire import jsons

LEAST_BUDGET = 1024  # tokens to think with, as the Messages API wants it
THINKING: list[SelectChoice] = [
    SelectChoice("", _l("Off")),
    SelectChoice("enabled", _l("With a budget: half of the tokens")),
    SelectChoice("adaptive", _l("Adaptive, for the newest models")),
]


class ChatForm(PageForm):
    model = StringField(
        _l("Model"),
        [DataRequired(_l("Name a model."))],
        render_kw={"list": "models", "autocomplete": "off", "spellcheck": "false"},
    )
    account_id = SelectField(_l("Account"), coerce=int, default=0)
    system = TextAreaField(_l("System prompt"), render_kw={"rows": 2})
    max_tokens = WholeNumberField(_l("Tokens at most"), default=2048, empty=2048)
    thinking = SelectField(_l("Thinking"), choices=THINKING, default="")
    conversation = HiddenField(default="[]")
    message = TextAreaField(_l("Message"), [DataRequired(_l("Write a message."))], render_kw={"rows": 3})

    def validate_conversation(self, field: HiddenField) -> None:
        """What was said before, as the page had it."""
        if not isinstance(_turns(field.data), list):
            raise ValidationError(gettext("The conversation cannot be read. Start a new one."))

    def turns(self) -> list[dict[str, Any]]:
        """Without the new message."""
        found = _turns(self.conversation.data)
        return [turn for turn in found if isinstance(turn, dict)] if isinstance(found, list) else []

    def body(self, stream: bool) -> dict[str, Any]:
        """The request of the Messages API."""
        messages = [*self.turns(), {"role": "user", "content": self.message.data}]
        most = self.max_tokens.data or 0
        body: dict[str, Any] = {"model": self.model.data, "max_tokens": most, "messages": messages, "stream": stream}
        if self.system.data and self.system.data.strip():
            body["system"] = self.system.data
        if self.thinking.data == "enabled":
            body["thinking"] = {"type": "enabled", "budget_tokens": max(LEAST_BUDGET, most // 2)}
        elif self.thinking.data:
            body["thinking"] = {"type": self.thinking.data}
        return body


def _turns(text: str | None) -> Any:
    try:
        return jsons.loads((text or "[]").encode())
    except jsons.JsonError:
        return None
