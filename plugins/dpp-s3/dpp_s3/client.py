"""boto3 clients, one per process and connection."""

# Import this module only when a request is needed: importing boto3 takes about 90 ms, and every run loads all plugins.

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, cast

import boto3
import botocore.session
from botocore.config import Config
from dpp import FetchError, Settings, __version__, http

from dpp_s3.bounded import BoundedSession
from dpp_s3.connection import Connection, Key
from dpp_s3.failures import mapped

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

POOL = 64  # open connections per client; more threads than that open new ones for each request

_lock = threading.Lock()
_clients: dict[tuple[Key, float, float], S3Client] = {}


def client_for(connection: Connection, settings: Settings) -> S3Client:
    """Return the client for a connection; all threads of a process share it.

    Args:
        connection: The server and the credentials.
        settings: Settings with ``connect_timeout`` and ``read_timeout``, in seconds.

    Raises:
        FetchError: The profile or the server's URL is invalid.
    """
    key = (connection.connection_key(), settings.connect_timeout, settings.read_timeout)
    with _lock:
        if key not in _clients:
            _clients[key] = _made(*key)
        return _clients[key]


def release() -> None:
    """Close the idle connections of this process; the clients can still be used."""
    # The clients are kept, because creating one takes long
    with _lock:
        for client in _clients.values():
            client.close()


def _after_fork() -> None:
    """Create the lock and the clients again in a child process."""
    # A child must not use its parent's sockets, and another thread of the parent may have held the lock
    global _lock  # noqa: PLW0603 - a lock that another thread holds can only be replaced
    _lock = threading.Lock()
    _clients.clear()


os.register_at_fork(after_in_child=_after_fork)


def _made(key: Key, connect_timeout: float, read_timeout: float) -> S3Client:
    """Return a new client."""
    # One attempt per request: dpp counts attempts and waits between them
    config = Config(
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        max_pool_connections=POOL,
        retries={"total_max_attempts": 1, "mode": "standard"},
        s3={"addressing_style": key.addressing_style},
        # Some servers other than AWS reject the newer checksums; all accept Content-MD5
        request_checksum_calculation="when_required",
        tcp_keepalive=True,
        user_agent_extra=f"dpp/{__version__}",
    )
    with mapped("cannot connect to S3"):
        try:
            client = _session(key).client("s3", endpoint_url=key.endpoint_url, config=config, verify=_bundle(key.profile))
        # The text of the error is not shown, because it contains the URL
        except ValueError as error:
            raise FetchError("AWS_ENDPOINT_URL or endpoint_url is not a URL such as https://s3.example.org", "protocol") from error
    endpoint = cast("Any", client)._endpoint
    endpoint.http_session = BoundedSession(endpoint.http_session)
    return client


def _bundle(profile: str | None) -> str | None:
    """Return the file of CA certificates that the environment names for all of dpp; None for boto3's own choice."""
    # AWS_CA_BUNDLE, and ca_bundle of the profile, are boto3's own; it reads no folder
    if botocore.session.Session(profile=profile).get_config_variable("ca_bundle"):
        return None
    return http.authorities().file or None


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
