"""The only package that opens sockets to upstreams: connection pools, proxies, time limits and the address guard."""

import socket
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from opus_api.config import Settings
from opus_api.transport.exchange import Exchange, Limits, PracticeExchange, cut, unreachable
from opus_api.transport.guard import AddressRefused, check_url, is_excepted, resolve
from opus_api.transport.patience import ClientGone, Patience
from opus_api.upstreams import practice
from opus_api.upstreams.base import Failure
from opus_api.version import __version__
from opus_api.wire.http import Flow, HttpRequest, HttpResponse

T = TypeVar("T")

USER_AGENT = f"opus-api/{__version__}"
POOL_SIZE = 4096  # worker_connections: a pool that is too small throws connections away
# What the kernel takes of an answer that its client does not read: else up to 6 MiB for each of a thousand streams.
RECEIVED = (socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 1024)


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
        super().init_poolmanager(*args, **kwargs, socket_options=[*HTTPConnection.default_socket_options, RECEIVED])
        self.poolmanager.pool_classes_by_scheme = self._classes

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> Any:
        return resp


class Transport:
    """Connection pools of one process."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._adapter = _Adapter(settings)
        self._verify: str | bool = settings.upstream_ca_bundle or True

    def exchange(self, request: HttpRequest, patience: Patience, limits: Limits, proxy: str = "") -> Any:
        if request.url.startswith(practice.SCHEME):
            return PracticeExchange(request, patience, limits)
        return Exchange(self.send, request, proxy, patience, limits)

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
        if not url or is_excepted(urlsplit(request.url).hostname or "", self._settings.no_proxy):
            return {}
        return {scheme: url}

    def run(self, flow: Flow[T], *, proxy: str = "", deadline: float = 15.0) -> T:
        """Drive a conversation with a server to its result; ``deadline`` in seconds an exchange. Raises Failure."""
        try:
            request = next(flow)
            while True:
                try:
                    response = self.fetch(request, proxy=proxy, deadline=deadline)
                except Failure as failure:
                    request = flow.throw(failure)  # it may do without this answer
                else:
                    request = flow.send(response)
        except StopIteration as end:
            value: T = end.value
            return value

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


__all__ = ["AddressRefused", "ClientGone", "Failure", "Limits", "Patience", "Transport", "check_url"]
