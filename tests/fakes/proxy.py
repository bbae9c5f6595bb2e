"""A forward proxy that takes every host for one and the same server, and remembers what it was asked for."""

import socket
import threading
from contextlib import suppress


class Proxy:
    def __init__(self, server_port: int):
        self.asked: list[str] = []  # the first line of each request
        self.headers: list[str] = []
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            head = b""
            while b"\r\n\r\n" not in head:
                data = client.recv(65_536)
                if not data:
                    return
                head += data
            first, _, rest = head.partition(b"\r\n")
            self.asked.append(first.decode())
            self.headers.append(rest.decode("latin-1"))
            with socket.create_connection(("127.0.0.1", self._server_port)) as server:
                if first.startswith(b"CONNECT "):
                    client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                else:
                    method, url, version = first.split()
                    path = b"/" + url.split(b"/", 3)[3]
                    server.sendall(b" ".join((method, path, version)) + b"\r\n" + rest)
                back = threading.Thread(target=_pipe, args=(server, client), daemon=True)
                back.start()
                _pipe(client, server)
                back.join()


def _pipe(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
