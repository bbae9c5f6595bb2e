"""``Idempotency-Key``: a call of the JSON API that makes something can be repeated without making it twice."""

import io
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import ParamSpec

from flask import Response, current_app, g, has_request_context, request
from flask.typing import ResponseReturnValue
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

from opus_api import crypto
from opus_api.extensions import db
from opus_api.services import done_calls
from opus_api.services.done_calls import HEADER, LONGEST, Reply
from opus_api.services.settings import Installation
from opus_api.services.values import FieldError
from opus_api.web.bodies import LIMIT, received
from opus_api.web.signed_in import caller
from opus_api.wire.errors import ApiError

P = ParamSpec("P")

MARK = "_is_done_once"  # of a view; the OpenAPI document names the header where it is


def once(view: Callable[P, ResponseReturnValue]) -> Callable[P, ResponseReturnValue]:
    """For views that answer JSON, below ``signed_in``: a person's call with the same key within 24 hours gets the same
    answer. One that was refused, or that the database failed before anything was saved, may be sent again; one that
    ended in any other error stays in doubt, as a 409."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> ResponseReturnValue:
        key = request.headers.get(HEADER)
        if key is None:
            return view(*args, **kwargs)
        engine, name, said = db.engine, _name(key), _hash(_said())
        # The session's connection goes back first: whoever holds one while waiting for another may wait in vain.
        db.session.rollback()
        known = done_calls.begin(engine, name, said)
        if known is not None:
            return _answer(known, {"Idempotency-Replayed": "true"})
        g.has_committed = False
        try:
            response = current_app.make_response(view(*args, **kwargs))
        except (ApiError, SQLAlchemyError):
            db.session.rollback()
            if not g.has_committed:
                with suppress(SQLAlchemyError):  # when it is still away, the call stays in doubt
                    done_calls.forget(engine, name)
            raise
        db.session.rollback()
        done_calls.end(engine, name, Reply(response.status_code, response.get_data(as_text=True)))
        return response

    setattr(guarded, MARK, True)
    return guarded


@event.listens_for(Engine, "commit")
def _note_commit(_: object) -> None:
    """Before each commit; whether one that fails has happened, nobody knows."""
    if has_request_context():
        g.has_committed = True


def _answer(reply: Reply, headers: dict[str, str]) -> Response:
    return Response(reply.body, reply.status, headers, content_type="application/json" if reply.body else None)


def _name(key: str) -> str:
    """Of this person's key: nobody meets another's. Raises FieldError."""
    if not 0 < len(key) <= LONGEST or not (key.isascii() and key.isprintable()):
        raise FieldError(HEADER, f"must be 1 to {LONGEST} printable ASCII characters.")
    return _hash(f"{caller().user.id} {key}")


def _said() -> str:
    """Method, path and body of this call; the view reads the body again."""
    body = received(request, LIMIT)
    request.environ["wsgi.input"] = io.BytesIO(body)
    return f"{request.method} {request.path}\n{body.decode('utf-8', 'surrogateescape')}"


def _hash(text: str) -> str:
    """Keyed, because a body may hold a secret that could be guessed."""
    owner: Installation = current_app.extensions["installation"]
    return crypto.keyed_hash(owner.pepper, text)
