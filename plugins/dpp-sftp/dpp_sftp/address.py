"""What an ``sftp:`` URL names: a server, and a path on it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote, unquote_to_bytes, urlsplit

DEFAULT_PORT = 22
_UNESCAPED = "/-._~!$&'()*+,;=:@"  # what a path may hold as it is: RFC 3986, section 3.3


@dataclass(frozen=True)
class Server:
    """A server, and who logs in there.

    Attributes:
        host: Name or address, in lower case.
        port: TCP port.
        user: The URL's user, or "" where it gives none.
        password: The URL's password, or "".
    """

    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORT else f"{host}:{self.port}"

    @property
    def show_key(self) -> str:
        """The command that shows the fingerprints of the server's host keys."""
        return f"ssh-keyscan -p {self.port} {shlex.quote(self.host)} | ssh-keygen -lf -"


class Address(NamedTuple):
    """What a URL names.

    Attributes:
        server: The server.
        path: The path on it, as the server's bytes; relative ones begin where the server puts a login.
        prefix: The URL up to its path, as it was written.
    """

    server: Server
    path: bytes
    prefix: str

    def url(self, name: bytes) -> str:
        """Return the URL of something below the path, by its relative path; percent-encoded as RFC 3986 wants it."""
        path = self.path.rstrip(b"/") + b"/" + name if name else self.path
        return self.prefix + quote_from_bytes(path if path.startswith(b"/") else b"/~/" + path, _UNESCAPED)


def parse(url: str) -> Address:
    """Return what a URL without a query names.

    A path that begins with ``/~/`` is relative to the folder that the server puts a login into; any other is absolute.

    Raises:
        ValueError: It names no file of a server; the message has none of the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("the URL's host or port makes no sense; percent-encode what is special in its user name or password") from None
    if not host:
        raise ValueError("the URL has no host; expected sftp://user@host/path")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ValueError("the URL has a query or a fragment; percent-encode ? as %3F and # as %23 in the name of a file")
    server = Server(host, port or DEFAULT_PORT, unquote(parts.username or ""), unquote(parts.password or ""))
    return Address(server, _path(parts.path), f"{parts.scheme}://{parts.netloc}")


def _path(text: str) -> bytes:
    path = unquote_to_bytes(text)
    if b"\0" in path:
        raise ValueError("the URL's path has a NUL")
    if path == b"/~" or path.startswith(b"/~/"):
        return path[3:] or b"."
    return path or b"/"
