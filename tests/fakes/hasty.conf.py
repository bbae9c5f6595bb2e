"""The service's own gunicorn.conf.py, with limits at the edge that a test can wait for, and a look at the hub.

Where it stood still for more than 20 ms it writes how many milliseconds to DATA_DIR/pauses. What counts is the time
that this process computed meanwhile: what other processes take of the machine is no fault of the hub.
"""

import os
import runpy
import time
from pathlib import Path
from typing import Any

import gevent

globals().update(runpy.run_path("gunicorn.conf.py"))

_as_always = globals()["post_worker_init"]
keepalive = 2


def post_worker_init(worker: Any) -> None:
    from opus_api.gateway import gateway
    from opus_api.web import bodies

    bodies.PATIENCE = 1.0
    gateway.MOST_LIVE = 40
    worker.longest_write = 1.0
    _as_always(worker)
    gevent.spawn(_look_at_the_hub)


def _look_at_the_hub() -> None:
    with (Path(os.environ["DATA_DIR"]) / "pauses").open("a", buffering=1) as kept:
        while True:
            computed, began = time.process_time(), time.monotonic()
            gevent.sleep(0.005)
            pause = min(time.process_time() - computed, time.monotonic() - began) * 1000
            if pause > 20:
                kept.write(f"{pause:.0f}\n")
