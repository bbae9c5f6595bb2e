"""The service's own gunicorn.conf.py, and each second a line in DATA_DIR/greenlets: how many this worker holds.

Of conversations it remembers no more than a short warm-up fills: what may grow to its bound is not what leaks.
"""

import gc
import os
import runpy
from pathlib import Path
from typing import Any

import gevent
from greenlet import greenlet

globals().update(runpy.run_path("gunicorn.conf.py"))

_as_always = globals()["post_worker_init"]


CONVERSATIONS = 5_000


def post_worker_init(worker: Any) -> None:
    from opus_api.state import memory  # not at the top, where it would stay in the master

    memory.MOST = CONVERSATIONS
    _as_always(worker)
    gevent.spawn(_count)


def _count() -> None:
    path = Path(os.environ["DATA_DIR"]) / "greenlets"
    while True:
        gevent.sleep(1.0)
        path.write_text(str(sum(isinstance(thing, greenlet) and not thing.dead for thing in gc.get_objects())))
