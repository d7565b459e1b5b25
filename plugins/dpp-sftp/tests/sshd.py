"""A real OpenSSH server on loopback, with its own keys and configuration, run by the user who runs the tests.

    with sshd(tmp_path) as server:
        files = server.url(folder)
        options = {"sftp": server.options}

It needs Debian's openssh-server and openssh-client, and for a password also openssl and util-linux. It uses no configuration,
server or account of the machine.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from listening import reserved_port

HOST = "127.0.0.1"
SECONDS = 60.0
USER = "acme"  # the user with a password
CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
PasswordAuthentication {passwords}
KbdInteractiveAuthentication no
MaxStartups 100
Subsystem sftp internal-sftp
{more}
"""
WITH_USERS = 'mount --bind "$0" /etc/passwd && exec "$@"'


@dataclass
class Server:
    """A running server.

    Attributes:
        host: Its address.
        port: Its port.
        known_hosts: A known hosts file with its key.
        key_file: A private key that it accepts.
        folder: Folder of its files: ``host_key``, ``log``.
        user: The user that it accepts: ``acme`` with a password, otherwise the user of this process.
    """

    host: str
    port: int
    known_hosts: Path
    key_file: Path
    folder: Path
    user: str

    @property
    def options(self) -> dict[str, object]:
        """Options of ``sftp`` to log in."""
        return {"known_hosts": str(self.known_hosts), "key_file": str(self.key_file)}

    @property
    def host_key(self) -> str:
        """The public host key in the format of known hosts files: type and key."""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    @property
    def log(self) -> str:
        """The server's log."""
        return (self.folder / "log").read_text()

    def url(self, path: Path | str, port: int | None = None) -> str:
        """Return the URL of a path, with a slash at the end for a folder."""
        slash = "/" if Path(path).is_dir() else ""
        return f"sftp://{self.user}@{self.host}:{port or self.port}{quote(str(path))}{slash}"

    def trust_port(self, port: int) -> None:
        """Add the host key for another port, such as that of a proxy, to the known hosts file."""
        with self.known_hosts.open("a") as known:
            known.write(f"[{self.host}]:{port} {self.host_key}\n")


@contextmanager
def sshd(folder: Path, more: str = "", password: str = "") -> Iterator[Server]:
    """Run a server until the end of the block.

    Args:
        folder: Folder for keys, configuration and log; an existing ``host_key`` is used.
        more: More lines of sshd_config(5).
        password: Password of a user ``acme`` that exists only for this server, with the ids of the user of this process.
    """
    for name in ("host_key", "client_key"):
        if not (folder / name).exists():
            make_key(folder / name)
    shutil.copy(folder / "client_key.pub", folder / "authorized_keys")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    before = knowing_user(folder, password) if password else []
    arguments = ["-D", "-f", folder / "sshd_config", "-E", folder / "log"]
    user = USER if password else pwd.getpwuid(os.getuid()).pw_name
    with reserved_port() as port:
        (folder / "sshd_config").write_text(CONFIG.format(port=port, folder=folder, more=more, passwords="yes" if password else "no"))
        server = Server(HOST, port, folder / "known_hosts", folder / "client_key", folder, user)
        server.trust_port(port)
        with _running([*before, program("sshd"), *arguments], folder / "log") as process:
            _wait_for(process, server)
            yield server


@contextmanager
def _running(command: Sequence[str | Path], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as stream:
        process = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL, stderr=stream)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def knowing_user(folder: Path, password: str) -> list[str]:
    """Return a command that runs a program with one more user in /etc/passwd, in a mount namespace of its own."""
    hashed = subprocess.run([program("openssl"), "passwd", "-6", "-stdin"], input=password, capture_output=True, text=True, check=True)
    users = folder / "passwd"
    users.write_text(f"{Path('/etc/passwd').read_text()}{USER}:{hashed.stdout.strip()}:{os.getuid()}:{os.getgid()}::{folder}:/bin/sh\n")
    privileges = [] if os.getuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    return [program("unshare"), "--mount", *privileges, program("sh"), "-c", WITH_USERS, str(users)]


def make_key(path: Path, *more: str) -> Path:
    """Create a key pair without a passphrase, or with other options of ssh-keygen(1)."""
    arguments = ["-q", "-t", "ed25519", "-f", str(path), *(more or ("-N", ""))]
    subprocess.run([program("ssh-keygen"), *arguments], check=True, stdin=subprocess.DEVNULL)
    return path


def program(name: str) -> str:
    """Return the path of a program, or fail the test."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.fail(f"{name} not found; run scripts/install-system-packages")
    return found


def _wait_for(process: subprocess.Popen[bytes], server: Server) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection((server.host, server.port), 1) as probe:
                probe.settimeout(SECONDS)
                if probe.recv(4) == b"SSH-":
                    return
        except ConnectionRefusedError:
            time.sleep(0.01)
    pytest.fail(f"sshd did not start; its log:\n{server.log if (server.folder / 'log').exists() else ''}")
