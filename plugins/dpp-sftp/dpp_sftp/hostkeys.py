"""Whether a server is the one it should be: its host key against files of known hosts (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import asyncssh

from dpp_sftp.address import DEFAULT_PORT, Server

_PLAIN = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512", "rsa-sha2-256")
_CERTIFIED = "*-cert-v01@openssh.com"


class Known(NamedTuple):
    """What files of known hosts say of a server.

    Attributes:
        keys: Keys that are trusted.
        authorities: Keys whose certificates are trusted.
        revoked: Keys that are not trusted whatever else is said.
    """

    keys: Sequence[asyncssh.SSHKey]
    authorities: Sequence[asyncssh.SSHKey]
    revoked: Sequence[asyncssh.SSHKey]

    @property
    def algorithms(self) -> str:
        """The kinds of key to ask the server for: those that are known first, and then the others, so that a stranger shows his.

        asyncssh asks for known ones only, and is told nothing but that the connection ended where the server has none of them.
        """
        own = [algorithm.decode() for key in self.keys for algorithm in key.sig_algorithms]
        return ",".join([*([_CERTIFIED] if self.authorities else []), *own, *_PLAIN])


def known(text: str, server: Server) -> Known:
    """Return what files of known hosts say of a server, by its name in the URL only.

    A key that is known for the server's address would be trusted by asyncssh too: who can forge an answer of the DNS could
    send us to another server that we know. And a key revoked for one spelling of the name is revoked, whichever one trusts it.

    Args:
        text: The files.
        server: The server; ``[host]:port`` is looked for first, then ``host``, as OpenSSH does.

    Raises:
        ValueError: A line makes no sense.
    """
    hosts = asyncssh.import_known_hosts(text)
    port = server.port if server.port != DEFAULT_PORT else None
    keys, authorities, *_ = hosts.match(server.host, "", port)
    spellings = [server.host, f"[{server.host}]:{server.port}"]
    revoked = [key for spelling in spellings for key in hosts.match(spelling, "", None)[2]]
    return Known(keys, authorities, revoked)


class HostKeyVerifier(asyncssh.SSHClient):
    """Answer what asyncssh asks on the way in.

    A key that it asks about is one that known hosts do not vouch for: it is remembered, for the message, and never trusted.
    The password is given once, to whichever way of asking for it the server has: a second wrong one may lock the account.

    Args:
        password: The password, or "".
    """

    def __init__(self, password: str) -> None:
        self.stranger: asyncssh.SSHKey | None = None
        self._password: str | None = password or None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Refuse a key; called by asyncssh."""
        self.stranger = key
        return False

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Refuse an authority; called by asyncssh."""
        self.stranger = key
        return False

    def password_auth_requested(self) -> str | None:
        """Give the password; called by asyncssh."""
        password, self._password = self._password, None
        return password

    def kbdint_auth_requested(self) -> str | None:
        """Say whether questions can be answered; called by asyncssh."""
        return None if self._password is None else ""

    def kbdint_challenge_received(self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]) -> list[str] | None:
        """Answer a single question whose answer is not to be shown with the password; called by asyncssh."""
        if not prompts:
            return []
        if len(prompts) > 1 or prompts[0][1] or self._password is None:
            return None
        password, self._password = self._password, None
        return [password]


def refusal(server: Server, trusted_keys: Known, stranger: asyncssh.SSHKey | None, reason: str, files: str) -> str:
    """Return the message for a server whose key is not trusted.

    Args:
        server: The server.
        trusted_keys: The keys and authorities that the known hosts have for it.
        stranger: The key that it showed, if it came to that.
        reason: What asyncssh says.
        files: How the files of known hosts are called.
    """
    shown = f"the server shows {_described(stranger)}" if stranger else reason
    if not trusted_keys.keys and not trusted_keys.authorities:
        return (
            f"the host key of {server} is unknown: {shown}, and {files} has none for it. Ask its operator for the fingerprint, "
            f"compare it with that of `{server.show_key}`, and add the line that ssh-keyscan prints to a file of known hosts"
        )
    expected = ", ".join(map(_described, (*trusted_keys.keys, *trusted_keys.authorities)))
    return (
        f"the host key of {server} is not the known one: {shown}, {files} has {expected}. Somebody may be in between, or the "
        f"server got a new key: ask its operator, and compare with `{server.show_key}` before you change the file of known hosts"
    )


def _described(key: asyncssh.SSHKey) -> str:
    return f"{key.get_algorithm()} {key.get_fingerprint()}"
