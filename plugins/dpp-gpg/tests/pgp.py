"""Run gpg with the keyrings of the tests, to create messages and signatures."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from listening import wait_until

KEYRINGS = Path(__file__).with_name("keyrings")
PASSPHRASES = {"ring": "correct hörse 😀 staple", "provider": "canary /+%40 ö3d94c1e07ba85f62c9d01e7b"}


class Pgp:
    """gpg with a copy of a keyring of ``keyrings``, or with an empty one; its agent stops at the end of the block."""

    def __init__(self, keyring=""):
        # A short path: that of the agent's socket may have 107 bytes only
        self.home = Path(tempfile.mkdtemp(prefix="g", dir="/tmp"))
        self.passphrase = PASSPHRASES.get(keyring)
        if keyring:
            shutil.copytree(KEYRINGS / keyring, self.home, dirs_exist_ok=True)
        for path in (self.home, *self.home.rglob("*")):
            path.chmod(0o700 if path.is_dir() else 0o600)  # Git does not store these modes, and gpg warns about others

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Stop the agent and remove the folder."""
        self.stop()
        # The agent may remove its sockets at the same time
        shutil.rmtree(self.home, ignore_errors=True)

    def __call__(self, *arguments, data=b"", check=True):
        options = ["--homedir", self.home, "--batch", "--yes", "--quiet", "--trust-model", "always", "--pinentry-mode", "loopback"]
        done = subprocess.run(["gpg", *map(str, [*options, *arguments])], input=data, capture_output=True, check=False)
        assert done.returncode == 0 or not check, done.stderr.decode()
        return done.stdout

    def fingerprint(self, user_id):
        """Return the fingerprint of the key whose user id contains a text."""
        listed = self("--list-keys", "--with-colons", user_id).decode().splitlines()
        return next(line.split(":")[9] for line in listed if line.startswith("fpr"))

    def encrypt(self, data, recipient, *options):
        return self("--recipient", recipient, *options, "--encrypt", data=data)

    def sign(self, data, fingerprint, *options):
        return self("--local-user", fingerprint, *options, "--detach-sign", data=data)

    def forget(self):
        """Make the agent forget passphrases, if one runs."""
        agent = ["gpg-connect-agent", "--homedir", self.home, "--no-autostart"]
        subprocess.run([*agent, "reloadagent", "/bye"], capture_output=True, check=False)

    def stop(self):
        """Stop the agent and wait until its socket is removed."""
        # While the socket exists, the next gpg may connect to an agent that is about to end
        gpgconf = ["gpgconf", "--homedir", self.home]
        socket = Path(subprocess.check_output([*gpgconf, "--list-dirs", "agent-socket"], text=True).strip())
        subprocess.run([*gpgconf, "--kill", "all"], check=True)
        wait_until(lambda: not socket.exists())
