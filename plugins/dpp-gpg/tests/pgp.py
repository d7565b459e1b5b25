"""gpg to make keys, messages and signatures with.

The keyrings of most tests are checked in, in ``keyrings/``. They are test keys and protect nothing. This makes them anew:

    python plugins/dpp-gpg/tests/pgp.py
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from listening import wait_until

KEYRINGS = Path(__file__).with_name("keyrings")
PASSPHRASE = "correct hörse 😀 staple"
PAST = "20200101T000000"
PASSING = shutil.ignore_patterns("*~", "*.lock", "S.*", "openpgp-revocs.d", "random_seed", "tofu.db")  # what gpg makes anew


class Pgp:
    """gpg with a keyring of its own, in a folder whose path is short: the path of an agent's socket may have 107 bytes only.

    Args:
        keyring: The checked-in keyring to begin with; none by default.
    """

    def __init__(self, keyring=""):
        self.home = Path(tempfile.mkdtemp(prefix="g", dir="/tmp"))
        if keyring:
            shutil.copytree(KEYRINGS / keyring, self.home, dirs_exist_ok=True)
            self.home.chmod(0o700)  # git keeps no modes of folders, and gpg warns of others

    def __call__(self, *arguments, data=b"", check=True):
        options = ["--homedir", self.home, "--batch", "--yes", "--quiet", "--trust-model", "always", "--pinentry-mode", "loopback"]
        done = subprocess.run(["gpg", *map(str, [*options, *arguments])], input=data, capture_output=True, check=False)
        assert done.returncode == 0 or not check, done.stderr.decode()
        return done.stdout

    def make_key(self, user_id, passphrase="", *, at="", expires="never"):
        """Make a key to sign with, and one to encrypt to; return the fingerprint."""
        time = ["--faked-system-time", at] if at else []
        secret = ["--passphrase-fd", "0"]
        line = f"{passphrase}\n".encode()
        self(*time, *secret, "--quick-generate-key", user_id, "ed25519", "cert,sign", expires, data=line)
        fingerprint = self.fingerprint(user_id)
        self(*time, *secret, "--quick-add-key", fingerprint, "cv25519", "encr", expires, data=line)
        return fingerprint

    def fingerprint(self, user_id):
        listed = self("--list-keys", "--with-colons", user_id).decode().splitlines()
        return next(line.split(":")[9] for line in listed if line.startswith("fpr"))

    def encrypt(self, data, recipient, *options):
        return self("--recipient", recipient, *options, "--encrypt", data=data)

    def sign(self, data, fingerprint, *options):
        return self("--local-user", fingerprint, *options, "--detach-sign", data=data)

    def forget(self):
        """Stop the agent, which remembers passphrases; while its socket is there, the next gpg may yet meet one that is about to end."""
        gpgconf = ["gpgconf", "--homedir", self.home]
        socket = Path(subprocess.check_output([*gpgconf, "--list-dirs", "agent-socket"], text=True).strip())
        subprocess.run([*gpgconf, "--kill", "all"], check=True)
        wait_until(lambda: not socket.exists())

    def save(self, keyring):
        """Keep the keys as a keyring to be checked in."""
        self.forget()
        shutil.rmtree(KEYRINGS / keyring, ignore_errors=True)
        shutil.copytree(self.home, KEYRINGS / keyring, ignore=PASSING)

    def close(self):
        """Remove the folder, whose sockets the agent may be removing at the same time."""
        self.forget()
        shutil.rmtree(self.home, ignore_errors=True)


def make_keyrings():
    """Make the keyring of whoever runs a batch, with keys of those who send files, and that of a stranger who knows Acme's key."""
    ring, stranger = Pgp(), Pgp()
    acme = ring.make_key("Acme <acme@example.org>", at=PAST)
    ring.make_key("Locked <locked@example.org>", PASSPHRASE)
    ring.make_key("Sender <sender@example.org>")
    ring.make_key("Old <old@example.org>", at=PAST, expires="1y")
    stranger.make_key("Stranger <stranger@example.org>")
    stranger("--import", data=ring("--export", acme))
    for pgp, name in ((ring, "ring"), (stranger, "stranger")):
        pgp.save(name)
        pgp.close()


if __name__ == "__main__":
    make_keyrings()
