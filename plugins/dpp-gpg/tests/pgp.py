"""gpg with the keyrings of the tests, to make messages and signatures with."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from listening import wait_until

KEYRINGS = Path(__file__).with_name("keyrings")
PASSPHRASES = {"ring": "correct hörse 😀 staple", "provider": "canary /+%40 ö3d94c1e07ba85f62c9d01e7b"}


class Pgp:
    """gpg with a copy of a keyring of ``keyrings``, or with an empty one; its agent ends with the block.

    Its folder has a short path: that of an agent's socket may have 107 bytes only.
    """

    def __init__(self, keyring=""):
        self.home = Path(tempfile.mkdtemp(prefix="g", dir="/tmp"))
        self.passphrase = PASSPHRASES.get(keyring)
        if keyring:
            shutil.copytree(KEYRINGS / keyring, self.home, dirs_exist_ok=True)
        for path in (self.home, *self.home.rglob("*")):
            path.chmod(0o700 if path.is_dir() else 0o600)  # Git keeps no such modes, and gpg warns without them

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Remove the folder, whose sockets the agent may be removing at the same time."""
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def __call__(self, *arguments, data=b"", check=True):
        options = ["--homedir", self.home, "--batch", "--yes", "--quiet", "--trust-model", "always", "--pinentry-mode", "loopback"]
        done = subprocess.run(["gpg", *map(str, [*options, *arguments])], input=data, capture_output=True, check=False)
        assert done.returncode == 0 or not check, done.stderr.decode()
        return done.stdout

    def fingerprint(self, user_id):
        """Return the fingerprint of the key whose user id has this in it."""
        listed = self("--list-keys", "--with-colons", user_id).decode().splitlines()
        return next(line.split(":")[9] for line in listed if line.startswith("fpr"))

    def encrypt(self, data, recipient, *options):
        return self("--recipient", recipient, *options, "--encrypt", data=data)

    def sign(self, data, fingerprint, *options):
        return self("--local-user", fingerprint, *options, "--detach-sign", data=data)

    def forget(self):
        """Let the agent forget passphrases, where one runs."""
        agent = ["gpg-connect-agent", "--homedir", self.home, "--no-autostart"]
        subprocess.run([*agent, "reloadagent", "/bye"], capture_output=True, check=False)

    def stop(self):
        """Stop the agent; while its socket is there, the next gpg may yet meet one that is about to end."""
        gpgconf = ["gpgconf", "--homedir", self.home]
        socket = Path(subprocess.check_output([*gpgconf, "--list-dirs", "agent-socket"], text=True).strip())
        subprocess.run([*gpgconf, "--kill", "all"], check=True)
        wait_until(lambda: not socket.exists())
