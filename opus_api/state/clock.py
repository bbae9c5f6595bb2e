"""Unix time that does not jump: deadlines are kept in it, and a corrected clock must neither stretch nor skip them."""

import time


def _elapsed() -> float:
    """Seconds since some moment, sleep of the machine included where the system tells."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


_BEGAN = time.time() - _elapsed()


def now() -> float:
    return _BEGAN + _elapsed()
