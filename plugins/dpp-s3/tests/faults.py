"""A proxy between client and S3 server, with faults for chosen requests."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "date", "server", "keep-alive"}


class Answer(NamedTuple):
    """A response of a server."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Proxy:
    """The state of a proxy: the requests seen, and the faults for the next ones.

    A fault is a function that gets the handler and the body of a request, and responds to it; each is used once.
    """

    def __init__(self, backend: str) -> None:
        self.backend = urlsplit(backend).netloc
        self.url = ""
        self.server: Server | None = None
        self.seen: list[str] = []
        self.ranges: list[str | None] = []
        self._faults: list[tuple[str, Callable[[Handler, bytes], None]]] = []
        self._lock = threading.Lock()

    def fail(self, request: str, *faults: Callable[[Handler, bytes], None]) -> None:
        """Apply one fault each to the next requests whose "METHOD /path?query" contains all words of ``request``."""
        self._faults += [(request, fault) for fault in faults]

    def take(self, request: str, asked_range: str | None) -> Callable[[Handler, bytes], None]:
        with self._lock:
            self.seen.append(request)
            self.ranges.append(asked_range)
            found = next((entry for entry in self._faults if all(word in request for word in entry[0].split())), None)
            if found is None:
                return forward
            self._faults.remove(found)
            return found[1]


class Handler(BaseHTTPRequestHandler):
    """Read a request and pass it to a fault, or forward it."""

    protocol_version = "HTTP/1.1"
    server: Server

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.proxy.take(f"{self.command} {self.path}", self.headers.get("Range"))(self, body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do  # noqa: N815 - names of http.server

    def asked(self, body: bytes) -> Answer:
        """Return the backend's response."""
        connection = http.client.HTTPConnection(self.server.proxy.backend, timeout=60)
        try:
            connection.request(self.command, self.path, body or None, dict(self.headers.items()))
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()

    def say(self, answer: Answer, length: int | None = None) -> None:
        """Send a response; ``length`` is the announced length, if it differs from that of the body."""
        self.send_response(answer.status)
        announced = next((value for name, value in answer.headers if name.lower() == "content-length"), str(len(answer.body)))
        for name, value in answer.headers:
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", announced if self.command == "HEAD" else str(length or len(answer.body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else answer.body)

    def log_message(self, *args: object) -> None:
        """Log nothing."""


class Server(ThreadingHTTPServer):
    """A server with a reference to its proxy."""

    proxy: Proxy
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Do not print errors of clients that closed the connection."""


def forward(handler: Handler, body: bytes) -> None:
    handler.say(handler.asked(body))


def drop(handler: Handler, body: bytes) -> None:
    """Close the connection without a response, and do not forward the request."""
    handler.close_connection = True


def lose_answer(handler: Handler, body: bytes) -> None:
    """Forward the request, and close the connection without a response."""
    handler.asked(body)
    handler.close_connection = True


def corrupt(handler: Handler, body: bytes) -> None:
    """Change the first byte of the request's body."""
    handler.say(handler.asked(bytes([body[0] ^ 1]) + body[1:]))


def corrupt_answer(handler: Handler, body: bytes) -> None:
    """Change the first byte of the response's body."""
    answer = handler.asked(body)
    handler.say(answer._replace(body=bytes([answer.body[0] ^ 1]) + answer.body[1:]))


def cut_after(count: int) -> Callable[[Handler, bytes], None]:
    """Send the first ``count`` bytes of the response's body, and close the connection."""

    def fault(handler: Handler, body: bytes) -> None:
        answer = handler.asked(body)
        handler.say(answer._replace(body=answer.body[:count]), len(answer.body))
        handler.close_connection = True

    return fault


def error(status: int, code: str, **headers: str) -> Callable[[Handler, bytes], None]:
    """Respond with an error in the format of S3."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>hidden words</Message></Error>".encode()
    shown = [("Content-Type", "application/xml"), *((name.replace("_", "-"), value) for name, value in headers.items())]
    return lambda handler, _: handler.say(Answer(status, shown, body))


@contextmanager
def proxy(backend: str) -> Iterator[Proxy]:
    """Run a proxy in front of a backend."""
    server = Server(("127.0.0.1", 0), Handler)
    server.proxy = Proxy(backend)
    server.proxy.server = server
    server.proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
