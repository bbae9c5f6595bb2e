"""The answer to one request: begun before its HTTP status is chosen, pinged while it waits, recorded when it closes."""

import logging
import select
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gevent
from gevent import monkey

from opus_api.dialects import DIALECTS
from opus_api.gateway.dispatch import Dispatch
from opus_api.transport import ClientGone, Patience
from opus_api.upstreams.base import Failure
from opus_api.wire.errors import ApiError

log = logging.getLogger(__name__)

_real_poll = monkey.get_original("select", "poll")  # the patched one would switch greenlets, which the hub can not
LOOK_BEHIND_EVERY = 0.05  # seconds

HTTP_COMMIT_AFTER = 10.0  # seconds without content until 200 and a ping are sent


class Answer:
    """One answer; iterate it for bytes. ``close`` is called once, also when iterating never began."""

    def __init__(self, dispatch: Dispatch, request_id: str, ping_interval: float, on_close: Callable[["Answer"], None]):
        self.dispatch = dispatch
        self.request_id = request_id
        self.status = 200
        self.headers: Mapping[str, str] = {}  # how much its key may still use
        self.error: ApiError | None = None
        self.client_gone = False
        self.begun = False  # the HTTP status is chosen
        self._dialect = DIALECTS[dispatch.call.dialect]
        self._ping_interval = ping_interval
        self._on_close = on_close
        self._pieces = dispatch.pieces()
        self._first = b""
        self._finished = False  # the last bytes were handed over
        self._closed = False

    def begin(self) -> None:
        """Wait until there is content to send or HTTP_COMMIT_AFTER has passed. Raises ApiError, Failure, ClientGone."""
        patience = self.dispatch.patience
        patience.wake_at = time.monotonic() + HTTP_COMMIT_AFTER
        for data, _ in self._pieces:
            if data:
                self._first = data
                break
            if time.monotonic() >= patience.wake_at:
                self._first = self._dialect.PING
                break
        patience.wake_at = time.monotonic() + self._ping_interval
        self.begun = True

    def whole(self) -> bytes:
        """The complete answer to a client that did not ask for a stream. Raises ApiError, Failure, ClientGone."""
        parts = [data for data, _ in self._pieces if data]
        self._finished = True
        return b"".join(parts)

    def __iter__(self) -> Iterator[bytes]:
        patience = self.dispatch.patience
        interval = self._ping_interval
        if self._first:
            yield self._first
            self._first = b""
            patience.wake_at = time.monotonic() + interval  # a client may take its time: then nothing is due yet
        try:
            for data, _ in self._pieces:
                if data or time.monotonic() >= patience.wake_at:
                    yield data or self._dialect.PING
                    patience.wake_at = time.monotonic() + interval
            self._finished = True
        except ClientGone:
            self.client_gone = True
        except Exception as error:  # noqa: BLE001 - the status is sent: whatever it is ends the stream in its protocol
            self.error = as_api_error(error)
            yield self._dialect.error_event(self.error, self.request_id)
            self._finished = True

    def close(self) -> None:
        """Free the account and the upstream, write the log row."""
        if self._closed:
            return
        self._closed = True
        self._pieces.close()  # type: ignore[attr-defined]
        if not self._finished and self.error is None:
            self.client_gone = True
        self._on_close(self)


def as_api_error(error: Exception) -> ApiError:
    """What the client may know of an error; a bug of ours goes to the log whole."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Failure):
        return ApiError(error.status, error.type, error.message, details=error.details)
    log.error("unexpected error in an answer", exc_info=error)
    return ApiError(500, "api_error", "Internal error")


class ClientWatch:
    """Notices that the client hung up while its request waits for an upstream, so that the upstream is freed at once.

    Nothing else would: a silent stream writes nothing, and only a write finds out.
    """

    def __init__(self, sock: Any, patience: Patience):
        self._sock = sock
        self._patience = patience
        self._watcher = gevent.get_hub().loop.io(sock.fileno(), 1)
        self._timer: Any = None
        self._look()  # a client that left while it queued costs no upstream call

    def _look(self) -> None:
        # Runs in the hub, but for the first time. Bytes to read are the client's next request: they hide its end, so
        # look at that from time to time; the watcher itself would fire without pause.
        self._watcher.stop()
        try:
            gone = self._sock._sock.recv(1, 0x02 | 0x40) == b""  # MSG_PEEK | MSG_DONTWAIT
        except BlockingIOError:
            self._watcher.start(self._look)
            return
        except OSError:
            gone = True
        if gone:
            self._patience.client_gone()
        else:
            poll = _real_poll()
            poll.register(self._sock.fileno(), getattr(select, "POLLRDHUP", 0))  # elsewhere than on Linux: only errors
            self._timer = gevent.get_hub().loop.timer(LOOK_BEHIND_EVERY, repeat=LOOK_BEHIND_EVERY)
            self._timer.start(self._look_behind, poll)

    def _look_behind(self, poll: Any) -> None:
        if poll.poll(0):
            self._timer.stop()
            self._patience.client_gone()

    def close(self) -> None:
        self._watcher.stop()
        self._watcher.close()
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
