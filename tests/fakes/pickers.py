"""A process whose greenlets pick accounts as the requests of a worker do, each from the one Redis that all share.

    python -m tests.fakes.pickers REDIS_URL GREENLETS

Each line of standard input is an interval in which nobody joins or leaves: ``accounts`` (ids), ``picks`` (of each
greenlet), ``rate`` (picks a second of this process; 0: as fast as it can) and ``keep`` (places are not given back).
Printed is what was picked: ``counts`` by account id, ``ms``, how long each pick took, and ``bare_ms``, how long Redis
took to answer a PING just before it: what this machine takes for any question.
"""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402 - patching comes before every other import
import random  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import redis  # noqa: E402

from opus_api.state import Candidate, State, engine  # noqa: E402


def main() -> None:
    url, greenlets = sys.argv[1], int(sys.argv[2])
    state, server = engine(url), redis.Redis.from_url(url)
    state.start()
    _say("ready")
    for line in sys.stdin:
        interval = json.loads(line)
        counts: Counter[int] = Counter()
        took: list[float] = []
        bare: list[float] = []
        picking = [gevent.spawn(_pick, state, server, interval, counts, took, bare) for _ in range(greenlets)]
        gevent.joinall(picking, raise_error=True)
        _say(json.dumps({"counts": counts, "ms": took, "bare_ms": bare}))
    state.stop()


def _pick(
    state: State, server: Any, interval: dict[str, Any], counts: Counter[int], took: list[float], bare: list[float]
) -> None:
    candidates = [Candidate(account_id) for account_id in interval["accounts"]]
    rate = interval["rate"] / int(sys.argv[2])
    for _ in range(interval["picks"]):
        if rate:
            gevent.sleep(random.expovariate(rate))  # requests come when they like
            bare.append(_ms(server.ping)[0])
        ms, held = _ms(lambda: state.pick(candidates, "round_robin", time.time()))
        took.append(ms)
        assert held is not None
        counts[held.account_id] += 1
        gevent.sleep(0)
        if not interval["keep"]:
            state.release(held)


def _ms(ask: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    answer = ask()
    return round((time.perf_counter() - began) * 1000, 3), answer


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
