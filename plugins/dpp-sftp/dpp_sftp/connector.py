"""The way into a server: whether it is the one it should be, who logs in, and what may go wrong on the way."""

from __future__ import annotations

import asyncio
import getpass
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import asyncssh
from dpp import FetchError, Settings

from dpp_sftp.address import Server
from dpp_sftp.connection import Connection
from dpp_sftp.hostkeys import HostKeyVerifier, Known, known, refusal
from dpp_sftp.options import SftpOptions
from dpp_sftp.session import INVALID, PACKET, WINDOW, Session, readable

logging.getLogger("asyncssh").setLevel(logging.WARNING)  # it says of each connection at INFO what it does

CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"  # 840 MB/s here, where ChaCha20 makes 530 and AES-CTR 635
_LOOKS = 10
_LONGEST_PAUSE = 1.0


class Connector:
    """How to get into a server: whom to trust, and how to log in; read once for all connections.

    Args:
        server: The server.
        options: The options of ``sftp``.
        settings: The settings of the run, for ``connect_timeout``.
    """

    def __init__(self, server: Server, options: SftpOptions, settings: Settings) -> None:
        self.server = server
        self._options = options
        self._settings = settings

    def connect(self) -> Connection:
        """Return a new connection.

        Raises:
            FetchError: It can't be had: ``dns``, ``connection``, ``timeout``, ``host-key``, ``auth``, ``protocol``.
        """
        deadline = time.monotonic() + self._settings.connect_timeout
        with self._mapped():
            verifier = HostKeyVerifier(self._password)
            arguments = {**self._arguments, "client_factory": lambda: verifier}
            plug = socket.create_connection((self.server.host, self.server.port), self._settings.connect_timeout)
            try:
                return Connection(self.server, self._pause, lambda: _opened(plug, deadline, arguments))
            except BaseException as error:
                plug.close()
                if isinstance(error, asyncssh.HostKeyNotVerifiable):
                    raise self._stranger(verifier, error) from error
                raise

    def _stranger(self, verifier: HostKeyVerifier, error: asyncssh.HostKeyNotVerifiable) -> FetchError:
        message = refusal(self.server, self._known, verifier.stranger, error.reason, self._options.known_hosts_names)
        return FetchError(message, "host-key")

    @property
    def _pause(self) -> float:
        """How often a connection looks at the limits, in seconds."""
        limits = (self._settings.read_timeout, self._settings.stall_timeout, self._settings.total_timeout or _LONGEST_PAUSE * _LOOKS)
        return min(_LONGEST_PAUSE, min(limits) / _LOOKS)

    @cached_property
    def _arguments(self) -> dict[str, Any]:
        """What asyncssh is told."""
        trusted_keys = self._known
        return {
            "host": self.server.host,
            "port": self.server.port,
            "username": self.server.user or self._user,
            "known_hosts": lambda *_: (*trusted_keys, [], [], [], []),
            "server_host_key_algs": trusted_keys.algorithms,
            "preferred_auth": ("publickey", "password", "keyboard-interactive"),
            "encryption_algs": CIPHERS,
            "compression_algs": ["none"],
            "config": None,
            "gss_host": None,
            "x509_trusted_certs": None,
            **self._keys(),
        }

    @cached_property
    def _known(self) -> Known:
        try:
            return known(self._options.known_hosts_text(), self.server)
        except ValueError as error:
            raise FetchError(f"cannot tell whether {self.server} is to be trusted: {error}", "host-key") from error

    @cached_property
    def _password(self) -> str:
        return self.server.password or self._options.password()

    @cached_property
    def _user(self) -> str:
        try:
            return self._options.user or getpass.getuser()
        except (KeyError, OSError) as error:
            raise ValueError("neither the URL nor the option user says who logs in, and this process has no name") from error

    def _keys(self) -> dict[str, Any]:
        """Return the keys to log in with: that of the options, or none where there is a password, or the agent's and the usual ones."""
        path = self._options.key_path()
        if path is None:
            return {"client_keys": None, "agent_path": None} if self._password else {}
        try:
            pairs = asyncssh.load_keypairs(str(path), self._options.passphrase())
        except OSError as error:
            raise ValueError(f"option key_file: cannot read {path}: {error.strerror}") from error
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            raise ValueError(f"option key_file: {path} is no private key that can be used: {error} (key_passphrase_env)") from error
        return {"client_keys": pairs, "agent_path": None}

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Turn what goes wrong while connecting into what dpp understands."""
        try:
            yield
        except asyncssh.PermissionDenied as error:
            raise FetchError(f"{self.server} refused the login{self._who()}: {readable(error.reason)}", "auth") from error
        except UnicodeError as error:
            raise FetchError(f"the name {self.server.host} is none that a host can have", "dns") from error
        except ValueError as error:
            raise FetchError(f"cannot log in to {self.server}: {error}", "auth") from error
        except asyncssh.KeyExchangeFailed as error:
            raise FetchError(f"{self.server} and this side have no algorithm in common: {readable(error.reason)}", "protocol") from error
        except (asyncssh.Error, OSError) as error:
            raise self._unreachable(error) from error

    def _who(self) -> str:
        """Name the user where it is no part of the URL, which is not shown."""
        return "" if self.server.user else f" of {self._user}"

    def _unreachable(self, error: Exception) -> FetchError:
        if isinstance(error, (asyncssh.ProtocolError, asyncssh.ProtocolNotSupported, asyncssh.ChannelOpenError, *INVALID)):
            return self._senseless(error)
        message, error_class = f"no connection to {self.server}: {readable(getattr(error, 'strerror', None) or str(error))}", "connection"
        if isinstance(error, socket.gaierror):
            message, error_class = f"the name {self.server.host} does not resolve", "dns"
        elif isinstance(error, TimeoutError):
            limit = f"{self._settings.connect_timeout:g} s"
            message, error_class = f"no connection to {self.server} within {limit} (connect_timeout)", "timeout"
        return FetchError(message, error_class, retryable=True)

    def _senseless(self, error: Exception) -> FetchError:
        if isinstance(error, asyncssh.ChannelOpenError):
            return FetchError(f"{self.server} refused an SFTP session: {readable(error.reason)}", "protocol")
        if "authentication" in str(error).lower():
            return FetchError(f"{self.server} refused the login{self._who()}: {readable(str(error))} (name one key in key_file)", "auth")
        return FetchError(f"{self.server} does not speak as an SSH server should: {readable(str(error))}", "protocol")


async def _opened(plug: socket.socket, deadline: float, arguments: dict[str, Any]) -> tuple[asyncssh.SSHClientConnection, Session]:
    """Shake hands, log in, and begin an SFTP session."""
    async with asyncio.timeout(max(0.001, deadline - time.monotonic())):
        plug.setblocking(False)  # noqa: FBT003 - its only parameter
        ssh = await asyncssh.connect(sock=plug, **arguments)
        try:
            asyncio.get_running_loop().call_soon(_acknowledge_at_once, plug)
            writer, reader, _ = await ssh.open_session(subsystem="sftp", encoding=None, window=WINDOW, max_pktsize=PACKET)
            session = Session(reader, writer)
            await session.start(ssh)
        except BaseException:
            ssh.abort()
            raise
    return ssh, session


def _acknowledge_at_once(plug: socket.socket) -> None:
    """Have the next packet acknowledged without delay, where the system can (Linux: tcp(7)); to be called after what it answers was sent.

    OpenSSH's server announces its host keys and then opens the session with two small writes; without the acknowledgement of the first
    one, Nagle's algorithm keeps the second one back for 40 ms.
    """
    if hasattr(socket, "TCP_QUICKACK"):
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
