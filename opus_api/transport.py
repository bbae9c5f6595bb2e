"""The only module that opens sockets to upstreams: connection pools, proxies, time limits and the address guard.

An Exchange is one request and its answer. Reading it never blocks for longer than its Patience wants: an empty read
(b"") means that time passed, so that whoever waits for the upstream can ping its client meanwhile.

Whole-socket reads: for chunked bodies the framing is taken off here, so that one read of the socket (often many
events) is one read of ours. http.client would return one HTTP chunk, that is one event, at a time.
"""

import ipaddress
import socket
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

import gevent
import requests
import urllib3
from gevent.hub import Hub, Waiter
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from opus_api.config import Settings
from opus_api.upstreams import practice
from opus_api.upstreams.base import Failure, Verdict
from opus_api.version import __version__
from opus_api.wire.http import Dechunker, Flow, FramingError, HttpRequest, HttpResponse

T = TypeVar("T")

USER_AGENT = f"opus-api/{__version__}"
READ_SIZE = 16_384  # what a waiting stream pins in memory
FIRST_READ_SIZE = 65_536  # at least http.client's buffer, so that one read empties it
LARGEST_REFUSAL = 64 * 1024
POOL_SIZE = 4096  # worker_connections: a pool that is too small throws connections away
CHECK_EVERY = 0.25  # seconds between two looks of the watchdog
LAST_BYTES_WAIT = 1.0  # seconds an upstream gets to end a body whose last event has come

# Names under which clouds serve credentials to whoever asks from inside.
METADATA_HOSTS = {
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
}
METADATA_NETWORKS = [ipaddress.ip_network(n) for n in ("169.254.0.0/16", "fd00:ec2::/32", "100.100.100.200/32")]
# Networks that reach inside although Python calls some of them global: NAT64, 6to4.
TUNNELS = [ipaddress.ip_network(n) for n in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16")]


# ---- who may be reached


class AddressRefused(ValueError):
    """An upstream's address is not allowed; the message is a sentence for the operator."""


def check_url(url: str, settings: Settings) -> None:
    """The part of the address guard that needs no name resolution. Raises AddressRefused."""
    parts = urlsplit(url)
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise AddressRefused("The base URL has an invalid port.") from None
    if parts.scheme not in ("http", "https") or not host:
        raise AddressRefused("The base URL must look like https://host/path.")
    if parts.username or parts.password or "@" in parts.netloc:
        raise AddressRefused("The base URL must not contain a user name or password.")
    if parts.query or parts.fragment:
        raise AddressRefused("The base URL must not contain a query or a fragment.")
    if host.rstrip(".").lower() in METADATA_HOSTS:
        raise AddressRefused("The base URL points to a cloud's metadata service.")
    address = _literal(host)
    if address:
        check_address(address, settings)
    private = bool(address and _inside(address, settings.allow_private_upstreams))
    if (
        not private
        and (parts.scheme != "https" or port not in (None, 443))
        and (address or not _may_be_private(settings))
    ):
        raise AddressRefused("The base URL must use https on port 443; other addresses need ALLOW_PRIVATE_UPSTREAMS.")


def check_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address, settings: Settings) -> None:
    """Raises AddressRefused for an address that is neither public nor allowed by ALLOW_PRIVATE_UPSTREAMS."""
    address = getattr(address, "ipv4_mapped", None) or address
    if _inside(address, METADATA_NETWORKS):
        raise AddressRefused("The base URL points to a cloud's metadata service.")
    if _inside(address, settings.allow_private_upstreams):
        return
    if not address.is_global or address.is_multicast or _inside(address, TUNNELS):
        raise AddressRefused(
            f"{address} is not a public address; list its network in ALLOW_PRIVATE_UPSTREAMS to allow it."
        )


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:  # 127.1, 0x7f000001, 2130706433: forms that the C library reads as addresses
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


