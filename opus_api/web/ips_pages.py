"""The page of addresses that are kept out: the list, block, unblock, and who was refused lately."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from flask import flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from flask_babel import lazy_gettext as _l
from werkzeug.wrappers import Response
from wtforms import BooleanField, SelectField, StringField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined] # its stubs are of WTForms 3.2
from wtforms.validators import InputRequired, Optional

from opus_api.extensions import db
from opus_api.models import IpRule, now
from opus_api.services import ip_rules, refusals
from opus_api.services.values import FieldError, rfc3339
from opus_api.web import auth
from opus_api.web.console import keeps_typed, page_blueprint
from opus_api.web.forms import PageForm, _stripped
from opus_api.wire.errors import ApiError

bp = page_blueprint("ips_pages")

LATELY, MOST_REFUSED = timedelta(days=1), 8
MOST = 30  # on the page, which stays under 60 KB with its sheet and script
ENDS: list[SelectChoice] = [
    SelectChoice("", _l("never")),
    SelectChoice("3600", _l("in an hour")),
    SelectChoice("86400", _l("in a day")),
    SelectChoice("604800", _l("in a week")),
    SelectChoice("2592000", _l("in 30 days")),
]


class BlockForm(PageForm):
    """One field for an address or a network; which of the two it is, the slash says."""

    ip = StringField(
        _l("Address or network"),
        [InputRequired(_l("Give an address or a network."))],
        filters=[_stripped],
        description=_l("As 192.0.2.1, 2001:db8::1 or 192.0.2.0/24. An IPv6 address stands for its /64."),
        render_kw={"autocomplete": "off", "spellcheck": "false", "autocapitalize": "none", "maxlength": 50},
    )
    reason = StringField(_l("Reason"), [Optional()], filters=[_stripped], render_kw={"maxlength": 255})
    expires_in = SelectField(_l("Ends"), choices=ENDS)
    own = BooleanField(
        _l("Block it although I come from it"),
        description=_l("You stay in as long as you are signed in; once signed out you cannot come back from there."),
    )
    asks_again = False

    def body(self) -> dict[str, Any]:
        """What the JSON API would be sent."""
        given = self.ip.data or ""
        seconds = int(self.expires_in.data) if self.expires_in.data else None
        return {"cidr" if "/" in given else "ip": given, "reason": self.reason.data, "expires_in": seconds}

    def refuse(self, error: ApiError) -> None:
        if isinstance(error, FieldError):  # one field of the page is both
            error = FieldError(error.field.replace("cidr", "ip"), error.reason)
        super().refuse(error)


@bp.get("/ips")
def index() -> str:
    """Who is kept out; the form may be filled in by the page that leads here."""
    given = {name: request.args.get(name, "") for name in ("ip", "reason")}
    return _page(BlockForm(formdata=None, data=given))


@bp.post("/ips")
@keeps_typed
def block() -> ResponseReturnValue:
    """Blocks; one's own address only when asked for a second time."""
    form = BlockForm()
    if not form.validate_on_submit():
        return _page(form)
    try:
        if ip_rules.covers(form.body(), auth.caller_ip()) and not form.own.data:
            form.asks_again = True
            form.form_errors.append(gettext("This is the address you come from. Nothing is blocked yet."))
            return _page(form)
        rule = ip_rules.block(form.body())
    except ApiError as error:
        form.refuse(error)
        return _page(form)
    flash(_said(form.ip.data or "", rule.cidr), "success")
    return redirect(url_for(".index"))


def _said(given: str, cidr: str) -> str:
    """What is blocked; of an IPv6 address that is more than was typed."""
    if ":" in cidr and "/" not in given:
        said = gettext("%(cidr)s is blocked, the whole network of %(address)s.", cidr=cidr, address=given)
    else:
        said = gettext("%(cidr)s is blocked.", cidr=cidr)
    return str(said)


@bp.post("/ips/unblock")
def unblock() -> Response:
    cidr = request.form.get("cidr", "")
    ip_rules.unblock({"cidr": cidr})
    flash(gettext("%(cidr)s may come in again.", cidr=cidr), "success")
    return redirect(url_for(".index"))


def _page(form: BlockForm) -> str:
    rules = ip_rules.live()
    return render_template(
        "ips.html", form=form, rules=rules[:MOST], more=max(0, len(rules) - MOST), refused=_refused(rules)
    )


def _refused(rules: Sequence[IpRule]) -> list[dict[str, Any]]:
    """Who was not let in most often of late. What is no address is the rest of a flood, which nobody can block."""
    asked = {"by": "address", "from": str(rfc3339(now() - LATELY)), "limit": str(MOST_REFUSED)}
    blocked = ip_rules.Blocked((rule.cidr, rule.expires_at.timestamp() if rule.expires_at else None) for rule in rules)
    return [
        {
            **row,
            "last": datetime.fromisoformat(row["last"]),
            "address": ip_rules.parsed(row["client_ip"]),
            "is_blocked": row["client_ip"] in blocked,
        }
        for row in refusals.answer(db.session.connection(), asked)
    ]
