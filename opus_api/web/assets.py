"""The sheet and the script of the console as they are sent: without what only their readers need, kept by browsers.

An address with the fingerprint of what it stands for may be kept for good; the next version has another one.
"""

import re
import string
from collections import Counter
from functools import cache
from hashlib import sha256

from flask import Blueprint, abort, current_app, make_response, request, url_for
from werkzeug.wrappers import Response

bp = Blueprint("assets", __name__)

KINDS = {"app.css": "text/css", "app.js": "text/javascript", "live.js": "text/javascript"}
FOR_GOOD = "public, max-age=31536000, immutable"
PROPERTY = re.compile(r"--[a-z][\w-]*")
SHORTEST = string.ascii_letters


@bp.get("/static/app.css", defaults={"name": "app.css"})
@bp.get("/static/app.js", defaults={"name": "app.js"})
@bp.get("/static/live.js", defaults={"name": "live.js"})
def show(name: str) -> Response:
    """One of ``KINDS``."""
    body = content(current_app.static_folder or "", name)
    response = make_response(body, {"Content-Type": f"{KINDS[name]}; charset=utf-8"})
    response.headers["Cache-Control"] = FOR_GOOD if request.args.get("v") == fingerprint(body) else "no-cache"
    response.set_etag(fingerprint(body))
    return response.make_conditional(request)


def address(name: str) -> str:
    """Of a file in static/, new whenever its content is."""
    if name not in KINDS:
        return url_for("static", filename=name)
    return url_for("assets.show", name=name, v=fingerprint(content(current_app.static_folder or "", name)))


@cache
def content(folder: str, name: str) -> bytes:
    """Read once. Raises 404 when it is not there."""
    try:
        with open(f"{folder}/{name}", encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        abort(404)
    return (compact(text) if name.endswith(".css") else without_notes(text)).encode()


@cache
def fingerprint(body: bytes) -> str:
    return sha256(body).hexdigest()[:10]


def without_notes(script: str) -> str:
    """A script without its indentation and the comments that have lines of their own."""
    return re.sub(r"^\s*(//.*)?\n?", "", script, flags=re.MULTILINE)


def compact(sheet: str) -> str:
    """A style sheet without comments, needless space and names of its own properties: a page has 60 KB in all."""
    sheet = re.sub(r"/\*.*?\*/", "", sheet, flags=re.DOTALL)
    sheet = re.sub(r"\s+", " ", sheet)
    sheet = re.sub(r" ?([{};,]|[<>]=?) ?|(: )", lambda found: found[1] or ":", sheet)
    sheet = re.sub(r"(?<![\w.])0(?=\.\d)", "", sheet)
    names = [name for name, _ in Counter(PROPERTY.findall(sheet)).most_common()]
    short = {name: f"--{SHORTEST[n] if n < len(SHORTEST) else n}" for n, name in enumerate(names)}
    return PROPERTY.sub(lambda found: short[found[0]], sheet).replace(";}", "}").strip()
