"""The pages that sign in to Amazon Q by device code: begin, the code with its link, what became of it.

The second page asks again by itself (a Refresh header, no script), and has a button for those who do not want to wait.
"""

from typing import Any

from flask import flash, make_response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from flask_login import current_user

from opus_api.models import Account
from opus_api.upstreams.amazonq import UPSTREAM
from opus_api.web.console import keeps_typed, page_blueprint
from opus_api.web.cookies import accounts
from opus_api.web.forms import DeviceSignInForm
from opus_api.web.management import sign_ins
from opus_api.wire.errors import ApiError

bp = page_blueprint("sign_in_pages")

LOOK_AGAIN = 5  # seconds between two looks of a page, at least


@bp.get("/cookies/sign-in")
def sign_in() -> str:
    """Where to sign in; with ``account_id`` an account is signed in again. Fields may be filled in."""
    account = _again()
    known: dict[str, Any] = {"name": account.name, **(account.oidc or {})} if account else {}
    known |= {name: request.args[name] for name in ("name", "start_url", "region") if name in request.args}
    return _form_page(DeviceSignInForm(formdata=None, data=known), account)


@bp.post("/cookies/sign-in")
@keeps_typed
def begin_sign_in() -> ResponseReturnValue:
    """Asks the sign-in service for a code."""
    form, account = DeviceSignInForm(), _again()
    if form.validate_on_submit():
        asked: dict[str, Any] = {"account_id": account.id} if account else {"name": form.name.data}
        asked |= {"start_url": form.start_url.data, "region": form.region.data}
        try:
            row = sign_ins().start(asked, current_user.id)
            return redirect(url_for(".wait_for_sign_in", flow_id=row.flow_id))
        except ApiError as error:
            form.refuse(error)
    return _form_page(form, _again())


@bp.get("/cookies/sign-in/<flow_id>")
def wait_for_sign_in(flow_id: str) -> ResponseReturnValue:
    """The code and its link until the person has approved; then the account."""
    row = sign_ins().get(flow_id)
    if row.status == "complete" and row.account_id:
        flash(gettext("Signed in to Amazon Q."), "success")
        return redirect(url_for("cookies_pages.saved", account_id=row.account_id))
    response = make_response(render_template("cookies/sign_in_wait.html", sign_in=row, upstream=UPSTREAM))
    if row.status == "pending":
        response.headers["Refresh"] = str(max(LOOK_AGAIN, round(row.interval)))
    return response


def _again() -> Account | None:
    account_id = request.values.get("account_id", type=int)
    return accounts().get(account_id) if account_id is not None else None


def _form_page(form: DeviceSignInForm, account: Account | None) -> str:
    return render_template("cookies/sign_in.html", form=form, account=account, upstream=UPSTREAM)
