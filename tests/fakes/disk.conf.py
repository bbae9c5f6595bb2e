"""The service's own gunicorn.conf.py, and beside DATA_DIR a folder `disk` with what a loss of power would leave.

A file has there what was taken to the disk last; what never was is not there. SQLite's own writes to a disk cannot be
seen from here, so it makes none: its file stays as it was, and all changes are in its log, which we take to the disk.
"""

import os
import runpy
from pathlib import Path
from typing import Any

_data = Path(os.environ["DATA_DIR"])
_disk = _data.with_name("disk")
_fsync = os.fsync


def _kept(descriptor: int) -> None:
    path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
    written = path.read_bytes() if path.is_file() else b""
    _fsync(descriptor)
    if path.is_relative_to(_data):
        copy = _disk / path.relative_to(_data)
        copy.parent.mkdir(parents=True, exist_ok=True)
        part = copy.with_name(f".{copy.name}.{descriptor}")
        part.write_bytes(written)
        part.rename(copy)


os.fsync = _kept

globals().update(runpy.run_path("gunicorn.conf.py"))

_as_always = globals()["post_worker_init"]


def post_worker_init(worker: Any) -> None:
    from opus_api.services.request_log import Recorder

    Recorder.CHECKPOINT_EVERY = 3600.0
    _as_always(worker)
