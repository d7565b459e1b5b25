"""Keys that are made for the tests."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from dpp import FileData, StageError

from pgp import Pgp

PASSPHRASE = "correct hörse 😀 staple"
PAST = "20200101T000000"


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
