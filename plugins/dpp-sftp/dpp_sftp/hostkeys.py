"""Check host keys against known hosts files (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import asyncssh

from dpp_sftp.address import DEFAULT_PORT, Server

_PLAIN = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512", "rsa-sha2-256")
_CERTIFIED = "*-cert-v01@openssh.com"


class Known(NamedTuple):
    """The entries of known hosts files for a server.

    Attributes:
        keys: Trusted keys.
        authorities: Keys of trusted certificate authorities.
        revoked: Revoked keys, which are never trusted.
    """

    keys: Sequence[asyncssh.SSHKey]
    authorities: Sequence[asyncssh.SSHKey]
    revoked: Sequence[asyncssh.SSHKey]

    @property
    def algorithms(self) -> str:
        """The host key algorithms to request from the server, known ones first."""
        # By default, asyncssh requests the known ones only. Then a server without such a key closes the connection, and the
        # message could not show the key that it has.
        own = [algorithm.decode() for key in self.keys for algorithm in key.sig_algorithms]
        return ",".join([*([_CERTIFIED] if self.authorities else []), *own, *_PLAIN])


def known(text: str, server: Server) -> Known:
    """Return the entries of known hosts files for the server's name in the URL.

    Args:
        text: The content of the files.
        server: The server; ``[host]:port`` is looked up first, then ``host``, as OpenSSH does.

    Raises:
        ValueError: A line is invalid.
    """
    hosts = asyncssh.import_known_hosts(text)
    port = server.port if server.port != DEFAULT_PORT else None
    # Without the address, for which asyncssh would trust a key too: a forged DNS response could lead to another known server
    keys, authorities, *_ = hosts.match(server.host, "", port)
    # A key that is revoked for one spelling of the name is revoked for all
    spellings = [server.host, f"[{server.host}]:{server.port}"]
    revoked = [key for spelling in spellings for key in hosts.match(spelling, "", None)[2]]
    return Known(keys, authorities, revoked)


class HostKeyVerifier(asyncssh.SSHClient):
    """asyncssh's callbacks for the host key and the password.

    Args:
        password: The password, or "".

    Attributes:
        stranger: The server's key, if it is not trusted.
    """

    def __init__(self, password: str) -> None:
        self.stranger: asyncssh.SSHKey | None = None
        # Sent only once, by whichever method the server requests: a second wrong password may lock the account
        self._password: str | None = password or None

    # asyncssh calls this only for keys that are not in the known hosts files
    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Store a key for the message, and reject it."""
        self.stranger = key
        return False

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Store the key of an authority for the message, and reject it."""
        self.stranger = key
        return False

    def password_auth_requested(self) -> str | None:
        """Return the password the first time, and then None."""
        password, self._password = self._password, None
        return password

    def kbdint_auth_requested(self) -> str | None:
        """Return "" to accept keyboard-interactive authentication, or None without a password."""
        return None if self._password is None else ""

    def kbdint_challenge_received(self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]) -> list[str] | None:
        """Return the password as the response to a single prompt without echo, or None to give up."""
        if not prompts:
            return []
        # Other prompts ask for something else, such as a one-time code
        if len(prompts) > 1 or prompts[0][1] or self._password is None:
            return None
        password, self._password = self._password, None
        return [password]


def refusal(server: Server, trusted_keys: Known, stranger: asyncssh.SSHKey | None, reason: str, files: str) -> str:
    """Return the message for a server whose key is not trusted.

    Args:
        server: The server.
        trusted_keys: The entries of the known hosts files for it.
        stranger: The key that the server sent, or None if another check failed before.
        reason: The message of asyncssh.
        files: Names of the known hosts files.
    """
    shown = f"the server sent {_described(stranger)}" if stranger else reason
    if not trusted_keys.keys and not trusted_keys.authorities:
        return (
            f"the host key of {server} is unknown: {shown}, and {files} has no key of this server. Get the fingerprint from the "
            f"server's operator, compare it with the output of `{server.show_key}`, and add the line that ssh-keyscan prints to a "
            "known hosts file"
        )
    expected = ", ".join(map(_described, (*trusted_keys.keys, *trusted_keys.authorities)))
    return (
        f"the host key of {server} does not match the known hosts: {shown}, expected {expected} (from {files}). The connection may "
        "be intercepted, or the server has a new key: get the fingerprint from the server's operator, and compare it with the "
        f"output of `{server.show_key}` before you change the known hosts file"
    )


def _described(key: asyncssh.SSHKey) -> str:
    return f"{key.get_algorithm()} {key.get_fingerprint()}"
