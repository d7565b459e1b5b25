"""The address of a scheduler: ``tcp://HOST:PORT``, or ``tls://HOST:PORT``."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

SCHEMES = ("tcp", "tls")


def parse_address(address: str) -> str:
    """Return an address with its scheme, which is tcp if none is given.

    Raises:
        ValueError: The address is invalid; the message does not show it, as it may contain a password.
    """
    address = address.strip().rstrip("/")
    address = address if "://" in address else f"tcp://{address}"
    try:
        parts = urlsplit(address)
        is_complete = bool(parts.hostname and parts.port)
    except ValueError:
        is_complete = False
    if not is_complete or parts.scheme not in SCHEMES or parts.username is not None or parts.path or parts.query or parts.fragment:
        raise ValueError("is not the address of a Dask scheduler; expected tcp://HOST:PORT or tls://HOST:PORT")
    return address


def is_tls(address: str) -> bool:
    """Return whether an address is reached by TLS."""
    return address.startswith("tls://")


def is_loopback(address: str) -> bool:
    """Return whether only processes of this machine can reach an address."""
    host = urlsplit(address).hostname or ""
    # Another name may belong to another machine, or to this one as seen from others.
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
