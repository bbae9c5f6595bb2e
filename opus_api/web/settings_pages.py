"""The page of settings: all of them, where each value comes from, and back to it. Saved whole or not at all."""

from typing import Any

from flask import current_app, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from flask_login import current_user

from opus_api.config import Settings
from opus_api.services import api_keys, saved_settings, users, values
from opus_api.services.saved_settings import DEBUG_UNTIL, NAMED_KEY, SAVED
from opus_api.web import auth
from opus_api.web.console import has_stale_token, keeps_typed, page_blueprint
from opus_api.web.settings_forms import SettingsForm, settings_form
from opus_api.wire.errors import ApiError

bp = page_blueprint("settings_pages")


@bp.get("/settings")
def index() -> str:
    """Every setting with its help and its source; secrets are written, never shown."""
    return _page(settings_form(_configured())(formdata=None, data=saved_settings.as_json(_configured())))


@bp.post("/settings")
@keeps_typed
def change() -> ResponseReturnValue:
    """Saves what differs from what was shown; or brings one setting back, and keeps what was typed into the others."""
    form = settings_form(_configured())()
    if has_stale_token():
        form.validate()
        return _page(form)
    if name := request.form.get("default"):
        saved_settings.forget(name, auth.person(), _configured())
        form[name].raw_data = None
        form[name].process(None, saved_settings.as_json(_configured())[name])
        flash(gettext("%(name)s is back to its default.", name=form[name].label.text), "success")
        form.ask_again()
        return _page(form)
    if "removeMetricsToken" in request.form:
        return _save({"metricsToken": ""}, form)
    if not form.validate_on_submit():
        return _page(form)
    return _save(form.changes(saved_settings.as_json(_configured())), form)


def _save(changes: dict[str, Any], form: SettingsForm) -> ResponseReturnValue:
    try:
        if "adminPassword" in changes:
            auth.confirm_again(form.password.data, gettext("is needed to change a password."))
        saved_settings.change(changes, auth.person(), _configured(), current_app.extensions["installation"].pepper)
    except ApiError as error:
        form.refuse(error)
        return _page(form)
    flash(gettext("Saved. The next request follows it.") if changes else gettext("Nothing was changed."), "success")
    return redirect(url_for(".index"))


def _page(form: SettingsForm) -> str:
    configured, saved = _configured(), saved_settings.rows()
    return render_template(
        "settings.html",
        form=form,
        saved=saved,
        variables={name: saved_settings.variable(configured, name) for name in SAVED},
        debug_until=values.moment(DEBUG_UNTIL, saved_settings.as_json(configured)[DEBUG_UNTIL]),
        has_metrics_token=saved_settings.has_secret("metricsToken"),
        named_key=api_keys.live(NAMED_KEY),
        is_confirmed=users.is_confirmed(current_user.session),
    )


def _configured() -> Settings:
    settings: Settings = current_app.extensions["settings"]
    return settings
