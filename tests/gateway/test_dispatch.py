"""One request on its way, where no upstream can be made to behave so."""

from typing import Any

import pytest

from opus_api.config import Settings
from opus_api.dialects import anthropic
from opus_api.gateway.catalog import Catalog
from opus_api.gateway.dispatch import Dispatch
from opus_api.gateway.load import Load
from opus_api.gateway.pool import Pool
from opus_api.gateway.stream import Answer
from opus_api.state.memory import MemoryState
from tests.gateway.values import Notes, account, snapshot


class Broken:
    """A transport with a mistake in it."""

    def __init__(self) -> None:
        self.asked = 0

    def exchange(self, *_: Any) -> Any:
        self.asked += 1
        raise ZeroDivisionError


@pytest.mark.parametrize("stream", [True, False])
def test_a_mistake_of_our_own_is_no_reason_to_ask_anybody_else(stream: bool) -> None:
    accounts = snapshot(account(1, models=("m",)), account(2, models=("m",)))
    notes, transport, load = Notes(), Broken(), Load()
    pool = Pool(notes, 3, MemoryState())  # type: ignore[arg-type]
    pool.adopt(accounts)
    body = {"model": "m", "max_tokens": 5, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}
    targets = Catalog(accounts, practice_only=False).resolve("m").targets
    call = anthropic.parse(body, {})
    dispatch = Dispatch(call, targets, "priority", pool, transport, Settings(), load)  # type: ignore[arg-type]
    answer = Answer(dispatch, "req_1", 15.0, lambda _: None)
    with pytest.raises(ZeroDivisionError):
        answer.begin() if stream else answer.whole()
    answer.close()
    assert (transport.asked, notes.states, load.requests) == (1, [], 0)
