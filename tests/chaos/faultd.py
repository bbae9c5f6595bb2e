"""The fault server: an upstream in a process of its own, on gevent, that does what each request's script says.

    python -m tests.chaos.faultd LEDGER

Prints its port. Writes a ledger line when a call comes and another when it has ended; ``ledgers.Call`` is both.
"""

from gevent import monkey

monkey.patch_all()

import itertools  # noqa: E402 - patching comes before every other import
import json  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from collections import Counter  # noqa: E402
from typing import Any, TextIO  # noqa: E402

from tests.chaos import faults  # noqa: E402
from tests.fakes.upstream import Asked, Reply, Upstream  # noqa: E402


class FaultServer(Upstream):
    def __init__(self, ledger: TextIO):
        super().__init__()
        self._ledger = ledger
        self._calls: Counter[str] = Counter()
        self._numbers_of_calls = itertools.count(1)
        self._open: dict[Asked, int] = {}

    def _reply(self, asked: Asked) -> Reply:
        if asked.method == "GET":
            return super()._reply(asked)
        script = faults.script_of(asked.json)
        self._calls[script.tag] += 1
        call = self._calls[script.tag]
        fault = script.faults[call - 1] if call <= len(script.faults) else faults.GOOD
        number = self._open[asked] = next(self._numbers_of_calls)
        told = {**faults.usage(script.tag, call), "retry_after": faults.retry_after(fault)}
        begun = {"tag": script.tag, "call": call, "fault": fault, "account": asked.key, **told}
        self._write({"number": number, "began": asked.at, **begun})
        return faults.reply(asked, script.tag, call, fault)

    def _answer(self, connection: Any, asked: Asked) -> bool:
        self.asked.clear()  # the ledger remembers
        try:
            return super()._answer(connection, asked)
        finally:
            number = self._open.pop(asked, None)
            if number is not None:
                self._write({"number": number, "ended": time.monotonic(), "left": asked.gone_at is not None})

    def _write(self, entry: dict[str, Any]) -> None:
        self._ledger.write(json.dumps(entry) + "\n")
        self._ledger.flush()


if __name__ == "__main__":
    with open(sys.argv[1], "w", encoding="utf-8") as ledger:
        server = FaultServer(ledger)
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        threading.Event().wait()
