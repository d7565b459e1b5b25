"""A proxy on loopback that counts connections and bytes, and can close a connection or stop forwarding."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Proxy:
    """Forward bytes between clients and a server.

    Attributes:
        port: Port on which it listens.
        cuts: For each of the next connections, the number of bytes from the server after which it is closed.
        mute_after: Number of bytes from the server after which nothing is forwarded, or None.
        served: Number of bytes from the server that were forwarded, per connection.
        most: Maximum number of connections that were open at once.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cuts: list[int] = []
        self.mute_after: int | None = None
        self.served: list[int] = []
        self.most = 0
        self._open: set[socket.socket] = set()
        self._ever: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                number, cut = len(self.served), self.cuts.pop(0) if self.cuts else None
                self.served.append(0)
                with self._lock:
                    self._open |= {client, server}
                    self.most = max(self.most, len(self._open) // 2)
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._ever += [client, server]
                self._start(self._pass, client, server, None, None)
                self._start(self._pass, server, client, number, cut)

    def _pass(self, source: socket.socket, target: socket.socket, number: int | None, cut: int | None) -> None:
        with suppress(OSError):
            while data := source.recv(16 * 1024):
                if number is not None and self.mute_after is not None and self.served[number] >= self.mute_after:
                    continue
                data = data if cut is None or number is None else data[: cut - self.served[number]]
                target.sendall(data)
                if number is not None:
                    self.served[number] += len(data)
                if cut is not None and number is not None and self.served[number] >= cut:
                    break
        self._drop(source, target)

    def _drop(self, *ends: socket.socket) -> None:
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open -= set(ends)

    def drop_all(self) -> None:
        """Close all open connections."""
        self._drop(*list(self._open))

    def close(self) -> None:
        """Stop listening, and close all connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self.drop_all()
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._ever):
            end.close()


@contextmanager
def proxy(host: str, port: int) -> Iterator[Proxy]:
    """Run a proxy in front of a server until the end of the block."""
    made = Proxy((host, port))
    try:
        yield made
    finally:
        made.close()