def _inside(address: Any, networks: Any) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _may_be_private(settings: Settings) -> bool:
    """A name may resolve into an allowed private network; the check at connect time decides."""
    return bool(settings.allow_private_upstreams)


def resolve(host: str, port: int, settings: Settings, secure: bool) -> list[tuple[Any, ...]]:
    """Addresses of a host, every one checked. Raises AddressRefused, or OSError when the name is unknown."""
    found = socket.getaddrinfo(host.strip("[]"), port, 0, socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in found]
    for address in addresses:
        check_address(address, settings)
        if not _inside(address, settings.allow_private_upstreams) and (not secure or port != 443):
            raise AddressRefused(
                "The base URL must use https on port 443; other addresses need ALLOW_PRIVATE_UPSTREAMS."
            )
    return found


class _Guarded:
    """A connection that goes to an address which was checked, so that a name cannot change its mind in between."""

    settings: Settings

    def _new_conn(self) -> socket.socket:
        connection: Any = self
        host, port = connection._dns_host, connection.port
        error: OSError = OSError("no address")
        try:
            found = resolve(host, port, self.settings, isinstance(self, HTTPSConnection))
        except OSError as unknown:
            raise urllib3.exceptions.NameResolutionError(host, connection, unknown) from unknown  # type: ignore[arg-type]
        for family, kind, protocol, _, address in found:
            sock = socket.socket(family, kind, protocol)
            try:
                for option in connection.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(connection.timeout)
                sock.connect(address)
                return sock
            except OSError as failed:
                error = failed
                sock.close()
        if isinstance(error, TimeoutError):
            raise urllib3.exceptions.ConnectTimeoutError(connection, "connect timed out") from error
        raise urllib3.exceptions.NewConnectionError(connection, str(error)) from error


