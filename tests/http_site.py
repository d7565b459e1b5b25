"""A real HTTP/1.1 server on loopback whose responses a test scripts path by path, down to the byte."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[["Handler"], None]
SECONDS = 60.0


@dataclass
class Site:
    """The files and scripted responses of a server, and the requests that it received.

    Attributes:
        files: Bodies by path, served with a strong ETag and with ranges.
        scripts: Replies by path, used in order; the last one is repeated.
        requests: Path and headers of every request, in order.
        over: Set when the server closes, so that slow replies end.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    scripts: dict[str, list[Reply]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, path: str, body: bytes | str) -> str:
        """Serve a body under a path; return its URL."""
        self.files[path] = body.encode() if isinstance(body, str) else body
        return self.url + path

    def script(self, path: str, *replies: Reply) -> str:
        """Respond to a path with these replies in turn; return its URL."""
        self.scripts[path] = list(replies)
        return self.url + path

    def counts(self) -> Counter[str]:
        """Return how often each path was requested."""
        with self.lock:
            return Counter(path for path, _ in self.requests)

    def headers(self, path: str) -> list[dict[str, str]]:
        """Return the headers of each request for a path, names in lower case."""
        with self.lock:
            return [headers for asked, headers in self.requests if asked == path]

    def forget(self) -> None:
        """Forget the requests so far."""
        with self.lock:
            self.requests.clear()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        with self.site.lock:
            self.site.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            replies = self.site.scripts.get(self.path, [])
            reply = replies.pop(0) if len(replies) > 1 else replies[0] if replies else None
        (reply or serve_file)(self)

    def send(self, status: int, body: bytes = b"", **headers: Any) -> None:
        """Send a complete, well-formed response; underscores in header names become dashes."""
        self.send_response(status)
        for name, value in {"Content_Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def serve_file(handler: Handler) -> None:
    """Serve a file of the site with a strong ETag, Range and If-Range; respond with 404 if it does not exist."""
    body = handler.site.files.get(handler.path.partition("?")[0])
    if body is None:
        handler.send(404, b"no such file")
        return
    etag = f'"{hashlib.md5(body).hexdigest()}"'
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    if not asked or handler.headers.get("If-Range") not in (None, etag):
        handler.send(200, body, ETag=etag)
    elif int(asked[1]) >= len(body):
        handler.send(416, Content_Range=f"bytes */{len(body)}")
    else:
        start = int(asked[1])
        handler.send(206, body[start:], ETag=etag, Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")


def status(code: int, body: bytes = b"", **headers: Any) -> Reply:
    """Respond with a status, a body and headers."""
    return lambda handler: handler.send(code, body, **headers)


def raw(data: bytes, *, reset: bool = False) -> Reply:
    """Send exactly these bytes and close the connection, optionally with a TCP reset."""

    def reply(handler: Handler) -> None:
        handler.wfile.write(data)
        handler.wfile.flush()
        handler.close_connection = True
        if reset:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            handler.connection.close()

    return reply


def silent(beginning: bytes = b"") -> Reply:
    """Send the first bytes, and then nothing until the site is closed."""

    def reply(handler: Handler) -> None:
        handler.wfile.write(beginning)
        handler.site.over.wait(SECONDS)

    return reply


def trickle(beginning: bytes, every: float = 0.02) -> Reply:
    """Send the first bytes, and then one byte per interval until the site is closed."""

    def reply(handler: Handler) -> None:
        handler.wfile.write(beginning)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and not handler.site.over.wait(every):
            handler.wfile.write(b"x")

    return reply


def cut(body: bytes, after: int, etag: str | None = '"v1"') -> Reply:
    """Announce a body and close the connection after some of its bytes."""
    tag = f"ETag: {etag}\r\n" if etag else ""
    return raw(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{tag}\r\n".encode() + body[:after])


def flaky(body: bytes, chance: random.Random, faulty: float = 0.3) -> Reply:
    """Serve a body, but fail at random: with 503, truncated, with a chunk and a reset, or with a reset alone."""
    wrong = [
        status(503),
        cut(body, len(body) // 2),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n", reset=True),
        raw(b"", reset=True),
    ]
    return lambda handler: chance.choice(wrong)(handler) if chance.random() < faulty else serve_file(handler)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors: in many tests the client closes the connection."""


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[Site]:
    """Run a server on a free port until the end of the block; with a context, over TLS."""
    site = Site()
    with Server(("127.0.0.1", 0), type("SiteHandler", (Handler,), {"site": site})) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        site.url = f"http{'s' if context else ''}://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield site
        finally:
            site.over.set()
            server.shutdown()


@contextmanager
def full_backlog() -> Iterator[str]:
    """Yield the URL of a port where connections hang: its backlog is full, and nothing accepts."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as waiting:
        for _ in range(4):
            client = waiting.enter_context(socket.socket())
            client.settimeout(0)
            client.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


@contextmanager
def served(prepare: Callable[[Site], None]) -> Iterator[str]:
    """Serve from a separate process, as a process with threads must not fork; yield the URL."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        with serving() as site:
            prepare(site)
            os.write(theirs, site.url.encode())
            signal.pause()
    os.close(theirs)
    try:
        with open(ours, "rb", buffering=0) as told:
            yield told.read(100).decode()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
