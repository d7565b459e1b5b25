"""Connect to a server: check its host key, log in, and map the errors."""

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
from dpp import FetchError, Settings, http

from dpp_sftp.address import Server
from dpp_sftp.connection import Connection
from dpp_sftp.hostkeys import HostKeyVerifier, Known, known, refusal
from dpp_sftp.options import SftpOptions
from dpp_sftp.session import INVALID, PACKET, WINDOW, Session, readable

# asyncssh logs several lines per connection at INFO
logging.getLogger("asyncssh").setLevel(logging.WARNING)

# Measured on one core: AES-GCM 840 MB/s, AES-CTR 635 MB/s, ChaCha20 530 MB/s
CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
_LOOKS = 10
_LONGEST_PAUSE = 1.0


class Connector:
    """Open connections to a server; host keys and credentials are read once for all of them.

    Args:
        server: The server.
        options: The options of ``sftp``.
        settings: The settings of the run, with ``connect_timeout`` in seconds.
    """

    def __init__(self, server: Server, options: SftpOptions, settings: Settings) -> None:
        self.server = server
        self._options = options
        self._settings = settings

    def connect(self) -> Connection:
        """Return a new connection.

        Raises:
            FetchError: It cannot be opened: ``dns``, ``connection``, ``timeout``, ``host-key``, ``auth``, ``protocol``, ``refused``.
        """
        deadline = time.monotonic() + self._settings.connect_timeout
        with self._mapped():
            verifier = HostKeyVerifier(self._password)
            arguments = {**self._arguments, "client_factory": lambda: verifier}
            plug = socket.create_connection((self.server.host, self.server.port), self._settings.connect_timeout)
            try:
                if self._settings.deny_private:
                    http.check_peer(plug.getpeername()[0])
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
        """Seconds between two checks of the time limits."""
        limits = (self._settings.read_timeout, self._settings.stall_timeout, self._settings.total_timeout or _LONGEST_PAUSE * _LOOKS)
        return min(_LONGEST_PAUSE, min(limits) / _LOOKS)

    @cached_property
    def _arguments(self) -> dict[str, Any]:
        """The arguments for ``asyncssh.connect``."""
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
            raise FetchError(f"cannot check the host key of {self.server}: {error}", "host-key") from error

    @cached_property
    def _password(self) -> str:
        return self.server.password or self._options.password()

    @cached_property
    def _user(self) -> str:
        try:
            return self._options.user or getpass.getuser()
        except (KeyError, OSError) as error:
            raise ValueError("no user to log in as; put one into the URL or set the option user") from error

    def _keys(self) -> dict[str, Any]:
        """Return the arguments for the private keys: the key of the options, none with a password, or asyncssh's defaults."""
        path = self._options.key_path()
        # With a password, keys that the server rejects would use up its limit of attempts
        if path is None:
            return {"client_keys": None, "agent_path": None} if self._password else {}
        try:
            pairs = asyncssh.load_keypairs(str(path), self._options.passphrase())
        except OSError as error:
            raise ValueError(f"option key_file: cannot read {path}: {error.strerror}") from error
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            raise ValueError(
                f"option key_file: {path} is not a usable private key: {error}; if it has a passphrase, set key_passphrase_env"
            ) from error
        return {"client_keys": pairs, "agent_path": None}

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Map errors while connecting to FetchError."""
        try:
            yield
        except asyncssh.PermissionDenied as error:
            raise FetchError(
                f"{self.server} refused the login{self._who()}: {readable(error.reason)}; check the user, the key and the password", "auth"
            ) from error
        # Raised by the IDNA codec; a ValueError too
        except UnicodeError as error:
            raise FetchError(f"{self.server.host} is not a valid host name", "dns") from error
        except ValueError as error:
            raise FetchError(f"cannot log in to {self.server}: {error}", "auth") from error
        except asyncssh.KeyExchangeFailed as error:
            raise FetchError(f"no SSH algorithm in common with {self.server}: {readable(error.reason)}", "protocol") from error
        except (asyncssh.Error, OSError) as error:
            raise self._unreachable(error) from error

    def _who(self) -> str:
        """Return the user for messages, or "" if it comes from the URL."""
        # The user of a URL may be a secret, as an access token
        return "" if self.server.user else f" of {self._user}"

    def _unreachable(self, error: Exception) -> FetchError:
        if isinstance(error, (asyncssh.ProtocolError, asyncssh.ProtocolNotSupported, asyncssh.ChannelOpenError, *INVALID)):
            return self._senseless(error)
        reason = readable(getattr(error, "strerror", None) or str(error))
        message, error_class = f"cannot connect to {self.server}: {reason}", "connection"
        if isinstance(error, socket.gaierror):
            message, error_class = f"the host name {self.server.host} does not resolve", "dns"
        elif isinstance(error, TimeoutError):
            limit = f"{self._settings.connect_timeout:g} s"
            message, error_class = f"no connection to {self.server} within {limit} (connect_timeout)", "timeout"
        return FetchError(message, error_class, retryable=True)

    def _senseless(self, error: Exception) -> FetchError:
        if isinstance(error, asyncssh.ChannelOpenError):
            return FetchError(f"{self.server} refused an SFTP session: {readable(error.reason)}", "protocol")
        # OpenSSH's "Too many authentication failures", if an agent has more keys than MaxAuthTries
        if "authentication" in str(error).lower():
            return FetchError(f"{self.server} refused the login{self._who()}: {readable(str(error))}; set key_file to a single key", "auth")
        return FetchError(f"invalid response from the SSH server {self.server}: {readable(str(error))}", "protocol")


async def _opened(plug: socket.socket, deadline: float, arguments: dict[str, Any]) -> tuple[asyncssh.SSHClientConnection, Session]:
    """Perform the SSH handshake, log in, and start an SFTP session."""
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
    """Acknowledge the next packet without delay, if the system supports it (Linux: tcp(7)); call it after the request was sent."""
    # OpenSSH's server sends its host keys and the confirmation of the session in two small writes; until the first one is
    # acknowledged, Nagle's algorithm delays the second one by 40 ms
    if hasattr(socket, "TCP_QUICKACK"):
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
