"""A conversation with a model over the gateway's own path, to try accounts and models. With the script the answer
streams in; without it a form brings the whole answer, and the conversation with it.

Nobody's API key is used: the row in the log has none, and no key's limits are charged.
"""

from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, current_app, render_template, request
from flask.typing import ResponseReturnValue
from flask_babel import force_locale, get_locale, gettext

from opus_api.dialects import anthropic
from opus_api.gateway.gateway import Gateway
from opus_api.gateway.stream import Answer
from opus_api.web import brief, messages, snippets
from opus_api.web.auth import caller_ip
from opus_api.web.chat_forms import ChatForm
from opus_api.web.console import grouped, has_stale_token, keeps_typed, page_blueprint, visible
from opus_api.web.cookies import accounts
from opus_api.web.errors import dialect_error
from opus_api.web.languages import reason_in_words
from opus_api.web.messages import Asking
from opus_api.wire import ids, jsons
from opus_api.wire.errors import InvalidRequest

bp = page_blueprint("chat_pages")

# The page stays under 60 KB: bytes of suggested models, accounts to choose from (any other by /chat?account=ID).
MOST_NAMES, MOST_ACCOUNTS = 3000, 100
EVENT = b"event: opus\ndata: %b\n\n"  # ours, after all others: what became of the answer


@bp.get("/chat")
def index() -> str:
    """An empty conversation, with the account and the model that the address names."""
    form = _form(ChatForm(formdata=None))
    form.model.data = request.args.get("model", "") or snippets.usual_model(_names())
    form.account_id.data = request.args.get("account", 0, type=int)
    return _page(form, [])


@bp.post("/chat")
@keeps_typed
def say() -> ResponseReturnValue:
    """One more turn: a stream for the script, the page with the whole answer for a form."""
    form = _form(ChatForm())
    stream = request.accept_mimetypes.best == "text/event-stream"
    if not form.validate_on_submit():
        if stream and not has_stale_token():  # else the script sends the form itself, for a fresh page
            return dialect_error(anthropic, InvalidRequest(_first_error(form)), ids.request_id())
        return _page(form, form.turns())
    asking = Asking(ids.request_id(), caller_ip(), None, form.account_id.data or None, by_client=False)

    def read(recording: object) -> bytes:
        _check_account(asking.account_id)
        return jsons.dumps(form.body(stream))

    response = messages.reply(anthropic, asking, read)
    return _streamed(response, asking) if stream else _whole(form, response, asking)


def _form(form: ChatForm) -> ChatForm:
    chosen = request.values.get("account_id" if request.form else "account", 0, type=int)
    known = sorted(accounts().all(), key=lambda account: (account.id != chosen, account.name))
    named = [(one.id, brief.brief(visible(one.name), 60)) for one in known[:MOST_ACCOUNTS]]
    form.account_id.choices = [(0, gettext("Any, as for every request")), *named]
    return form


def _first_error(form: ChatForm) -> str:
    return next(f"{form[name].label.text}: {errors[0]}" for name, errors in form.errors.items() if name)


def _check_account(account_id: int | None) -> None:
    """What only a person can heal is said at once. Raises InvalidRequest."""
    account = accounts().get(account_id) if account_id else None
    if account is not None and account.state == "disabled":
        raise InvalidRequest(gettext("%(name)s is disabled. Enable it to test it.", name=account.name))
    if account is not None and account.state == "invalid":
        why = reason_in_words(account.state_reason)
        raise InvalidRequest(gettext("%(name)s is invalid: %(why)s. Validate or reset it.", name=account.name, why=why))


# --- With the script --------------------------------------------------------------------------------------------------


def _streamed(response: Response, asking: Asking) -> Response:
    if response.status_code == 200 and asking.answer is not None:
        response.response = _ThenFacts(response.response, asking.answer)
    return response


class _ThenFacts:
    """The stream, then our own event, in the language of the page: the request is over by then."""

    def __init__(self, body: Any, answer: Answer):
        self._body = body
        self._answer = answer
        self._app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        self._locale = str(get_locale())

    def __iter__(self) -> Iterator[bytes]:
        yield from self._body
        with self._app.app_context(), force_locale(self._locale):
            said = facts(self._answer)
        yield EVENT % jsons.dumps({"said": said, "log": log_path(self._answer.request_id)})

    def close(self) -> None:
        self._body.close()


# --- Without it -------------------------------------------------------------------------------------------------------


def _whole(form: ChatForm, response: Response, asking: Asking) -> str:
    response.direct_passthrough = False
    found = jsons.loads(response.get_data())
    response.close()
    turns: list[dict[str, Any]] = form.turns()
    if response.status_code != 200:
        form.form_errors.append(str(found["error"]["message"]))
        return _page(form, turns, log=log_path(asking.request_id))
    turns += [{"role": "user", "content": form.message.data}, {"role": "assistant", "content": found["content"]}]
    if not found["content"]:
        turns.pop()
    form.conversation.data = jsons.dumps(turns).decode()
    form.message.data = ""
    said = facts(asking.answer) if asking.answer else ""
    return _page(form, turns, said, log_path(asking.request_id), jsons.dumps(found).decode())


def _page(form: ChatForm, turns: list[dict[str, Any]], said: str = "", log: str = "", raw: str = "") -> str:
    shown = [{"role": turn.get("role"), **_parts(turn.get("content"))} for turn in turns]
    return render_template(
        "chat/index.html",
        form=form,
        turns=shown,
        models=_names(),
        said=said,
        log=log,
        raw=raw,
        shown_once=request.method == "POST",  # a switch of the language leads to an empty conversation
    )


def _parts(content: Any) -> dict[str, str]:
    """What is shown of a turn: its text, and what was thought before."""
    if isinstance(content, str):
        return {"text": content, "thinking": ""}
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    return {name: "".join(str(block.get(name, "")) for block in blocks) for name in ("text", "thinking")}


# --- What both say ----------------------------------------------------------------------------------------------------


def facts(answer: Answer) -> str:
    """Who answered, how much and how fast, in one line."""
    target, meter = answer.dispatch.target, answer.dispatch.meter
    parts = [target.account.name if target.account else target.provider, target.model] if target else []
    parts.append(gettext("%(n)s tokens in", n=grouped(meter.usage.prompt_tokens)))
    parts.append(gettext("%(n)s out", n=grouped(meter.usage.output_tokens)))
    if meter.first_token_ms is not None:
        parts.append(gettext("first token after %(n)s ms", n=grouped(meter.first_token_ms)))
    parts.append(gettext("%(n)s ms in all", n=grouped(meter.duration_ms)))
    return " · ".join(parts)


def log_path(request_id: str) -> str:
    return f"/logs/{request_id}"


def _names() -> list[str]:
    gateway: Gateway = current_app.extensions["gateway"]
    return brief.light(gateway.catalog().names(), MOST_NAMES)
