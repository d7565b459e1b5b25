"""Keys that are made for the tests, and gpg to make messages and signatures with."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from dpp import FileData, StageError

PASSPHRASE = "correct hörse 😀 staple"
PAST = "20200101T000000"


class Pgp:
    """gpg with a keyring of its own, in a folder whose path is short: the path of an agent's socket may have 107 bytes only."""

    def __init__(self):
        self.home = Path(tempfile.mkdtemp(prefix="g", dir="/tmp"))

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
        """Stop the agent, which remembers passphrases."""
        subprocess.run(["gpgconf", "--homedir", self.home, "--kill", "all"], check=True)

    def close(self):
        self.forget()
        shutil.rmtree(self.home)


@pytest.fixture(scope="session")
def gpg_is_there():
    missing = [program for program in ("gpg", "gpgconf", "gpg-agent") if not shutil.which(program)]
    if missing:
        pytest.fail(f"{', '.join(missing)} not found; install with: apt-get install gnupg gpg-agent")


@pytest.fixture(scope="session")
def ring(gpg_is_there):
    """The keyring of whoever runs a batch: a key of theirs, one with a passphrase, and keys of those who send files."""
    pgp = Pgp()
    pgp.acme = pgp.make_key("Acme <acme@example.org>", at=PAST)
    pgp.locked = pgp.make_key("Locked <locked@example.org>", PASSPHRASE)
    pgp.sender = pgp.make_key("Sender <sender@example.org>")
    pgp.old = pgp.make_key("Old <old@example.org>", at=PAST, expires="1y")
    pgp.passphrase = PASSPHRASE
    yield pgp
    pgp.close()


@pytest.fixture(scope="session")
def stranger(ring):
    """Somebody else's keyring, with Acme's public key in it."""
    pgp = Pgp()
    pgp.key = pgp.make_key("Stranger <stranger@example.org>")
    pgp("--import", data=ring("--export", ring.acme))
    yield pgp
    pgp.close()


@pytest.fixture(autouse=True)
def no_home_of_the_machine(monkeypatch):
    monkeypatch.delenv("GNUPGHOME", raising=False)


@pytest.fixture
def process(tmp_path):
    """Send bytes through a step; return the file, or the failure, and what is left in the output folder."""

    def run(step, data, called="x.csv.gpg", **fields):
        path = tmp_path / called
        path.write_bytes(data)
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        file = FileData(**{"url": f"https://example.org/{called}", "local_path": path, "output_dir": folder, **fields})
        made = error = None
        try:
            made = step.pre_process(file)
        except StageError as raised:
            error = raised
        assert path.read_bytes() == data
        return SimpleNamespace(
            file=made,
            text=made and made.local_path.read_bytes(),
            error_class=error and error.error_class,
            message=str(error),
            left=sorted(path.name for path in folder.iterdir()),
        )

    return run
