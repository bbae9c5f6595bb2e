"""The service's own gunicorn.conf.py, whose worker leads the jobs as soon as it serves."""

import runpy
from typing import Any

globals().update(runpy.run_path("gunicorn.conf.py"))

_as_always = globals()["post_worker_init"]


def post_worker_init(worker: Any) -> None:
    from opus_api import jobs

    jobs.START_DELAY = 0.0
    _as_always(worker)
