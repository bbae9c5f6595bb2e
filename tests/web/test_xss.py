"""Nothing that somebody sends is ever live on a page: 300 attempts, in every place that is shown (bar 19).

Each page of ``url_map`` is read as a browser reads it, so one that somebody adds is looked at without being named. A
text that came through whole is a text: no element, no attribute and no address of it may exist.
"""

import itertools
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

from opus_api.extensions import db
from opus_api.models import Account, AccountEvent, DeletedAccount, IpRule, JobRun, ModelRule, User, now
from opus_api.services import api_keys
from tests import bars, routes
from tests.services.test_statistics import row, write
from tests.web.test_matrix import Credentials

MARK = "xssmark"  # in each attempt: wherever it stands, it may only be text or a value

TAGS = ("script", "img src=x", "svg", "iframe", "body", "video", "math", "details open", "input autofocus", "marquee")
EVENTS = ("onerror", "onload", "onfocus", "ontoggle", "onmouseover", "onanimationstart")
OUT_OF = (
    "",
    '"',
    "'",
    '">',
    "'>",
    "-->",
    "</title>",
    "</textarea>",
    "</script>",
    "</option></select>",
    "</style>",
    "`>",
)
SCHEMES = (
    "javascript:",
    "JaVaScRiPt:",
    "java\tscript:",
    "data:text/html,",
    "vbscript:",
    "\x01javascript:",
    "//evil.example/",
)
TEMPLATES = (
    "{{ 7*7 }}",
    "{% raw %}",
    "${7*7}",
    "{{ config }}",
    "#{7*7}",
    "<%= 7*7 %>",
    "%(x)s",
    "%s",
    "{0}",
    "\\u003cscript\\u003e",
)


def corpus() -> Iterator[str]:
    for out, tag in itertools.product(OUT_OF, TAGS):
        event = EVENTS[len(out + tag) % len(EVENTS)]
        yield f"{out}<{tag} {event}={MARK}(1)>{MARK}</{tag.split()[0]}>"
    for out, event in itertools.product(OUT_OF, EVENTS):
        yield f"{out} {event}={MARK}(1) x={out[:1]}"
    for scheme, out in itertools.product(SCHEMES, OUT_OF):
        yield f'{out}<a href="{scheme}{MARK}(1)">{MARK}</a>'
    yield from (f"{scheme}{MARK}(1)" for scheme in SCHEMES)
    yield from (f"{MARK}{template}" for template in TEMPLATES)
    yield from (
        f"<{MARK}>",
        f"<{MARK} x",
        f"&lt;{MARK}&gt;<b>",
        f"<!--{MARK}",
        f"<![CDATA[{MARK}<b>]]>",
        f"<?{MARK} ?>",
    )
    yield from (f"\ufeff<script>{MARK}</script>", f"+ADw-script+AD4-{MARK}", f"<scr\x00ipt>{MARK}</scr\x00ipt>")
    yield from (
        f"<base href=//{MARK}.example>",
        f"<meta http-equiv=refresh content=0;url={MARK}>",
        f"<link href={MARK}>",
    )


CORPUS = list(corpus())


class Live(HTMLParser):
    """Finds what an attempt has become beside text and values: elements, names of attributes, addresses, scripts."""

    ADDRESSES = ("href", "src", "action", "formaction", "srcdoc", "xlink:href", "data", "poster", "srcset")

    def __init__(self, page: str):
        super().__init__()
        self.found: list[str] = []
        self._within = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._within = tag
        if MARK in tag or tag in ("base", "iframe", "math", "marquee", "object", "embed"):
            self.found.append(f"<{tag}>")
        for name, value in attributes:
            if MARK in name or name.startswith("on") or (name in ("style", "srcdoc")):
                self.found.append(f"<{tag} {name}={value}>")
            if name in self.ADDRESSES and MARK in (value or "") and not _is_local(value or ""):
                self.found.append(f"<{tag} {name}={value}>")
            if name == "http-equiv" and MARK in str(attributes):
                self.found.append(f"<{tag} {attributes}>")

    def handle_data(self, data: str) -> None:
        if self._within in ("script", "style") and MARK in data:
            self.found.append(f"in <{self._within}>: {data}")

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_comment(self, data: str) -> None:
        if MARK in data:
            self.found.append(f"<!--{data}-->")

    handle_decl = unknown_decl = handle_pi = handle_comment


def _is_local(address: str) -> bool:
    """A path of this site, or what stays where it is: no script and nobody else's server."""
    parts = urlsplit(address.strip())
    return not parts.scheme and not parts.netloc and not address.startswith("//")


def attempts() -> Iterator[str]:
    return itertools.cycle(CORPUS)


