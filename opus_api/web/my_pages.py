"""The page for whoever holds an API key and nothing else: what that key has used, and nothing about others.

The key comes in the body of a form. It is looked up and forgotten: no cookie, no address and no log has it.
"""

from typing import Any

from flask import current_app, make_response, render_template
from flask.typing import ResponseReturnValue

from opus_api.extensions import db
from opus_api.models import now
from opus_api.services import api_keys, logs, statistics
from opus_api.services.login_throttle import LoginThrottle
from opus_api.services.logs import Filter
from opus_api.services.snapshot import KeyValue
from opus_api.services.values import FieldError
from opus_api.web import auth, brief, guards
from opus_api.web.console import page_blueprint
from opus_api.web.forms import MyForm
from opus_api.web.keys_pages import row_of
from opus_api.wire.errors import ApiError, RateLimited

bp = page_blueprint("my_pages")

MOST_ROWS, WORDS = 20, 4000  # bytes of models


@bp.get("/my")
def index() -> str:
    """Asks for the key."""
    return render_template("my/index.html", form=MyForm(formdata=None))


@bp.post("/my")
def show() -> ResponseReturnValue:
    """What the key has used."""
    form = MyForm()
    if not form.validate_on_submit():
        return render_template("my/index.html", form=form)
    try:
        key = _known(form.key.data or "", auth.caller_ip())
    except ApiError as error:
        form.refuse(error)
        status = error.status if isinstance(error, RateLimited) else 200
        return make_response(render_template("my/index.html", form=form), status, dict(error.headers))
    return render_template("my/usage.html", shown_once=True, **_usage(key))


def _known(value: str, ip: str) -> KeyValue:
    """Raises FieldError for a key that opens nothing, RateLimited for who guesses."""
    throttle: LoginThrottle = current_app.extensions["key_throttle"]
    throttle.admit("", ip)
    key = guards.known_key(current_app.extensions["snapshots"].current(), value)
    if key is None:
        throttle.failed("", ip)
        raise FieldError("key", "This is no key of this gateway, or it has expired or was revoked.")
    return key


def _usage(key: KeyValue) -> dict[str, Any]:
    connection, midnight = db.session.connection(), now().replace(hour=0, minute=0, second=0, microsecond=0)
    month = statistics.of_one(connection, "key", str(key.id), midnight.replace(day=1), None)
    models = sorted(current_app.extensions["gateway"].catalog().names(key.models))
    return {
        "key": row_of(api_keys.get(key.id), month),
        "today": statistics.of_one(connection, "key", str(key.id), midnight, None),
        "month": month,
        "rows": logs.page(connection, Filter(key=key.id), MOST_ROWS).rows,
        "models": models,
        "longest": brief.share(models[:60], WORDS),
    }
