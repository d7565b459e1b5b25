"""Parse ``sftp:`` URLs into a server and a path."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote, unquote_to_bytes, urlsplit

DEFAULT_PORT = 22
_UNESCAPED = "/-._~!$&'()*+,;=:@"  # characters that a path may contain without percent-encoding (RFC 3986, section 3.3)


@dataclass(frozen=True)
class Server:
    """A server, and the user who logs in.

    Attributes:
        host: Host name or address, in lower case.
        port: TCP port.
        user: User of the URL, or "".
        password: Password of the URL, or "".
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
        """The shell command that prints the fingerprints of the server's host keys."""
        return f"ssh-keyscan -p {self.port} {shlex.quote(self.host)} | ssh-keygen -lf -"


class Address(NamedTuple):
    """A server and a path on it.

    Attributes:
        server: The server.
        path: The path on the server, in bytes; a relative path starts in the folder after login.
        prefix: The URL up to its path, unchanged.
    """

    server: Server
    path: bytes
    prefix: str

    def url(self, name: bytes) -> str:
        """Return the percent-encoded URL (RFC 3986) of a path relative to this one."""
        path = self.path.rstrip(b"/") + b"/" + name if name else self.path
        return self.prefix + quote_from_bytes(path if path.startswith(b"/") else b"/~/" + path, _UNESCAPED)


def parse(url: str) -> Address:
    """Return the server and path of a URL without a query.

    A path that starts with ``/~/`` is relative to the folder after login; any other path is absolute.

    Raises:
        ValueError: The URL is invalid.
    """
    # No message shows the URL, because it may contain a password
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("the URL's host or port is invalid; percent-encode special characters in its user name and password") from None
    if not host:
        raise ValueError("the URL has no host; expected sftp://user@host/path")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ValueError("the URL has a query or a fragment; percent-encode ? as %3F and # as %23 in file names")
    server = Server(host, port or DEFAULT_PORT, unquote(parts.username or ""), unquote(parts.password or ""))
    return Address(server, _path(parts.path), f"{parts.scheme}://{parts.netloc}")


def _path(text: str) -> bytes:
    path = unquote_to_bytes(text)
    if b"\0" in path:
        raise ValueError("the URL's path contains a NUL byte")
    if path == b"/~" or path.startswith(b"/~/"):
        return path[3:] or b"."
    return path or b"/"
