"""Blueprint ``health``: whether this process answers, in the two shapes that people ask for."""

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from opus_api.models import now
from opus_api.services.values import rfc3339
from opus_api.version import __version__

bp = Blueprint("health", __name__)


@bp.get("/health")
def health() -> ResponseReturnValue:
    return jsonify(status="healthy", timestamp=rfc3339(now()), version=__version__)


@bp.get("/healthz")
def healthz() -> ResponseReturnValue:
    return jsonify(status="ok")