def plant(app: Flask) -> int:
    """Every attempt as an account's name and texts, a key's, a model's, a reason, an outcome of a job; how many."""
    moment = now()
    for n, attempt in enumerate(CORPUS):
        name = attempt.replace("\x00", "")[:80] + f" {n}"
        account = Account(
            provider="openai",
            name=name,
            api_key="sk-x",
            state="invalid" if n % 2 else "cooling",
            state_until=None,
            state_reason=attempt.replace("\x00", "")[:255],
            models=[attempt.replace("\x00", "")],
            listed_models=[attempt.replace("\x00", "")],
            model_map={attempt.replace("\x00", ""): attempt.replace("\x00", "")},
        )
        db.session.add(account)
        db.session.add(ModelRule(pattern=name, target=f"openai/{name}"))
        db.session.add(IpRule(cidr=f"10.{n // 250}.{n % 250}.0/24", reason=attempt.replace("\x00", "")[:255]))
        db.session.flush()
        db.session.add(DeletedAccount(id=n + 1, provider="openai", name=name, deleted_by=name[:80], kept="{}"))
        db.session.add(
            AccountEvent(account_id=account.id, time=moment, who=name, before="active", after="invalid", reason=name)
        )
    db.session.add(
        JobRun(name=CORPUS[0][:40], last_run=moment, last_outcome=f"failed: {CORPUS[1]}"[:255], next_run=moment)
    )
    db.session.commit()
    for n, attempt in enumerate(CORPUS):
        api_keys.create(
            app.extensions["installation"].pepper,
            {"name": attempt.replace("\x00", "?").replace("\x01", "?").replace("\t", " ")[:80] + f" {n}"},
        )
    write(
        *(
            row(n, model=attempt[:200], upstream_model=attempt[:200], error_type=attempt[:40], time=moment)
            for n, attempt in enumerate(CORPUS)
        )
    )
    return len(CORPUS)


def test_the_reader_hears_what_is_live() -> None:
    """The test itself can fail."""
    assert len(CORPUS) >= 300
    assert len(set(CORPUS)) == len(CORPUS)
    for live in (
        "<img onerror=x>",
        f"<{MARK}>",
        f"<a href='javascript:{MARK}'>",
        f"<script>{MARK}</script>",
        f"<!--{MARK}-->",
    ):
        assert Live(live).found, live
    assert not Live(f"<p title='&lt;{MARK}&gt;'>&lt;script&gt;{MARK}</p><a href='/x?q={MARK}'>a</a>").found


def test_no_attempt_is_live_on_any_page(app: Flask, admin: User) -> None:
    planted = plant(app)
    client = app.test_client()
    Credentials(app, admin).session(client)
    request_id = db.session.execute(db.text("SELECT request_id FROM request_logs LIMIT 1")).scalar()
    live, shown, read = [], 0, 0
    for route in routes.every(app):
        if route.method != "GET" or route.kind not in (routes.Kind.PAGE, routes.Kind.OPEN) or "/static" in route.rule:
            continue
        paths = [route.path]
        if "<" in route.rule:  # of things that bear an attempt, the first 40 and the last
            ids = [*range(1, 41), planted]
            paths = [
                route.filled({"account_id": n, "deleted_id": n, "key_id": n, "request_id": request_id}) for n in ids
            ]
        for path in paths:
            page = client.get(path)
            assert page.status_code < 500, path
            if page.mimetype == "text/html":
                read += 1
                shown += page.text.count(MARK)
                live += [(path, found) for found in Live(page.text).found]
    assert shown > planted  # they do come to the pages
    assert not live, live[:10]
    bars.report(19, xss=f"{planted}/{planted}", pages_read=read, attempts_shown=shown, live=len(live))


@pytest.mark.parametrize("where", ["/{}", "/login?next={}", "/cookies?q={}", "/logs?model={}", "/dashboard?period={}"])
def test_no_attempt_in_an_address_is_live(app: Flask, admin: User, where: str) -> None:
    client = app.test_client()
    Credentials(app, admin).session(client)
    place, _, query = where.partition("?")
    for attempt in CORPUS:
        plain = attempt.encode().decode("latin-1")
        written = {"PATH_INFO": place.format(plain)}
        page = client.get(
            "/", query_string={query.partition("=")[0]: attempt} if query else None, environ_overrides=written
        )
        assert page.status_code < 500, attempt
        if page.mimetype == "text/html":
            assert not Live(page.text).found, attempt


def test_no_attempt_typed_at_the_sign_in_is_live(client: FlaskClient, app: Flask, admin: User) -> None:
    credentials = Credentials(app, admin)
    credentials.session(client)
    for attempt in CORPUS[::10]:
        form = {"csrf_token": credentials.csrf, "username": attempt, "password": ""}
        assert not Live(client.post("/login", data=form, headers={"User-Agent": MARK}).text).found