def _pool_classes(settings: Settings) -> dict[str, type]:
    plain = type("GuardedHTTPConnection", (_Guarded, HTTPConnection), {"settings": settings})
    secure = type("GuardedHTTPSConnection", (_Guarded, HTTPSConnection), {"settings": settings})
    return {
        "http": type("GuardedHTTPPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("GuardedHTTPSPool", (HTTPSConnectionPool,), {"ConnectionCls": secure}),
    }


class _Adapter(HTTPAdapter):
    """requests' adapter without what we never use: cookies, redirects, encodings. Returns urllib3's response."""

    def __init__(self, settings: Settings):
        self._classes = _pool_classes(settings)
        super().__init__(pool_connections=256, pool_maxsize=POOL_SIZE, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._classes

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> Any:
        return resp


# ---- waiting


class TimePassed(BaseException):
    """Thrown into a greenlet that waits for an upstream, so that it can do something else for a moment."""


class ClientGone(Exception):
    """Thrown into a greenlet that waits for an upstream whose answer nobody wants any more."""


class Patience:
    """How long one request waits for upstreams, and who may interrupt it meanwhile.

    ``wake_at`` (monotonic seconds) is when the waiting greenlet wants to be woken by an empty read.
    """

    def __init__(self, wake_at: float = float("inf")):
        self.wake_at = wake_at
        self._greenlet: Any = None  # set while it waits
        self._gone = False

    def __enter__(self) -> None:
        if self._gone:
            raise ClientGone
        self._greenlet = gevent.getcurrent()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._greenlet = None

    def interrupt(self, error: BaseException) -> None:
        """Raise ``error`` where the greenlet waits; nothing happens when it does not wait any more by then."""
        gevent.get_hub().loop.run_callback(self._throw, error)

    def client_gone(self) -> None:
        self._gone = True
        self.interrupt(ClientGone())

    def sleep(self, seconds: float) -> None:
        """Raises ClientGone."""
        with self:
            gevent.sleep(seconds)

    def _throw(self, error: BaseException) -> None:
        # Runs in the hub: the greenlet can not go on between the look and the throw.
        if self._greenlet is not None:
            greenlet, self._greenlet = self._greenlet, None
            greenlet.throw(error)


class _Watchdog:
    """One greenlet per process that wakes and cuts exchanges: a timer per read would cost more than the read."""

    def __init__(self) -> None:
        self._watched: set[Exchange] = set()
        self._hub: Hub | None = None

    def add(self, exchange: "Exchange") -> None:
        self._watched.add(exchange)
        if self._hub is not gevent.get_hub():  # also after a fork
            self._hub = gevent.get_hub()
            gevent.spawn(self._run)

    def discard(self, exchange: "Exchange") -> None:
        self._watched.discard(exchange)

    def _run(self) -> None:
        while True:
            gevent.sleep(CHECK_EVERY)
            now = time.monotonic()
            for exchange in list(self._watched):
                exchange.check(now)


_watchdog = _Watchdog()


# ---- one exchange


class Limits:
    """Seconds: to the first body byte, of silence within the body, and for everything."""

    __slots__ = ("connect", "first", "idle", "total")

    def __init__(self, connect: float, first: float, idle: float, total: float):
        self.connect, self.first, self.idle, self.total = connect, first, idle, total


def timed_out(message: str) -> Failure:
    return Failure(Verdict.TRANSIENT, 504, "timeout_error", message)


def unreachable(message: str) -> Failure:
    return Failure(Verdict.UNREACHABLE, 502, "api_error", message)


def cut(message: str = "upstream stream ended early") -> Failure:
    return Failure(Verdict.TRANSIENT, 502, "api_error", message)


class Exchange:
    """One request and its answer. ``open`` waits for the head, ``chunks`` for the body; ``close`` is always called."""

    def __init__(self, transport: "Transport", request: HttpRequest, proxy: str, patience: Patience, limits: Limits):
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._transport = transport
        self._request: HttpRequest | None = request
        self._proxy = proxy
        self._patience = patience
        self._limits = limits
        self._began = self._heard = time.monotonic()
        self._deadline = self._began + limits.total
        self._silence = limits.first  # seconds allowed without a byte
        self._opening: gevent.Greenlet[..., Any] | None = None
        self._raw: Any = None
        self._whole = False  # the body was read to its end

    # -- the head

    def open(self) -> Iterator[bytes]:
        """Send and wait for status and headers; yields b"" when time passes. Raises Failure, ClientGone."""
        assert self._request is not None
        done: Waiter[Any] = Waiter()
        self._opening = gevent.spawn(self._transport.send, self._request, self._proxy, self._limits.connect)
        self._opening.rawlink(done.switch)  # called in the hub
        self._request = None  # a prompt may be large
        _watchdog.add(self)
        while not self._opening.ready():
            try:
                with self._patience:
                    done.get()
            except TimePassed:
                yield b""
        outcome: Any = self._opening.value
        self._opening = None
        if isinstance(outcome, Failure):
            raise outcome
        self._raw = outcome
        self.status = outcome.status
        self.headers = {name.lower(): value for name, value in outcome.headers.items()}

    # -- the body

    def chunks(self) -> Iterator[bytes]:
        """What each read of the socket brought; b"" when time passed. Raises Failure, ClientGone."""
        dechunker = Dechunker() if self._is_plainly_chunked() else None
        read = self._socket_reader() if dechunker else self._plain_reader()
        size = FIRST_READ_SIZE
        while not (dechunker and dechunker.done):
            data = self._read(read, size)
            if data is None:
                yield b""
                continue
            if not data:
                break
            size = READ_SIZE
            payload = self._unframed(dechunker, data) if dechunker else data
            if payload:
                yield payload
        if dechunker and not dechunker.done:
            raise cut()
        self._whole = not (dechunker and dechunker.rest)
        self._release()

    def body(self, largest: int = LARGEST_REFUSAL) -> Iterator[bytes]:
        """The first ``largest`` bytes in one piece, after b"" for each time that passed."""
        parts, size = [], 0
        for chunk in self.chunks():
            if not chunk:
                yield b""
            parts.append(chunk)
            size += len(chunk)
            if size >= largest:
                break
        yield b"".join(parts)[:largest]

    def last_event_came(self) -> None:
        """The answer is complete; only the end of the body is still to come, and need not."""
        self._deadline = min(self._deadline, time.monotonic() + LAST_BYTES_WAIT)

    def no_total_limit(self, seconds: float) -> None:
        """Content flows: from now on only silence and ``seconds`` end it."""
        self._deadline = self._began + seconds

    def close(self) -> None:
        """Give the connection back, or cut it when the body was not read to its end."""
        _watchdog.discard(self)
        if self._opening is not None:
            self._opening.unlink_all()
            self._opening.kill(block=False)
            self._opening = None
        if self._raw is not None:
            self._raw.close()
            self._raw = None

    def check(self, now: float) -> None:
        """By the watchdog: wake the reader, or end its wait."""
        if now >= self._deadline:
            self._patience.interrupt(timed_out("upstream took too long"))
        elif now - self._heard >= self._silence:
            self._patience.interrupt(timed_out("upstream stayed silent for too long"))
        elif now >= self._patience.wake_at:
            self._patience.interrupt(TimePassed())

    def _read(self, read: Any, size: int) -> bytes | None:
        try:
            with self._patience:
                data: bytes = read(size)
        except TimePassed:
            return None
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise cut() from error
        self._heard = time.monotonic()
        self._silence = self._limits.idle
        return data

    def _unframed(self, dechunker: Dechunker, data: bytes) -> bytes:
        try:
            return dechunker.feed(data)
        except FramingError as error:
            raise cut("upstream broke the chunked framing") from error

    def _is_plainly_chunked(self) -> bool:
        framing = self.headers.get("transfer-encoding", "").lower()
        return framing == "chunked" and self.headers.get("content-encoding", "identity").lower() == "identity"

    def _socket_reader(self) -> Any:
        """Reads the connection itself. The first read empties http.client's buffer, which has begun to read the body."""
        buffered = self._raw._fp.fp
        sock = buffered.raw._sock
        sock.settimeout(None)  # the watchdog keeps time

        def read(size: int) -> bytes:
            if size == FIRST_READ_SIZE:
                return bytes(buffered.read1(size))
            return bytes(sock.recv(size))

        return read

    def _plain_reader(self) -> Any:
        connection = self._raw.connection
        if connection is not None and connection.sock is not None:
            connection.sock.settimeout(None)
        return lambda size: self._raw.read1(size, decode_content=True)

    def _release(self) -> None:
        """Give the connection back when its body was read to the end: reuse saves more than anything else does."""
        _watchdog.discard(self)
        if self._whole and self._raw is not None:
            self._raw._fp.close()  # http.client did not see the end that we read
            self._raw.release_conn()
            self._raw = None


class Transport:
    """Connection pools of one process."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._adapter = _Adapter(settings)
        self._verify: str | bool = settings.upstream_ca_bundle or True

    def exchange(self, request: HttpRequest, patience: Patience, limits: Limits, proxy: str = "") -> Any:
        if request.url.startswith(practice.SCHEME):
            return PracticeExchange(request, patience, limits)
        return Exchange(self, request, proxy, patience, limits)

    def send(self, request: HttpRequest, proxy: str, connect_timeout: float) -> Any:
        """urllib3's response with its body unread, or the Failure: this runs in a greenlet of its own."""
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url, prepared.body = request.method, request.url, request.body
        length = {"Content-Length": str(len(request.body))} if request.body is not None else {}
        prepared.headers = {"User-Agent": USER_AGENT, **request.headers, **length}  # type: ignore[assignment]
        timeout = (connect_timeout, None)  # the watchdog keeps the time of the answer
        proxies = self._proxies(request, proxy)
        try:
            if proxies:  # the proxy resolves the name, so only a literal address can be checked
                check_url(request.url.partition("?")[0], self._settings)
            return self._adapter.send(prepared, stream=True, timeout=timeout, verify=self._verify, proxies=proxies)
        except AddressRefused as error:
            return unreachable(str(error))
        except requests.exceptions.SSLError:
            return unreachable("upstream's certificate could not be verified")
        except (requests.exceptions.ConnectTimeout, requests.exceptions.ProxyError):
            return unreachable("upstream could not be reached")
        except requests.exceptions.ConnectionError as error:
            reason = getattr(error.args[0] if error.args else None, "reason", None)
            if isinstance(reason, urllib3.exceptions.NewConnectionError):  # refused, or no such name
                return unreachable("upstream could not be reached")
            return cut("upstream closed the connection")
        except (OSError, ValueError, urllib3.exceptions.HTTPError):
            return cut("the request could not be sent")

    def _proxies(self, request: HttpRequest, proxy: str) -> dict[str, str]:
        scheme = request.url.partition(":")[0]
        url = proxy or self._settings.proxy_for(scheme)
        if not url or _is_excepted(urlsplit(request.url).hostname or "", self._settings.no_proxy):
            return {}
        return {scheme: url}

    def run(self, flow: Flow[T], *, proxy: str = "", deadline: float = 15.0) -> T:
        """Drive a conversation with a server to its result; ``deadline`` in seconds for each exchange. Raises Failure."""
        response: HttpResponse | None = None
        while True:
            try:
                request = flow.send(response) if response else next(flow)
            except StopIteration as end:
                value: T = end.value
                return value
            response = self.fetch(request, proxy=proxy, deadline=deadline)

    def fetch(self, request: HttpRequest, *, proxy: str = "", deadline: float = 15.0) -> HttpResponse:
        """One whole exchange of up to 8 MiB. Raises Failure."""
        limits = Limits(min(self._settings.upstream_connect_timeout, deadline), deadline, deadline, deadline)
        exchange = self.exchange(request, Patience(), limits, proxy)
        try:
            for _ in exchange.open():
                pass
            *_, body = exchange.body(8 * 2**20)
            return HttpResponse(exchange.status, exchange.headers, body)
        finally:
            exchange.close()


def _is_excepted(host: str, names: tuple[str, ...]) -> bool:
    """NO_PROXY: names with all below them, addresses, networks, or *."""
    address = _literal(host)
    for name in names:
        if name in ("*", host) or host.endswith("." + name.lstrip(".")):
            return True
        if address and "/" in name and _inside(address, [ipaddress.ip_network(name, strict=False)]):
            return True
    return False


class PracticeExchange:
    """The built-in provider behind the same interface: what it says comes from a script instead of a socket."""

    def __init__(self, request: HttpRequest, patience: Patience, limits: Limits):
        reply = practice.reply(request)
        self.status = reply.status
        self.headers = reply.headers
        self._script = reply.script
        self._patience = patience
        self._limits = limits

    def open(self) -> Iterator[bytes]:
        yield from ()

    def chunks(self) -> Iterator[bytes]:
        for step in self._script:
            if isinstance(step, bytes):
                yield step
            elif step > self._limits.idle:
                yield from self._pause(self._limits.idle)
                raise timed_out("upstream stayed silent for too long")
            else:
                yield from self._pause(step)

    def body(self, largest: int = LARGEST_REFUSAL) -> Iterator[bytes]:
        yield b"".join(self.chunks())[:largest]

    def _pause(self, seconds: float) -> Iterator[bytes]:
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            wake = max(self._patience.wake_at, now + 0.01)
            self._patience.sleep(min(until, wake) - now)
            if wake <= until:
                yield b""

    def last_event_came(self) -> None:
        pass

    def no_total_limit(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        pass
