"""boto3's clients, one a process and connection.

Import this only when a request is due: boto3 takes some 90 ms to import, and a plugin is loaded with every run.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from dpp import FetchError, Settings, __version__

from dpp_s3.connection import Connection, Key
from dpp_s3.failures import mapped

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

POOL = 64  # connections kept; more threads than that in one process would have to make new ones

_lock = threading.Lock()
_clients: dict[tuple[Key, float, float], S3Client] = {}


def client_for(connection: Connection, settings: Settings) -> S3Client:
    """Return this process's client for a connection, made at the first call; threads may share it.

    Args:
        connection: Where and as whom.
        settings: For ``connect_timeout`` and ``read_timeout``.

    Raises:
        FetchError: The profile or the server's URL makes no sense.
    """
    key = (connection.connection_key(), settings.connect_timeout, settings.read_timeout)
    with _lock:
        if key not in _clients:
            _clients[key] = _made(*key)
        return _clients[key]


def release() -> None:
    """Close this process's connections that no request uses; clients stay and make new ones, as they are dear to make."""
    with _lock:
        for client in _clients.values():
            client.close()


def _after_fork() -> None:
    """Start anew in a child: its parent's sockets are not its own, and another thread may have held the lock."""
    global _lock  # noqa: PLW0603 - a lock that somebody holds cannot be made free in place
    _lock = threading.Lock()
    _clients.clear()


os.register_at_fork(after_in_child=_after_fork)


def _made(key: Key, connect_timeout: float, read_timeout: float) -> S3Client:
    """Return a new client. It tries once, as dpp counts attempts and waits between them."""
    config = Config(
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        max_pool_connections=POOL,
        retries={"total_max_attempts": 1, "mode": "standard"},
        s3={"addressing_style": key.addressing_style},
        request_checksum_calculation="when_required",  # servers that are not AWS refuse what is not; Content-MD5 is for all
        tcp_keepalive=True,
        user_agent_extra=f"dpp/{__version__}",
    )
    with mapped("cannot connect to S3"):
        try:
            return _session(key).client("s3", endpoint_url=key.endpoint_url, config=config)
        except ValueError as error:  # its text shows the URL
            raise FetchError("AWS_ENDPOINT_URL or endpoint_url is no URL such as https://s3.example.org", "protocol") from error


def _session(key: Key) -> boto3.Session:
    known = key.credentials
    if known is None:
        return boto3.Session(region_name=key.region, profile_name=key.profile)
    return boto3.Session(
        aws_access_key_id=known.token.get_secret_value(),
        aws_secret_access_key=known.secret.get_secret_value(),
        aws_session_token=known.session_token.get_secret_value() if known.session_token else None,
        region_name=key.region,
    )
