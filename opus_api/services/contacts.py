"""What clients met that leaves no row in the request log: refusals, and calls that cost nothing (lists, counting).

Who sets up a client reads here what is wrong with it. Of a key only its keyed hash is kept.
"""

from collections import OrderedDict
from dataclasses import asdict, dataclass

from opus_api.state import State
from opus_api.wire import jsons

ONE_PER = 1.0  # second: of an address and kind, so that a client that tries all the time drives nobody else out
ADDRESSES = 1000  # remembered for that
LONGEST = 300  # characters of what came from outside


@dataclass(frozen=True, slots=True)
class Contact:
    """``time`` in Unix seconds; ``key`` is the keyed hash of what was presented, "" for none; ``type`` and ``message``
    are those of the error, "" when the call went well."""

    time: float
    request_id: str
    address: str
    method: str
    path: str
    status: int
    type: str
    message: str
    key: str
    looks_like: str  # the key: "" | placeholder | anthropic | gateway


class Contacts:
    """One per process, over the state that all workers share."""

    def __init__(self, state: State):
        self._state = state
        self._last: OrderedDict[tuple[str, int, str], float] = OrderedDict()

    def note(self, contact: Contact) -> None:
        """Never raises; one of a kind each second."""
        kind = (contact.address, contact.status, contact.key)
        if contact.time - self._last.get(kind, 0.0) < ONE_PER:
            return
        self._last[kind] = contact.time
        self._last.move_to_end(kind)
        if len(self._last) > ADDRESSES:
            self._last.popitem(last=False)
        self._state.note(jsons.dumps(asdict(contact)).decode())

    def since(self, moment: float) -> list[Contact]:
        """The newest first."""
        found = (Contact(**jsons.loads(text)) for text in self._state.notes())
        return [contact for contact in found if contact.time >= moment]


def looks_like(key: str) -> str:
    """What somebody presented who has no valid key of ours."""
    if not key:
        return ""
    if (key.upper() == key and "_" in key) or "YOUR" in key.upper():
        return "placeholder"
    if key.startswith("sk-ant-"):
        return "anthropic"
    return "gateway" if key.startswith("sk-opus-") else ""
