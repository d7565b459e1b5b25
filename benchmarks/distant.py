"""Forward TCP connections to a port of this machine with a delay of 0.5 ms each way: ``python distant.py PORT TARGET_PORT``."""

# With threads, because an event loop would round the delay up to 1 ms.

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import suppress
from queue import SimpleQueue

ONE_WAY = 0.0005  # seconds
HOST = "127.0.0.1"


def receive(source: socket.socket, on_the_way: SimpleQueue[tuple[float, bytes]]) -> None:
    """Queue received data with the time at which to send it; ``b""`` marks the end."""
    data = b"x"
    while data:
        data = b""
        with suppress(OSError):
            data = source.recv(256 * 1024)
        on_the_way.put((time.monotonic() + ONE_WAY, data))


def deliver(on_the_way: SimpleQueue[tuple[float, bytes]], target: socket.socket) -> None:
    """Send queued data at its time, up to the end."""
    with suppress(OSError):
        while True:
            due, data = on_the_way.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not data:
                break
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


def main() -> None:
    listener = socket.create_server((HOST, int(sys.argv[1])), backlog=128)
    while True:
        client, _ = listener.accept()
        server = socket.create_connection((HOST, int(sys.argv[2])))
        for source, target in ((client, server), (server, client)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            on_the_way: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
            threading.Thread(target=receive, args=(source, on_the_way), daemon=True).start()
            threading.Thread(target=deliver, args=(on_the_way, target), daemon=True).start()


if __name__ == "__main__":
    main()
