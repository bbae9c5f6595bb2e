"""A process whose greenlets pick accounts as the requests of a worker do, each from the one Redis that all share.

    python -m tests.fakes.pickers REDIS_URL GREENLETS

Each line of standard input is an interval in which nobody joins or leaves: ``accounts`` (ids), ``picks`` (of each
greenlet), ``rate`` (picks a second of this process; 0: as fast as it can) and ``keep`` (places are not given back).
Printed is what was picked: ``counts`` by account id, and ``ms``, how long each pick took.
"""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402 - patching comes before every other import
import random  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections import Counter  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402

from opus_api.state import Candidate, State, engine  # noqa: E402


def main() -> None:
    url, greenlets = sys.argv[1], int(sys.argv[2])
    state = engine(url)
    state.start()
    _say("ready")
    for line in sys.stdin:
        interval = json.loads(line)
        counts: Counter[int] = Counter()
        took: list[float] = []
        picking = [gevent.spawn(_pick, state, interval, counts, took) for _ in range(greenlets)]
        gevent.joinall(picking, raise_error=True)
        _say(json.dumps({"counts": counts, "ms": took}))
    state.stop()


def _pick(state: State, interval: dict[str, Any], counts: Counter[int], took: list[float]) -> None:
    candidates = [Candidate(account_id) for account_id in interval["accounts"]]
    rate = interval["rate"] / int(sys.argv[2])
    for _ in range(interval["picks"]):
        if rate:
            gevent.sleep(random.expovariate(rate))  # requests come when they like
        began = time.perf_counter()
        held = state.pick(candidates, "round_robin", time.time())
        took.append(round((time.perf_counter() - began) * 1000, 3))
        assert held is not None
        counts[held.account_id] += 1
        gevent.sleep(0)
        if not interval["keep"]:
            state.release(held)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
